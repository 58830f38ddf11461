"""What is called for a graph: which of AOTAutograd's wrappers are left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch._inductor.output_code import CompiledFxGraph

from unified_guards.dynamo.gated import own_code
from unified_guards.dynamo.graphs import Graph, graph_of
from unified_guards.dynamo.plan import plan_of

from .test_known import supported


def graph(function: Callable[..., Any], *arguments: Any, backend: str = "inductor", calls: int = 2) -> Graph | None:
    compiled = torch.compile(function, backend=backend, dynamic=False)
    for _ in range(calls):
        compiled(*arguments)
    (entry,) = _debug_get_cache_entry_list(function.__code__)  # type: ignore[attr-defined]
    return graph_of(function.__globals__[plan_of(own_code(entry.code)[0]).graph])  # type: ignore[attr-defined]


@supported
def test_a_plain_graph_of_inductor_is_called_itself() -> None:
    found = graph(lambda x: (x.sin(), x.cos()), torch.ones(3))
    assert found is not None
    assert type(found.owner) is CompiledFxGraph
    assert (found.attribute, found.outputs) == ("current_callable", 2)


def mutates(x: torch.Tensor) -> torch.Tensor:
    return x.add_(1).sin()


def returns_a_view(x: torch.Tensor) -> torch.Tensor:
    return x.view(-1)


@pytest.mark.parametrize("function", [mutates, returns_a_view])
def test_a_graph_that_needs_its_wrapper_keeps_it(function: Callable[..., Any]) -> None:
    found = graph(function, torch.ones(3))
    assert found is None or found.outputs == -1


def test_a_graph_with_gradients_keeps_its_wrapper() -> None:
    found = graph(lambda x: x.sin(), torch.ones(3, requires_grad=True))
    assert found is not None
    assert found.outputs == -1


def test_a_graph_under_autocast_keeps_its_wrapper() -> None:
    with torch.autocast("cpu"):
        found = graph(lambda x: x @ x, torch.ones(3, 3))
    assert found is not None
    assert found.outputs == -1


def test_the_eager_backend_has_no_such_wrappers() -> None:
    found = graph(lambda x: x.sin(), torch.ones(3), backend="eager")
    assert found is not None
    assert (found.attribute, found.outputs) == (None, -1)


@supported
def test_a_backend_that_returns_the_module_goes_the_short_way() -> None:
    def returns_it(module: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> torch.fx.GraphModule:
        return module

    def sine(x: torch.Tensor) -> torch.Tensor:
        return x.sin() + 1

    compiled, x = torch.compile(sine, backend=returns_it, dynamic=False), torch.ones(3)
    for _ in range(3):
        assert torch.equal(compiled(x), sine(x))
    assert len(compiled._unified_guards_dispatcher.inputs) == 1  # its entry has a plan


@pytest.mark.parametrize("grad_enabled", [True, False])
def test_gradients_are_switched_off_for_the_graph_and_on_again(grad_enabled: bool) -> None:
    compiled = torch.compile(lambda x: x.sin() + 1, dynamic=False)
    with torch.set_grad_enabled(grad_enabled):
        for _ in range(4):
            result = compiled(torch.ones(3))
            assert not result.requires_grad
            assert torch.is_grad_enabled() is grad_enabled


@pytest.mark.parametrize(
    "other", [None, len, lambda: 1, torch.nn.Linear(1, 1)], ids=["none", "builtin", "lambda", "module"]
)
def test_anything_else_is_not_called(other: Any) -> None:
    assert graph_of(other) is None
