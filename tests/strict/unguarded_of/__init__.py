"""The cases, one file for each kind of state: importing it fills :data:`tests.strict.unguarded.UNGUARDED`."""

from __future__ import annotations

import importlib

KINDS = ("specials", "objects", "process", "tensors")

for kind in KINDS:
    importlib.import_module(f"{__name__}.{kind}")
