"""The changes that move a verdict, one file for each kind of what is changed: importing it fills ``table.CHANGES``."""

from __future__ import annotations

import importlib

KINDS = ("containers", "objects", "classes", "functions", "tensors", "attribute_getters")

for kind in KINDS:
    importlib.import_module(f"{__name__}.{kind}")
