"""What a function reads beside its arguments, lifted as far as it can be seen.

Seen are: the code, defaults and closure of the function and of every function that it reaches by name; the globals that
their code names, and attributes taken of them; modules (``torch.nn.Module``) with their parameters, buffers, flags,
plain attributes and forward hooks; instances of other classes with their attributes; containers. Not seen is what
torch, the standard library and numpy keep to themselves, what is read by a computed name, and the insides of C objects.
Entry point: :class:`State`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._subclasses import FakeTensor

from unified_guards.aot.code import Read, globals_written, names_read
from unified_guards.aot.errors import Unguardable
from unified_guards.aot.lifting import Leaf, Lifting, Role
from unified_guards.ir import Access, Provenance, Source, Test

_OWN_PACKAGES = frozenset({"torch", "functorch", "numpy", "unified_guards", "builtins"}) | sys.stdlib_module_names
#: What `torch.nn.Module.__call__` looks at beside `forward`.
_HOOKS = frozenset({"_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"})
#: Bookkeeping of torch's modules that no forward reads.
_BOOKKEEPING = frozenset(
    {
        "_non_persistent_buffers_set",
        "_is_full_backward_hook",
        "_forward_hooks_with_kwargs",
        "_forward_hooks_always_called",
        "_forward_pre_hooks_with_kwargs",
        "_state_dict_hooks",
        "_state_dict_pre_hooks",
        "_load_state_dict_pre_hooks",
        "_load_state_dict_post_hooks",
    }
)


#: Of the standard library's classes those that are nothing but the attributes that a user gives them.
_HOLDERS = frozenset({types.SimpleNamespace, argparse.Namespace})
#: What torch.fx notes on a graph module, for itself.
_GRAPH_NOTES = frozenset({"meta", "_graph"})
#: A function that sees more than this sees the whole program, through some object that knows everything.
_MOST_ITEMS = 100_000


def _is_trusted(module: object) -> bool:
    """Whether code of this module is taken as it is: torch's, the standard library's, numpy's."""
    # A script run as __main__ is the user's, though its name is in the list of the standard library's modules.
    name = module if isinstance(module, str) else ""
    return name.partition(".")[0] in _OWN_PACKAGES and name != "__main__"


def defined_at(target: object) -> traceback.StackSummary | None:
    """The line where a function starts, as the stack of a provenance."""
    code = getattr(getattr(target, "__func__", target), "__code__", None)
    if not isinstance(code, types.CodeType):
        return None
    return traceback.StackSummary.from_list([(code.co_filename, code.co_firstlineno, code.co_name, None)])


class _Place:
    """A dict, list or cell that was read, as it was before tracing."""

    def __init__(self, text: str, restore: Callable[[], None], changed: Callable[[], bool]) -> None:
        self.text = text
        self.restore = restore
        self.changed = changed


def _same_items(found: Any, expected: Any) -> bool:
    return len(found) == len(expected) and all(a is b for a, b in zip(found, expected, strict=True))


def _dict_place(source: Source, target: dict[Any, Any]) -> _Place:
    copy = dict(target)

    def restore() -> None:
        target.clear()
        target.update(copy)

    def changed() -> bool:
        return not (_same_items(list(target), list(copy)) and _same_items(list(target.values()), list(copy.values())))

    return _Place(str(source), restore, changed)


def _list_place(source: Source, target: list[Any]) -> _Place:
    copy = list(target)

    def restore() -> None:
        target[:] = copy

    return _Place(str(source), restore, lambda: not _same_items(target, copy))


_ABSENT = object()


def _item_place(source: Source, target: dict[str, Any], name: str) -> _Place:
    value = target.get(name, _ABSENT)

    def restore() -> None:
        if value is _ABSENT:
            target.pop(name, None)
        else:
            target[name] = value

    return _Place(str(source), restore, lambda: target.get(name, _ABSENT) is not value)


def _class_place(source: Source, target: type, name: str) -> _Place:
    value = vars(target)[name]

    def restore() -> None:
        setattr(target, name, value)

    return _Place(str(source), restore, lambda: vars(target).get(name) is not value)


def _cell_place(source: Source, cell: types.CellType) -> _Place:
    value = cell.cell_contents

    def restore() -> None:
        cell.cell_contents = value

    def changed() -> bool:
        try:
            return cell.cell_contents is not value
        except ValueError:
            return True

    return _Place(str(source), restore, changed)


class State:
    """Lifts what a callable reads beside its arguments into a :class:`Lifting`.

    Args:
        lifting: where guards and leaves go.
    """

    def __init__(self, lifting: Lifting) -> None:
        self.lifting = lifting
        self.places: list[_Place] = []
        self._seen: set[int] = set()

    def callable(self, target: Callable[..., Any]) -> None:
        """Lifts everything that can be seen from ``target``, a function, method, module or other callable."""
        source = Source.frame().child(Access.CONSTANT, target)
        self._value(target, source, Provenance("aot", "the function"), root=True)

    # -- values ----------------------------------------------------------------------------------------------------

    def _value(self, value: Any, source: Source, maker: Provenance, *, root: bool = False) -> None:
        lifting = self.lifting
        if lifting.constant(value, source, maker):
            return
        if isinstance(value, torch.Tensor):
            if isinstance(value, FakeTensor):
                lifting.is_object(value, source, maker)  # left over from some tracing: no input of ours
            else:
                lifting.tensor(value, source, Role.CAPTURED, maker)
            return
        if len(lifting.items) > _MOST_ITEMS:
            raise Unguardable(f"the function can see more than {_MOST_ITEMS} values")
        kind = type(value)
        if kind in (tuple, list, dict, collections.OrderedDict) or (
            isinstance(value, tuple) and hasattr(kind, "_make")
        ):
            self._container(value, source, maker)
            return
        if not root:
            lifting.opaque(value, source, maker)
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        lifting.keep(value)
        self._contents(value, source, maker)

    def _contents(self, value: Any, source: Source, maker: Provenance) -> None:
        if isinstance(value, torch.nn.Module):
            self._module(value, source)
        elif isinstance(value, types.FunctionType):
            self._function(value, source)
        elif isinstance(value, types.MethodType):
            self._value(value.__func__, source.child(Access.ATTR, "__func__"), maker)
            self._value(value.__self__, source.child(Access.ATTR, "__self__"), maker)
        elif isinstance(value, functools.partial):
            for name in ("func", "args", "keywords"):
                self._value(getattr(value, name), source.child(Access.ATTR, name), maker)
        elif isinstance(value, functools._lru_cache_wrapper):
            self._value(value.__wrapped__, source.child(Access.ATTR, "__wrapped__"), maker)
        elif isinstance(value, type | types.ModuleType):
            pass  # only what is taken of them by name
        elif type(value) in _HOLDERS or not _is_trusted(type(value).__module__):
            self._instance(value, source)

    def _container(self, value: Any, source: Source, maker: Provenance) -> None:
        if id(value) in self._seen:
            self.lifting.is_object(value, source, maker)
            return
        self._seen.add(id(value))
        kind = type(value)
        self.lifting.is_type(value, source, maker)
        if isinstance(value, dict):
            keys = tuple(value)
            for key in keys:
                self.lifting.keep(key)
            self.places.append(_dict_place(source, value))
            self.lifting.add(Test.KEYS if kind is dict else Test.MAPPING_KEYS, source, (keys,), maker)
            for key in keys:
                self._value(value[key], source.child(Access.DICT_ITEM, key), maker)
            return
        if kind is list:
            self.places.append(_list_place(source, value))
        access = Access.LIST_ITEM if kind is list else Access.TUPLE_ITEM
        self.lifting.add(Test.LENGTH, source, (len(value), True), maker)
        for at, item in enumerate(value):
            self._value(item, source.child(access, at), maker)

    # -- functions -------------------------------------------------------------------------------------------------

    def _function(self, function: types.FunctionType, source: Source) -> None:
        if _is_trusted(function.__module__):
            return
        code = function.__code__
        where, line = f"{code.co_name} ({code.co_filename}:{code.co_firstlineno})", defined_at(function)
        self.lifting.is_object(code, source.child(Access.FUNC_CODE), Provenance("aot", f"the code of {where}", line))
        for access, values in (
            (Access.FUNC_DEFAULTS, function.__defaults__),
            (Access.FUNC_KWDEFAULTS, function.__kwdefaults__),
        ):
            if values:
                self._value(values, source.child(access), Provenance("aot", f"the defaults of {where}", line))
        reads = names_read(code)
        self._closure(function, source, reads, where)
        for name in globals_written(code):
            written = Source.frame().child(Access.GLOBALS, function.__globals__).child(Access.DICT_ITEM, name)
            self.places.append(_item_place(written, function.__globals__, name))
        for read in reads:
            if read.is_global and read.name in function.__globals__:
                self._global(function, read, where)

    def _closure(self, function: types.FunctionType, source: Source, reads: tuple[Read, ...], where: str) -> None:
        cells = source.child(Access.FUNC_CLOSURE)
        for at, (name, cell) in enumerate(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)):
            try:
                value = cell.cell_contents
            except ValueError:
                continue  # not assigned yet: reading it would be an error
            maker = Provenance("aot", f"{name}, a variable around {where}", defined_at(function))
            below = cells.child(Access.TUPLE_ITEM, at).child(Access.ATTR, "cell_contents")
            self.places.append(_cell_place(below, cell))
            chains = [read.attributes for read in reads if not read.is_global and read.name == name] or [()]
            for chain in chains:
                self._path(value, below, chain, maker)

    def _global(self, function: types.FunctionType, read: Read, where: str) -> None:
        scope = function.__globals__
        source = Source.frame().child(Access.GLOBALS, scope).child(Access.DICT_ITEM, read.name)
        maker = Provenance("aot", f"{read.name}, a global that {where} names", defined_at(function))
        self.places.append(_item_place(source, scope, read.name))
        self._path(scope[read.name], source, read.attributes, maker)

    def _path(self, value: Any, source: Source, attributes: tuple[str, ...], maker: Provenance) -> None:
        """Lifts what code takes of a name: of modules and classes only the attributes that it names."""
        if isinstance(value, types.ModuleType):
            self._attribute_of_module(value, source, attributes, maker)
        elif isinstance(value, type) and attributes:
            self._attribute_of_class(value, source, attributes, maker)
        else:
            self._value(value, source, maker)

    def _attribute_of_module(
        self, value: types.ModuleType, source: Source, attributes: tuple[str, ...], maker: Provenance
    ) -> None:
        if _is_trusted(value.__name__):
            return
        self.lifting.is_object(value, source, maker)
        names = vars(value)
        if attributes and attributes[0] in names:
            below = source.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, attributes[0])
            self.places.append(_item_place(below, names, attributes[0]))
            self._path(names[attributes[0]], below, attributes[1:], maker)

    def _attribute_of_class(self, value: type, source: Source, attributes: tuple[str, ...], maker: Provenance) -> None:
        self.lifting.is_object(value, source, maker)
        if _is_trusted(value.__module__):
            return
        for base in value.__mro__:
            found = vars(base).get(attributes[0])
            if found is not None:
                plain = not hasattr(type(found), "__get__")
                if plain:
                    self.places.append(_class_place(source, base, attributes[0]))
                    self._path(found, source.child(Access.ATTR, attributes[0]), attributes[1:], maker)
                else:
                    self._method(found)
                return

    # -- objects ---------------------------------------------------------------------------------------------------

    def _method(self, found: Any) -> None:
        """What a function in a class reads; the class may get another one in its place unseen."""
        for function in (found, getattr(found, "__func__", None), getattr(found, "fget", None)):
            if isinstance(function, types.FunctionType) and id(function) not in self._seen:
                self._seen.add(id(function))
                self._function(function, Source.frame().child(Access.CONSTANT, function))

    def _class(self, kind: type) -> None:
        """What the methods of a class read."""
        for base in kind.__mro__:
            if id(base) in self._seen or _is_trusted(base.__module__):
                continue
            self._seen.add(id(base))
            for found in vars(base).values():
                self._method(found)

    def _instance(self, value: Any, source: Source) -> None:
        self._class(type(value))
        names = getattr(value, "__dict__", None)
        if isinstance(names, dict):
            self._names(names, source.child(Access.GENERIC_DICT), f"an attribute of {source}")
        for base in type(value).__mro__:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__"):
                    with contextlib.suppress(AttributeError):
                        below = source.child(Access.ATTR, name)
                        self._value(getattr(value, name), below, Provenance("aot", f"an attribute of {source}"))

    def _names(self, names: dict[str, Any], source: Source, code: str) -> None:
        maker = Provenance("aot", code)
        self.places.append(_dict_place(source, names))
        self.lifting.add(Test.KEYS, source, (tuple(names),), maker)
        for name, value in names.items():
            self._value(value, source.child(Access.DICT_ITEM, name), maker)

    # -- modules ---------------------------------------------------------------------------------------------------

    def _module(self, module: torch.nn.Module, source: Source) -> None:
        self._class(type(module))
        names = vars(module)
        below = source.child(Access.GENERIC_DICT)
        maker = Provenance("aot", f"an attribute of {_name_of(module)}")
        self.places.append(_dict_place(below, names))
        self.lifting.add(Test.KEYS, below, (tuple(names),), maker)
        skipped = _BOOKKEEPING | _GRAPH_NOTES if isinstance(module, torch.fx.GraphModule) else _BOOKKEEPING
        for name, value in names.items():
            item = below.child(Access.DICT_ITEM, name)
            if name in _HOOKS and not value:
                self.lifting.add(Test.DICT_LENGTH, item, (0,), maker)
            elif name == "_parameters":
                self._tensors(value, item, Role.PARAMETER)
            elif name == "_buffers":
                self._tensors(value, item, Role.BUFFER)
            elif name not in skipped:
                self._value(value, item, maker)
                leaf = self.lifting.known_leaf(value)
                if leaf is not None:
                    leaf.places.append((names, name))

    def _tensors(self, found: dict[str, Any], source: Source, role: Role) -> None:
        maker = Provenance("aot", f"a {role.value} of a module")
        self.places.append(_dict_place(source, found))
        if type(found) is not dict:
            raise Unguardable(f"{source} is a {type(found).__name__}")
        self.lifting.add(Test.KEYS, source, (tuple(found),), maker)
        for name, value in found.items():
            item = source.child(Access.DICT_ITEM, name)
            if value is None:
                self.lifting.constant(value, item, maker)
            else:
                self.lifting.tensor(value, item, role, maker).places.append((found, name))

    # -- side effects ----------------------------------------------------------------------------------------------

    def restore(self) -> str | None:
        """Puts back everything that was read, and says what had changed."""
        changed = None
        for place in self.places:
            if place.changed():
                changed = changed or place.text
                place.restore()
        return changed


def _name_of(module: torch.nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


@contextlib.contextmanager
def standing_in(leaves: list[Leaf], traced: dict[Leaf, Any]) -> Iterator[None]:
    """Modules hold the traced tensors in place of their own inside the block."""
    for leaf in leaves:
        for names, name in leaf.places:
            names[name] = traced[leaf]
    try:
        yield
    finally:
        for leaf in leaves:
            for names, name in leaf.places:
                if names.get(name) is traced[leaf]:
                    names[name] = leaf.value
