"""``aot_function``: what an argument has beside what is in it."""

from __future__ import annotations

import collections
from typing import Any, NamedTuple

import pytest
import torch
from functorch.compile import nop
from torch._subclasses import FakeTensor
from torch.utils import _pytree as pytree

import unified_guards
from unified_guards.dynamo import compat

from .helpers import assert_like_eager, check, ones


def flagged(value: Any, flag: int) -> Any:
    value.flag = flag
    return value


def caught(x: torch.Tensor) -> Any:
    try:
        return x * x.flag  # type: ignore[attr-defined]
    except AttributeError:
        return x + 1


ATTRIBUTE_READERS = {
    "hasattr": lambda x: x * 2 if hasattr(x, "flag") else x + 5,
    "getattr": lambda x: x * getattr(x, "flag", 1),
    "caught": caught,
}


@pytest.mark.parametrize("make", [ones, lambda size: torch.nn.Parameter(ones(size))])
@pytest.mark.parametrize("reader", ATTRIBUTE_READERS)
def test_a_tensor_that_has_an_attribute_is_not_one_without(reader: str, make: Any) -> None:
    function = ATTRIBUTE_READERS[reader]
    arguments = [make(3), flagged(make(3), 5), flagged(make(3), 6)]
    for order in (arguments, arguments[::-1]):
        compiled = unified_guards.aot_function(function, nop)
        for x in (*order, *order):
            assert torch.equal(compiled(x), function(x))


def test_an_attribute_that_nobody_asks_for_does_not_matter() -> None:
    check(lambda x: x * 2, (ones(3),), (flagged(ones(3), 5),), compiles=1)


def test_asking_for_an_absent_attribute_costs_no_version() -> None:
    check(ATTRIBUTE_READERS["hasattr"], (ones(3),), (ones(3) * 2,), compiles=1)
    assert not hasattr(FakeTensor, "__getattr__")


class Row(tuple):  # type: ignore[type-arg]
    pass


class Cell(NamedTuple):
    x: torch.Tensor
    y: int


class NamedRow(Cell):
    pass


class Node:
    def __init__(self, x: torch.Tensor, other: int = 0) -> None:
        self.x = x
        self.other = other


pytree.register_pytree_node(Node, lambda node: ([node.x], None), lambda children, _: Node(children[0]))

CONTAINERS = {
    "tuple": lambda: Row((ones(3),)),
    "named tuple": lambda: NamedRow(ones(3), 2),
    "ordered dict": lambda: collections.OrderedDict(x=ones(3)),
    "node": lambda: Node(ones(3)),
}


def by_flag(value: Any) -> Any:
    x = value.x if isinstance(value, Node) else value["x"] if isinstance(value, dict) else value[0]
    return x * getattr(value, "flag", 1)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_container_that_has_an_attribute_is_not_one_without(kind: str) -> None:
    if kind == "named tuple" and compat.TORCH < (2, 13):
        pytest.skip("Dynamo of torch 2.11 takes a named tuple to have no attributes, on its first call too")
    make = CONTAINERS[kind]
    calls = (lambda: make(), lambda: flagged(make(), 5), lambda: flagged(make(), 6))
    for order in (calls, calls[::-1]):
        compiled = unified_guards.aot_function(by_flag, nop)
        for call in order:
            assert_like_eager(by_flag, compiled, call())


def test_what_a_node_does_not_hand_out_is_not_lost() -> None:
    compiled = unified_guards.aot_function(lambda node: node.x + node.other, nop)
    for other in (0, 3, 4, 0):
        assert torch.equal(compiled(Node(ones(3), other)), ones(3) + other)


class Slotted:
    __slots__ = ("other", "x")

    def __init__(self, x: torch.Tensor, other: int = 0) -> None:
        self.x = x
        self.other = other


pytree.register_pytree_node(Slotted, lambda node: ([node.x], None), lambda children, _: Slotted(children[0]))


@pytest.mark.parametrize("kind", [Node, Slotted])
def test_data_that_a_node_does_not_hand_out_is_not_lost(kind: Any) -> None:
    def function(node: Any) -> Any:
        return node.x + (node.other if isinstance(node.other, int) else node.other["a"][0])

    compiled = unified_guards.aot_function(function, nop)
    for other in (0, 3, {"a": [5]}, {"a": [6]}, 0):
        assert torch.equal(compiled(kind(ones(3), other)), function(kind(ones(3), other)))


class Scaled(torch.Tensor):
    @staticmethod
    def __new__(cls, inner: torch.Tensor, scale: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined]

    def __init__(self, inner: torch.Tensor, scale: Any) -> None:
        self.part = inner
        self.scale = scale

    def __repr__(self) -> str:  # torch's own reads the numbers, of which a traced one has none
        return "Scaled"

    def __tensor_flatten__(self) -> Any:
        return ["part"], (self.scale,)

    @staticmethod
    def __tensor_unflatten__(inner: Any, metadata: Any, size: Any, stride: Any) -> Any:
        return Scaled(inner["part"], *metadata)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def unwrap(value: Any) -> Any:
            return value.part * value.scale if isinstance(value, Scaled) else value

        return function(*pytree.tree_map(unwrap, args), **pytree.tree_map(unwrap, kwargs or {}))


@pytest.mark.parametrize("scales", [(1, True), (1, 1.0), (0.0, -0.0), (2, 2.0)])
def test_what_a_wrapper_says_of_itself_is_compared_exactly(scales: tuple[Any, Any]) -> None:
    def function(x: Any) -> Any:
        return ones(3), repr(x.scale)

    compiled = unified_guards.aot_function(function, nop)
    for scale in (*scales, *scales):
        assert compiled(Scaled(ones(3), scale))[1] == repr(scale)
    assert compiled.cache_info().eager == {}


def test_an_attribute_of_a_wrapper() -> None:
    compiled = unified_guards.aot_function(lambda x: ones(3) * getattr(x, "flag", 1), nop)
    for flag in (None, 5, 6, None):
        x = Scaled(ones(3), 1)
        assert torch.equal(compiled(x if flag is None else flagged(x, flag)), ones(3) * (flag or 1))


@pytest.mark.parametrize("other_is_inside", [True, False])
def test_a_wrapper_that_shares_memory_is_not_one_that_does_not(other_is_inside: bool) -> None:
    def function(x: Any, y: Any) -> Any:
        y = y.part if other_is_inside else y
        y.mul_(2)
        return x.part + (1 if x.part is y else 0)

    def arguments(shared: bool) -> tuple[Any, Any]:
        part = ones(3)
        other = part if shared else ones(3)
        return Scaled(part, 1), Scaled(other, 1) if other_is_inside else other

    compiled = unified_guards.aot_function(function, nop)
    for shared in (False, True, False, True):
        assert torch.equal(compiled(*arguments(shared)), function(*arguments(shared)))
