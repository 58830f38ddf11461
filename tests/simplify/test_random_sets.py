"""Random guard sets hold on the same frames before and after."""

from __future__ import annotations

import collections
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from unified_guards.guards import semantics
from unified_guards.guards.ir import GuardSet
from unified_guards.lower.rows import lower, make_checker
from unified_guards.simplify.driver import RULES, simplify

from .making import TABLE, random_guards, set_of

VALUES: dict[str, Callable[[random.Random], Any]] = {
    "x": lambda rng: torch.empty(rng.choice([2, 4, 8]), rng.choice([2, 3])),
    "y": lambda rng: torch.empty(rng.choice([2, 4, 8])),
    "z": lambda rng: rng.choice([torch.empty(4), torch.empty(2, 4), torch.empty(2, 4).t(), None]),
    "n": lambda rng: rng.choice([0, 2, 3, 4, True, 4.0, math.nan, "text", None]),
    "m": lambda rng: rng.choice([0, 1, 2, 4, (1, "two"), TABLE, None]),
    "d": lambda rng: {key: rng.choice([3, None]) for key in rng.choice(["ab", "ba", "abc", ""])},
    "e": lambda rng: rng.choice([{"a": 3}, collections.OrderedDict(a=None, b=3), [3], None]),
}


def random_frame(rng: random.Random) -> dict[str, Any]:
    """Locals of which some are one object, and some may be missing."""
    found = {name: make(rng) for name, make in VALUES.items() if rng.random() < 0.97}
    if rng.random() < 0.6:
        found["y"] = found.get("x")
    if rng.random() < 0.6:
        found["e"] = found.get("d")
    return found


def verdicts(guard_set: GuardSet, frames: list[dict[str, Any]]) -> list[bool]:
    checker = make_checker(lower(guard_set))
    found = [checker.check(frame) for frame in frames]
    assert found == [semantics.evaluate(guard_set, frame) for frame in frames], guard_set
    return found


@pytest.mark.parametrize("seed", range(8))
def test_random_sets_hold_on_the_same_frames(seed: int) -> None:
    """Guards that a frame passes, of which the simplifier makes fewer: no other frame may tell the difference."""
    rng = random.Random(seed)
    rules: collections.Counter[str] = collections.Counter()
    held = 0
    for _ in range(60):
        frames = [random_frame(rng) for _ in range(40)]
        guards = [each for _ in range(4) for each in random_guards(rng)]
        passed = [each for each in guards if semantics.evaluate(set_of(each), frames[0])]
        for chosen in (passed, guards[:6]):
            guard_set = set_of(*chosen)
            found = simplify(guard_set)
            rules.update(each.rule for each in found.removed)
            expected = verdicts(guard_set, frames)
            assert verdicts(found.guard_set, frames) == expected, (str(guard_set), found.removed)
            held += sum(expected)
    assert held >= 60
    assert len(rules) >= len(RULES) - 4, rules
