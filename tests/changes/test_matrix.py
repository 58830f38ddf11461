"""A matrix of changes: what plain torch makes of each is what ours makes of it, with no compilation fewer."""

from __future__ import annotations

import contextlib

import pytest

from unified_guards.dynamo import compat
from unified_guards.guards.ir import Test
from unified_guards.simplify import driver

from ..harness import guards_without_shortcuts
from . import rows_of  # noqa: F401 - fills both tables
from .rows import PYTHON, TENSORS, compare

#: Torch 2.11 misses a new class of a module only where its guards do not go by what they remember of dicts.
REMEMBERED_BY_TORCH_2_11 = "module_class_of_one"


@pytest.mark.parametrize("name", [*PYTHON, *TENSORS])
def test_a_change_is_what_it_is_to_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.ExitStack() as stack:
        if name == REMEMBERED_BY_TORCH_2_11 and compat.TORCH < (2, 13):
            stack.enter_context(guards_without_shortcuts())
        compare(PYTHON.get(name) or TENSORS[name], monkeypatch)


def test_the_matrix_is_as_wide_as_was_agreed() -> None:
    assert not PYTHON.keys() & TENSORS.keys()
    assert len(PYTHON) >= 58
    assert len(TENSORS) >= 46


def test_the_matrix_sees_a_false_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(driver.RULES, "wrong on purpose", lambda work: ((g, None) for g in work.all(Test.EQUALS)))
    with pytest.raises(AssertionError, match="as users run it"):
        compare(PYTHON["attribute_int"], monkeypatch)
