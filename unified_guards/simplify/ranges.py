"""Sets of integers: bounds and a congruence, and what arithmetic makes of them.

An :class:`Integer` stands for every number that fits; the functions on it are sound: they give an Integer that fits
whatever Python would compute.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from unified_guards.guards.expressions import Op

#: A bound: an int, or an infinity.
Bound = float

INF = math.inf
#: A bound further out is widened, to this or to infinity. So no bound is too large for the double that it becomes when
#: it is computed together with an infinity.
FAR = 2**128
#: The highest exponent and the longest shift for which a result is computed.
_MOST_POWER, _MOST_SHIFT = 8, 64


class Integer(NamedTuple):
    """Every int between two bounds that leaves ``residue`` when divided by ``modulus``.

    A modulus of 0 says that it is exactly ``residue``; the bounds then say the same.
    """

    low: Bound
    high: Bound
    modulus: int
    residue: int


def exactly(number: int) -> Integer:
    """Just this number."""
    return Integer(number, number, 0, number)


def integer(low: Bound, high: Bound, modulus: int = 1, residue: int = 0) -> Integer | None:
    """The Integer with these bounds and this congruence; None when no number fits."""
    if modulus == 0:
        if not low <= residue <= high:
            return None
        if -FAR <= residue <= FAR:
            return Integer(residue, residue, 0, residue)
        modulus = 1
    low, high = _nearer_low(low), _nearer_high(high)
    if 1 < modulus <= FAR:
        residue %= modulus
        low += 0 if low == -INF else (residue - low) % modulus
        high -= 0 if high == INF else (high - residue) % modulus
    else:
        modulus, residue = 1, 0
    if low < high:
        return Integer(low, high, modulus, residue)
    return exactly(int(low)) if low == high and abs(low) <= FAR else None


def _nearer_low(low: Bound) -> Bound:
    return -INF if low < -FAR else min(low, FAR)


def _nearer_high(high: Bound) -> Bound:
    return INF if high > FAR else max(high, -FAR)


def some(low: Bound, high: Bound, modulus: int = 1, residue: int = 0) -> Integer:
    """:func:`integer`, where some number is known to fit."""
    found = integer(low, high, modulus, residue)
    return found if found is not None else ANY


ANY = Integer(-INF, INF, 1, 0)
EITHER = Integer(0, 1, 1, 0)  # a truth value
FALSE, TRUE = exactly(0), exactly(1)


# -- sets of numbers ---------------------------------------------------------------------------------------------------


def meet(one: Integer, other: Integer) -> Integer | None:
    """What fits both; None when nothing does."""
    low, high = max(one.low, other.low), min(one.high, other.high)
    if one.modulus == 1:
        return integer(low, high, other.modulus, other.residue)
    if other.modulus == 1:
        return integer(low, high, one.modulus, one.residue)
    if one.modulus == 0 or other.modulus == 0:
        known, also = (one, other) if one.modulus == 0 else (other, one)
        return known if fits(known.residue, also) else None
    common = math.gcd(one.modulus, other.modulus)
    if (one.residue - other.residue) % common:
        return None
    step = one.modulus // common
    both = step * other.modulus
    if both > FAR:
        return integer(
            low, high, max(one.modulus, other.modulus), max(one, other, key=lambda item: item.modulus).residue
        )
    # The Chinese remainder theorem: residue + modulus * t must leave the other residue.
    turns = (other.residue - one.residue) // common * pow(step, -1, other.modulus // common)
    turns %= other.modulus // common
    return integer(low, high, both, one.residue + one.modulus * turns)


def join(one: Integer, other: Integer) -> Integer:
    """What fits either."""
    modulus = math.gcd(one.modulus, other.modulus, one.residue - other.residue)
    return some(min(one.low, other.low), max(one.high, other.high), modulus, one.residue)


def fits(number: int, item: Integer) -> bool:
    """Whether ``item`` may be this number."""
    if item.modulus == 0:
        return number == item.residue
    return item.low <= number <= item.high and (number - item.residue) % item.modulus == 0


def within(item: Integer, region: Integer) -> bool:
    """Whether everything that fits ``item`` fits ``region``."""
    if item.modulus == 0:
        return fits(item.residue, region)
    if item.low < region.low or item.high > region.high or region.modulus == 0:
        return False
    return item.modulus % region.modulus == 0 and (item.residue - region.residue) % region.modulus == 0


def truth(item: Integer) -> bool | None:
    """Whether it counts as true; None when it may or may not."""
    if item.modulus == 0:
        return item.residue != 0
    return None if fits(0, item) else True


# -- arithmetic --------------------------------------------------------------------------------------------------------


def sum_of(one: Integer, other: Integer) -> Integer:
    modulus = math.gcd(one.modulus, other.modulus)
    return some(one.low + other.low, one.high + other.high, modulus, one.residue + other.residue)


def _negative(one: Integer) -> Integer:
    return some(-one.high, -one.low, one.modulus, -one.residue)


def _product(one: Bound, other: Bound) -> Bound:
    return 0 if one == 0 or other == 0 else one * other


def product_of(one: Integer, other: Integer) -> Integer:
    corners = [_product(a, b) for a in one[:2] for b in other[:2]]
    (m, r), (n, s) = one[2:], other[2:]
    return some(min(corners), max(corners), math.gcd(m * n, m * s, n * r), r * s)


def _quotient(one: Bound, other: Bound) -> Bound:
    """``one // other`` for two bounds. Both may be infinite; the divisor is positive."""
    if abs(one) == INF:
        return one
    return (0 if one >= 0 else -1) if other == INF else one // other


def _over(one: Integer, other: Integer) -> Integer | None:
    if fits(0, other):
        return None
    if other.high < 0:
        one, other = _negative(one), _negative(other)
    if other.low <= 0:
        return ANY  # not zero, but of either sign
    corners = [_quotient(a, b) for a in one[:2] for b in other[:2]]
    divisor = other.residue
    if other.modulus == 0 and one.modulus % divisor == 0:
        return some(min(corners), max(corners), one.modulus // divisor, one.residue // divisor)
    return some(min(corners), max(corners))


def _remainder(one: Integer, other: Integer) -> Integer | None:
    if fits(0, other):
        return None
    modulus = math.gcd(one.modulus, other.modulus, other.residue)  # what divides every multiple of the divisor
    if other.low <= 0:
        furthest = max(abs(other.low), abs(other.high)) - 1
        return some(-furthest, furthest, modulus, one.residue)
    if one.low >= 0 and one.high < other.low:
        return one
    high = min(other.high - 1, one.high) if one.low >= 0 else other.high - 1
    if modulus == 0:  # both are known
        return exactly(one.residue % other.residue)
    return some(0, high, modulus, one.residue)


def _least(one: Integer, other: Integer) -> Integer:
    both = join(one, other)
    return some(both.low, min(one.high, other.high), both.modulus, both.residue)


def _greatest(one: Integer, other: Integer) -> Integer:
    return _negative(_least(_negative(one), _negative(other)))


def _size(one: Integer) -> Integer:
    if one.low >= 0:
        return one
    either = join(one, _negative(one))
    return some(0, either.high, either.modulus, either.residue)


def _power(one: Integer, other: Integer) -> Integer | None:
    if other.modulus != 0 or not 0 <= other.residue <= _MOST_POWER:
        return None  # a negative power is a float
    found = TRUE
    for _ in range(other.residue):
        found = product_of(found, one)
    even = other.residue % 2 == 0
    return some(max(found.low, 0), found.high, found.modulus, found.residue) if even else found


def _and(one: Integer, other: Integer) -> Integer:
    return some(0, min(one.high, other.high)) if one.low >= 0 and other.low >= 0 else ANY


def _or(one: Integer, other: Integer) -> Integer:
    return some(0, INF) if one.low >= 0 and other.low >= 0 else ANY


def _shifted(by: Callable[[Integer, Integer], Integer | None]) -> Callable[[Integer, Integer], Integer | None]:
    def shift(one: Integer, other: Integer) -> Integer | None:
        if other.modulus != 0 or not 0 <= other.residue <= _MOST_SHIFT:
            return None  # Python raises for a negative shift, and for a very long one
        return by(one, exactly(2**other.residue))

    return shift


def _folded(by: Callable[[Integer, Integer], Integer | None]) -> Callable[..., Integer | None]:
    def fold(*args: Integer) -> Integer | None:
        found: Integer | None = args[0]
        for arg in args[1:]:
            found = None if found is None else by(found, arg)
        return found

    return fold


TRANSFER: dict[Op, Callable[..., Integer | None]] = {
    Op.ADD: _folded(sum_of),
    Op.MUL: _folded(product_of),
    Op.NEG: _negative,
    Op.FLOORDIV: _over,
    Op.MOD: _remainder,
    Op.POW: _power,
    Op.MIN: _folded(_least),
    Op.MAX: _folded(_greatest),
    Op.SYM_MIN: _folded(_least),
    Op.SYM_MAX: _folded(_greatest),
    Op.ABS: _size,
    Op.BITAND: _and,
    Op.BITOR: _or,
    Op.BITXOR: _or,
    Op.INVERT: lambda one: sum_of(_negative(one), exactly(-1)),
    Op.LSHIFT: _shifted(product_of),
    Op.RSHIFT: _shifted(_over),
    **dict.fromkeys((Op.FLOOR, Op.CEIL, Op.TRUNC, Op.ROUND), lambda one: one),
    Op.DENSE: lambda *_: EITHER,
}


def compared(op: Op, difference: Integer) -> Integer:
    """The truth of a comparison, from what is known of the difference: its left side minus its right side."""
    if op is Op.LT or op is Op.GE:
        below = _order(difference.high < 0, difference.low >= 0)
        return below if op is Op.LT else negated(below)
    if op is Op.LE or op is Op.GT:
        below = _order(difference.high <= 0, difference.low > 0)
        return below if op is Op.LE else negated(below)
    equal = _order(difference == FALSE, not fits(0, difference))
    return equal if op is Op.EQ else negated(equal)


def _order(holds: bool, fails: bool) -> Integer:
    return TRUE if holds else FALSE if fails else EITHER


def negated(item: Integer) -> Integer:
    known = truth(item)
    return EITHER if known is None else FALSE if known else TRUE
