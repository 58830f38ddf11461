"""Torch's own guard tree over the objects of a frame, built from the guard set that our checker was made of.

Two of our evaluators can be wrong together; torch's tree shares no code with them. What torch has no guard for (see
:data:`_LEAVES`) is not in its tree, so that it may say yes where we say no, but never the other way round. Entry point:
:class:`Tree`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch._C._dynamo import guards as native
from torch._dynamo.guards import GuardManagerType

from unified_guards import _C
from unified_guards.dynamo import compat
from unified_guards.guards import accesses
from unified_guards.guards.ir import RELATIONAL, Access, Guard, GuardSet, Source, Test, with_bases

from .guards import is_made_anew

Locals = dict[str, Any]
_TupleIterator = type(iter(()))


class Inexpressible(Exception):
    """Torch has no guard or accessor for it."""


# -- accessors ---------------------------------------------------------------------------------------------------------

#: Access: torch's method, and the name under which it takes the key.
_ACCESSORS: dict[Access, tuple[str, str | None]] = {
    Access.GLOBALS: ("globals_dict_manager", "f_globals"),
    Access.DICT_ITEM: ("dict_getitem_manager", "key"),
    Access.GLOBAL_WEAKREF: ("global_weakref_manager", "global_name"),
    Access.WEAKREF_CALL: ("weakref_call_manager", None),
    Access.ITEM: ("getitem_manager", "key"),
    Access.LIST_ITEM: ("list_getitem_manager", "key"),
    Access.TUPLE_ITEM: ("tuple_getitem_manager", "key"),
    Access.SET_ITEM: ("set_getitem_manager", "index"),
    Access.ATTR: ("getattr_manager", "attr"),
    Access.GENERIC_ATTR: ("generic_getattr_manager", "attr"),
    Access.GENERIC_DICT: ("get_generic_dict_manager", None),
    Access.TYPE: ("type_manager", None),
    Access.TYPE_DICT: ("type_dict_manager", None),
    Access.TYPE_MRO: ("type_mro_manager", None),
    Access.FUNC_DEFAULTS: ("func_defaults_manager", None),
    Access.FUNC_KWDEFAULTS: ("func_kwdefaults_manager", None),
    Access.FUNC_CODE: ("code_manager", None),
    Access.FUNC_CLOSURE: ("closure_manager", None),
    Access.TUPLE_ITER_ITEM: ("tuple_iterator_getitem_manager", "index"),
    Access.GRAD: ("grad_manager", None),
    Access.TENSOR_SIZE: ("tensor_property_size_manager", "idx"),
    Access.TENSOR_STRIDE: ("tensor_property_stride_manager", "idx"),
    Access.TENSOR_OFFSET: ("tensor_property_storage_offset_manager", "idx"),
    Access.CALL0: ("call_function_no_args_manager", None),
    Access.CALL1: ("lambda_manager", "python_lambda"),
}


def _iterates(value: Any) -> bool:
    iter(value)
    return True


def _is_class(value: Any) -> bool:
    return issubclass(type(value), type)


#: What has to be asked first, or torch would crash.
_SAFETY: dict[Access, Callable[[Any], Callable[[Any], bool]]] = {
    Access.SET_ITEM: lambda key: _iterates,
    Access.TYPE_DICT: lambda key: _is_class,
    Access.TYPE_MRO: lambda key: _is_class,
    Access.TUPLE_ITER_ITEM: lambda key: (
        lambda value: type(value) is _TupleIterator and operator.length_hint(value) > key
    ),
}

# -- leaf guards -------------------------------------------------------------------------------------------------------


def _asks(method: str, *arguments: Callable[[tuple[Any, ...]], Any]) -> Callable[[Any, Any, tuple[Any, ...]], Any]:
    """A leaf whose arguments are made of the parameters of our guard."""
    return lambda value, params, _: (method, *(argument(params) for argument in arguments))


def _parameter(at: int) -> Callable[[tuple[Any, ...]], Any]:
    return lambda params: params[at]


def _equals(value: Any, params: tuple[Any, ...], _: Source) -> Any:
    if type(params[0]) in (float, complex) and compat.compares_float_bits():
        raise Inexpressible
    return "add_equals_match_guard", params[0]


def _same_bits(value: Any, params: tuple[Any, ...], _: Source) -> Any:
    if not compat.compares_float_bits():
        raise Inexpressible
    return "add_equals_match_guard", params[0]


def _is_not(value: Any, params: tuple[Any, ...], _: Source) -> Any:
    if params[0] == id(None):
        return ("add_not_none_guard",)
    return "add_lambda_guard", lambda found: id(found) != params[0]


def _length(value: Any, params: tuple[Any, ...], _: Source) -> Any:
    if params[1] is not compat.measures_sets() and isinstance(value, (set, frozenset)):
        raise Inexpressible
    return "add_length_check_guard", params[0]


def _tensor(value: Any, params: tuple[Any, ...], source: Source) -> Any:
    facts = params[0]
    sizes, strides = list(facts.sizes), list(facts.strides)
    return (
        "add_tensor_match_guard",
        *(value, sizes, strides, str(source), ["tensor"], None, type(value), torch._C._dispatch_keys(value)),
    )


_LEAVES: dict[Test, Callable[[Any, tuple[Any, ...], Source], Any]] = {
    Test.TYPE_IS: _asks("add_type_match_guard", _parameter(0)),
    Test.IS: _asks("add_id_match_guard", _parameter(0)),
    Test.IS_NOT: _is_not,
    Test.IS_TARGET: lambda value, params, _: ("add_id_match_guard", id(value)),
    Test.EQUALS: _equals,
    Test.SAME_BITS: _same_bits,
    Test.LENGTH: _length,
    Test.DICT_LENGTH: _asks("add_dict_length_check_guard", _parameter(0)),
    Test.TUPLE_ITER_LEN: _asks("add_tuple_iterator_length_guard", _parameter(0), _parameter(1)),
    Test.RANGE_ITER: _asks("add_range_iterator_match_guard", *map(_parameter, range(4))),
    Test.MAPPING_KEYS: _asks("add_mapping_keys_guard", lambda params: dict.fromkeys(params[0])),
    Test.DICT_CONTAINS: _asks("add_dict_contains_guard", _parameter(1), _parameter(0)),
    Test.SET_CONTAINS: _asks("add_set_contains_guard", _parameter(1), _parameter(0)),
    Test.NO_ATTR: _asks("add_no_hasattr_guard", _parameter(0)),
    Test.FLOAT_NAN: _asks("add_float_is_nan_guard"),
    Test.COMPLEX_NAN: _asks("add_complex_is_nan_guard"),
    Test.DUAL_LEVEL: _asks("add_dual_level_match_guard", _parameter(0)),
    Test.DEFAULT_DEVICE: _asks("add_default_device_guard"),
    Test.GLOBAL_STATE: lambda value, params, _: ("add_global_state_guard", native.GlobalStateGuard()),
    Test.MODE_STACK: lambda value, params, _: ("add_torch_function_mode_stack_guard", []),
    Test.SAVED_HOOKS: _asks("add_lambda_guard", _parameter(1)),
    Test.DICT_VERSION: lambda value, params, _: ("add_dict_version_guard", value),
    Test.DISPATCH_KEYS: lambda value, params, _: ("add_dispatch_key_set_guard", value),
    Test.SCRIPT_TYPE: _asks("add_fake_script_type_match_guard", _parameter(2), _parameter(0)),
    Test.DIM_MARKING: _asks("add_dimension_marking_guard", *map(_parameter, range(3))),
    Test.TENSOR: _tensor,
    Test.PREDICATE: _asks("add_lambda_guard", _parameter(0)),
    Test.SHAPE: _asks("add_epilogue_lambda_guard", _parameter(0)),
}

#: Leaves of which a manager of torch takes more than one.
_REPEATED = frozenset(
    {
        "add_lambda_guard",
        "add_dict_contains_guard",
        "add_set_contains_guard",
        "add_no_hasattr_guard",
        "add_dimension_marking_guard",
        "add_epilogue_lambda_guard",
    }
)


class Tree:
    """A ``RootGuardManager`` with those of the guards that torch has.

    Attributes:
        expressed: those.
        sources: what they are about, and everything on the way there.
        spoilt: whether torch has found more tensors in a relation than there are, left by a check before. It has no
            verdict any more.
    """

    def __init__(self, guard_set: GuardSet, f_locals: Locals) -> None:
        self.root = native.RootGuardManager()
        self.f_locals = f_locals
        self.managers: dict[Source, Any] = {Source.frame(): self.root}
        self.added: set[tuple[Source, str]] = set()
        self.expressed: set[Guard] = set()
        for item in guard_set:
            try:
                if item.source is Source.frame():  # asks for the state of whoever is here
                    self._add(item)
                else:
                    with torch._C.DisableTorchFunction():
                        self._add(item)
            except Exception:  # no such guard, or one that torch refuses to make
                continue
            self.expressed.add(item)
        self.spoilt = False
        self.sources = with_bases(source for item in self.expressed for source in item.sources)
        del self.f_locals

    def holds(self, f_locals: Locals) -> bool:
        """Torch's verdict; where torch throws it is a miss."""
        before = _C.torch_function_state()
        try:
            return bool(self.root.check(f_locals))
        except Exception as error:  # torch throws where it should miss
            self.spoilt |= "_overlapping" in str(error)
            self._forget()
            return False
        finally:
            _C.set_torch_function_state(before)

    def failing(self, f_locals: Locals) -> str:
        """What torch stops at, in words."""
        before = _C.torch_function_state()
        try:
            return str(self.root.check_verbose(f_locals).verbose_code_parts)
        except Exception as error:  # torch throws where it should explain
            return f"{type(error).__name__}: {error}"
        finally:
            _C.set_torch_function_state(before)

    def _forget(self) -> None:
        """What relations have collected stays after an exception. A check that fails at once clears it, unless torch
        comes to the tensors first: then it throws for good."""
        try:
            self.root.check({})
        except Exception:  # it throws again: what the docstring says
            pass

    def _manager(self, source: Source) -> Any:
        found = self.managers.get(source)
        if found is not None:
            return found
        assert source.base is not None
        base = self._manager(source.base)
        # Torch finds a child again by its key and this text, whatever the accessor is.
        given: dict[str, Any] = {"source": f"{source.access.name} {source}", "example_value": None}
        given["guard_manager_enum"] = GuardManagerType.GUARD_MANAGER
        if source.access is Access.LOCAL:
            made = base.framelocals_manager(key=(source.key, 0), **given)
        elif source.access is Access.CONSTANT:
            made = base.lambda_manager(python_lambda=lambda _, value=source.key: value, **given)
        elif source.access in _ACCESSORS:
            method, name = _ACCESSORS[source.access]
            if source.access in _SAFETY:
                base.add_lambda_guard(_SAFETY[source.access](source.key), ["safety"], None)
            made = getattr(base, method)(**({} if name is None else {name: source.key}), **given)
        else:  # a key or value by position: torch has them only below a manager that guards all keys of a dict
            assert source.access in (Access.DICT_KEY_AT, Access.DICT_VALUE_AT), source
            made = base.lambda_manager(python_lambda=functools.partial(accesses.follow, source), **given)
        self.managers[source] = made
        return made

    def _add(self, item: Guard) -> None:
        if item.test in RELATIONAL:
            self._relate(item)
            return
        manager = self._manager(item.source)
        if item.test is Test.EXISTS:
            return
        if item.test not in _LEAVES:
            raise Inexpressible
        value = accesses.resolve(item.source, self.f_locals)
        if item.test is Test.MAPPING_KEYS:  # torch would crash where keys() gives no sequence
            manager.add_lambda_guard(lambda found: _iterates(found.keys()), ["safety"], None)
        method, *arguments = _LEAVES[item.test](value, item.params, item.source)
        if (item.source, method) in self.added and method not in _REPEATED:
            raise Inexpressible  # torch would ignore it
        self.added.add((item.source, method))
        more = [] if item.test is Test.TENSOR else [[str(item)], None]
        getattr(manager, method)(*arguments, *more)

    def _relate(self, item: Guard) -> None:
        managers = [self._manager(source) for source in item.sources]
        text: tuple[Any, Any] = ([str(item)], None)
        if item.test is Test.UNIQUE:
            # Torch knows them by address and holds none: one that is made for each look may be where another was.
            if any(is_made_anew(source, self.f_locals) for source in item.sources):
                raise Inexpressible
            native.install_no_tensor_aliasing_guard(managers, list(map(str, item.sources)), *text)
        elif item.test is Test.SAME:
            native.install_object_aliasing_guard(*managers, *text)
        elif item.test is Test.OVERLAP:
            count = item.params[0]
            native.install_storage_overlapping_guard(managers[:count], managers[count:], *text)
        else:
            raise Inexpressible


def made_for(guard_set: GuardSet, f_locals: Locals) -> Tree | None:
    """A tree that holds now; none where torch's answer depends on more than our guards say, such as a new object for
    each look."""
    tree = Tree(guard_set, f_locals)
    return tree if tree.holds(f_locals) else None
