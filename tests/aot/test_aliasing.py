"""``aot_function``: arguments that share memory, and functions that write to them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functorch.compile import nop

import unified_guards

from .helpers import check, ones


def test_the_same_tensor_twice_is_not_two_tensors() -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> Any:
        a.add_(1)
        return a + b, a is b

    one = torch.zeros(3)
    check(function, (torch.zeros(3), torch.zeros(3)), (one, one), compiles=2)


def test_views_of_one_memory_that_is_written_to() -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> Any:
        a.mul_(2)
        return a + b

    base = torch.arange(8.0)
    compiled = unified_guards.aot_function(function, nop)
    for one, other in ((slice(0, 4), slice(4, 8)), (slice(0, 4), slice(2, 6)), (slice(0, 4), slice(0, 4))):
        for _ in range(2):
            mine, theirs = base.clone(), base.clone()
            torch.testing.assert_close(compiled(mine[one], mine[other]), function(theirs[one], theirs[other]))
            torch.testing.assert_close(mine, theirs)
    separate = torch.arange(4.0), torch.arange(4.0)
    torch.testing.assert_close(compiled(*separate), function(torch.arange(4.0), torch.arange(4.0)))
    assert compiled.cache_info().entries == 4


def test_a_write_that_eager_refuses_is_refused() -> None:
    compiled = unified_guards.aot_function(lambda x: x.add_(1) * 2, nop)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
            compiled(ones(2, requires_grad=True))
    with torch.no_grad():
        torch.testing.assert_close(compiled(ones(2, requires_grad=True)).detach(), ones(2) * 4)


def test_memory_that_is_only_read_may_be_shared() -> None:
    base = torch.arange(8.0)
    compiled = unified_guards.aot_function(lambda a, b: a + b, nop)
    compiled(base[:4].clone(), base[:4].clone())
    torch.testing.assert_close(compiled(base[:4], base[2:6]), base[:4] + base[2:6])
    assert compiled.cache_info().entries == 1


@pytest.mark.parametrize("keep", [False, True])
def test_inputs_are_written_to(keep: bool) -> None:
    def function(x: torch.Tensor, buffer: torch.Tensor) -> Any:
        buffer.mul_(2).add_(x)
        buffer.t_()
        return buffer * x.sum()

    check(function, (ones(3, 3), torch.arange(9.0).reshape(3, 3)), keep_inference_input_mutations=keep)


def test_outputs_that_are_inputs_or_views_of_them() -> None:
    x = torch.arange(6.0)
    compiled = unified_guards.aot_function(lambda x: (x, x[1:], x.view(2, 3), x + 1), nop)
    for _ in range(2):
        same, tail, shaped, new = compiled(x)
        assert same is x
        assert tail.untyped_storage()._cdata == x.untyped_storage()._cdata == shaped.untyped_storage()._cdata
        assert new.untyped_storage()._cdata != x.untyped_storage()._cdata
        assert tail._is_view()


def test_an_offset_that_is_read_counts_and_only_then() -> None:
    base = torch.arange(8.0)
    plain = unified_guards.aot_function(lambda x: x * 2, nop)
    reading = unified_guards.aot_function(lambda x: x * x.storage_offset(), nop)
    for start in (0, 1, 2):
        torch.testing.assert_close(plain(base[start : start + 4]), base[start : start + 4] * 2)
        torch.testing.assert_close(reading(base[start : start + 4]), base[start : start + 4] * start)
    assert plain.cache_info().entries == 1
    info = reading.cache_info()
    assert info.entries + sum(info.eager.values()) == 3  # before torch 2.15 Dynamo does not capture it
