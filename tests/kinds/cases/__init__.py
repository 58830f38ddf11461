"""The cases, one file for each topic: importing the package fills :data:`tests.kinds.building.KINDS`."""

from __future__ import annotations

import importlib

TOPICS = ("leaf_guards", "tensors", "thread_state", "accessors", "dict_managers", "relations")

for topic in TOPICS:
    importlib.import_module(f"{__name__}.{topic}")
