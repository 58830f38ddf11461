"""Switches of this package, as ``torch._dynamo.config`` has those of Dynamo.

>>> import unified_guards
>>> with unified_guards.config.patch(witness=False):
...     unified_guards.config.witness
False

A switch that was not assigned to is what its environment variable says at that moment; ``del config.witness`` goes back
to that. Switches are of the process, not of a thread. Each is read at the moment that its description names, so a
function that was compiled before keeps what it has. Entry points: the switches, and :func:`patch`.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from unified_guards import _environment

verify: float
"""``UNIFIED_GUARDS_VERIFY``: the share of all checks that are compared with torch's tree, from 0 to 1; 0 by default.

Under 1 a verdict that differs raises :class:`GuardDisagreement`; under a smaller share it is replaced by torch's. Read
when a function is compiled.
"""

no_fallback: bool
"""``UNIFIED_GUARDS_NO_FALLBACK``: raise :class:`FallbackError` where a frame's guards would stay torch's.

False by default. Read when a function is compiled.
"""

strict: bool
"""``UNIFIED_GUARDS_STRICT``: what ``install(strict=True)`` says; False by default. Read when a function is compiled."""

witness: bool
"""``UNIFIED_GUARDS_WITNESS``: remember what a check that passed has read; True by default.

Without it every check evaluates every guard. Read when a function is compiled.
"""

dispatch: bool
"""``UNIFIED_GUARDS_DISPATCH``: take the short way from a call to its graph (``dynamo/dispatch.py``); True by default.

Read when ``torch.compile`` is called.
"""

profile: bool
"""``UNIFIED_GUARDS_PROFILE``: time every check and repeat a few, for :func:`explain`; False by default.

Read when a function is compiled.
"""

log: str
"""``UNIFIED_GUARDS_LOG``: what is logged, ``"recompiles"`` or nothing (``""``); nothing by default.

Each recompile in one line, with its cause and what to do: a warning of the logger ``unified_guards.recompiles``, which
goes to stderr unless logging is configured otherwise. Read when a function is compiled again.
"""


class _Switch(NamedTuple):
    variable: str
    default: bool  # of a switch that is on or off
    kind: Literal["on or off", "share", "logs"] = "on or off"

    def from_environment(self) -> bool | float | str:
        if self.kind == "on or off":
            return _environment.is_set(self.variable, "1" if self.default else "")
        if self.kind == "logs":
            logs = _environment.logs()
            return "" if isinstance(logs, _environment.Problem) else logs
        share = _environment.share_to_verify()
        return 0.0 if isinstance(share, _environment.Problem) else share

    def checked(self, name: str, value: Any) -> bool | float | str:
        """The value, if it is one that the switch takes.

        Raises:
            TypeError: it is of another type.
            ValueError: it is no share, or nothing that can be logged.
        """
        if self.kind == "on or off":
            if type(value) is not bool:
                raise TypeError(f"unified_guards.config.{name} must be True or False, got {value!r}")
            return value
        if self.kind == "logs":
            known = " or ".join(map(repr, (*_environment.LOGS, "")))
            if type(value) is not str:
                raise TypeError(f"unified_guards.config.{name} must be {known}, got {value!r}")
            if value not in (*_environment.LOGS, ""):
                raise ValueError(f"unified_guards.config.{name} must be {known}, got {value!r}")
            return value
        if not isinstance(value, int | float):
            raise TypeError(f"unified_guards.config.{name} must be a number from 0 to 1, got {value!r}")
        if not 0 <= value <= 1:
            raise ValueError(f"unified_guards.config.{name} must be a number from 0 to 1, got {value!r}")
        return float(value)


_SWITCHES = {
    "verify": _Switch("UNIFIED_GUARDS_VERIFY", False, "share"),
    "no_fallback": _Switch("UNIFIED_GUARDS_NO_FALLBACK", False),
    "strict": _Switch("UNIFIED_GUARDS_STRICT", False),
    "witness": _Switch("UNIFIED_GUARDS_WITNESS", True),
    "dispatch": _Switch("UNIFIED_GUARDS_DISPATCH", True),
    "profile": _Switch("UNIFIED_GUARDS_PROFILE", False),
    "log": _Switch("UNIFIED_GUARDS_LOG", False, "logs"),
}


def _switch(name: str) -> _Switch:
    if name not in _SWITCHES:
        raise AttributeError(f"unified_guards.config has no switch {name!r}; there are {', '.join(_SWITCHES)}")
    return _SWITCHES[name]


class _Config(types.ModuleType):
    """The class of this module: what is assigned to a switch stands in the module's dict, and is checked first."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return _switch(name).from_environment()

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("__"):
            value = _switch(name).checked(name, value)
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        _switch(name)
        vars(self).pop(name, None)

    def __dir__(self) -> list[str]:
        return [*_SWITCHES, "patch"]


def variables() -> tuple[str, ...]:
    """The environment variables of this package: every one that something reads."""
    return ("UNIFIED_GUARDS", *(switch.variable for switch in _SWITCHES.values()), _environment.FOR_BUILDING)


def is_assigned(name: str) -> bool:
    """Whether a switch was assigned to, so that its environment variable does not count."""
    return name in globals()


class _Patch(contextlib.ContextDecorator):
    """Switches that are set from ``__enter__`` to ``__exit__``; may be entered again before it is left."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.before: list[dict[str, Any]] = []

    def __enter__(self) -> None:
        assigned = globals()
        self.before.append({name: assigned[name] for name in self.wanted if name in assigned})
        assigned.update(self.wanted)

    def __exit__(self, *_: object) -> None:
        assigned = globals()
        for name in self.wanted:
            assigned.pop(name, None)
        assigned.update(self.before.pop())


def patch(changes: Mapping[str, Any] | None = None, /, **switches: Any) -> contextlib.ContextDecorator:
    """Sets switches in a ``with`` block, or as a decorator in each call of a function. Afterwards they are as before.

    Args:
        changes: from names of switches to values.
        switches: the same as keyword arguments.

    Raises:
        AttributeError: there is no switch of a name. The message says which there are.
        TypeError: a switch is on or off, a number, or a name, and the value is something else.
        ValueError: the number is not from 0 to 1, or the name is not known.
    """
    return _Patch({name: _switch(name).checked(name, value) for name, value in {**(changes or {}), **switches}.items()})


# A module's own class may be replaced: so `unified_guards.config` is a module that checks what is assigned to it.
sys.modules[__name__].__class__ = _Config
