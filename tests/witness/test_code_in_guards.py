"""Guards that run code of the user's, which changes what is guarded, asks the same checker, or raises."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from unified_guards.guards.ir import Test, guard

from ..guards import X, attr, checker, equals, item, says_yes, tensor_like
from .building import CHECKOUT, Thing, holds, recorded


def test_a_guard_that_changes_what_is_guarded_is_seen_by_that_check() -> None:
    thing: Any = Thing(flag=True)
    at = [0]

    def turn(_: object) -> None:
        at[0] += 1
        if at[0] == 3:
            thing.flag = False

    made = checker(equals(item("flag"), True), says_yes(X, turn))
    assert [made.check({"x": thing}) for _ in range(5)] == [True, True, False, False, False]


def test_a_guard_may_ask_the_same_checker() -> None:
    thing, other = Thing(flag=True), Thing(flag=False)
    seen: list[bool] = []

    def ask(value: object) -> None:
        if value is thing:
            seen.append(made.check({"x": other}))

    made = checker(says_yes(X, ask), equals(item("flag"), True))
    for _ in range(4):
        assert made.check({"x": thing})
    assert seen == [False] * 4


def test_a_guard_may_ask_the_same_checker_about_the_same_object() -> None:
    thing: Any = Thing(flag=True)
    inside = [False]

    def ask(value: object) -> None:
        if not inside[0]:
            inside[0] = True
            made.check({"x": thing})
            inside[0] = False

    made = checker(says_yes(X, ask), equals(item("flag"), True))
    for _ in range(5):
        assert made.check({"x": thing})
    thing.flag = False
    assert not made.check({"x": thing})


def test_a_guard_may_ask_about_many_other_objects() -> None:
    """The places of roots are handed out again while one of them is being checked."""
    thing: Any = Thing(flag=True)
    others = [Thing(flag=True) for _ in range(300)]

    def ask(value: object) -> None:
        if value is thing:
            assert all(made.check({"x": other}) for other in others)

    made = checker(says_yes(X, ask), equals(item("flag"), True))
    for _ in range(4):
        assert made.check({"x": thing})
    thing.flag = False
    assert not made.check({"x": thing})


def replace_what_is_read_later() -> None:
    thing: Any = Thing(part=Thing(flag=True), tensor=torch.ones(2))

    def replace(_: object) -> None:
        thing.part, thing.tensor = Thing(flag=True), torch.ones(2)

    made = checker(
        says_yes(item("part"), replace),
        equals(item("flag", item("part")), True),
        tensor_like(item("tensor"), torch.ones(2)),
    )
    for _ in range(20):
        assert made.check({"x": thing})
    thing.part = Thing(flag=False)
    made.check({"x": thing})
    thing.tensor = torch.ones(3)
    made.check({"x": thing})
    assert holds(made, {"x": thing})  # the predicate has put both back


def free_what_is_checked() -> None:
    made = checker(says_yes(X, lambda value: shown.pop("x", None)), equals(item("flag"), True))
    for _ in range(5):
        shown: dict[str, Any] = {"x": Thing(flag=True)}
        assert made.check(shown)
    assert not made.check({})


# Both fail on 7a57238: Evaluation::run() goes on reading what it has only borrowed, after a predicate has freed it.
# This can crash, which is why they have a process of their own.
@pytest.mark.parametrize("run", [replace_what_is_read_later, free_what_is_checked], ids=lambda run: run.__name__)
def test_a_guard_may_free_what_is_read_after_it(run: Callable[[], None]) -> None:
    program = f"from tests.witness import test_code_in_guards\ntest_code_in_guards.{run.__name__}()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_property_may_change_what_is_guarded() -> None:
    class Restless:
        def __init__(self) -> None:
            self.calls = 0

        @property
        def flag(self) -> bool:
            self.calls += 1
            return self.calls < 5

    thing = Restless()
    made = checker(equals(attr("flag"), True))
    assert [made.check({"x": thing}) for _ in range(6)] == [True] * 4 + [False] * 2


def test_a_guard_that_raises_misses_and_holds_again() -> None:
    raises = [False]

    def ask(value: object) -> bool:
        if raises[0]:
            raise ValueError("no")
        return True

    thing: Any = Thing(flag=True)
    made = checker(equals(item("flag"), True), guard(Test.PREDICATE, (X,), (ask, "ask(x)")))
    recorded(made, {"x": thing})
    raises[0] = True
    assert not holds(made, {"x": thing})
    raises[0] = False
    assert holds(made, {"x": thing})
