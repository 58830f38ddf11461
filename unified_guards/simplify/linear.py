"""What is known of the integers of one set of guards: the value of a term, and linear combinations of terms.

:class:`Integers` collects what guards say and evaluates terms over it. A term has a value there only when evaluating it
raises nothing and every number in it is an int or a bool, whatever the frame. Entry point: :class:`Integers`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

from unified_guards.guards.expressions import COMPARISONS, Op, Term, term
from unified_guards.guards.ir import Source
from unified_guards.simplify.ranges import (
    FAR,
    INF,
    TRANSFER,
    Bound,
    Integer,
    compared,
    exactly,
    integer,
    join,
    meet,
    negated,
    product_of,
    some,
    sum_of,
    truth,
    within,
)

#: The most terms that a product of two sums is distributed into.
_MOST_PARTS = 64


class Linear(NamedTuple):
    """A sum: a constant, and a multiple of each of some terms."""

    constant: int
    parts: dict[Term, int]


class Constraint(NamedTuple):
    """What a comparison says: the value of a form lies in a region or, if ``excluded``, outside of it."""

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
        """A sort key: among constraints on one form, each comes after those that imply it."""
        low, high, modulus, _ = self.region
        if self.excluded:
            return (4, low)
        if modulus != 1:
            return (0, 0) if modulus == 0 else (1, -modulus)
        return (2, -low) if low > -INF else (3, high)


#: A combination without its constant, divided by the greatest common divisor of its multiples: a single term, or pairs
#: of a term and its multiple.
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
        """Notes what the value of a form is. The value has to lie within what :meth:`of_form` gave.

        Values that were computed before stay right, but may be wider than need be: see :meth:`look_again`.
        """
        self._facts[form] = value

    def look_again(self) -> None:
        """Forgets computed values, so that they are computed again from all that is known now."""
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
            return None if difference is None else compared(op, self.of_linear(difference))
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
        transfer = TRANSFER.get(item.op)
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
        return None if value is None else negated(value)

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
        """The value of ``and`` or ``or``: of the first argument that decides it, else of the last one.

        Python does not evaluate the arguments after that, so they may raise.
        """
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
        """Walks the tree with a list of its own: a sum over all inputs may be deeper than Python's stack."""
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
        """The left side minus the right side, as a combination; None when a side may be no integer, or may raise."""
        left, right = map(self.linear, comparison.args)
        return None if left is None or right is None else _subtracted(left, right)

    def of_linear(self, linear: Linear) -> Integer:
        """What the value of a combination is."""
        found = exactly(linear.constant)
        for part, count in linear.parts.items():
            value = self._values.get(part) or self.value(part)
            if value is not None:  # always: a combination has only parts with a value
                found = sum_of(found, value if count == 1 else product_of(value, exactly(count)))
        if len(linear.parts) > 1:
            form, factor = self.normal(linear)
            fact = self._facts.get(form)
            if fact is not None:
                found = meet(found, sum_of(product_of(fact, exactly(factor)), exactly(linear.constant))) or found
        return found

    def normal(self, linear: Linear) -> tuple[Form, int]:
        """The form of a combination of at least one term, and the factor that gives the combination from the form."""
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
        """The constraint that holds exactly when a term is true; None for anything but a comparison of integers."""
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
        """The constraint on the form of ``a`` that ``a % 4 == 1`` means; None for a term of another shape."""
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
        if residue % common or not 1 < modulus <= FAR:
            return None
        residue = residue // common * pow(factor // common, -1, modulus) % modulus
        return Constraint(form, Integer(-INF, INF, modulus, residue), False)

    def _bounded(self, linear: Linear, low: Bound, high: Bound, excluded: bool) -> Constraint | None:
        """The constraint that a combination lies between two bounds or, if ``excluded``, outside of them.

        The constraint is on the combination's form. Where the form is a quotient, it is on what is divided.
        """
        if not linear.parts:
            return None
        form, factor = self.normal(linear)
        low, high = low - linear.constant, high - linear.constant
        if factor < 0:
            low, high, factor = -high, -low, -factor
        low = low if low == -INF else -(-low // factor)
        high = high if high == INF else high // factor
        if isinstance(form, Term) and form.op is Op.FLOORDIV and form.args[1].op is Op.CONST:
            inner, divisor = self.linear(form.args[0]), form.args[1].value
            if inner is not None and type(divisor) is int and 0 < divisor <= FAR:
                return self._bounded(inner, low * divisor, high * divisor + divisor - 1, excluded)
        if not all(abs(bound) == INF or abs(bound) < FAR for bound in (low, high)):
            return None  # a region with such bounds would be widened, and say something else
        region = integer(low, high)
        return None if region is None else Constraint(form, region, excluded)

    def of_form(self, form: Form) -> Integer:
        """What the value of a form is."""
        parts = {form: 1} if isinstance(form, Term) else dict(form)
        return self.of_linear(Linear(0, parts))


#: The bounds of the left side minus the right one where a comparison holds; for NE, the bounds where it does not.
_DIFFERENCE: dict[Op, tuple[Bound, Bound]] = {
    Op.EQ: (0, 0),
    Op.NE: (0, 0),
    Op.LT: (-INF, -1),
    Op.LE: (-INF, 0),
    Op.GT: (1, INF),
    Op.GE: (0, INF),
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
    """Whether a constant is an integer, and near enough to compute with (:data:`FAR`)."""
    return type(item.value) is not float and abs(item.value) <= FAR


def _is_near(linear: Linear) -> bool:
    return abs(linear.constant) <= FAR and all(abs(count) <= FAR for count in linear.parts.values())


def _settled(before: Integer | None, value: Integer, settles: bool) -> Integer:
    """The value of an ``and`` or ``or`` that ends at ``value`` or before: false for ``and``, true for ``or``."""
    if not settles or before is None:
        return value
    both = join(before, value)
    return both if both.low < 0 else some(1, both.high, both.modulus, both.residue)


def _subtracted(one: Linear, other: Linear) -> Linear:
    parts = dict(one.parts)
    for part, count in other.parts.items():
        left = parts.get(part, 0) - count
        if left:
            parts[part] = left
        else:
            del parts[part]
    return Linear(one.constant - other.constant, parts)
