"""What it means to go one step from an object to another: one small function for each :class:`Access`.

Whatever a function raises means the same: there is no value. Entry points: :func:`follow`, :func:`resolve`,
:data:`MISSING`.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import itertools
import operator
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch

from unified_guards.guards.ir import Access, Source

#: Stands for the value where there is none, and ``None`` could be one.
MISSING: Any = object()


class NoValue(Exception):
    """There is no value at a source. Any other exception on the way there means the same."""


def follow(source: Source, base: Any) -> Any:
    """The value at ``source``, given the one at its base; raises anything where there is none."""
    return ACCESSES[source.access](base, source.key)


def resolve(source: Source, f_locals: dict[str, Any], f_globals: dict[str, Any] | None = None) -> Any:
    """The value at ``source``; raises anything where there is none.

    Args:
        source: a path from the frame.
        f_locals: the locals of the frame, cells unboxed.
        f_globals: what to read globals from instead of the dict that was captured when the source was made.
    """
    if source.base is None:
        return f_locals
    base = resolve(source.base, f_locals, f_globals)
    if source.access is Access.GLOBALS and f_globals is not None:
        return f_globals
    return ACCESSES[source.access](base, source.key)


def is_a(value: object, kind: type) -> bool:
    """Whether the real type of a value is a subclass of ``kind``: ``isinstance`` would also believe ``__class__``."""
    return issubclass(type(value), kind)


def need(holds: bool) -> None:
    """Raises unless a condition holds, without which there is no value."""
    if not holds:
        raise NoValue


def _dict_item(base: Any, key: Any) -> Any:
    need(is_a(base, dict))
    found = dict.get(base, key, MISSING)
    need(found is not MISSING)
    return found


def _globals(base: Any, captured: Any) -> Any:
    need(captured is not None)
    return captured


def _global_weakref(base: Any, name: str) -> Any:
    return _weakref_target(_dict_item(base, name))


# These functions are given addresses. Given the objects, ctypes would ask them for attributes, which may run user code.
_get_object = ctypes.pythonapi.PyWeakref_GetObject
_get_object.argtypes, _get_object.restype = [ctypes.c_void_p], ctypes.c_void_p


def _weakref_target(reference: Any, _: None = None) -> Any:
    """The object, or None when it is dead. A proxy would answer for its target, so the interpreter is asked."""
    need(type(reference) in weakref.ProxyTypes or is_a(reference, weakref.ReferenceType))
    return ctypes.cast(_get_object(id(reference)), ctypes.py_object).value


def _sequence_item(kind: Any) -> Callable[[Any, int], Any]:
    """An item by its raw index: a negative one is never there."""

    def access(base: Any, index: int) -> Any:
        need(is_a(base, kind) and 0 <= index < kind.__len__(base))
        return kind.__getitem__(base, index)

    return access


def _set_item(base: Any, position: int) -> Any:
    return next(itertools.islice(iter(base), position, None))


_get_dict = ctypes.pythonapi.PyObject_GenericGetDict
_get_dict.argtypes, _get_dict.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.py_object


def _generic_dict(base: Any, _: None) -> Any:
    return _get_dict(id(base), None)


def _type_dict(base: Any, _: None) -> Any:
    """The dict itself: Python shows only a proxy of it."""
    (found,) = gc.get_referents(type.__dict__["__dict__"].__get__(base))
    return found


def _type_mro(base: Any, _: None) -> Any:
    return type.__dict__["__mro__"].__get__(base)


def _function_field(name: str) -> Callable[[Any, None], Any]:
    def access(base: Any, _: None) -> Any:
        function = base.__func__ if type(base) is types.MethodType else base
        need(type(function) is types.FunctionType)
        found = getattr(function, name)
        need(found is not None)
        return found

    return access


_TupleIterator = type(iter(()))


def _tuple_iterator_item(base: Any, offset: int) -> Any:
    need(type(base) is _TupleIterator and offset >= 0)
    return list(copy.copy(base))[offset]


def _grad(base: Any, _: None) -> Any:
    need(is_a(base, torch.Tensor))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # reading the .grad of a tensor that is not a leaf warns
        return torch.Tensor.grad.__get__(base)


def known_dim(dim: Any) -> Any:
    """The dim as a plain int; None for none, and for a symbol whose value is not known without adding a guard."""
    return dim if dim is None or type(dim) is int else dim.node.maybe_as_int()


def _tensor_property(name: str) -> Callable[[Any, int | None], Any]:
    read = getattr(torch.Tensor, name)

    def access(base: Any, dim: int | None) -> Any:
        need(is_a(base, torch.Tensor))
        need(dim is None or 0 <= dim < base.dim())
        found = known_dim(read(base) if dim is None else read(base, dim))
        need(found is not None)
        return found

    return access


def _dict_position(view: Callable[[Any], Any]) -> Callable[[Any, int], Any]:
    def access(base: Any, position: int) -> Any:
        need(is_a(base, dict) and position >= 0)
        return list(view(base))[position]

    return access


ACCESSES: dict[Access, Callable[[Any, Any], Any]] = {
    Access.LOCAL: _dict_item,
    Access.GLOBALS: _globals,
    Access.DICT_ITEM: _dict_item,
    Access.CONSTANT: lambda base, value: value,
    Access.GLOBAL_WEAKREF: _global_weakref,
    Access.WEAKREF_CALL: _weakref_target,
    Access.ITEM: operator.getitem,
    Access.LIST_ITEM: _sequence_item(list),
    Access.TUPLE_ITEM: _sequence_item(tuple),
    Access.SET_ITEM: _set_item,
    Access.ATTR: getattr,
    Access.GENERIC_ATTR: object.__getattribute__,
    Access.GENERIC_DICT: _generic_dict,
    Access.TYPE: lambda base, _: type(base),
    Access.TYPE_DICT: _type_dict,
    Access.TYPE_MRO: _type_mro,
    Access.FUNC_DEFAULTS: _function_field("__defaults__"),
    Access.FUNC_KWDEFAULTS: _function_field("__kwdefaults__"),
    Access.FUNC_CODE: _function_field("__code__"),
    Access.FUNC_CLOSURE: _function_field("__closure__"),
    Access.TUPLE_ITER_ITEM: _tuple_iterator_item,
    Access.GRAD: _grad,
    Access.TENSOR_SIZE: _tensor_property("size"),
    Access.TENSOR_STRIDE: _tensor_property("stride"),
    Access.TENSOR_OFFSET: _tensor_property("storage_offset"),
    Access.CALL0: lambda base, _: base(),
    Access.CALL1: lambda base, function: function(base),
    # The dict's own order, also of an OrderedDict whose items were moved.
    Access.DICT_KEY_AT: _dict_position(dict.keys),
    Access.DICT_VALUE_AT: _dict_position(dict.values),
}
