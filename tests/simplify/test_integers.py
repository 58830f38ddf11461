"""What the simplifier knows of integers fits just the numbers that it says."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from unified_guards.guards import expressions
from unified_guards.guards.expressions import Op, read, term
from unified_guards.simplify import linear, ranges
from unified_guards.simplify.driver import simplify
from unified_guards.simplify.ranges import Integer, fits

from .making import A, B, C, about, holds, set_of

REACH = range(-7, 8)


def random_integer(rng: random.Random) -> Integer:
    """One that some number in reach fits."""
    while True:
        low, high = rng.choice([-math.inf, *REACH]), rng.choice([math.inf, *REACH])
        modulus = rng.choice([1, 1, 2, 3, 4, 6])
        found = ranges.integer(low, high, modulus, rng.randrange(modulus)) if low <= high else None
        if found is not None and numbers(found):
            return found


def numbers(found: Integer) -> list[int]:
    return [number for number in REACH if fits(number, found)]


def test_an_integer_fits_just_the_numbers_that_it_says() -> None:
    for low, high, modulus in itertools.product(REACH, REACH, range(1, 5)):
        for residue in range(modulus):
            found = ranges.integer(low, high, modulus, residue)
            expected = [number for number in REACH if low <= number <= high and number % modulus == residue]
            assert (numbers(found) if found else []) == expected


@pytest.mark.parametrize("seed", range(4))
def test_sets_of_integers_are_met_and_joined(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(1000):
        one, other = random_integer(rng), random_integer(rng)
        both = ranges.meet(one, other)
        assert (numbers(both) if both else []) == [number for number in numbers(one) if fits(number, other)]
        assert set(numbers(one)) | set(numbers(other)) <= set(numbers(ranges.join(one, other)))
        if ranges.within(one, other):
            assert set(numbers(one)) <= set(numbers(other))


UNARY = [Op.NEG, Op.ABS, Op.INVERT, Op.FLOOR, Op.NOT]
BINARY = [
    Op.ADD, Op.MUL, Op.FLOORDIV, Op.MOD, Op.MIN, Op.MAX, Op.POW, Op.BITAND, Op.BITOR, Op.BITXOR, Op.LSHIFT, Op.RSHIFT,
    Op.SUB, Op.LT, Op.LE, Op.GT, Op.GE, Op.EQ, Op.NE, Op.AND, Op.OR,
]  # fmt: skip


@pytest.mark.parametrize("op", [*UNARY, *BINARY, Op.IF], ids=lambda op: op.name)
def test_what_is_known_of_a_result_fits_every_result(op: Op) -> None:
    rng = random.Random(op.value)
    made = term(op, *map(read, (A, B, C)[: 1 if op in UNARY else 2 if op in BINARY else 3]))
    for _ in range(400):
        known = {source: random_integer(rng) for source in (A, B, C)}
        found = linear.Integers(known.get).value(made)
        for values in itertools.product(*(numbers(known[source]) for source in made.sources)):
            try:
                value = expressions.evaluate(made, dict(zip(made.sources, values, strict=True)).__getitem__)
            except (ArithmeticError, ValueError):
                assert found is None
            else:
                assert found is None or (type(value) in (int, bool) and fits(value, found)), (known, values)


def test_numbers_beyond_every_bound_are_no_trouble() -> None:
    far = 10**400
    guards = about(
        f"v0 < {far}; v0 * {far} * {far} > v1 + {far}; v0 ** 8 * v1 ** 8 * {2**127} ** 8 >= -1", None, A, B
    ).before
    values = {A: 3, B: far}
    assert holds(guards, values) is holds(simplify(set_of(*guards)).guard_set, values) is True
