"""The rows, one file for each kind of what changes: importing it fills ``PYTHON`` and ``TENSORS`` of ``rows.py``."""

from __future__ import annotations

import importlib

KINDS = ("objects", "classes", "functions", "modules", "thread_state", "tensors")

for kind in KINDS:
    importlib.import_module(f"{__name__}.{kind}")
