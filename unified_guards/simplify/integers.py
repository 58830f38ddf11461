"""What is known of an integer that was not computed: bounds and a congruence, and what follows for expressions.

An :class:`Integer` stands for every number that fits; the functions on it are sound: they give an Integer that fits
whatever Python would compute. :class:`Integers` collects what guards say and evaluates terms over it. A term has a
value there only when evaluating it raises nothing and every number in it is an int or a bool, whatever the frame.
Entry point: :class:`Integers`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

from unified_guards.guards.expressions import COMPARISONS, Op, Term, term
from unified_guards.guards.ir import Source

#: A bound: an int, or an infinity.
Bound = float

_INF = math.inf
#: Bounds beyond are widened to it or to infinity, so that they never overflow a double when they meet an infinity.
_FAR = 2**128
#: The highest exponent and the longest shift that are looked into.
_MOST_POWER, _MOST_SHIFT = 8, 64
#: The most terms that a product of two sums is distributed into.
_MOST_PARTS = 64


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
    """What fits all of this; None when nothing does."""
    if modulus == 0:
        if not low <= residue <= high:
            return None
        if -_FAR <= residue <= _FAR:
            return Integer(residue, residue, 0, residue)
        modulus = 1
    low, high = _nearer_low(low), _nearer_high(high)
    if 1 < modulus <= _FAR:
        residue %= modulus
        low += 0 if low == -_INF else (residue - low) % modulus
        high -= 0 if high == _INF else (high - residue) % modulus
    else:
        modulus, residue = 1, 0
    if low < high:
        return Integer(low, high, modulus, residue)
    return exactly(int(low)) if low == high and abs(low) <= _FAR else None


def _nearer_low(low: Bound) -> Bound:
    return -_INF if low < -_FAR else min(low, _FAR)


def _nearer_high(high: Bound) -> Bound:
    return _INF if high > _FAR else max(high, -_FAR)


def _some(low: Bound, high: Bound, modulus: int = 1, residue: int = 0) -> Integer:
    """:func:`integer`, where something is known to fit."""
    found = integer(low, high, modulus, residue)
    return found if found is not None else ANY


ANY = Integer(-_INF, _INF, 1, 0)
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
    if both > _FAR:
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
    return _some(min(one.low, other.low), max(one.high, other.high), modulus, one.residue)


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


def _plus(one: Integer, other: Integer) -> Integer:
    modulus = math.gcd(one.modulus, other.modulus)
    return _some(one.low + other.low, one.high + other.high, modulus, one.residue + other.residue)


def _negative(one: Integer) -> Integer:
    return _some(-one.high, -one.low, one.modulus, -one.residue)


def _product(one: Bound, other: Bound) -> Bound:
    return 0 if one == 0 or other == 0 else one * other


def _times(one: Integer, other: Integer) -> Integer:
    corners = [_product(a, b) for a in one[:2] for b in other[:2]]
    (m, r), (n, s) = one[2:], other[2:]
    return _some(min(corners), max(corners), math.gcd(m * n, m * s, n * r), r * s)


def _quotient(one: Bound, other: Bound) -> Bound:
    """``one // other`` at a corner: a positive divisor, possibly infinite numbers."""
    if abs(one) == _INF:
        return one
    return (0 if one >= 0 else -1) if other == _INF else one // other


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
        return _some(min(corners), max(corners), one.modulus // divisor, one.residue // divisor)
    return _some(min(corners), max(corners))


def _remainder(one: Integer, other: Integer) -> Integer | None:
    if fits(0, other):
        return None
    modulus = math.gcd(one.modulus, other.modulus, other.residue)  # what divides every multiple of the divisor
    if other.low <= 0:
        furthest = max(abs(other.low), abs(other.high)) - 1
        return _some(-furthest, furthest, modulus, one.residue)
    if one.low >= 0 and one.high < other.low:
        return one
    high = min(other.high - 1, one.high) if one.low >= 0 else other.high - 1
    if modulus == 0:  # both are known
        return exactly(one.residue % other.residue)
    return _some(0, high, modulus, one.residue)


def _least(one: Integer, other: Integer) -> Integer:
    both = join(one, other)
    return _some(both.low, min(one.high, other.high), both.modulus, both.residue)


def _greatest(one: Integer, other: Integer) -> Integer:
    return _negative(_least(_negative(one), _negative(other)))


def _size(one: Integer) -> Integer:
    if one.low >= 0:
        return one
    either = join(one, _negative(one))
    return _some(0, either.high, either.modulus, either.residue)


def _power(one: Integer, other: Integer) -> Integer | None:
    if other.modulus != 0 or not 0 <= other.residue <= _MOST_POWER:
        return None  # a negative power is a float
    found = TRUE
    for _ in range(other.residue):
        found = _times(found, one)
    even = other.residue % 2 == 0
    return _some(max(found.low, 0), found.high, found.modulus, found.residue) if even else found


def _and(one: Integer, other: Integer) -> Integer:
    return _some(0, min(one.high, other.high)) if one.low >= 0 and other.low >= 0 else ANY


def _or(one: Integer, other: Integer) -> Integer:
    return _some(0, _INF) if one.low >= 0 and other.low >= 0 else ANY


def _shifted(by: Callable[[Integer, Integer], Integer | None]) -> Callable[[Integer, Integer], Integer | None]:
    def shift(one: Integer, other: Integer) -> Integer | None:
        if other.modulus != 0 or not 0 <= other.residue <= _MOST_SHIFT:
            return None  # by less than nothing is an error, by very much another one
        return by(one, exactly(2**other.residue))

    return shift


def _folded(by: Callable[[Integer, Integer], Integer | None]) -> Callable[..., Integer | None]:
    def fold(*args: Integer) -> Integer | None:
        found: Integer | None = args[0]
        for arg in args[1:]:
            found = None if found is None else by(found, arg)
        return found

    return fold


_TRANSFER: dict[Op, Callable[..., Integer | None]] = {
    Op.ADD: _folded(_plus),
    Op.MUL: _folded(_times),
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
    Op.INVERT: lambda one: _plus(_negative(one), exactly(-1)),
    Op.LSHIFT: _shifted(_times),
    Op.RSHIFT: _shifted(_over),
    **dict.fromkeys((Op.FLOOR, Op.CEIL, Op.TRUNC, Op.ROUND), lambda one: one),
    Op.DENSE: lambda *_: EITHER,
}


def _compared(op: Op, difference: Integer) -> Integer:
    """A comparison of two sides, of which the difference is known, with the right one taken from the left one."""
    if op is Op.LT or op is Op.GE:
        below = _order(difference.high < 0, difference.low >= 0)
        return below if op is Op.LT else _not(below)
    if op is Op.LE or op is Op.GT:
        below = _order(difference.high <= 0, difference.low > 0)
        return below if op is Op.LE else _not(below)
    equal = _order(difference == FALSE, not fits(0, difference))
    return equal if op is Op.EQ else _not(equal)


def _order(holds: bool, fails: bool) -> Integer:
    return TRUE if holds else FALSE if fails else EITHER


def _not(item: Integer) -> Integer:
    known = truth(item)
    return EITHER if known is None else FALSE if known else TRUE


# -- linear combinations -----------------------------------------------------------------------------------------------


class Linear(NamedTuple):
    """A constant and a multiple of each of some other terms."""

    constant: int
    parts: dict[Term, int]


class Constraint(NamedTuple):
    """What a comparison says: that the value of a form lies in a region, or that it does not."""

    form: Form
    region: Integer
    excluded: bool

    def follows_from(self, value: Integer) -> bool:
        """Whether it holds for everything that fits ``value``."""
        return meet(value, self.region) is None if self.excluded else within(value, self.region)

    def contradicts(self, other: Constraint) -> bool:
        """Whether nothing satisfies both."""
        if self.form != other.form or (self.excluded and other.excluded):
            return False
        if self.excluded or other.excluded:
            outside, inside = (self, other) if self.excluded else (other, self)
            return within(inside.region, outside.region)
        return meet(self.region, other.region) is None

    @property
    def weakness(self) -> tuple[int, Bound]:
        """Sorts those of one form so that the weaker of two comes after the one that implies it."""
        low, high, modulus, _ = self.region
        if self.excluded:
            return (4, low)
        if modulus != 1:
            return (0, 0) if modulus == 0 else (1, -modulus)
        return (2, -low) if low > -_INF else (3, high)


#: A combination without its constant, divided by what all multiples have in common: one term, or terms and multiples.
Form = Term | frozenset[tuple[Term, int]]


class Integers:
    """What is known of the integers of one set of guards.

    Args:
        leaf: what every source's value is, or None when that may be no int.
    """

    def __init__(self, leaf: Callable[[Source], Integer | None]) -> None:
        self._leaf = leaf
        self._facts: dict[Form, Integer] = {}
        self._values: dict[Term, Integer | None] = {}
        self._linears: dict[Term, Linear | None] = {}
        self._serial: dict[Term, int] = {}

    def learn(self, form: Form, value: Integer) -> None:
        """Notes what the value of a form is. It has to fit what :meth:`of_form` gave.

        What was computed before stays valid; :meth:`look_again` has it computed anew.
        """
        self._facts[form] = value

    def look_again(self) -> None:
        """Forgets what was computed from less than is known now."""
        self._values.clear()
        self._linears.clear()

    # -- values ----------------------------------------------------------------------------------------------------

    def value(self, item: Term) -> Integer | None:
        """What the value of a term is; None when it may be no integer, or may raise."""
        if item in self._values:
            return self._values[item]
        found = self._values[item] = self._value(item)
        return found

    def _value(self, item: Term) -> Integer | None:
        op = item.op
        if op in _LINEAR:
            linear = self.linear(item)
            return None if linear is None else self.of_linear(linear)
        if op in COMPARISONS:
            difference = self.difference(item)
            return None if difference is None else _compared(op, self.of_linear(difference))
        if op is Op.CONST:
            return exactly(int(item.value)) if _is_number(item) else None
        make = _LAZY.get(op)
        return self._as_known(item, make(self, item) if make is not None else self._transferred(item))

    def _as_known(self, item: Term, found: Integer | None) -> Integer | None:
        fact = self._facts.get(item)
        return found if fact is None or found is None else meet(found, fact) or found

    def _source(self, item: Term) -> Integer | None:
        return self._leaf(item.value)

    def _transferred(self, item: Term) -> Integer | None:
        transfer = _TRANSFER.get(item.op)
        if transfer is None:
            return None
        args = []
        for arg in item.args:
            value = self.value(arg)
            if value is None:
                return None
            args.append(value)
        return transfer(*args)

    def _negated(self, item: Term) -> Integer | None:
        value = self.value(item.args[0])
        return None if value is None else _not(value)

    def _conditional(self, item: Term) -> Integer | None:
        condition, then, other = item.args
        value = self.value(condition)
        if value is None:
            return None
        known = truth(value)
        sides = [self.value(side) for side, taken in ((then, known is not False), (other, not known)) if taken]
        found = sides[0]
        for side in sides[1:]:
            found = None if found is None or side is None else join(found, side)
        return found

    def _logical(self, item: Term) -> Integer | None:
        """The first argument that settles it, else the last one; what comes after is never evaluated."""
        settles = item.op is Op.OR
        found: Integer | None = None
        for arg in item.args:
            value = self.value(arg)
            if value is None:
                return None
            known = truth(value)
            if known is settles:
                return _settled(found, value, settles)
            if known is None or arg is item.args[-1]:
                found = value if found is None else join(found, value)
        return found

    # -- linear combinations ---------------------------------------------------------------------------------------

    def linear(self, item: Term) -> Linear | None:
        """The term as a linear combination; None when it may be no integer, or may raise."""
        if item in self._linears:
            return self._linears[item]
        found = self._linears[item] = self._linear(item)
        return found

    def _linear(self, item: Term) -> Linear | None:
        op = item.op
        if op is Op.CONST:
            return Linear(int(item.value), {}) if _is_number(item) else None
        if op is Op.MUL:
            return self._product(item)
        if op in _LINEAR:
            return self._sum(item)
        return None if self.value(item) is None else Linear(0, {item: 1})

    def _sum(self, item: Term) -> Linear | None:
        """Of as many terms as there may be: a sum over all inputs is one deep tree."""
        constant, parts = 0, dict[Term, int]()
        waiting = [(item, 1)]
        while waiting:
            found, sign = waiting.pop()
            if found.op in _SIGNS:
                signs = _SIGNS[found.op]
                waiting += [(arg, sign * signs[at > 0]) for at, arg in reversed([*enumerate(found.args)])]
                continue
            side = self.linear(found)
            if side is None:
                return None
            constant += sign * side.constant
            for part, count in side.parts.items():
                parts[part] = parts.get(part, 0) + sign * count
        return Linear(constant, {part: count for part, count in parts.items() if count})

    def _product(self, item: Term) -> Linear | None:
        found = Linear(1, {})
        for arg in item.args:
            side = self.linear(arg)
            if side is None:
                return None
            if len(found.parts) * len(side.parts) > _MOST_PARTS:
                self._values[item] = self._as_known(item, self._transferred(item))
                return Linear(0, {item: 1})
            found = self._multiplied(found, side)
        return found if _is_near(found) else None

    def _multiplied(self, one: Linear, other: Linear) -> Linear:
        """Distributed, so that the same product is written the same way: ``a * (b + 1)`` is ``a * b + a``."""
        parts: dict[Term, int] = {}
        for (a, times), (b, by) in itertools.product(one.parts.items(), other.parts.items()):
            product = self._monomial(a, b)
            parts[product] = parts.get(product, 0) + times * by
        for linear, factor in ((one, other.constant), (other, one.constant)):
            for part, count in linear.parts.items() if factor else ():
                parts[part] = parts.get(part, 0) + count * factor
        return Linear(one.constant * other.constant, {part: count for part, count in parts.items() if count})

    def _monomial(self, one: Term, other: Term) -> Term:
        factors = [*(one.args if one.op is Op.MUL else (one,)), *(other.args if other.op is Op.MUL else (other,))]
        made = term(Op.MUL, *sorted(factors, key=self._number))
        if made not in self._values:
            self._values[made] = self._as_known(made, self._transferred(made))
        return made

    def _number(self, item: Term) -> int:
        return self._serial.setdefault(item, len(self._serial))

    def difference(self, comparison: Term) -> Linear | None:
        """The left side without the right one."""
        left, right = map(self.linear, comparison.args)
        return None if left is None or right is None else _subtracted(left, right)

    def of_linear(self, linear: Linear) -> Integer:
        """What the value of a combination is."""
        found = exactly(linear.constant)
        for part, count in linear.parts.items():
            value = self._values.get(part) or self.value(part)
            if value is not None:  # always: a combination has only parts with a value
                found = _plus(found, value if count == 1 else _times(value, exactly(count)))
        if len(linear.parts) > 1:
            form, factor = self.normal(linear)
            fact = self._facts.get(form)
            if fact is not None:
                found = meet(found, _plus(_times(fact, exactly(factor)), exactly(linear.constant))) or found
        return found

    def normal(self, linear: Linear) -> tuple[Form, int]:
        """The form of a combination of at least one term, and what the form is multiplied by in it."""
        parts = linear.parts
        if len(parts) == 1:
            ((only, count),) = parts.items()
            return only, count
        factor = math.gcd(*parts.values())
        if parts[min(parts, key=self._number)] < 0:
            factor = -factor
        return frozenset((part, count // factor) for part, count in parts.items()), factor

    # -- constraints -----------------------------------------------------------------------------------------------

    def constraint(self, item: Term) -> Constraint | None:
        """What a term says when it is true, if that is all it says: None for anything but a comparison of integers."""
        op = item.op
        if op not in COMPARISONS:
            return None
        if op is Op.EQ:
            divisible = self._divisible(item)
            if divisible is not None:
                return divisible
        difference = self.difference(item)
        return None if difference is None else self._bounded(difference, *_DIFFERENCE[op], op is Op.NE)

    def _divisible(self, item: Term) -> Constraint | None:
        """``a % 4 == 1``, in terms of the form of a."""
        side, number = item.args if item.args[1].op is Op.CONST else item.args[::-1]
        if side.op is not Op.MOD or number.op is not Op.CONST or side.args[1].op is not Op.CONST:
            return None
        inner, modulus, residue = self.linear(side.args[0]), side.args[1].value, number.value
        if inner is None or not inner.parts or not (type(modulus) is type(residue) is int and 0 <= residue < modulus):
            return None
        form, factor = self.normal(inner)
        residue -= inner.constant
        common = math.gcd(factor, modulus)
        modulus //= common
        if residue % common or not 1 < modulus <= _FAR:
            return None
        residue = residue // common * pow(factor // common, -1, modulus) % modulus
        return Constraint(form, Integer(-_INF, _INF, modulus, residue), False)

    def _bounded(self, linear: Linear, low: Bound, high: Bound, excluded: bool) -> Constraint | None:
        """That a combination lies between two bounds, or not: said of its form, or of what that is a quotient of."""
        if not linear.parts:
            return None
        form, factor = self.normal(linear)
        low, high = low - linear.constant, high - linear.constant
        if factor < 0:
            low, high, factor = -high, -low, -factor
        low = low if low == -_INF else -(-low // factor)
        high = high if high == _INF else high // factor
        if isinstance(form, Term) and form.op is Op.FLOORDIV and form.args[1].op is Op.CONST:
            inner, divisor = self.linear(form.args[0]), form.args[1].value
            if inner is not None and type(divisor) is int and 0 < divisor <= _FAR:
                return self._bounded(inner, low * divisor, high * divisor + divisor - 1, excluded)
        if not all(abs(bound) == _INF or abs(bound) < _FAR for bound in (low, high)):
            return None  # such a region would be widened
        region = integer(low, high)
        return None if region is None else Constraint(form, region, excluded)

    def of_form(self, form: Form) -> Integer:
        """What the value of a form is."""
        parts = {form: 1} if isinstance(form, Term) else dict(form)
        return self.of_linear(Linear(0, parts))


#: What the difference of the sides of a comparison lies between; for NE, what it does not.
_DIFFERENCE: dict[Op, tuple[Bound, Bound]] = {
    Op.EQ: (0, 0),
    Op.NE: (0, 0),
    Op.LT: (-_INF, -1),
    Op.LE: (-_INF, 0),
    Op.GT: (1, _INF),
    Op.GE: (0, _INF),
}
#: The signs of the first argument and of every other one in a sum.
_SIGNS = {Op.ADD: (1, 1), Op.SUB: (1, -1), Op.NEG: (-1, -1)}
_LINEAR = frozenset({*_SIGNS, Op.MUL})
_LAZY: dict[Op, Callable[[Integers, Term], Integer | None]] = {
    Op.SOURCE: Integers._source,
    Op.NOT: Integers._negated,
    Op.IF: Integers._conditional,
    Op.AND: Integers._logical,
    Op.OR: Integers._logical,
}


def _is_number(item: Term) -> bool:
    """Whether a constant is an integer, and one that can be computed with."""
    return type(item.value) is not float and abs(item.value) <= _FAR


def _is_near(linear: Linear) -> bool:
    return abs(linear.constant) <= _FAR and all(abs(count) <= _FAR for count in linear.parts.values())


def _settled(before: Integer | None, value: Integer, settles: bool) -> Integer:
    """The value of a chain that stops at ``value`` at the latest, which is false for "and" and true for "or"."""
    if not settles or before is None:
        return value
    both = join(before, value)
    return both if both.low < 0 else _some(1, both.high, both.modulus, both.residue)


def _subtracted(one: Linear, other: Linear) -> Linear:
    parts = dict(one.parts)
    for part, count in other.parts.items():
        left = parts.get(part, 0) - count
        if left:
            parts[part] = left
        else:
            del parts[part]
    return Linear(one.constant - other.constant, parts)
