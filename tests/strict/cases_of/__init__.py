"""The cases, one file for each kind of what torch misses: importing it fills :data:`tests.strict.cases.CASES`."""

from __future__ import annotations

import importlib

KINDS = ("hooks", "classes", "functions", "values", "memory")

for kind in KINDS:
    importlib.import_module(f"{__name__}.{kind}")
