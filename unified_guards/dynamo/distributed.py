"""Torch's comparisons of DTensor specs and device meshes, which are Python functions, as guards of their own.

Such a function compares an object with a copy that was made when the guard was. What it reads of the object is named in
its code: a few attributes, which are numbers, text, tuples, placements and layouts of torch's. So each of these is
guarded, by type and value all the way down. Where they are as they were, the function reads what it read then, and says
what it said then. What this module does not know (a placement of the user's, a masked one) stays torch's function.
Entry points: :func:`parts_of`, :func:`mesh_of`.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from unified_guards.dynamo import compat
from unified_guards.guards.ir import Access, Guard, Source, Test, guard

#: Gives a name to the object at an address.
Names = Callable[[int], str]


class _Unknown(Exception):
    """Something is compared that is not known here: torch's function stays."""


#: What placements are compared by. They are objects of C++, whose fields can only be read.
_FIELDS_OF_PLACEMENTS = {
    "Replicate": (),
    "Shard": ("dim",),
    "Partial": ("reduce_op",),
    "_StridedShard": ("dim", "split_factor"),
}
#: Names in the code of a comparison that are no attributes of what it compares.
_NO_ATTRIBUTES = frozenset({"isinstance", "DTensorSpec", "DeviceMesh"})
#: What a spec is compared by, in all versions, beside its tensor's dtype.
_SPEC_READS = frozenset({"mesh", "placements", "shard_order", "tensor_meta", "dtype", "shape", "stride"})
_SCALARS = (int, str, float)
_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE


class _Parts:
    """The guards that say of an object what holds of ``value`` now."""

    def __init__(self, name_at: Names) -> None:
        self.name_at = name_at

    def type_is(self, source: Source, value: object) -> Guard:
        kind = type(value)
        return guard(Test.TYPE_IS, (source,), (id(kind), self.name_at(id(kind))))

    def same(self, source: Source, value: Any) -> Iterator[Guard]:
        """Of the same types and values, all the way down."""
        if value is None or value is True or value is False or isinstance(value, torch.dtype):
            yield guard(Test.IS, (source,), (id(value), repr(value)))
        elif type(value) in _SCALARS or _is_plain(value):
            yield guard(Test.DEEP_EQUALS, (source,), (value,))
        elif isinstance(value, tuple):
            yield self.type_is(source, value)
            yield guard(Test.LENGTH, (source,), (len(value), False))
            for at, item in enumerate(value):
                yield from self.same(source.child(Access.TUPLE_ITEM, at), item)
        elif _is_of_placements(value):
            yield self.type_is(source, value)
            for name in _FIELDS_OF_PLACEMENTS[type(value).__name__]:
                yield from self.same(source.child(Access.ATTR, name), getattr(value, name))
        elif _is_layout(value):
            yield from self.attributes(source, value, [field.name for field in dataclasses.fields(value)])
        elif _is_mesh(value):
            yield from self.attributes(source, value, _read(type(value).__eq__, value))
        else:
            raise _Unknown(type(value).__name__)

    def attributes(self, source: Source, value: Any, names: list[str]) -> Iterator[Guard]:
        """Of the same type, and these attributes the same. They are in its ``__dict__``."""
        yield self.type_is(source, value)
        held = source.child(Access.GENERIC_DICT)
        for name in names:
            yield from self.same(held.child(Access.DICT_ITEM, name), vars(value)[name])

    def spec(self, source: Source, expected: Any) -> Iterator[Guard]:
        """What ``DTensorSpec._check_equals(expected, skip_shapes=True)`` asks."""
        kind = type(expected)
        if kind.__name__ != "DTensorSpec" or kind.__module__ != "torch.distributed.tensor._dtensor_spec":
            raise _Unknown(kind.__name__)
        if _names_in(kind._check_equals) - _NO_ATTRIBUTES != _SPEC_READS:
            raise _Unknown("another comparison of specs")
        yield from self.attributes(source, expected, ["mesh", "placements", "shard_order"])
        meta = expected.tensor_meta
        found = source.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, "tensor_meta")
        if meta is None:
            yield from self.same(found, None)
            return
        yield self.type_is(found, meta)
        at = type(meta)._fields.index("dtype")
        yield from self.same(found.child(Access.TUPLE_ITEM, at), meta.dtype)

    def opaque(self, source: Source, expected: list[Any]) -> Iterator[Guard]:
        """What an opaque object's ``guard_fn`` gives, for a mesh: a list of its attributes."""
        mesh = sys.modules.get("torch.distributed.device_mesh")
        kind = getattr(mesh, "DeviceMesh", None)
        read = _guard_function(kind)
        names = list(read.__code__.co_names) if read is not None else []
        if read is None or kind is None or not _is_list_of(read, names) or len(names) != len(expected):
            raise _Unknown("an opaque object")
        yield guard(Test.TYPE_IS, (source,), (id(kind), self.name_at(id(kind))))
        held = source.child(Access.GENERIC_DICT)
        for name, value in zip(names, expected, strict=True):
            yield from self.same(held.child(Access.DICT_ITEM, name), value)


def _is_plain(value: object) -> bool:
    """Whether a value is an exact tuple of scalars and such tuples."""
    if type(value) is not tuple:
        return False
    return all(item is None or type(item) in (bool, *_SCALARS) or _is_plain(item) for item in value)


def _is_of_placements(value: object) -> bool:
    kind = type(value)
    return kind.__module__ == "torch.distributed.tensor.placement_types" and kind.__name__ in _FIELDS_OF_PLACEMENTS


def _is_layout(value: object) -> bool:
    """Whether all that a layout of a mesh is are the fields of a dataclass."""
    kind = type(value)
    if kind.__module__ != "torch.distributed._mesh_layout" or not dataclasses.is_dataclass(kind):
        return False
    return vars(value).keys() == {field.name for field in dataclasses.fields(kind)}


def _is_mesh(value: object) -> bool:
    kind = type(value)
    return kind.__module__ == "torch.distributed.device_mesh" and kind.__name__ == "DeviceMesh"


def _names_in(function: Any) -> set[str]:
    """What a function reads by name. Only of one without functions inside."""
    code = function.__code__
    if any(isinstance(constant, types.CodeType) for constant in code.co_consts):
        raise _Unknown("a comparison with functions inside")
    return set(code.co_names)


def _read(function: Any, value: Any) -> list[str]:
    """The attributes of the object itself that its comparison reads."""
    names = sorted(_names_in(function) - _NO_ATTRIBUTES)
    if any(name not in vars(value) or hasattr(type(value), name) for name in names):
        raise _Unknown("a comparison that reads what is no attribute of the object itself")
    return names


def _guard_function(kind: Any) -> types.FunctionType | None:
    """The ``guard_fn`` with which an opaque class was registered, if it is a Python function of torch's mesh."""
    from torch._library.opaque_object import get_opaque_obj_info

    found = getattr(get_opaque_obj_info(kind), "guard_fn", None) if kind is not None else None
    is_torchs = isinstance(found, types.FunctionType) and found.__module__ == "torch.distributed.device_mesh"
    return found if is_torchs else None


class _Asked:
    """Stands for a mesh, and gives for each attribute its name."""

    def __getattr__(self, name: str) -> str:
        return name


def _is_list_of(function: types.FunctionType, names: list[str]) -> bool:
    """Whether a function of one object gives the list of these attributes of it."""
    plain = not function.__code__.co_freevars and function.__code__.co_argcount == 1
    return plain and len(set(names)) == len(names) and function(_Asked()) == names


#: Torch's functions that are known here, by the ends of their names: the variable that holds what they compare with.
_KNOWN: dict[str, tuple[str, Callable[[_Parts, Source, Any], Iterator[Guard]]]] = {
    "DTENSOR_SPEC_MATCH.<locals>.guard_fn": (compat.EXPECTED_SPEC, _Parts.spec),
    "OPAQUE_OBJ_GUARD_FN_MATCH.<locals>.opaque_guard_checker": ("original_values", _Parts.opaque),
}


def parts_of(name_at: Names, source: Source, method: str, value: Any) -> list[Guard] | None:
    """The guards that together say at least what a guard of torch's says; None where it is not known here.

    Args:
        name_at: gives a name to the object at an address.
        source: what is compared.
        method: of torch's guard manager, which makes the guard.
        value: its first argument: the function of a lambda guard, or the value that an object is compared with.
    """
    parts = _Parts(name_at)
    try:
        if method == "add_equals_match_guard" and _is_of_placements(value):
            return list(parts.same(source, value))
        made = _known_function(value) if method == "add_lambda_guard" else None
        return None if made is None else list(made[0](parts, source, made[1]))
    except (_Unknown, AttributeError, KeyError):  # torch's classes are not as they were read here
        return None


def _known_function(function: Any) -> tuple[Callable[[_Parts, Source, Any], Iterator[Guard]], Any] | None:
    """What makes the guards that a Python function of torch's stands for, and what the function compares with."""
    name = getattr(function, "__qualname__", "").rpartition("GuardBuilder.")[2]
    if name not in _KNOWN or function.__module__ != "torch._dynamo.guards":
        return None
    variable, make = _KNOWN[name]
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    return (make, cells[variable].cell_contents) if variable in cells else None


def mesh_of(name_at: Names, source: Source, kind: type) -> tuple[Source, list[Guard]] | None:
    """Where ``x.device_mesh`` of a DTensor is, which a property of torch's returns: ``x._spec.mesh``.

    Args:
        name_at: gives a name to the object at an address.
        source: the DTensor. That it is of exactly this type is guarded.
        kind: its type.

    Returns:
        The source of the mesh, and guards on what makes the property return that; None for any other class.
    """
    found = vars(kind).get("device_mesh") if kind.__module__ == "torch.distributed.tensor" else None
    getter = found.fget if isinstance(found, property) else None
    if not isinstance(getter, types.FunctionType) or getter.__code__.co_names != ("_spec", "mesh"):
        return None
    if getter.__code__.co_code != _read_spec.__code__.co_code or not isinstance(
        vars(kind).get("_spec"), types.MemberDescriptorType
    ):
        return None
    of_class = source.child(Access.TYPE).child(Access.TYPE_DICT)
    held = of_class.child(Access.DICT_ITEM, "device_mesh")
    made = [
        guard(Test.EQUALS, (held,), (found,)),
        guard(Test.EQUALS, (held.child(Access.ATTR, "fget").child(Access.FUNC_CODE),), (getter.__code__,)),
        guard(Test.EQUALS, (of_class.child(Access.DICT_ITEM, "_spec"),), (vars(kind)["_spec"],)),
    ]
    for at, base in enumerate(kind.__mro__):
        if base.__flags__ & _IMMUTABLE_TYPE:
            continue  # nobody can give it another way to read attributes
        if "__getattribute__" in vars(base):
            return None
        of_base = source.child(Access.TYPE).child(Access.TYPE_MRO).child(Access.TUPLE_ITEM, at)
        made.append(guard(Test.DICT_CONTAINS, (of_base.child(Access.TYPE_DICT),), ("__getattribute__", False)))
    spec, kind_of_spec = source.child(Access.ATTR, "_spec"), _spec_type()
    made.append(guard(Test.TYPE_IS, (spec,), (id(kind_of_spec), name_at(id(kind_of_spec)))))
    return spec.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, "mesh"), made


def _read_spec(self: Any) -> Any:
    """What the property has to be, once it is compiled."""
    return self._spec.mesh


def _spec_type() -> type:
    found: type = sys.modules["torch.distributed.tensor._dtensor_spec"].DTensorSpec
    return found


__all__ = ["mesh_of", "parts_of"]
