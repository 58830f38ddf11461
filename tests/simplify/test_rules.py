"""Every rule of the simplifier: where it applies, and where it must not."""

from __future__ import annotations

import math
import types

import pytest
import torch

from unified_guards.guards.expressions import Op, const, expression, read, term
from unified_guards.guards.ir import Access, Guard, Test, guard
from unified_guards.simplify.driver import RULES, simplify

from ..guards import equals, exists, type_is
from ..shapes import shape
from .making import (
    COMPLEX_NAN,
    INTS,
    ONE_AND_TRUE,
    PI_AGAIN,
    A,
    B,
    C,
    Case,
    D,
    M,
    N,
    X,
    Y,
    Z,
    about,
    agree_on_small_numbers,
    bits,
    contains,
    deeply,
    has_length,
    is_,
    is_not,
    item,
    same,
    set_of,
    size,
    stride,
    tensor,
)

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
