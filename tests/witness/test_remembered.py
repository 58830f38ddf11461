"""What the native checker remembers of a passing check, and what stays live."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch

from unified_guards.guards.ir import Access

from ..guards import X, Y, checker, equals, item, program_of, tensor_like, type_is
from .building import NEEDS_VERSIONS, Thing, held_by, holds, recorded, told


def test_a_check_that_passes_twice_is_remembered() -> None:
    thing: Any = Thing(flag=True)
    made, shown = checker(equals(item("flag"), True)), {"x": thing}
    seen = []
    for _ in range(4):
        assert made.check(shown)
        seen.append((told(made, "recorded"), told(made, "held")))
    assert seen == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_a_check_that_fails_is_not_remembered() -> None:
    made, shown = checker(equals(item("flag"), True)), {"x": Thing(flag=False)}
    for _ in range(4):
        assert not made.check(shown)
    assert (told(made, "roots"), told(made, "held")) == (0, 0)


# Fails on 7a57238: Witnesses::record() counts before it knows the verdict. (It is also tried on every miss: nothing
# makes a root rest whose checks fail.)
def test_a_check_that_fails_is_not_counted_as_recorded() -> None:
    made, shown = checker(equals(item("flag"), True)), {"x": Thing(flag=False)}
    for _ in range(4):
        assert not made.check(shown)
    assert told(made, "recorded") == 0


@NEEDS_VERSIONS
def test_nothing_is_live_of_what_hangs_below_a_module() -> None:
    net = torch.nn.Linear(2, 2)
    weight = item("_parameters").child(Access.DICT_ITEM, "weight")
    made = checker(type_is(X, torch.nn.Linear), equals(item("training"), True), tensor_like(weight, net.weight))
    recorded(made, {"x": net})
    meaning = program_of(
        type_is(X, torch.nn.Linear), equals(item("training"), True), tensor_like(weight, net.weight)
    ).row_origins
    live = [str(meaning[row]) for row in told(made, "live_rows")]
    assert not [text for text in live if "L['x'].__dict__" in text]
    assert told(made, "facts") > 0
    assert told(made, "tensors") == 1


def test_the_collector_may_take_a_root_and_its_checker_together() -> None:
    """It calls what is to be called when a root dies after it has found both; the checker may be the first to go."""
    gc.collect()
    gc.freeze()  # everything else: going through it takes most of a second each time
    try:
        for _ in range(200):
            thing = Thing(flag=True)
            made = checker(equals(item("flag"), True))
            recorded(made, {"x": thing})
            thing.checker, thing.itself = made, thing  # type: ignore[attr-defined]
            holder = [made]
            weakref.finalize(thing, holder.clear)
            del thing, made, holder
            gc.collect()
    finally:
        gc.unfreeze()


def test_a_tensor_that_is_an_argument_is_live() -> None:
    thing, first = Thing(flag=True), torch.ones(3)
    set_ = (equals(item("flag"), True), tensor_like(Y, first))
    made, meaning = checker(*set_), program_of(*set_).row_origins
    recorded(made, {"x": thing, "y": first})
    assert str(set_[1]) in [str(meaning[row]) for row in told(made, "live_rows")]
    assert told(made, "tensors") == 0


def test_a_fresh_tensor_argument_costs_nothing_that_is_remembered() -> None:
    thing: Any = Thing(flag=True)
    made = recorded(
        checker(equals(item("flag"), True), tensor_like(Y, torch.ones(3))), {"x": thing, "y": torch.ones(3)}
    )
    for _ in range(3):
        assert held_by(made, {"x": thing, "y": torch.ones(3)})
    assert not holds(made, {"x": thing, "y": torch.ones(4)})


@NEEDS_VERSIONS
def test_a_module_that_changes_now_and_then_has_its_own_dict_repaired_alone() -> None:
    parts = [Thing(flag=True, calls=0) for _ in range(40)]
    guards = [equals(item("flag", item(f"part{i}")), True) for i in range(40)]
    thing: Any = Thing(**{f"part{i}": part for i, part in enumerate(parts)})
    made = recorded(checker(*guards), {"x": thing})
    before = made.witness
    assert before is not None
    for _ in range(10):
        parts[7].calls += 1
        assert held_by(made, {"x": thing})
        assert held_by(made, {"x": thing})  # one that changes on every call: test_moving_dicts.py
    after = made.witness
    assert after is not None
    assert after["repaired"] == before["repaired"] + 10
    assert [after[name] for name in ("roots", "facts", "tensors", "live", "recorded")] == [
        before[name] for name in ("roots", "facts", "tensors", "live", "recorded")
    ]
    assert holds(made, {"x": thing})
    assert told(made, "repaired") == after["repaired"]


def test_two_objects_are_remembered_side_by_side() -> None:
    made = checker(equals(item("flag"), True))
    one, two = Thing(flag=True), Thing(flag=True)
    recorded(made, {"x": one})
    recorded(made, {"x": two})
    assert told(made, "roots") == 2
    assert held_by(made, {"x": one}) and held_by(made, {"x": two})
    two.flag = False
    assert holds(made, {"x": one}) and not holds(made, {"x": two})
