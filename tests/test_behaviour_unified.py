"""The behaviour suite with unified guards installed: the same classes, the same numbers of compiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
import torch

import unified_guards

from . import behaviour, harness

PRELUDE = "import unified_guards; unified_guards.install()"
EPILOGUE = (
    "assert unified_guards.stats().frames_lifted and not unified_guards.stats().frames_left_to_torch, "
    "unified_guards.stats()"
)


@pytest.fixture(autouse=True)
def env(request: pytest.FixtureRequest) -> Iterator[harness.Environment]:
    torch._dynamo.reset()
    before = dataclasses.asdict(unified_guards.stats())
    unified_guards.install()
    try:
        with harness.guards_without_shortcuts():
            yield harness.Environment("unified", PRELUDE, EPILOGUE)
    finally:
        unified_guards.uninstall()
        torch._dynamo.reset()
    after = dataclasses.asdict(unified_guards.stats())
    if not hasattr(request.function, "unlifted") and not getattr(request.node, "skipped_inside", False):
        assert after["frames_lifted"] > before["frames_lifted"], "no frame was lifted"
        assert after["frames_left_to_torch"] == before["frames_left_to_torch"]


for suite in behaviour.SUITES:
    globals()[f"Test{suite.__name__}"] = type(f"Test{suite.__name__}", (suite,), {})
