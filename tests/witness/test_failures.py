"""What a failing check says: the guard whose fact did not hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from unified_guards import _C
from unified_guards.guards.ir import Guard, Source, Test, guard
from unified_guards.lower.rows import make_checker

from ..guards import Y, equals, item, program_of, tensor_like, type_is
from .building import Other, Thing, held_by, recorded


def failure_of(guards: list[Guard], shown: dict[str, Any], spoil: Callable[[], object], afterwards: Any = None) -> str:
    program = program_of(*guards)
    made = recorded(make_checker(program), shown)
    assert held_by(made, shown)
    spoil()
    assert not made.check(shown if afterwards is None else afterwards)
    assert made.last_failure is not None
    return str(program.row_origins[made.last_failure])


def test_a_fact_that_fails_names_its_guard() -> None:
    thing: Any = Thing(one=1, two=2, three=3)
    guards = [equals(item(name), value) for name, value in vars(thing).items()]
    assert failure_of(guards, {"x": thing}, lambda: setattr(thing, "two", 5)) == "L['x'].__dict__['two'] == 2"


def test_a_missing_item_names_its_source() -> None:
    thing: Any = Thing(one=1, two=2)
    guards = [equals(item(name), value) for name, value in vars(thing).items()]
    assert failure_of(guards, {"x": thing}, lambda: delattr(thing, "two")) == "L['x'].__dict__['two']"


def test_a_tensor_that_fails_names_its_guard() -> None:
    thing: Any = Thing(one=torch.ones(2), two=torch.ones(2))
    guards = [tensor_like(item(name), torch.ones(2)) for name in ("one", "two")]
    assert failure_of(guards, {"x": thing}, lambda: thing.two.resize_(3)) == str(guards[1])


def test_an_anchor_that_fails_names_its_guard() -> None:
    thing, part = Thing(flag=True, more=1), Thing(flag=True)
    guards = [equals(item("flag"), True), equals(item("more"), 1), equals(item("flag", Y), True)]
    other = {"x": thing, "y": Thing(flag=False)}
    assert failure_of(guards, {"x": thing, "y": part}, lambda: None, other) == str(guards[2])


def test_an_anchor_of_another_class_names_its_guard() -> None:
    thing: Any = Thing(flag=True, more=1)
    guards = [equals(item("flag"), True), equals(item("more"), 1), type_is(Y, Thing), equals(item("flag", Y), True)]
    other = {"x": thing, "y": Other(flag=True)}
    assert failure_of(guards, {"x": thing, "y": Thing(flag=True)}, lambda: None, other) == str(guards[2])


def test_the_state_of_the_thread_that_fails_names_its_guard() -> None:
    guards = [guard(Test.GLOBAL_STATE, (Source.frame(),), (_C.GlobalState(),)), equals(item("flag"), True)]
    try:
        assert failure_of(guards, {"x": Thing(flag=True)}, lambda: torch.set_grad_enabled(False)) == str(guards[0])
    finally:
        torch.set_grad_enabled(True)
