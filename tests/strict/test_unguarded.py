"""What Dynamo reads without a guard is guarded by ``install(strict=True)``, or ends the graph: ``unguarded_of/``."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import unified_guards
from unified_guards.dynamo import compat

from . import unguarded_of  # noqa: F401 - fills UNGUARDED
from .running import entries_of
from .unguarded import UNGUARDED, Unguarded

#: Each holds on 2.13; other versions of torch may capture more, or less.
GUARDED = [name for name, make in UNGUARDED.items() if make().ends is None]
ENDED = [name for name in UNGUARDED if name not in GUARDED]
#: What Dynamo of torch 2.11 gives another result for when it has just traced it, or cannot trace.
MISTRACED = ("reversed", "radd_first", "index", "constant_among_symbols")
NOT_BEFORE_2_13 = pytest.mark.skipif(compat.TORCH < (2, 13), reason="Dynamo of torch 2.11 traces it wrongly")
TRACED = [pytest.param(name, marks=NOT_BEFORE_2_13) if name in MISTRACED else name for name in GUARDED]


@pytest.fixture
def each(request: pytest.FixtureRequest) -> Iterator[Unguarded]:
    made = UNGUARDED[request.param]()
    yield made
    made.undo()


def _is_right(made: Unguarded, call: Any) -> bool:
    """Compares with eager, which runs last: what is made while the call is traced is not seen by it."""
    args = made.args()
    got = call(*args)
    want = made.function(*args)
    return torch.equal(got, want) and got.dtype == want.dtype


@pytest.mark.parametrize("verify", ["", "1"], ids=["", "verified"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("each", TRACED, indirect=True)
def test_a_guard_notices(each: Unguarded, backend: str, verify: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", verify)
    with unified_guards.installed(strict=True):
        call = torch.compile(each.function, backend=backend, dynamic=each.dynamic)
        for _ in range(3):
            assert _is_right(each, call)
        assert len(entries_of(each.function.__code__)) <= 1, "what has not changed is compiled again"
        each.change()
        for _ in range(3):
            assert _is_right(each, call)
        assert len(entries_of(each.function.__code__)) <= 2, "it is compiled again and again"


@pytest.mark.parametrize("each", ENDED, indirect=True)
def test_the_graph_ends(each: Unguarded) -> None:
    with unified_guards.installed(strict=True):
        call = torch.compile(each.function, backend="aot_eager", dynamic=each.dynamic)
        whole = torch.compile(each.function, backend="aot_eager", dynamic=each.dynamic, fullgraph=True)
        with pytest.raises(torch._dynamo.exc.Unsupported, match=f"strict: .*{each.ends}"):
            whole(*each.args())
        torch._dynamo.reset()
        assert _is_right(each, call) and _is_right(each, call)
        each.change()
        assert _is_right(each, call) and _is_right(each, call)


def test_a_random_object_draws_as_in_eager() -> None:
    def draw(x: torch.Tensor, generator: random.Random) -> torch.Tensor:
        return x + generator.random()

    ours, eagers = random.Random(3), random.Random(3)
    with unified_guards.installed(strict=True):
        call = torch.compile(draw, backend="eager")
        for _ in range(3):
            assert torch.equal(call(torch.ones(2), ours), draw(torch.ones(2), eagers))
        torch._dynamo.reset()
        with pytest.raises(torch._dynamo.exc.Unsupported, match=r"strict: a random\.Random object is used"):
            torch.compile(draw, backend="eager", fullgraph=True)(torch.ones(2), ours)
    assert ours.getstate() == eagers.getstate()


def test_a_random_object_of_the_function_itself_is_captured() -> None:
    def draw(x: torch.Tensor) -> torch.Tensor:
        return x + random.Random(3).random()

    with unified_guards.installed(strict=True):
        call = torch.compile(draw, backend="eager", fullgraph=True)
        assert torch.equal(call(torch.ones(2)), draw(torch.ones(2)))
