"""One corpus of guarded objects: functions to compile with their inputs, and named mutations of what they read.

An entry is a function that makes everything afresh and returns an :class:`Example`. A mutation is given the locals of
the frame: it changes an object in place, or binds a local to another one. Mutations may come in any order and any
number of times. Entry point: :data:`ENTRIES`.
"""

from __future__ import annotations

import importlib

from .example import ENTRIES, Example

#: One file for each kind of guarded object.
KINDS = ("tensors", "modules", "containers", "values", "objects", "functions", "thread_state")

for kind in KINDS:
    importlib.import_module(f"{__name__}.{kind}")

__all__ = ["ENTRIES", "Example"]
