"""What comes out: order, makers, steps, limits, and what a user sees of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import unified_guards
from unified_guards.guards.expressions import Op, const, expression, read, term
from unified_guards.guards.ir import Guard, GuardSet, Provenance, Source
from unified_guards.lower.rows import lower
from unified_guards.simplify.driver import RULES, simplify
from unified_guards.simplify.work import Removed

from ..corpus import ENTRIES
from ..corpus.compiled import Frame
from ..guards import equals, exists, local, type_is
from ..shapes import shape
from .making import INTS, SYMBOLS, A, B, D, Expressions, M, N, X, Y, about, is_, item, random_guards, same, set_of, size

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
    walked = [str(source) for source in lower(simplify(guard_set).guard_set).row_origins if isinstance(source, Source)]
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
    assert report.guards_checked == len(report.checked) < len(report.guard_set)
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
    # Dynamo guards a range, whose two ends are asked for by this line.
    assert {maker.file for maker in error.value.provenance} == {__file__}
