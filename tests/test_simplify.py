"""Every rule of the simplifier: where it applies, where it must not, and that no frame can tell the difference."""

from __future__ import annotations

import collections
import itertools
import math
import random
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch

import unified_guards
from unified_guards.aot.lifting import tensor_facts
from unified_guards.guards import expressions, semantics
from unified_guards.guards.expressions import Op, Term, const, expression, read, term
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.lower.rows import lower, make_checker
from unified_guards.simplify import linear, ranges
from unified_guards.simplify.driver import RULES, simplify
from unified_guards.simplify.ranges import Integer, fits
from unified_guards.simplify.work import Removed

from .corpus import ENTRIES
from .corpus.compiled import Frame
from .guards import equals, exists, local, type_is
from .shapes import shape

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
    facts = tensor_facts(value, value.size(), value.stride())
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


# -- rules -------------------------------------------------------------------------------------------------------------

CASES: dict[str, list[Case]] = {
    "a value implies it": [
        Case([type_is(N, int), equals(N, 3)], [equals(N, 3)]),
        Case([equals(N, "text"), has_length(N, 4), is_not(N)], [equals(N, "text")]),
        Case([has_length(N, 2), equals(N, (1, 2)), type_is(N, tuple)], [equals(N, (1, 2))]),
        Case([guard(Test.SAME_BITS, (N,), (0.5,)), type_is(N, float)], [guard(Test.SAME_BITS, (N,), (0.5,))]),
        Case([equals(N, torch.float32), type_is(N, torch.dtype)], [equals(N, torch.float32)]),
        Case([equals(N, -0.0), bits(-0.0), type_is(N, float)], [bits(-0.0)]),
        Case([equals(N, 0.0), bits(-0.0)], [bits(-0.0)]),
        Case([guard(Test.FLOAT_NAN, (N,)), bits(math.nan)], [bits(math.nan)]),
        Case([guard(Test.COMPLEX_NAN, (N,)), bits(COMPLEX_NAN)], [bits(COMPLEX_NAN)]),
        Case([equals(N, ONE_AND_TRUE), deeply(ONE_AND_TRUE), has_length(N, 2)], [deeply(ONE_AND_TRUE)]),
    ],
    "the keys of a dict imply it": [
        Case(
            [
                guard(Test.DICT_LENGTH, (D,), (2,)),
                type_is(D, dict),
                contains(D, "a"),
                contains(D, "c", False),
                is_not(D),
                guard(Test.KEYS, (D,), (("a", "b"),)),
            ],
            [guard(Test.KEYS, (D,), (("a", "b"),))],
        ),
    ],
    "a tensor guard implies it": [
        Case([type_is(X, torch.Tensor), is_not(X), tensor(X, 2)], [tensor(X, 2)]),
    ],
    "an identity implies it": [
        Case([type_is(N, bool), is_(N, True)], [is_(N, True)]),
        Case([type_is(N, type(None)), is_(N, None)], [is_(N, None)]),
        Case([is_not(N), is_(N, len)], [is_(N, len)]),
        Case([equals(N, INTS), is_(N, INTS)], [is_(N, INTS)]),
        Case([is_(N, math), is_(M, math), same(N, M)], [is_(N, math), is_(M, math)]),
    ],
    "a type implies it": [
        Case([is_not(N), type_is(N, int)], [type_is(N, int)]),
    ],
    "the same object was checked": [
        Case(
            [type_is(X, dict), type_is(Y, dict), equals(item(X, "a"), 3), equals(item(Y, "a"), 3), same(X, Y)],
            [type_is(X, dict), equals(item(X, "a"), 3), same(X, Y)],
        ),
        Case([same(X, Y), same(Y, Z), same(X, Z)], [same(X, Y), same(Y, Z)]),
        Case(
            [tensor(X, None), tensor(Y, None), same(X, Y), shape("v0 > 3", A), shape("v0 > 3", B)],
            [tensor(X, None), same(X, Y), shape("v0 > 3", A)],
        ),
        Case(  # what is below an alias of something above
            [same(X, item(Y, "x")), is_(item(X, "a"), None), is_(item(item(Y, "x"), "a"), None)],
            [same(X, item(Y, "x")), is_(item(X, "a"), None)],
        ),
    ],
    "an item of it is read": [
        Case([contains(D, "a"), is_(item(D, "a"), None)], [is_(item(D, "a"), None)]),
        Case([contains(D, "a"), is_(item(item(D, "a"), 1), None)], [is_(item(item(D, "a"), 1), None)]),
    ],
    "existence is implied": [
        Case([exists(N), equals(N, 3)], [equals(N, 3)]),
        Case([equals(N, 3), exists(N)], [equals(N, 3)]),
        Case([exists(N), same(M, N)], [same(M, N)]),
        Case([exists(D), exists(item(D, "a"))], [exists(item(D, "a"))]),
    ],
    "says the same": [
        about("v0 >= v1; v1 <= v0", "v0 >= v1", N, M),
        about("v0 * v1 + 0.5 != v1; not v1 == 0.5 + v1 * v0", "v0 * v1 + 0.5 != v1", N, M),
    ],
    "a known number decides it": [
        Case([tensor(X, 2, None), shape("v0 <= 3", A)], [tensor(X, 2, None)]),
        Case(
            [tensor(X, 2, None), tensor(Y, None), shape("v0 * v1 <= 6", A, B)],
            [tensor(X, 2, None), tensor(Y, None), shape("2 * v0 <= 6", B)],
        ),
        Case([equals(N, 4), shape("v0 * 2 == 8", N)], [equals(N, 4)]),
    ],
    "equal symbols are one": [
        about("v0 == v1; v1 == v2; v2 == v0", "v0 == v1; v1 == v2", A, B, C),
        about("v0 == v1; v0 <= 3; v1 <= 3", "v0 == v1; v1 <= 3", A, B),
        about("v0 == 4; v0 <= 5", "v0 == 4", A),
        about("v0 == 4; v1 == v0; 4 == v1; v2 != v0", "v0 == 4; v1 == v0; v2 != 4", A, B, C),
        about("v0 == 1; v0 * v1 == v2; v1 < 3; v2 < 3", "v0 == 1; v1 == v2; v2 < 3", A, B, C),
        Case(
            [*INTS, *about("v0 == v1; v0 > 3", "", N, M).before], [*INTS, *about("v0 == v1; v1 > 3", "", N, M).before]
        ),
    ],
    "bounds imply it": [
        about("v0 > 2; v0 >= 3; 2 <= v0", "v0 > 2", A),
        about("v0 >= 2; v0 >= 5; v0 != 3; v0 <= 9; v0 < 12", "v0 >= 5; v0 <= 9", A),
        about("v0 + v1 <= 7; v1 < 9 - v0", "v0 + v1 <= 7", A, B),
        about("2 * v0 <= 11; v0 < 6", "2 * v0 <= 11", A),
        about("2 * v0 + 2 * v1 >= 3; v0 + v1 > 0; v1 + v0 >= 2", "2 * v0 + 2 * v1 >= 3", A, B),
        about("v0 - v1 <= 3; v1 - v0 >= -4", "v0 - v1 <= 3", A, B),
        about("v0 * v1 >= 6; v1 * v0 > 4", "v0 * v1 >= 6", A, B),
        about("v0 >= 2; v1 >= 3; v0 * v1 != 0; v0 * v1 + v1 >= 9", "v0 >= 2; v1 >= 3", A, B),
        about("v0 // 4 >= 2; v0 > 7; v0 // 8 != 0", "v0 // 4 >= 2", A),
        about("v0 // 4 <= 2; v0 < 12", "v0 // 4 <= 2", A),
        about("v0 // 4 <= 2; v0 <= 9", "v0 <= 9", A),
        about("v0 * v0 > 3; v0 >= 2", "v0 >= 2", A),
        about("v0 > v1; v0 >= 0", "v0 > v1", A, B),
        about("v0 >= -3; v0 > -5", "v0 >= -3", N).given(*INTS),
    ],
    "divisibility implies it": [
        about("v0 % 4 == 0; v0 % 8 == 0; v0 % 2 == 0; v0 != 3", "v0 % 8 == 0", A),
        about("v0 % 4 == 0; v0 % 3 == 0; v0 % 6 == 0", "v0 % 4 == 0; v0 % 6 == 0", A),
        about("v0 % 4 == 1; (v0 + 1) % 2 == 0", "v0 % 4 == 1", A),
        about("v0 % 2 == 0; v1 % 2 == 0; v0 * v1 % 4 == 0", "v0 % 2 == 0; v1 % 2 == 0", A, B),
        about("(2 * v0) % 8 == 0; v0 % 4 == 0; v0 % 2 == 0", "(2 * v0) % 8 == 0", A),
    ],
    "arithmetic decides it": [
        about("v0 <= v1; v0 * 2 != v1 * 2 + 1 and v0 + v1 + 1 > 0", "v0 <= v1", A, B),
        about("v0 >= 1; v1 >= 1; v0 // v1 >= 0 and not v1 // v0 < 0", "v0 >= 1; v1 >= 1", A, B),
        about("v0 >= v1; v1 >= 1; v0 == 7 or v0 + v1 >= v1", "v0 >= v1; v1 >= 1", A, B),
        about("v0 >= v1; max(v0, v1) + 1 > min(v1, 0) or v1 == 5", "v0 >= v1", A, B),
    ],
}


RULE_CASES = [pytest.param(rule, case, id=f"{rule}: {case}") for rule, cases in CASES.items() for case in cases]


@pytest.mark.parametrize(("rule", "case"), RULE_CASES)
def test_what_a_rule_makes_of_guards(rule: str, case: Case) -> None:
    found = simplify(set_of(*case.before))
    assert list(found.guard_set) == case.after
    assert found.stopped is None
    if case.before != case.after:
        assert rule in {each.rule for each in found.removed}
    agree_on_small_numbers(case.before, case.after)


#: Sets of which every guard is needed, by what would be wrong.
NEEDED: dict[str, list[Guard]] = {
    "a bool is no int": [equals(N, True), type_is(N, int)],
    "what is equal to a mutable value may be longer by now": [equals(N, [1]), has_length(N, 1)],
    "an instance of a class may get another class": [equals(N, Case([], [])), type_is(N, Case)],
    "another object may live at the address": [is_(N, size), type_is(N, types.FunctionType)],
    "a module may get another class": [is_(N, math), type_is(N, types.ModuleType)],
    "an equal value may be another object": [equals(N, math.pi), is_(N, PI_AGAIN)],
    "None is of a type, too": [type_is(N, type(None)), is_not(N)],
    "an object that is not that one": [is_(N, math), is_not(N, math)],
    "keys of dicts compare as they like": [guard(Test.KEYS, (D,), ((1,),)), contains(D, True)],
    "a tensor of another class": [tensor(X, 2), type_is(X, torch.nn.Parameter)],
    "a subclass of dict": [guard(Test.DICT_LENGTH, (D,), (1,)), contains(D, "a"), type_is(D, dict)],
    "an item that is read otherwise": [contains(D, "a"), is_(D.child(Access.ITEM, "a"), None)],
    "an item that is not read": [contains(D, "a"), contains(D, "b"), is_(item(D, "b"), None)][:2],
    "another one exists": [exists(N), equals(M, 3)],
    "nothing else asks": [exists(N)],
    "a property may give another object each time": [
        same(X.child(Access.ATTR, "a"), Y.child(Access.ATTR, "a")),
        is_(item(X.child(Access.ATTR, "a"), 1), None),
        is_(item(Y.child(Access.ATTR, "a"), 1), None),
    ],
    "below a property of one object": [
        same(X, Y),
        is_(X.child(Access.ATTR, "a"), None),
        is_(Y.child(Access.ATTR, "a"), None),
    ],
    "== of a class may answer as it likes": [same(X, Y), equals(X, torch), equals(Y, torch)],
    "the length of an object is what its class says": [same(X, Y), has_length(X, 1), has_length(Y, 1)],
    "an item of an alias that nothing else reads": [same(X, Y), same(item(X, "a"), item(Y, "a"))],
    "something else is asked of the alias": [same(X, Y), is_(item(X, 1), None), is_(item(Y, 1), True)],
    "a NaN is not below": about("not v0 < v1; v0 >= v1", None, N, M).before,
    "1 is equal to 1.0, and 7 // 1.0 is 7.0": about("v0 == v1; v0 // 2 > 3; v1 // 2 > 3", None, N, M).before,
    "4.5 is no int": [equals(N, 4.5), shape("v0 * 2 != 9", N)],
    "what is not known to be an int is not known": [tensor(X, None), *about("v0 >= 3; v0 >= 2", None, N).before],
    "a size that nothing else reads": [tensor(X, None), shape("v0 >= 0", A)],
    "a dim that the tensor does not have": [tensor(X, 2), shape("v0 >= 0", size(X, 1))],
    "a stride that nothing else reads": [tensor(X, 2), shape("v0 == 1", stride(X))],
    "a tensor without a guard": [shape("v0 >= 0", A)],
    "the only reader of a symbol": about("v0 >= 1; v0 * v1 >= 0", None, A, B).before,
    "it cancels, if it can be computed": about("v0 // v1 - v0 // v1 == 0; v0 >= 0; v1 >= 0", None, A, B).before[:1],
    "a divisor may be zero": about("v0 > 2; v1 > v0 - 8; v0 % (v1 - 3) >= 0 or v0 > 0", None, A, B).before,
    "an exponent may be negative": [*INTS, *about("v0 > 3; v1 > -3; v0 ** v1 > 0", None, N, M).before],
    "a shift may be negative": [*INTS, *about("v0 > 3; v1 > -3; v0 << v1 > 0", None, N, M).before],
    "a root of a negative number": about("v0 > -5; math.isnan(torch._sym_sqrt(v0)) or v0 > -9", None, stride(X)).before,
    "a stride may be negative": about("v0 < 5; v0 > -1", None, stride(X)).before,
    "it never holds": about("v0 >= 5; v0 <= 3; v0 != v0", None, A).before[:2],
    "it never holds either": about("v0 == 3; v0 == 4", None, A).before,
    "nor does this": about("v0 % 2 == 0; v0 % 4 == 1", None, A).before,
    "what says no is not rewritten": [tensor(X, 2), shape("v0 > 2", A)],
    "no multiple of 2 leaves 1": about("v0 % 2 == 0; (2 * v0) % 4 == 1", None, A).before,
    "the other way around": about("v0 % 4 == 0; v0 % 8 != 0", None, A).before,
    "not the same sum": about("v0 + v1 <= 7; v0 + 2 * v1 <= 9", None, A, B).before,
    "each bounds the other": about("v0 <= v1; v1 <= v0", None, A, B).before,
    "each is one more than the other": about("v0 >= v1 + 1; v0 + 1 > v1", None, A, B).before[:1],
    "torch judges them by different functions": [
        expression(term(Op.LE, read(N), const(3)), bool),
        expression(term(Op.LE, read(N), const(3)), callable),
    ],
}


@pytest.mark.parametrize("guards", list(NEEDED.values()), ids=list(NEEDED))
def test_guards_that_are_needed_stay(guards: list[Guard]) -> None:
    guard_set = set_of(*guards)
    found = simplify(guard_set)
    assert found.guard_set is guard_set, found.removed
    assert found.removed == []
    assert found.stopped is None


def test_every_rule_is_tested() -> None:
    assert set(CASES) == set(RULES)


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


# -- what is known of integers -----------------------------------------------------------------------------------------

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


# -- whole sets on frames ----------------------------------------------------------------------------------------------

TABLE = (1, "two")
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


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_a_set_that_no_rule_applies_to_comes_back_as_the_same_object() -> None:
    guard_set = set_of(type_is(X, int), equals(Y, 3))
    assert simplify(guard_set) == (guard_set, [], None)
    assert simplify(guard_set).guard_set is guard_set


def test_the_rest_keeps_its_order() -> None:
    guards = [equals(N, 3), exists(M), shape("v0 == v1", A, B), is_(M, None), shape("v0 < 7", A), type_is(D, dict)]
    found = simplify(set_of(*guards)).guard_set
    assert list(found) == [guards[0], guards[2], guards[3], shape("v0 < 7", B), guards[5]]


def test_every_step_says_its_rule_and_what_came_of_it() -> None:
    equal, below, positive = shape("v0 == v1", A, B), shape("v0 < 7", A), shape("v0 > -1", A)
    moved = shape("v0 > -1", B)
    found = simplify(set_of(equal, below, positive))
    assert found.removed == [
        Removed(below, "equal symbols are one", shape("v0 < 7", B)),
        Removed(positive, "equal symbols are one", moved),
        Removed(moved, "bounds imply it"),
    ]
    assert str(found.removed[1]) == (
        "rewritten by 'equal symbols are one': L['x'].size()[0] > -1 -> L['y'].size()[0] > -1"
    )
    assert str(found.removed[2]) == "removed by 'bounds imply it': L['y'].size()[0] > -1"


def test_what_stays_keeps_its_makers_and_gets_those_of_what_it_stands_for() -> None:
    makers = [Provenance("dynamo", str(at)) for at in range(4)]
    guards = [shape("v0 == v1", A, B), shape("v0 < 7", A), shape("v1 < 7", A, B), shape("7 > v1", A, B)]
    found = simplify(GuardSet(zip(guards, makers, strict=True))).guard_set
    assert list(found) == [guards[0], guards[2]]
    assert found.provenance(guards[0]) == (makers[0],)
    assert found.provenance(guards[2]) == tuple(makers[1:])


def test_rewritten_guards_ask_the_same_function_about_inexact_numbers() -> None:
    asked = callable
    guards = [expression(each.params[0], asked) for each in about("v0 == v1; v0 < 7", None, A, B).before]
    assert [each.params[1] for each in simplify(set_of(*guards)).guard_set] == [asked, asked]


def test_without_a_budget_everything_stays_and_the_report_says_so() -> None:
    guard_set = set_of(exists(N), equals(N, 3))
    found = simplify(guard_set, budget=0)
    assert found.guard_set is guard_set
    assert found.removed == []
    assert found.stopped is not None
    assert found.stopped.startswith("after 0 steps")


def test_what_was_done_before_the_budget_was_used_up_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(work: Any) -> Iterator[Any]:
        work.spend(work.budget + 1)
        yield from ()

    monkeypatch.setitem(RULES, "says the same", slow)
    found = simplify(set_of(exists(N), equals(N, 3), *about("v0 > 3; v0 > 2", None, A).before))
    assert [each.rule for each in found.removed] == ["existence is implied"]
    assert len(found.guard_set) == 3
    assert found.stopped is not None
    assert "says the same" in found.stopped


def test_an_expression_that_is_too_deep_stays() -> None:
    deep = read(A)
    for _ in range(3000):
        deep = term(Op.ABS, deep)
    guards = [expression(term(Op.LE, deep, const(3))), type_is(N, int), equals(N, 3)]
    found = simplify(set_of(*guards))
    assert list(found.guard_set) == [guards[0], guards[2]]
    assert found.stopped is not None
    assert "too deep" in found.stopped


def test_a_sum_over_very_many_sizes_is_understood() -> None:
    whole = backwards = const(0)
    for at in range(1000):
        whole = term(Op.ADD, whole, read(size(local(f"x{at}"))))
        backwards = term(Op.ADD, read(size(local(f"x{at}"))), backwards)
    guards = [expression(term(Op.LE, const(3), whole)), expression(term(Op.LT, const(2), backwards))]
    found = simplify(set_of(*guards))
    assert list(found.guard_set) == guards[:1]
    assert found.stopped is None


def test_a_product_of_very_many_sums_is_left_in_peace() -> None:
    sums = [term(Op.ADD, *(read(size(local(f"x{at}{part}"))) for part in range(3))) for at in range(40)]
    whole = sums[0]
    for each in sums[1:]:
        whole = term(Op.MUL, whole, each)
    guards = [expression(term(Op.GE, whole, const(number))) for number in (3, 2, 0)]
    found = simplify(set_of(*guards))
    assert list(found.guard_set) == guards[:1]
    assert found.stopped is None


def test_the_same_guards_are_simplified_to_the_same_guards() -> None:
    rng = random.Random(1)
    for _ in range(50):
        guards = random_guards(rng)
        assert list(simplify(set_of(*guards)).guard_set) == list(simplify(set_of(*guards)).guard_set)


@pytest.mark.parametrize("name", ENTRIES)
def test_simplifying_twice_changes_nothing_more(name: str) -> None:
    once = simplify(Frame(ENTRIES[name]()).guard_set)
    twice = simplify(once.guard_set)
    assert twice.guard_set is once.guard_set
    assert twice.removed == []
    assert once.stopped is twice.stopped is None


@pytest.mark.parametrize("seed", range(4))
def test_simplifying_random_expressions_twice_changes_nothing_more(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(100):
        once = simplify(set_of(*INTS, *Expressions(rng, list(SYMBOLS)).guards())).guard_set
        assert simplify(once).removed == []


def test_what_only_led_to_removed_guards_is_not_walked() -> None:
    below = [item(item(each, "a"), "b") for each in (X, Y)]
    guard_set = set_of(same(X, Y), *(equals(each, 3) for each in below))
    walked = [str(source) for source in lower(simplify(guard_set).guard_set).meaning if isinstance(source, Source)]
    assert "L['x']['a']['b']" in walked
    assert "L['y']['a']['b']" not in walked
    assert "L['y']['a']" not in walked


# -- what a user sees --------------------------------------------------------------------------------------------------


def test_explain_shows_what_was_there_what_became_of_it_and_why() -> None:
    def function(x: torch.Tensor, y: torch.Tensor, kind: str) -> torch.Tensor:
        if type(kind) is str and kind == "double" and x.size(0) % 2 == 0:
            return (x + y) * 2
        return x

    tensors = torch.ones(4), torch.ones(4)
    for each in tensors:
        torch._dynamo.mark_dynamic(each, 0)
    with unified_guards.installed():
        compiled = torch.compile(function, backend="eager")
        compiled(*tensors, "double")
        compiled(*tensors, "double")
    (report,) = unified_guards.explain(function).frames
    assert report.guard_set is not None
    assert report.checks == len(report.checked) < len(report.guard_set)
    assert "removed 1: a value implies it" in report.summary()
    assert "removed by 'a value implies it': type(L['kind']) is str" in str(report)
    before, after = str(report).split("\n  to:\n")
    assert "\n    type(L['kind']) is str" in before
    assert "type(L['kind'])" not in after
    assert "L['kind'] == 'double'" in after
    assert report.counts[:2] == (1, 1)


def test_an_error_about_a_rewritten_guard_says_who_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(work: Any) -> Iterator[tuple[Guard, Guard]]:
        for each in work.expressions():
            made, asked = each.params
            if made.op is Op.LE:
                yield each, expression(term(Op.GE, *reversed(made.args)), asked)

    monkeypatch.setitem(RULES, "rewritten on purpose", swapped)
    graph = unified_guards.make_fx(lambda x: x * 2 if x.shape[0] > 4 else x * 3, tracing_mode="symbolic")(torch.ones(3))
    with pytest.raises(unified_guards.GuardError, match="4 >= ") as error:
        graph(torch.ones(8))
    (maker,) = error.value.provenance
    assert maker.file == __file__
