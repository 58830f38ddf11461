"""What every test gets: a fresh Dynamo, the same random numbers, and an eye on what UNIFIED_GUARDS_VERIFY=1 finds."""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Iterator

import pytest
import torch
import torch._dynamo

from .compiles import measure_no_guards

SEED = 20_240

# Modules of asserts that are no test files: pytest makes their asserts tell the values too.
pytest.register_assert_rewrite(
    "tests.harness",
    "tests.behaviour",
    "tests.aot.helpers",
    "tests.aot.following",
    "tests.calls.watching",
    "tests.changes.rows",
    "tests.corpus",
    "tests.lookup.making",
    "tests.shape_expressions.making",
    "tests.ir.making",
    "tests.simplify.making",
    "tests.strict.running",
    "tests.witness.building",
)


def pytest_report_header() -> str:
    switches = [f"{key}={value}" for key, value in os.environ.items() if key.startswith("UNIFIED_GUARDS")]
    return f"torch {torch.__version__}, CUDA {torch.cuda.is_available()}, {' '.join(switches) or 'no switches set'}"


def pytest_configure() -> None:
    measure_no_guards()


def pytest_collection_finish() -> None:
    """A collection looks at what the tests make, not at all of torch each time: many tests and programs collect."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip(f"no CUDA device: torch {torch.__version__} sees none")


def _disagreements() -> tuple[str, ...]:
    # Not imported here: the tests of plain torch must not load it.
    unified = sys.modules.get("unified_guards")
    return unified.stats().disagreements if unified else ()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    random.seed(SEED)
    torch.manual_seed(SEED)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(SEED)
    torch._dynamo.reset()
    # The stance eager_then_compile remembers files and lines, which a suite that runs twice has in common.
    torch._dynamo.eval_frame._EXAMPLE_INPUTS = None
    before = _disagreements()
    yield
    torch._dynamo.reset()
    found = _disagreements()[len(before) :]
    assert not found, "the native checker and torch's guard tree disagreed:\n" + "\n".join(found)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Lets a fixture know that its test was skipped from within."""
    report = yield
    if report.when == "call":
        item.skipped_inside = report.skipped  # type: ignore[attr-defined]
    return report
