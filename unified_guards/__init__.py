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

from unified_guards import _environment

# `python -m unified_guards` comes here first. Its commands import the rest, so that `doctor` can say why it cannot be.
if not _environment.is_command_line():
    _environment.check()
    _environment.tell_of_unknown_variables(_environment.warn)

    from unified_guards import config
    from unified_guards.dynamo.backend import backend
    from unified_guards.dynamo.install import install, installed, is_installed, uninstall
    from unified_guards.errors import (
        FallbackError,
        GuardDisagreement,
        GuardError,
        RecompileLimitError,
        UnifiedGuardsError,
    )
    from unified_guards.guards.ir import Guard, GuardSet, Provenance, Source
    from unified_guards.report.explain import FrameReport, Report, explain
    from unified_guards.statistics import Stats, stats

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
    "UnifiedGuardsError",
    "aot_function",
    "aot_module",
    "aot_module_simplified",
    "backend",
    "config",
    "explain",
    "install",
    "installed",
    "is_installed",
    "make_fx",
    "stats",
    "uninstall",
]
