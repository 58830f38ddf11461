"""What a function reads of the cells around it."""

from __future__ import annotations

import collections
import types
from typing import Any

import pytest
import torch
from functorch.compile import nop

import unified_guards

from .following import agrees, follows, item_setter
from .helpers import assert_like_eager, ones


@pytest.mark.parametrize("values", [(2, 3), (2, 2.0), (1, True), (None, 2), ("a", "b"), (0.0, -0.0)])
def test_a_closure_value_that_changes(values: tuple[Any, Any]) -> None:
    value, other = values

    def function(x: torch.Tensor) -> Any:
        return x * (3 if value is None or isinstance(value, str) else value), repr(value) == repr(other)

    def change() -> None:
        nonlocal value
        value = other

    compiled = unified_guards.aot_function(function, nop)
    assert_like_eager(function, compiled, ones(2))
    change()
    assert_like_eager(function, compiled, ones(2))
    assert compiled.cache_info().recompiles == 1


def test_a_closure_tensor_that_is_rebound_or_written_to_needs_no_new_version() -> None:
    weight = ones(2)

    def rebind() -> None:
        nonlocal weight
        weight = ones(2) * 5

    compiled = unified_guards.aot_function(lambda x: x * weight, nop)
    torch.testing.assert_close(compiled(ones(2)), ones(2))
    weight.mul_(3)
    torch.testing.assert_close(compiled(ones(2)), ones(2) * 3)
    rebind()
    torch.testing.assert_close(compiled(ones(2)), ones(2) * 5)
    assert compiled.cache_info().entries == 1


def test_a_closure_tensor_of_another_shape_is_another_version() -> None:
    weight = ones(2)

    def change() -> None:
        nonlocal weight
        weight = ones(3, 1)

    follows(lambda x: x * weight, change)


def test_a_nested_function_whose_closure_changes() -> None:
    scale = 2

    def inner(x: torch.Tensor) -> torch.Tensor:
        return x * scale

    def change() -> None:
        nonlocal scale
        scale = 3

    follows(lambda x: inner(x) + 1, change)


def test_a_function_that_is_defined_in_the_function_and_reads_around_it() -> None:
    scale = [2]

    def function(x: torch.Tensor) -> torch.Tensor:
        def inner(y: torch.Tensor) -> torch.Tensor:
            return y * scale[0]

        return inner(x)

    follows(function, item_setter(scale, 0, 3))


CONTAINERS = {
    "list": (lambda: [2], 0),
    "dict": (lambda: {"a": 2}, "a"),
    "OrderedDict": (lambda: collections.OrderedDict(a=2), "a"),
    "defaultdict": (lambda: collections.defaultdict(int, a=2), "a"),
    "Counter": (lambda: collections.Counter(a=2), "a"),
    "deque": (lambda: collections.deque([2]), 0),
    "UserDict": (lambda: collections.UserDict(a=2), "a"),
    "subclass of dict": (lambda: type("Mapping", (dict,), {})(a=2), "a"),
    "subclass of list": (lambda: type("Sequence", (list,), {})([2]), 0),
    "nested": (lambda: [[2]][0], 0),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_captured_container_whose_contents_change(kind: str) -> None:
    make, key = CONTAINERS[kind]
    container = make()
    agrees(lambda x: x * container[key], item_setter(container, key, 3))


def test_a_captured_set_that_grows() -> None:
    values = {2}
    agrees(lambda x: x * sum(values), lambda: values.add(5))


def test_a_read_only_view_of_a_dict_that_changes() -> None:
    below = {"a": 2}
    view = types.MappingProxyType(below)
    agrees(lambda x: x * view["a"], item_setter(below, "a", 3))


def test_a_captured_list_that_grows() -> None:
    values = [1]
    follows(lambda x: x * len(values), lambda: values.append(2))


def test_the_order_of_a_captured_dict() -> None:
    scales = {"a": 2, "b": 3}

    def reorder() -> None:
        scales["a"] = scales.pop("a")

    follows(lambda x: x + next(iter(scales.values())), reorder)


def test_a_list_that_holds_itself() -> None:
    values: list[Any] = [2]
    values.append(values)
    follows(lambda x: x * values[1][0], item_setter(values, 0, 3))
