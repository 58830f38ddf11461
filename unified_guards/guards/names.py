"""Names of objects, for the texts of guards and of what they found. Entry points: :func:`name_at`,
:func:`name_of`, :func:`place`."""

from __future__ import annotations

import enum
import os
import types
from typing import Any

from unified_guards import _C

# Read past what a metaclass defines.
_QUALNAME, _MODULE, _NAME = (vars(type)[name] for name in ("__qualname__", "__module__", "__name__"))


def name_at(address: int) -> str:
    """A name for the live object at an address, as :func:`name_of` gives it."""
    value = _C.object_at(address)
    name = name_of(value)
    return f"that {_QUALNAME.__get__(type(value))}" if name is None else name


def type_name(kind: type) -> str:
    """A class's own name, whatever its metaclass says."""
    return str(_NAME.__get__(kind))


def is_torchs(kind: type) -> bool:
    """Whether a class is torch's own, so that its code is no user's."""
    module = _MODULE.__get__(kind)
    return type(module) is str and module.partition(".")[0] == "torch"


def place(file: str | None, line: int | None) -> str:
    """A line of a program, for reading: the file as it is called from the working directory, if it is below that."""
    try:
        below = f"{os.getcwd()}{os.sep}"
    except OSError:  # the working directory was removed
        below = ""
    name = str(file)
    return f"{name.removeprefix(below) if len(below) > 1 else name}:{line}"


def name_of_code(code: types.CodeType) -> str:
    """A function's name, with the file and line where it starts."""
    return f"{code.co_name} ({place(code.co_filename, code.co_firstlineno)})"


def name_of(value: Any) -> str | None:
    """A name for an object; None for one that has none. No address is in it, so that it repeats from run to run.

    Runs no user code: a module, for one, may import others when it is asked for an attribute.
    """
    kind = type(value)
    if issubclass(kind, type):
        module = _MODULE.__get__(value)
        name = _QUALNAME.__get__(value)
    elif issubclass(kind, types.ModuleType):
        module, name = None, types.ModuleType.__getattribute__(value, "__dict__").get("__name__")
    elif kind is types.MethodType:
        return name_of(value.__func__)
    elif kind is types.FunctionType or kind is types.BuiltinFunctionType:
        module, name = value.__module__, value.__qualname__
    elif kind is types.CodeType:
        module, name = None, f"the code of {value.co_name}"
    elif type(kind) is enum.EnumMeta:
        module, name = None, f"{_QUALNAME.__get__(kind)}.{object.__getattribute__(value, '_name_')}"
    else:
        return None
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else str(name)
