"""``aot_function``: fake tensors, other traces and modes around it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functorch.compile import nop
from torch._subclasses import FakeTensor, FakeTensorMode

import unified_guards

from .helpers import Counting, boxed, ones


def test_fake_tensors_are_traced_in_their_own_mode() -> None:
    modes: list[Any] = []

    def compiler(graph: Any, inputs: Any) -> Any:
        modes.extend(x.fake_mode for x in inputs)
        return boxed(graph, inputs)

    compiled = unified_guards.aot_function(lambda x: x + 1, compiler)
    mode = FakeTensorMode()
    x = mode.from_tensor(ones(3))
    result = compiled(x)
    assert isinstance(result, FakeTensor)
    assert modes == [mode]
    compiled(x)
    assert compiled.cache_info().entries == 1
    other = FakeTensorMode()
    assert compiled(other.from_tensor(ones(3))).fake_mode is other


def test_a_real_tensor_under_a_fake_mode_is_refused_with_a_way_out() -> None:
    compiled = unified_guards.aot_function(lambda x: x + 1, nop)
    x = ones(3)
    with FakeTensorMode(), pytest.raises(RuntimeError, match=r"fake_mode\.from_tensor"):
        compiled(x)


def test_inside_another_trace_the_function_is_seen_through() -> None:
    inner = unified_guards.aot_function(lambda x: x * 2, nop)
    counting = Counting()
    outer = unified_guards.aot_function(lambda x: inner(x) + 1, counting)
    torch.testing.assert_close(outer(ones(2)), ones(2) * 3)
    assert "mul" in counting.graphs[0].code
    assert inner.cache_info().entries == 0


def test_under_vmap_and_grad_the_function_is_seen_through() -> None:
    compiled = unified_guards.aot_function(lambda x: (x * 2).sum(), nop)
    torch.testing.assert_close(torch.func.vmap(compiled)(ones(3, 2)), torch.full((3,), 4.0))
    torch.testing.assert_close(torch.func.grad(compiled)(ones(2)), torch.full((2,), 2.0))


def test_inside_torch_compile() -> None:
    inner = unified_guards.aot_function(lambda x: x * 2, nop)
    outer = torch.compile(lambda x: inner(x) + 1, backend="eager")
    torch.testing.assert_close(outer(ones(2)), ones(2) * 3)
