"""What the tests of the AOT entry points share: calling ours and eager side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from functorch.compile import make_boxed_func
from torch.utils import _pytree as pytree

import unified_guards


def ones(*sizes: int, **options: Any) -> torch.Tensor:
    return torch.ones(*sizes, **options)


def branch(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] > 4 else x * 3


def boxed(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
    """A compiler that runs the graph as it is."""
    return make_boxed_func(graph.forward)


class Counting:
    """A compiler that keeps the graphs that it was given."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
        self.graphs.append(graph)
        return boxed(graph, inputs)


def clone(value: Any) -> Any:
    """The same arguments again, sharing nothing with the first; tensors that were one stay one."""
    return copy.deepcopy(value)


def outcome(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of a call, the gradients of its inputs, and the inputs as it left them."""
    inputs = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    result = function(*args, **kwargs)
    outputs = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    wanted = [leaf for leaf in outputs if leaf.requires_grad]
    if wanted:
        with torch.enable_grad():
            sum(leaf.sum() * (at + 1) for at, leaf in enumerate(wanted)).backward()
    grads = [leaf.grad for leaf in inputs if leaf.is_leaf]
    return result, [leaf.requires_grad for leaf in outputs], grads, inputs


def assert_like_eager(function: Callable[..., Any], compiled: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """One call of each, on inputs of their own: results, structure, gradients and effects on inputs are equal."""
    eager_args, eager_kwargs = clone((args, kwargs))
    own_args, own_kwargs = clone((args, kwargs))
    expected = outcome(function, eager_args, eager_kwargs)
    actual = outcome(compiled, own_args, own_kwargs)
    assert pytree.tree_structure(actual) == pytree.tree_structure(expected)
    for mine, theirs in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
        assert type(mine) is type(theirs)
        if isinstance(theirs, torch.Tensor):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
        else:
            assert mine == theirs or mine is theirs


def check(function: Callable[..., Any], *calls: tuple[Any, ...], compiles: int | None = None, **options: Any) -> Any:
    """Calls ``function`` compiled and eager on each of ``calls``, twice each; returns the compiled one.

    Args:
        function: what is compiled.
        calls: the arguments of each call; the last may be a dict of keyword arguments wrapped in :class:`Keywords`.
        compiles: how many versions that must take.
        options: for the entry point.
    """
    compiled = unified_guards.aot_function(function, options.pop("fw_compiler", boxed), **options)
    for _ in range(2):
        for call in calls:
            args, kwargs = (call[:-1], dict(call[-1])) if call and isinstance(call[-1], Keywords) else (call, {})
            assert_like_eager(function, compiled, *args, **kwargs)
    info = compiled.cache_info()
    if compiles is not None:
        assert (info.recompiles + 1, info.eager) == (compiles, {}), compiled.explain().summary()
    return compiled


class Keywords(dict):  # type: ignore[type-arg]
    """Keyword arguments of a call, in order."""
