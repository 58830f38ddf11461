"""The behaviour suite with plain torch: what the suite asserts is torch's own behaviour."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
import torch

from . import behaviour, harness


@pytest.fixture(autouse=True)
def env() -> Iterator[harness.Environment]:
    unified = sys.modules.get("unified_guards")
    before = unified.stats() if unified else None
    torch._dynamo.reset()
    with harness.guards_without_shortcuts():
        yield harness.Environment("torch")
    torch._dynamo.reset()
    assert (unified.stats() if unified else None) == before, "unified guards were at work"


for suite in behaviour.SUITES:
    globals()[f"Test{suite.__name__}"] = type(f"Test{suite.__name__}", (suite,), {})
