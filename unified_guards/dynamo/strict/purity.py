"""What state the code of a function reads by name, where Dynamo does not look.

Some functions run while a graph is made, and no guard says what they read: the backward of an operator, the
``__torch_dispatch__`` of a class, what an ``lru_cache`` has computed before. Where such code reads nothing but its
arguments, other functions, modules and classes, nothing can change. Entry points: :func:`state_read`,
:func:`unguarded_part`.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

from unified_guards.dynamo.strict.known import is_constant

_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF")
_STEPS = ("LOAD_ATTR", "LOAD_METHOD")
_FIXED = (types.ModuleType, types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
_MISSING = object()


def state_read(function: Any) -> str | None:
    """The first name by which a function reads what may change; None where there is none.

    Code is read, not run. Attributes of arguments are not looked at.
    """
    return _of_value(function, getattr(function, "__qualname__", str(function)), set())


def _of_value(value: Any, name: str, seen: set[int]) -> str | None:
    """Whether what a name stands for is fixed, or a function that reads nothing else."""
    function = inspect.unwrap(getattr(value, "__func__", value))
    if id(function) in seen or isinstance(function, _FIXED) or _is_known(function):
        return None
    seen.add(id(function))
    if isinstance(function, types.FunctionType):
        return _of_code(function.__code__, _names_of(function), seen)
    return None if isinstance(function, type) else name


def unguarded_part(function: Any) -> str | None:
    """The first cell or default of a function of the user's that holds what may change in place; None without one."""
    if type(function) is not types.FunctionType or _is_known(function):
        return None
    for name, value in parts_of(function).items():
        stays = isinstance(value, (*_FIXED, types.FunctionType, type)) or type(value).__module__ in (
            "dataclasses",
            "torch",
        )
        if not stays and not is_constant(value):
            return name
    return None


def parts_of(function: types.FunctionType) -> dict[str, Any]:
    """What a function has in its cells and defaults, by names."""
    found: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty one
            found[name] = cell.cell_contents
    found |= {f"__defaults__[{at}]": value for at, value in enumerate(function.__defaults__ or ())}
    return found | (function.__kwdefaults__ or {})


def _is_known(value: Any) -> bool:
    """Whether this is a function, a class or an operator of torch's or of Python's."""
    module = getattr(value, "__module__", None)
    top = module.partition(".")[0] if isinstance(module, str) else ""
    return callable(value) and (top in ("torch", "functorch", "numpy", "builtins") or top in sys.stdlib_module_names)


def _names_of(function: types.FunctionType) -> Callable[[str], Any]:
    cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))

    def find(name: str) -> Any:
        if name in cells:
            try:
                return cells[name].cell_contents
            except ValueError:  # empty
                return _MISSING
        return function.__globals__.get(name, getattr(builtins, name, _MISSING))

    return find


def _of_code(code: types.CodeType, find: Callable[[str], Any], seen: set[int]) -> str | None:
    inner = [each for each in code.co_consts if isinstance(each, types.CodeType)]
    for name, value in _loaded(code, find):
        if value is _MISSING or (found := _of_value(value, name, seen)) is not None:
            return name if value is _MISSING else found
    own = {*code.co_varnames, *code.co_cellvars}
    for each in inner:
        found = _of_code(each, lambda name: types if name in own else find(name), seen)  # a variable of the function
        if found is not None:
            return found
    return None


def _loaded(code: types.CodeType, find: Callable[[str], Any]) -> Iterator[tuple[str, Any]]:
    """The values that names lead to: ``module.Class.attribute`` is followed as far as it goes."""
    name, value = "", _MISSING
    is_open = False
    for each in dis.get_instructions(code):
        if each.opname in _STEPS and is_open and isinstance(value, types.ModuleType | type):
            name, value = f"{name}.{each.argval}", inspect.getattr_static(value, str(each.argval), _MISSING)
            value = getattr(value, "__func__", value)  # of a classmethod or staticmethod
            continue
        if is_open:
            yield name, value
        is_open = each.opname in _LOADS and each.argval not in code.co_cellvars
        if is_open:
            name, value = str(each.argval), find(str(each.argval))
    if is_open:
        yield name, value


__all__ = ["parts_of", "state_read", "unguarded_part"]
