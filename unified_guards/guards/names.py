"""Names of objects, for the texts of guards. Entry point: :func:`name_at`."""

from __future__ import annotations

import types

from unified_guards import _C

_QUALNAME = vars(type)["__qualname__"]
_NAMED = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


def name_at(address: int) -> str:
    """A name for the live object at an address. No address is in the name, so that it repeats from run to run.

    Runs no user code: a module, for one, may import others when it is asked for an attribute.
    """
    value = _C.object_at(address)
    if isinstance(value, type):
        module = type.__dict__["__module__"].__get__(value)
        name = _QUALNAME.__get__(value)
    elif isinstance(value, types.ModuleType):
        module, name = None, types.ModuleType.__getattribute__(value, "__dict__").get("__name__")
    elif isinstance(value, _NAMED):
        module, name = value.__module__, value.__qualname__
    else:
        return f"that {_QUALNAME.__get__(type(value))}"
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else str(name)
