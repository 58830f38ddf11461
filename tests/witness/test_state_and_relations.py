"""The state of the thread, and relations between what is remembered and what is fresh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from unified_guards import _C
from unified_guards.guards.ir import Access, Source, Test, guard

from ..guards import Y, checker, equals, item, tensor_like
from .building import Thing, held_by, holds, recorded


def _autocast(on: bool) -> None:
    torch.set_autocast_enabled("cpu", on)


@pytest.mark.parametrize(
    ("switch", "usual"),
    [
        (torch.set_grad_enabled, True),
        (_autocast, False),
        (torch.use_deterministic_algorithms, False),
    ],
    ids=["grad mode", "autocast", "deterministic"],
)
def test_the_state_of_the_thread_moves_the_verdict(switch: Callable[[bool], object], usual: bool) -> None:
    thing: Any = Thing(flag=True)
    made = checker(guard(Test.GLOBAL_STATE, (Source.frame(),), (_C.GlobalState(),)), equals(item("flag"), True))
    recorded(made, {"x": thing})
    for _ in range(3):
        assert held_by(made, {"x": thing})
        switch(not usual)
        try:
            assert not holds(made, {"x": thing})
        finally:
            switch(usual)
        assert holds(made, {"x": thing})


def test_every_guard_on_the_state_of_the_thread_is_asked() -> None:
    """The second takes any state, as one that torch's own guard judges may; the first does not."""
    frame, thing = (Source.frame(),), Thing(flag=True)
    states = [guard(Test.GLOBAL_STATE, frame, (state,)) for state in (_C.GlobalState(), _C.GlobalState(lambda: True))]
    made = recorded(checker(*states, equals(item("flag"), True)), {"x": thing})
    with torch.no_grad():
        assert not made.exact({"x": thing})
        assert not made.check({"x": thing})


def test_the_keys_of_tensors_follow_the_state_of_the_thread() -> None:
    weight = torch.ones(2)
    made = recorded(checker(tensor_like(item("weight"), weight)), shown := {"x": Thing(weight=weight)})
    assert held_by(made, shown)
    with torch.inference_mode():
        made.check(shown)
        assert made.check(shown) is made.exact(shown)
    assert held_by(made, shown)


def test_a_fresh_tensor_must_differ_from_those_that_are_remembered() -> None:
    weights = [torch.ones(2), torch.ones(2)]
    thing: Any = Thing(one=weights[0], two=weights[1])
    unique = guard(Test.UNIQUE, (item("one"), item("two"), Y))
    made = recorded(checker(unique), {"x": thing, "y": torch.ones(2)})
    assert held_by(made, {"x": thing, "y": torch.ones(2)})
    for weight in weights:
        assert not holds(made, {"x": thing, "y": weight})
    assert holds(made, {"x": thing, "y": torch.ones(2)})


def test_many_fresh_tensors_must_differ_from_each_other_and_from_what_is_remembered() -> None:
    names = [f"y{at}" for at in range(20)]
    thing: Any = Thing(one=torch.ones(2), two=torch.ones(2))
    fresh = tuple(Source.frame().child(Access.LOCAL, name) for name in names)

    def shown(**others: torch.Tensor) -> dict[str, Any]:
        return {"x": thing, **{name: torch.ones(2) for name in names}, **others}

    made = recorded(checker(guard(Test.UNIQUE, (item("one"), item("two"), *fresh))), shown())
    assert held_by(made, shown())
    twice = torch.ones(2)
    for name in names[1:]:
        assert not holds(made, shown(y0=twice, **{name: twice}))
        assert not holds(made, shown(**{name: thing.two}))
        assert held_by(made, shown())


def test_two_that_are_remembered_become_the_same() -> None:
    thing: Any = Thing(one=torch.ones(2), two=torch.ones(2))
    two = thing.two
    made = recorded(checker(guard(Test.UNIQUE, (item("one"), item("two")))), {"x": thing})
    assert held_by(made, {"x": thing})
    thing.two = thing.one
    assert not holds(made, {"x": thing})
    thing.two = two
    assert holds(made, {"x": thing})


def test_two_that_are_remembered_are_no_longer_the_same() -> None:
    weight = torch.ones(2)
    thing: Any = Thing(one=weight, two=weight)
    made = recorded(checker(guard(Test.SAME, (item("one"), item("two")))), {"x": thing})
    assert held_by(made, {"x": thing})
    thing.two = torch.ones(2)
    assert not holds(made, {"x": thing})
    thing.two = weight
    assert holds(made, {"x": thing})


def test_an_argument_is_the_same_as_one_that_is_remembered() -> None:
    weight = torch.ones(2)
    thing: Any = Thing(one=weight)
    made = recorded(checker(guard(Test.SAME, (item("one"), Y))), {"x": thing, "y": weight})
    assert holds(made, {"x": thing, "y": weight})
    assert not holds(made, {"x": thing, "y": torch.ones(2)})
    thing.one = torch.ones(2)
    assert not holds(made, {"x": thing, "y": weight})
