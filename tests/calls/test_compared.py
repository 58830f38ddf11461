"""What UNIFIED_GUARDS_VERIFY compares beside verdicts: the inputs of graphs, and results, with Dynamo's code's."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import unified_guards
from unified_guards import _C
from unified_guards.dynamo import comparison, gated, plan
from unified_guards.statistics import tally

from ..harness import assert_same, ones
from .watching import Model, short


@pytest.fixture(autouse=True)
def _verified() -> Iterator[None]:
    with unified_guards.config.patch(verify=1):
        yield


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """The results of Dynamo's code and of the plan, of each call that is compared."""
    seen: list[tuple[Any, Any]] = []
    end = comparison._Call.end

    def noting(self: Any, result: Any, built: Any) -> Any:
        seen.append((result, built))
        return end(self, result, built)

    monkeypatch.setattr(comparison._Call, "end", noting)
    return seen


def compiled(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Compiled for these arguments, without a gate for its frame; the next call is the first hit."""
    made = torch.compile(function, backend="eager", dynamic=False, **options)
    with unified_guards.config.patch(dispatch=False):
        made(*args)
    return made


def test_one_hit_in_eight(compared: list[Any]) -> None:
    made = compiled(lambda x: x + 1, ones())
    for _ in range(17):
        with short(made):
            assert_same(made(ones()), ones() + 1)
    assert len(compared) == 3


@pytest.mark.parametrize("share, seen", [(1, 3), (0.5, 3), (0.1, 2), (0.01, 1)])
def test_a_share_of_the_hits(share: float, seen: int, compared: list[Any]) -> None:
    with unified_guards.config.patch(verify=share):
        made = compiled(lambda x: x + 1, ones())
    for _ in range(18):
        made(ones())
    assert len(compared) == seen


def test_nothing_is_compared_where_nobody_asks(compared: list[Any]) -> None:
    with unified_guards.config.patch(verify=0):
        made = compiled(lambda x: x + 1, ones())
        for _ in range(9):
            made(ones())
    assert compared == []


def returns(x: torch.Tensor) -> Any:
    return [x, (x + 1, {"a": x * 2, "b": None}), 3, "text"]


def test_a_result_of_many_parts(compared: list[Any]) -> None:
    made = compiled(returns, x := ones())
    with short(made):
        assert_same(made(x), returns(x))
    [(result, built)] = compared
    assert result is not built
    assert_same(result, built)


def test_inputs_of_all_kinds(compared: list[Any]) -> None:
    module, factor = Model(), [2]

    def function(x: torch.Tensor, size: int, more: list[torch.Tensor], **named: torch.Tensor) -> torch.Tensor:
        return module(x) * factor[0] + more[0][:size] + named["bias"]

    made = torch.compile(function, backend="eager", dynamic=True)
    for size in (3, 2, 1):
        x = ones(1, 3)
        args = (x, size, [ones(5, 3)])
        for _ in range(2):
            assert_same(made(*args, bias=ones(3)), function(*args, bias=ones(3)))
    assert compared


def test_the_graph_runs_once() -> None:
    runs: list[int] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            runs.append(1)
            return graph.forward(*args)

        return run

    counter = torch.zeros(1)

    def function(x: torch.Tensor) -> torch.Tensor:
        counter.add_(1)
        return x + torch.rand(3)

    made = torch.compile(function, backend=backend)
    for _ in range(10):
        made(ones())
    assert len(runs) == 10
    assert counter.item() == 10


def test_an_attribute_that_is_another_object_each_time(compared: list[Any]) -> None:
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(ones())

        @property
        def scaled(self) -> torch.Tensor:
            return self.weight.data

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scaled

    made = compiled(module := Scaled(), ones())
    for _ in range(3):
        assert_same(made(ones()), module(ones()))


# ---- plans that are wrong --------------------------------------------------------------------------------------------


def wrong(monkeypatch: pytest.MonkeyPatch, **changes: Callable[[Any], Any]) -> None:
    """Has every plan be wrong: each part of it is what is given makes of it."""
    right = plan.plan_of

    def plan_of(code: Any) -> Any:
        made = right(code)
        return made._replace(**{name: change(getattr(made, name)) for name, change in changes.items()})

    monkeypatch.setattr(gated, "plan_of", plan_of)


@contextlib.contextmanager
def disagrees(how: str) -> Iterator[None]:
    with pytest.raises(unified_guards.GuardDisagreement, match=how):
        yield
    assert how in tally.disagreements.pop()  # otherwise the test has failed


def subtract(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x - y, y + 1


def test_wrong_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(monkeypatch, inputs=lambda inputs: inputs[::-1])
    made = compiled(subtract, ones(), ones() * 3)
    with disagrees("another input 0 than Dynamo's code"):
        made(ones(), ones() * 3)


def appends(x: torch.Tensor, y: torch.Tensor, into: list[torch.Tensor]) -> torch.Tensor:
    into.append(x - y)
    return x + 1


def test_wrong_inputs_of_a_graph_that_code_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(monkeypatch, inputs=lambda inputs: inputs[::-1])
    made = compiled(appends, ones(), ones() * 3, [])
    into: list[torch.Tensor] = []
    with disagrees("another input 0 than Dynamo's code"):
        made(ones(), ones() * 3, into)
    assert into == []


def test_a_canary_gives_a_graph_that_code_follows_what_dynamos_code_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(monkeypatch, inputs=lambda inputs: inputs[::-1])
    with unified_guards.config.patch(verify=0.125):
        made = compiled(appends, ones(), ones() * 3, [])
        into: list[torch.Tensor] = []
        with pytest.warns(UserWarning, match="another input 0"), short(made):
            made(ones(), ones() * 3, into)
    assert_same(into, [ones() * -2])
    tally.disagreements.pop()


def test_what_follows_the_graph_happens_once() -> None:
    made = compiled(appends, ones(), ones() * 3, [])
    for _ in range(17):
        into: list[torch.Tensor] = []
        with short(made):
            assert_same(made(ones(), ones() * 3, into), ones() + 1)
        assert_same(into, [ones() * -2])


def test_too_few_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(monkeypatch, inputs=lambda inputs: inputs[:1])
    made = compiled(subtract, ones(), ones() * 3)
    with disagrees("gives 1 inputs to the graph where"):
        made(ones(), ones() * 3)


def test_wrong_results(monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = _C.REBUILD["LEAF"]
    wrong(monkeypatch, rebuild=lambda steps: [(kind, 1 - at if kind == leaf else at, o) for kind, at, o in steps])
    made = compiled(subtract, ones(), ones() * 3)
    with disagrees("builds another result than Dynamo's code"):
        made(ones(), ones() * 3)


def test_a_list_for_a_tuple(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {_C.REBUILD["TUPLE"]: _C.REBUILD["LIST"]}
    wrong(monkeypatch, rebuild=lambda steps: [(kinds.get(kind, kind), at, o) for kind, at, o in steps])
    made = compiled(subtract, ones(), ones() * 3)
    with disagrees("builds another result"):
        made(ones(), ones() * 3)


def test_a_wrong_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    constant = _C.REBUILD["CONSTANT"]
    wrong(monkeypatch, rebuild=lambda steps: [(k, at, 4 if k == constant else o) for k, at, o in steps])
    made = compiled(lambda x: (x + 1, 3), ones())
    with disagrees("builds another result"):
        made(ones())


def test_a_canary_gives_what_dynamos_code_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong(monkeypatch, inputs=lambda inputs: inputs[::-1])
    disagreements = len(unified_guards.stats().disagreements)
    with unified_guards.config.patch(verify=0.125):
        made = compiled(subtract, ones(), ones() * 3)
        with pytest.warns(UserWarning, match="another input 0"):
            assert_same(made(ones(), ones() * 3), subtract(ones(), ones() * 3))
        for _ in range(7):
            made(ones(), ones() * 3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it is said once
            assert_same(made(ones(), ones() * 3), subtract(ones(), ones() * 3))
    assert len(unified_guards.stats().disagreements) == disagreements + 1
    tally.disagreements.pop()


@pytest.mark.parametrize(
    "one, other, same",
    [
        (3, 3, True), (3, 4, False), (3, 3.0, False), (math.nan, float("nan"), True), ("a", "a", True),
        (True, 1, False), (ones(), ones(), False), (ones(2), ones(3), False), (None, 0, False),
    ],
)  # fmt: skip
def test_inputs_are_compared(one: Any, other: Any, same: bool) -> None:
    assert comparison._is_same_input(one, other) is same


@pytest.mark.parametrize(
    "one, other, same",
    [
        ([1, (2,)], [1, (2,)], True), ([1, (2,)], [1, [2]], False), ([1], [1, 1], False), ({"a": 1}, {"a": 2}, False),
        ({"a": 1, "b": 1}, {"b": 1, "a": 1}, False), (1, 1.0, False), (1, 2, False), (None, None, True),
    ],
)  # fmt: skip
def test_results_are_compared(one: Any, other: Any, same: bool) -> None:
    assert comparison._is_same_result(one, other) is same
    assert comparison._is_same_result(ones(), ones()) is False
