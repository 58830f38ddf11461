"""Guards for ``torch.compile``, lifted into one set and checked natively on every call.

>>> import torch, unified_guards
>>> unified_guards.install()
>>> compiled = torch.compile(lambda x: x + 1, backend="eager")
>>> compiled(torch.ones(2))
tensor([2., 2.])
>>> unified_guards.stats().frames_lifted > 0
True
"""

import importlib
from typing import TYPE_CHECKING, Any

from unified_guards._environment import check as _check_environment

_check_environment()

from unified_guards.aot.errors import GuardError, RecompileLimitError  # noqa: E402
from unified_guards.dynamo.backend import backend  # noqa: E402
from unified_guards.dynamo.install import (  # noqa: E402
    FallbackError,
    GuardDisagreement,
    install,
    installed,
    is_installed,
    uninstall,
)
from unified_guards.ir import Guard, GuardSet, Provenance, Source  # noqa: E402
from unified_guards.report import FrameReport, Report, explain  # noqa: E402
from unified_guards.statistics import Stats, stats  # noqa: E402

if TYPE_CHECKING:
    from unified_guards.aot.functions import aot_function, aot_module, aot_module_simplified
    from unified_guards.aot.fx import make_fx

__version__ = "0.1.0"

# Loaded when asked for: they import AOTAutograd, which does not exist yet when torch's autoload imports this package.
_LATE = {
    "aot_function": "unified_guards.aot.functions",
    "aot_module": "unified_guards.aot.functions",
    "aot_module_simplified": "unified_guards.aot.functions",
    "make_fx": "unified_guards.aot.fx",
}


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(_LATE[name]), name)
    globals()[name] = found
    return found


__all__ = [
    "FallbackError",
    "FrameReport",
    "Guard",
    "GuardDisagreement",
    "GuardError",
    "GuardSet",
    "Provenance",
    "RecompileLimitError",
    "Report",
    "Source",
    "Stats",
    "aot_function",
    "aot_module",
    "aot_module_simplified",
    "backend",
    "explain",
    "install",
    "installed",
    "is_installed",
    "make_fx",
    "stats",
    "uninstall",
]
