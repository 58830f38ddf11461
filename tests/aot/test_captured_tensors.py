"""Tensors that a function has from around it."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from functorch.compile import nop

import unified_guards

from .following import agrees
from .helpers import ones
from .objects import Plain

GRADIENT_HOLDERS: dict[str, Callable[[torch.Tensor], Callable[..., Any]]] = {
    "closure": lambda weight: lambda x: x * weight,
    "list": lambda weight: functools.partial(lambda xs, x: x * xs[0], [weight]),
    "dict": lambda weight: functools.partial(lambda xs, x: x * xs["w"], {"w": weight}),
    "tuple": lambda weight: functools.partial(lambda xs, x: torch.stack(xs).sum(0) * x, (weight, weight)),
    "namedtuple": lambda weight: functools.partial(
        lambda xs, x: torch.cat(xs) * torch.cat([x, x]), collections.namedtuple("Two", "a b")(weight, weight)
    ),
    "object": lambda weight: Plain(weight).scaled,
    "default": lambda weight: lambda x, w=weight: x * w,
}


@pytest.mark.parametrize("where", GRADIENT_HOLDERS)
def test_gradients_reach_captured_tensors(where: str) -> None:
    weight = ones(2, requires_grad=True)
    function = GRADIENT_HOLDERS[where](weight)
    compiled = unified_guards.aot_function(function, nop)
    for scale in (2, 3):
        found = []
        for call in (compiled, function):
            weight.grad = None
            call(ones(2) * scale).sum().backward()
            found.append(weight.grad)
        torch.testing.assert_close(*found)
    assert compiled.cache_info().eager == {}


def test_a_captured_tensor_that_is_also_an_argument() -> None:
    weight = ones(2, requires_grad=True)
    compiled = unified_guards.aot_function(lambda x: x * weight, nop)
    for _ in range(2):
        weight.grad = None
        compiled(weight).sum().backward()
        torch.testing.assert_close(weight.grad, ones(2) * 2)
        torch.testing.assert_close(compiled(ones(2) * 3), ones(2) * 3)


def test_whether_an_argument_is_the_captured_tensor() -> None:
    weight = ones(2)
    compiled = unified_guards.aot_function(lambda x: x * 2 if x is weight else x * 3, nop)
    for _ in range(2):
        torch.testing.assert_close(compiled(weight), ones(2) * 2)
        torch.testing.assert_close(compiled(ones(2)), ones(2) * 3)


def test_a_captured_tensor_that_is_returned_is_that_tensor() -> None:
    weight = ones(2)
    compiled = unified_guards.aot_function(lambda x: (weight, x + 1, [weight]), nop)
    for _ in range(2):
        first, _, (second,) = compiled(ones(2))
        assert first is weight
        assert second is weight


def test_a_captured_tensor_that_is_written_to() -> None:
    total = torch.zeros(2)
    compiled = unified_guards.aot_function(lambda x: total.add_(x) * 2, nop)
    for at in range(1, 4):
        torch.testing.assert_close(compiled(ones(2)), ones(2) * at * 2)
        torch.testing.assert_close(total, ones(2) * at)
    assert compiled.cache_info().eager == {}


def test_a_captured_tensor_that_nothing_sees_is_still_used() -> None:
    hidden = collections.deque([ones(2) * 3])
    agrees(lambda x: x * hidden[0])


READ_OF_A_TENSOR: dict[str, tuple[Callable[[torch.Tensor], Any], Callable[[torch.Tensor], Any]]] = {
    "grad": (lambda x: x * 2 if x.grad is None else x * 3, lambda x: setattr(x, "grad", ones(2))),
    "_version": (lambda x: x * x._version, lambda x: x.data.add_(0)),
}


@pytest.mark.parametrize("what", READ_OF_A_TENSOR)
def test_what_python_reads_of_a_tensor_beside_its_metadata(what: str) -> None:
    function, change = READ_OF_A_TENSOR[what]
    for prepare in (lambda x: None, change):
        compiled = unified_guards.aot_function(function, nop)
        x = ones(2, requires_grad=True)
        prepare(x)
        torch.testing.assert_close(compiled(x), function(x))
        change(x)
        torch.testing.assert_close(compiled(x), function(x))


def test_whether_a_tensor_is_a_view() -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2 if x._base is None else x * 3, nop)
    x = ones(2)
    torch.testing.assert_close(compiled(x), x * 2)
    torch.testing.assert_close(compiled(x[:]), x * 3)


def test_whether_a_tensor_is_a_leaf() -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2 if x.is_leaf else x * 3, nop)
    x = ones(2, requires_grad=True)
    torch.testing.assert_close(compiled(x), x * 2)
    torch.testing.assert_close(compiled(x * 1), x * 3)
