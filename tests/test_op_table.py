"""The table of operations (csrc/program/op.h): what Python reads from it, and what the extension makes of it."""

from __future__ import annotations

import pytest

from unified_guards import _C
from unified_guards.guards.ir import Access, Source, Test, guard
from unified_guards.lower.discriminators import program_of

X = Source.frame().child(Access.LOCAL, "x")


def test_an_access_is_an_accessor() -> None:
    named = {access.name for access in Access} & set(_C.OP_TABLE)
    assert {name for name in named if not _C.OP_TABLE[name]["is_accessor"]} == set()
    assert {name for name, traits in _C.OP_TABLE.items() if traits["is_accessor"]} == named


def test_operations_are_numbered_in_the_order_of_the_table() -> None:
    assert list(_C.OPS) == list(_C.OP_TABLE)
    assert list(_C.OPS.values()) == list(range(len(_C.OPS)))


def test_what_may_run_code_of_a_users_as_a_matter_of_course_is_not_asked_first() -> None:
    """A discriminator is asked where nothing is owned."""
    first = {name for name, traits in _C.OP_TABLE.items() if traits["can_be_asked_first"]}
    assert {name for name in first if _C.OP_TABLE[name]["user_code"] in ("mostly", "callback")} == set()


@pytest.mark.parametrize("name", ["NO_ATTR", "SET_CONTAINS"])
def test_the_extension_refuses_to_ask_first_what_the_table_does_not_allow(name: str) -> None:
    params = {"NO_ATTR": ("flag",), "SET_CONTAINS": (1, True)}[name]
    item = guard(Test[name], (X,), params)
    made = _C.Checker(program_of(item).rows)
    with pytest.raises(ValueError, match="cannot be asked first"):
        made.ask_first(program_of(item).rows, 0)
