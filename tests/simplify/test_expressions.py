"""Expressions mean the same before and after, on all small numbers."""

from __future__ import annotations

import collections
import random

import pytest

from unified_guards.simplify.driver import simplify

from .making import INTS, SYMBOLS, Expressions, agree_on_small_numbers, set_of


@pytest.mark.parametrize("seed", range(12))
def test_random_expressions_hold_on_the_same_numbers(seed: int) -> None:
    rng = random.Random(seed)
    held = 0
    rules: collections.Counter[str] = collections.Counter()
    for _ in range(100):
        sources = list(SYMBOLS) if rng.random() < 0.2 else rng.sample(list(SYMBOLS), 2)
        guards = [INTS[0], *Expressions(rng, sources).guards()]
        found = simplify(set_of(*guards))
        held += agree_on_small_numbers(guards, found.guard_set)
        rules.update(each.rule for each in found.removed)
    assert held > 100
    assert len(rules) >= 4, rules  # otherwise this tests nothing
