"""``aot_function``: gradients, grad mode and the state that a version is for."""

from __future__ import annotations

import pytest
import torch
from functorch.compile import min_cut_rematerialization_partition, nop

import unified_guards

from .helpers import Counting, check, ones


def test_gradients_of_many_inputs() -> None:
    check(
        lambda x, ws: (x @ ws["a"]).relu() @ ws["b"],
        (ones(2, 3), {"a": torch.randn(3, 4, requires_grad=True), "b": torch.randn(4, 2, requires_grad=True)}),
        compiles=1,
        partition_fn=min_cut_rematerialization_partition,
    )


def test_grad_mode_is_part_of_the_set() -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2, nop)
    x = ones(3, requires_grad=True)
    for _ in range(2):
        assert compiled(x).requires_grad
        with torch.no_grad():
            assert not compiled(x).requires_grad
    assert compiled.cache_info().entries == 2


def test_a_branch_on_grad_mode() -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2 if torch.is_grad_enabled() else x * 3, nop)
    for _ in range(2):
        torch.testing.assert_close(compiled(ones(2)), ones(2) * 2)
        with torch.no_grad():
            torch.testing.assert_close(compiled(ones(2)), ones(2) * 3)


def test_autocast_is_part_of_the_set() -> None:
    compiled = unified_guards.aot_function(lambda a, b: a @ b, nop)
    a, b = ones(2, 2), ones(2, 2)
    for _ in range(2):
        assert compiled(a, b).dtype is torch.float32
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert compiled(a, b).dtype is torch.bfloat16


def test_the_default_device_and_dtype_are_part_of_the_set() -> None:
    compiled = unified_guards.aot_function(lambda x: x + torch.ones(2), nop)
    before = torch.get_default_dtype()
    try:
        assert compiled(ones(2, dtype=torch.float32)).dtype is torch.float32
        torch.set_default_dtype(torch.float64)
        assert compiled(ones(2, dtype=torch.float32)).dtype is torch.float64
    finally:
        torch.set_default_dtype(before)


def test_a_backward_compiler_gets_the_backward_graph() -> None:
    forward, backward, inference = Counting(), Counting(), Counting()
    compiled = unified_guards.aot_function(lambda x: x.sin().cos(), forward, backward, inference_compiler=inference)
    compiled(ones(3, requires_grad=True)).sum().backward()
    compiled(ones(3))
    assert [len(each.graphs) for each in (forward, backward, inference)] == [1, 1, 1]


def test_double_backward_is_what_torch_has() -> None:
    x = ones(3, requires_grad=True)
    compiled = unified_guards.aot_function(lambda x: x**3, nop)
    (first,) = torch.autograd.grad(compiled(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="does not currently support double backward"):
        first.sum().backward()
