"""Sources, guards and expressions that sets to simplify are made of."""

from __future__ import annotations

import collections
import itertools
import math
import random
from collections.abc import Callable, Iterable

import torch

from unified_guards.dynamo.strict.memory import tensor_guard
from unified_guards.guards import expressions
from unified_guards.guards.expressions import Op, Term, const, expression, read, term
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard

from ..guards import equals, exists, local, type_is
from ..shapes import shape

MAKER = Provenance("dynamo", "a part of code")


def item(base: Source, key: object) -> Source:
    return base.child(Access.DICT_ITEM, key)


def size(tensor: Source, dim: int = 0) -> Source:
    return tensor.child(Access.TENSOR_SIZE, dim)


def stride(tensor: Source, dim: int = 0) -> Source:
    return tensor.child(Access.TENSOR_STRIDE, dim)


def is_(source: Source, value: object) -> Guard:
    return guard(Test.IS, (source,), (id(value), "that"))


def is_not(source: Source, value: object = None) -> Guard:
    return guard(Test.IS_NOT, (source,), (id(value), "that"))


def has_length(source: Source, length: int) -> Guard:
    return guard(Test.LENGTH, (source,), (length, False))


def contains(source: Source, key: object, expected: bool = True) -> Guard:
    return guard(Test.DICT_CONTAINS, (source,), (key, expected))


def bits(value: complex) -> Guard:
    return guard(Test.SAME_BITS, (N,), (value,))


def deeply(value: object) -> Guard:
    return guard(Test.DEEP_EQUALS, (N,), (value,))


def same(one: Source, other: Source) -> Guard:
    return guard(Test.SAME, (one, other))


def tensor(source: Source, *sizes: int | None, strides: tuple[int | None, ...] | None = None) -> Guard:
    """A tensor guard on contiguous floats; of what is None nothing is asked."""
    value = torch.empty([3 if size is None else size for size in sizes])
    (facts,) = tensor_guard(source, value).params
    return guard(Test.TENSOR, (source,), (facts._replace(sizes=sizes, strides=strides or facts.strides),))


def set_of(*guards: Guard) -> GuardSet:
    return GuardSet((each, MAKER) for each in guards)


X, Y, Z, N, M, D, E = map(local, "xyznmde")
A, B, C = size(X), size(Y), size(Z)
PI_AGAIN = math.pi + 0
ONE_AND_TRUE = (1, True)
COMPLEX_NAN = complex(0, math.nan)
INTS = (type_is(N, int), type_is(M, int))


class Case:
    """Guards that a rule takes to others."""

    def __init__(self, before: Iterable[Guard], after: Iterable[Guard]) -> None:
        self.before = list(before)
        self.after = list(after)

    def given(self, *guards: Guard) -> Case:
        """The same beside others, which stay."""
        return Case([*guards, *self.before], [*guards, *self.after])

    def __str__(self) -> str:
        return " & ".join(map(str, self.before)) + " -> " + " & ".join(map(str, self.after))


def about(text: str, after: str | None, *sources: Source) -> Case:
    """Expressions over v0, v1, …, several in one text."""
    before = [shape(part, *sources) for part in text.split(";")]
    return Case(before, before if after is None else [shape(part, *sources) for part in after.split(";") if part])


# -- expressions mean the same on all small numbers --------------------------------------------------------------------

#: What the sources of random expressions are, and the numbers that are tried for each.
SYMBOLS = {A: range(6), B: range(6), stride(Z): range(-4, 5), N: range(-5, 7)}


def holds(guards: Iterable[Guard], values: dict[Source, int]) -> bool:
    """Whether all expressions are true; one that raises is not."""
    try:
        return all(
            expressions.evaluate(each.params[0], values.__getitem__) for each in guards if each.test is Test.EXPRESSION
        )
    except (ArithmeticError, ValueError, TypeError):  # what evaluate() says that it raises
        return False


def agree_on_small_numbers(before: Iterable[Guard], after: Iterable[Guard]) -> int:
    """Compares two sets on all values in reach, and says on how many they hold."""
    before, after = list(before), list(after)
    expressions = [each for each in (*before, *after) if each.test is Test.EXPRESSION]
    sources = list(dict.fromkeys(source for each in expressions for source in each.params[0].sources))
    held = 0
    for values in itertools.product(*(SYMBOLS.get(source, range(7)) for source in sources)):
        found = dict(zip(sources, values, strict=True))
        verdict = holds(before, found)
        if len(before) == len([each for each in before if each in expressions or each in INTS]):
            assert holds(after, found) is verdict, found
        held += verdict
    return held


class Expressions:
    """Random terms over some sources."""

    def __init__(self, rng: random.Random, sources: list[Source]) -> None:
        self.rng = rng
        self.sources = sources

    def number(self, depth: int) -> Term:
        choose = self.rng
        if depth == 0 or choose.random() < 0.3:
            return read(choose.choice(self.sources)) if choose.random() < 0.7 else const(choose.randint(-4, 8))
        return choose.choices(
            [self._operation, self._divided, self._conditional, self._with_number, self._unary, self.truth],
            [50, 22, 6, 8, 8, 3],
        )[0](depth - 1)

    def _operation(self, depth: int) -> Term:
        ops = [Op.ADD, Op.ADD, Op.MUL, Op.SUB, Op.MIN, Op.MAX, Op.BITAND, Op.BITOR, Op.BITXOR, Op.TRUEDIV]
        return term(self.rng.choices(ops, [5, 5, 5, 4, 2, 2, 1, 1, 1, 1])[0], self.number(depth), self.number(depth))

    def _divided(self, depth: int) -> Term:
        by = self.number(depth) if self.rng.random() < 0.4 else const(self.rng.randint(-3, 8))
        return term(self.rng.choice([Op.FLOORDIV, Op.MOD]), self.number(depth), by)

    def _conditional(self, depth: int) -> Term:
        return term(Op.IF, self.truth(depth), self.number(depth), self.number(depth))

    def _with_number(self, depth: int) -> Term:
        by = const(self.rng.randint(-1, 3))
        return term(self.rng.choice([Op.POW, Op.LSHIFT, Op.RSHIFT]), self.number(depth), by)

    def _unary(self, depth: int) -> Term:
        return term(self.rng.choice([Op.NEG, Op.ABS, Op.INVERT, Op.FLOOR, Op.ROUND]), self.number(depth))

    def truth(self, depth: int) -> Term:
        kind = self.rng.random()
        if kind < 0.2:
            rest = term(Op.MOD, self.number(min(depth, 1)), const(self.rng.choice([2, 2, 3, 4, 6, 8])))
            return term(self.rng.choice([Op.EQ, Op.EQ, Op.EQ, Op.NE]), rest, const(self.rng.choice([0, 0, 1, 2])))
        if kind < 0.75 or depth == 0:
            ops = [Op.LT, Op.LE, Op.GT, Op.GE, Op.EQ, Op.EQ, Op.NE]
            return term(self.rng.choice(ops), self.number(depth), self.number(max(depth - 1, 0)))
        if kind < 0.93:
            return term(self.rng.choice([Op.AND, Op.OR]), self.truth(depth - 1), self.truth(depth - 1))
        return term(Op.NOT, self.truth(depth - 1)) if kind < 0.97 else self.number(depth)

    def guards(self) -> list[Guard]:
        depths = (self.rng.choice([0, 1, 1, 2, 3]) for _ in range(self.rng.randint(1, 7)))
        return [expression(self.truth(depth)) for depth in depths]


# -- whole sets on frames ----------------------------------------------------------------------------------------------

TABLE = (1, "two")


OBJECT_GUARDS: list[Callable[[random.Random], Guard]] = [
    lambda rng: tensor(rng.choice([X, Y]), rng.choice([None, 2, 4]), rng.choice([None, 2]), strides=(None, None)),
    lambda rng: tensor(rng.choice([Y, Z]), rng.choice([None, 4]), strides=(None,)),
    lambda rng: type_is(rng.choice([X, Y]), torch.Tensor),
    lambda rng: type_is(rng.choice([N, M]), rng.choice([int, int, int, bool, float, tuple, type(None)])),
    lambda rng: type_is(rng.choice([D, E]), rng.choice([dict, dict, collections.OrderedDict])),
    lambda rng: is_not(rng.choice([X, N, M, D, E])),
    lambda rng: is_(rng.choice([N, M, item(D, "a"), item(E, "a")]), rng.choice([None, True, TABLE])),
    lambda rng: equals(rng.choice([N, M]), rng.choice([2, 4, True, 4.0, "text", TABLE, None])),
    lambda rng: equals(item(rng.choice([D, E]), rng.choice("ab")), 3),
    lambda rng: has_length(rng.choice([N, M, E]), rng.choice([1, 2, 4])),
    lambda rng: guard(Test.KEYS, (rng.choice([D, E]),), (tuple(rng.choice(["ab", "ba", "a"])),)),
    lambda rng: guard(Test.DICT_LENGTH, (rng.choice([D, E]),), (rng.choice([1, 2]),)),
    lambda rng: contains(rng.choice([D, E]), rng.choice("abc"), rng.choice([True, False])),
    lambda rng: exists(rng.choice([X, D, item(D, "a"), item(E, "a"), size(X, 1)])),
    lambda rng: same(*rng.sample([X, Y, D, E], 2)),
    lambda rng: same(*rng.choice([(X, Y), (E, D)])),
    lambda rng: equals(rng.choice([size(X), X.child(Access.TENSOR_OFFSET)]), rng.choice([0, 2, 4])),
]
NUMBERS = [size(X), size(X), size(Y), size(Y, 1), size(X, 1), stride(X), X.child(Access.TENSOR_OFFSET), N, M]


def random_guards(rng: random.Random) -> list[Guard]:
    found = [rng.choice(OBJECT_GUARDS)(rng) for _ in range(rng.randint(2, 7))]
    if rng.random() < 0.7:
        found += Expressions(rng, rng.sample(NUMBERS, 3)).guards()[:4]
    rng.shuffle(found)
    return found
