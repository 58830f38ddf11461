"""What ``stats()`` and ``explain()`` say of the witness."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import unified_guards

from ..guards import checker, equals, item
from .building import VERSIONED, Thing, recorded, told
from .test_switched_off import compiled_net


def test_stats_count_what_was_held_repaired_and_recorded() -> None:
    before = unified_guards.stats()
    thing: Any = Thing(flag=True, other=0)
    made = recorded(checker(equals(item("flag"), True)), {"x": thing})
    thing.other = 1
    assert made.check({"x": thing})
    after = unified_guards.stats()
    assert after.witness_recorded - before.witness_recorded == told(made, "recorded") == 1
    assert after.witness_held - before.witness_held == told(made, "held")
    assert after.witness_repaired - before.witness_repaired == told(made, "repaired")
    assert told(made, "held") + told(made, "repaired") == 1
    assert f"hits: {after.witness_held:,} by memory alone, {after.witness_repaired:,} after repairing it" in str(after)
    assert (after.witness_off is None) is VERSIONED


def test_explain_says_what_is_remembered() -> None:
    with unified_guards.installed():
        _, compiled = compiled_net()
        (frame,) = unified_guards.explain(compiled).frames
    assert frame.roots == 1
    assert frame.tensors == 2
    assert frame.facts > 10
    assert 0 < frame.witness_nbytes < frame.program_nbytes
    assert any(str(live).startswith("L['x']") for live in frame.live)
    assert (
        f"  remembers of one object: {frame.facts} facts and 2 tensors to compare, in {frame.witness_nbytes:,} bytes; "
        f"evaluates {len(frame.live)} instructions each time" in frame.summary().splitlines()
    )


def test_explain_says_of_how_many_objects() -> None:
    with unified_guards.installed():
        layers = [torch.nn.Linear(2, 2) for _ in range(3)]
        run = torch.compile(lambda layer, x: layer(x), backend="eager")
        for _ in range(3):
            for layer in layers:
                run(layer, torch.ones(1, 2))
        (frame,) = unified_guards.explain(run).frames
    assert frame.roots == 3
    assert "remembers of 3 objects: " in frame.summary()


def test_explain_says_nothing_of_it_when_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_GUARDS_WITNESS", "0")
    with unified_guards.installed():
        _, compiled = compiled_net()
        (frame,) = unified_guards.explain(compiled).frames
    assert (frame.roots, frame.facts, frame.tensors, frame.live, frame.witness_nbytes) == (0, 0, 0, (), 0)
    assert "remembers" not in frame.summary()
