"""Each cause of a recompile: a program that shows the advice, and programs that follow it and compile once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import unified_guards
from unified_guards.dynamo.entry import Recompilation
from unified_guards.report import advice

from ..harness import ones
from .cases import CASES, Case, double

#: Rows for which there is no program: torch refuses levels inside of each other, and what is left over has no name.
#: test_rows.py asks them directly.
WITHOUT_A_PROGRAM = {"forward gradients", "other"}
AGAIN = [pytest.param(case, id=f"{case.name}-{at}") for at, case in enumerate(CASES)]
FOLLOWED = [pytest.param(*each, id=each[0].__name__) for case in CASES for each in case.followed]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_default_dtype(), torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch._dynamo.reset()
    yield
    torch.set_default_device(None)
    torch.set_default_dtype(before[0])
    torch.set_num_threads(before[1])
    torch.set_float32_matmul_precision(before[2])
    torch.use_deterministic_algorithms(False)
    torch._dynamo.reset()


class Compiling:
    """``torch.compile`` with a backend that counts."""

    def __init__(self) -> None:
        self.graphs = 0

    def _backend(self, graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward

    def __call__(self, function: Any, **options: Any) -> Any:
        return torch.compile(function, backend=self._backend, **options)


@pytest.fixture
def compiling() -> Iterator[Compiling]:
    with unified_guards.installed():
        yield Compiling()


def recompilations_of(run: Any) -> list[Recompilation]:
    """All of them, those of the oldest entry first."""
    return [each for frame in reversed(unified_guards.explain(run).frames) for each in frame.recompilations]


@pytest.mark.parametrize("case", AGAIN)
def test_the_cause_is_told_with_what_to_do(case: Case, compiling: Compiling) -> None:
    run = case.again(compiling)
    assert compiling.graphs > 1
    first, *_ = recompilations_of(run)
    assert first.advice is not None
    assert (first.advice.name, case.cause in first.advice.cause) == (case.name, True), first
    assert case.remedy in first.advice.remedy
    assert first.text.partition("  # ")[0].endswith(")"), "what was found is told"
    summary = unified_guards.explain(run).summary()
    assert f"    cause: {first.advice.cause}\n    to do: {first.advice.remedy}\n    torch calls it: " in summary


@pytest.mark.parametrize(("program", "versions"), FOLLOWED)
def test_following_the_advice_stops_the_recompiles(program: Any, versions: int, compiling: Compiling) -> None:
    program(compiling)
    assert compiling.graphs == versions


def test_every_row_has_a_case_that_can_be_followed() -> None:
    assert all(case.followed for case in CASES)
    assert {case.name for case in CASES} == {row.name for row in advice.TABLE} - WITHOUT_A_PROGRAM


def test_every_row_is_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "recompiles.md").read_text()
    rows = [*((row.name, row.term) for row in advice.TABLE), (advice.NO_GUARD.name, advice.NO_GUARD.term)]
    for name, term in [*rows, ("recompile limit", "hit config.recompile_limit")]:
        line = next((line for line in page.splitlines() if line.startswith(f"| {name} |")), "")
        assert f"| {term} |" in line.replace("`", ""), (
            f"docs/recompiles.md has no row {name!r} with torch's term {term!r}"
        )


# -- what is no guard --------------------------------------------------------------------------------------------------


def test_another_backend_is_told_as_that(compiling: Compiling) -> None:
    for _ in range(2):
        torch.compile(double, backend=lambda graph, _: graph.forward)(ones())
    (made,) = recompilations_of(double)
    assert made.guard is None
    assert made.advice is not None and made.advice.name == "backend"


def test_one_backend_that_is_kept_compiles_once(compiling: Compiling) -> None:
    for _ in range(2):
        torch.compile(double, backend=compiling._backend)(ones())
    assert not recompilations_of(double)


def test_a_limit_that_is_reached_is_told_with_what_happens_now(compiling: Compiling) -> None:
    with torch._dynamo.config.patch(recompile_limit=2):
        run = compiling(double, dynamic=False)
        for rows in (2, 3, 4, 5):
            run(ones(rows))
        assert compiling.graphs == 2
        first, last = recompilations_of(run)[:2]
    assert first.limit is None
    assert last.limit is not None
    assert "at most 2 versions" in last.limit.cause and "runs eagerly" in last.limit.cause
    summary = unified_guards.explain(run).summary()
    assert "  not compiled again, for a limit is reached, because of: L['x'] is" in summary
    assert "torch._dynamo.config.recompile_limit" in summary


def test_a_larger_limit_goes_on_compiling(compiling: Compiling) -> None:
    with torch._dynamo.config.patch(recompile_limit=4):
        run = compiling(double, dynamic=False)
        for rows in (2, 3, 4, 5):
            run(ones(rows))
    assert compiling.graphs == 4
    assert all(each.limit is None for each in recompilations_of(run))


# -- torch's own words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("integer of a module", "allow_unspec_int_on_nn_module"),
        ("function made anew", 'guard on "k"'),
        ("equal sizes", "use_duck_shape = False"),
        ("0 or 1", "mark_unbacked"),
    ],
)
def test_torchs_hints_are_kept(name: str, hint: str, compiling: Compiling) -> None:
    case = next(case for case in CASES if case.name == name)
    found = recompilations_of(case.again(compiling))[0].advice
    assert found is not None
    assert any(hint in each for each in found.hints), found
    assert f"its hint: {found.hints[0]}" in found.lines()[-1]


def test_what_is_to_be_done_is_told_once_for_one_cause(compiling: Compiling) -> None:
    run = compiling(double, dynamic=False)
    for rows in (2, 3, 4, 5):
        run(ones(rows))
    summary = unified_guards.explain(run).frames[-1].summary()
    assert summary.count("compiled again because of") == summary.count("cause: dimension 0") == 3
    assert summary.count("to do: ") == 1
