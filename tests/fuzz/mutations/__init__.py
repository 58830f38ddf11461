"""The table of what may happen to a guarded object: every way in which Python or torch changes one.

A row is a function of the world that yields :class:`Change` pairs, one for each object that it can happen to.
``change`` does it; ``restore`` puts back what guards may look at, whatever happened in between, and may be called at
any time. A change without a restore is one that no guard may notice, or that leaves the object as it was. Rows are
found by name in :data:`ROWS`.
"""

from __future__ import annotations

import importlib

from .table import ROWS, Change

#: One file for each kind of what changes. The order is that of the rows, which what a seed draws depends on.
KINDS = (
    "attributes",
    "modules",
    "containers",
    "classes",
    "functions",
    "roots",
    "tensors",
    "tensor_kinds",
    "user_answers",
    "memory",
    "thread_state",
    "entries",
)

for kind in KINDS:
    importlib.import_module(f"{__name__}.{kind}")

__all__ = ["ROWS", "Change"]
