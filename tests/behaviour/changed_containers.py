"""A container changes: its length, keys, order, and what the function read from it."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch._dynamo

from ..harness import TORCH, ones, static
from .values import Colour, Pair


class ChangedContainers:
    """Containers are guarded by length, keys, order and what the function read from them."""

    def test_list_item_and_length(self) -> None:
        def function(x: torch.Tensor, items: list) -> torch.Tensor:
            x = x + 1
            for item in items:
                x = x * item
            return x

        watched = static(function)
        items = [2, 3]
        watched.expect(1, ones(), items)
        items[1] = 4
        watched.expect(2, ones(), items)
        items.append(5)
        watched.expect(3, ones(), items)
        watched.expect(3, ones(), [2, 3])
        watched.expect(4, ones(), [])
        watched.expect(4, ones(), [2, 4, 5])

    def test_list_of_tensors(self) -> None:
        def function(items: list) -> torch.Tensor:
            return sum(items[1:], items[0])

        watched = static(function)
        watched.expect(1, [ones(), ones()])
        watched.expect(1, [ones() * 2, ones() * 3])
        watched.expect(2, [ones(), ones(), ones()])
        watched.expect(3, [ones(), ones(1)])
        watched.expect(3, [ones() + 1, ones(1)])

    def test_list_in_which_a_tensor_is_replaced_by_none(self) -> None:
        def function(items: list) -> torch.Tensor:
            return items[0] * 2 if items[1] is None else items[0] + items[1]

        watched = static(function)
        items = [ones(), ones()]
        watched.expect(1, items)
        items[1] = None
        watched.expect(2, items)
        items[1] = ones()
        watched.expect(2, items)

    def test_tuple_of_mixed_values(self) -> None:
        def function(pair: tuple) -> torch.Tensor:
            x, scale = pair
            return x * scale

        watched = static(function)
        watched.expect(1, (ones(), 2))
        watched.expect(1, (ones(), 2))
        watched.expect(2, (ones(), 3))
        watched.expect(3, (ones(), 3.0))

    def test_namedtuple_of_tensor(self) -> None:
        def function(pair: Pair) -> torch.Tensor:
            return pair.first * pair.second

        watched = static(function)
        watched.expect(1, Pair(ones(), 2))
        watched.expect(1, Pair(ones(), 2))
        watched.expect(2, Pair(ones(), 3))
        watched.expect(3, Pair(ones(4), 3))

    def test_dict_value(self) -> None:
        def function(x: torch.Tensor, table: dict) -> torch.Tensor:
            return x * table["scale"]

        watched = static(function)
        table = {"scale": 2, "other": 0}
        watched.expect(1, ones(), table)
        table["scale"] = 3
        watched.expect(2, ones(), table)
        table["scale"] = 2
        watched.expect(2, ones(), table)
        table["scale"] = ones()
        watched.expect(3, ones(), table)

    def test_dict_keys_and_order(self) -> None:
        def function(x: torch.Tensor, table: dict) -> torch.Tensor:
            for key, value in table.items():
                x = x * value - len(key)
            return x

        watched = static(function)
        watched.expect(1, ones(), {"a": 2, "bb": 3})
        watched.expect(1, ones(), {"a": 2, "bb": 3})
        watched.expect(2, ones(), {"bb": 3, "a": 2})
        watched.expect(3, ones(), {"a": 2, "ccc": 3})
        watched.expect(4, ones(), {"a": 2})
        watched.expect(5, ones(), {"a": 2, "bb": 3, "ccc": 4})
        watched.expect(5, ones(), {"a": 2, "bb": 3})

    def test_dict_key_reinserted_at_the_end(self) -> None:
        def function(x: torch.Tensor, table: dict) -> torch.Tensor:
            for value in table.values():
                x = x * 2 + value
            return x

        watched = static(function)
        table = {"a": 1, "b": 5}
        watched.expect(1, ones(), table)
        table["a"] = table.pop("a")
        watched.expect(2, ones(), table)

    def test_dict_membership(self) -> None:
        def function(x: torch.Tensor, table: dict) -> torch.Tensor:
            return x + 1 if "flag" in table else x - 1

        watched = static(function)
        watched.expect(1, ones(), {"flag": 1})
        watched.expect(1, ones(), {"flag": 1 if TORCH < (2, 13) else 2})  # older versions guard the value too
        watched.expect(2, ones(), {"other": 1})
        watched.expect(2, ones(), {"flag": 1})

    def test_dict_get_with_default(self) -> None:
        def function(x: torch.Tensor, table: dict) -> torch.Tensor:
            return x * table.get("scale", 5)

        watched = static(function)
        watched.expect(1, ones(), {})
        watched.expect(2, ones(), {"scale": 2})
        watched.expect(2, ones(), {})
        watched.expect(3, ones(), {"scale": 3})

    def test_dict_with_keys_that_are_no_strings(self) -> None:
        key = ones()

        def function(x: torch.Tensor, table: dict) -> torch.Tensor:
            for value in table.values():
                x = x * value
            return x

        watched = static(function)
        table: dict[Any, Any] = {1: 2, Colour.RED: 3, (1, 2): 4, key: 5}
        watched.expect(1, ones(), table)
        watched.expect(1, ones(), dict(table))
        table[Colour.RED] = 4
        watched.expect(2, ones(), table)
        table[Colour.BLUE] = 4
        watched.expect(3, ones(), table)

    @pytest.mark.parametrize("kind", ["ordered", "default", "subclass"])
    def test_kinds_of_dict(self, kind: str) -> None:
        class Table(dict):
            pass

        kinds = {
            "ordered": collections.OrderedDict,
            "default": lambda values: collections.defaultdict(int, values),
            "subclass": Table,
        }
        make = kinds[kind]

        def function(x: torch.Tensor, table: Any) -> torch.Tensor:
            for key, value in table.items():
                x = x * value + len(key)
            return x

        watched = static(function)
        watched.expect(1, ones(), make({"a": 2, "bb": 3}))
        watched.expect(1, ones(), make({"a": 2, "bb": 3}))
        watched.expect(2, ones(), make({"a": 2, "bb": 4}))
        watched.expect(3, ones(), make({"a": 2}))
        watched.expect(4, ones(), {"a": 2})

    def test_nested_containers(self) -> None:
        def function(x: torch.Tensor, tree: dict) -> torch.Tensor:
            return x * tree["list"][0][1]["deep"] + tree["tensor"][0]

        watched = static(function)
        tree = {"list": [(0, {"deep": 2})], "tensor": (ones(),)}
        watched.expect(1, ones(), tree)
        tree["list"][0][1]["deep"] = 3
        watched.expect(2, ones(), tree)
        tree["list"] = [(0, {"deep": 2})]
        watched.expect(2, ones(), tree)
        tree["tensor"] = (ones(1),)
        watched.expect(3, ones(), tree)

    def test_set_contents(self) -> None:
        def function(x: torch.Tensor, names: set) -> torch.Tensor:
            return x * 2 if "a" in names else x * 3

        watched = static(function)
        names = {"a", "b"}
        watched.expect(1, ones(), names)
        watched.expect(1, ones(), {"b", "a"})
        names.remove("a")
        watched.expect(2, ones(), names)
        watched.expect(2, ones(), {"a", "b"})

    def test_deque(self) -> None:
        def function(x: torch.Tensor, items: collections.deque) -> torch.Tensor:
            for item in items:
                x = x * item
            return x

        watched = static(function)
        watched.expect(1, ones(), collections.deque([2, 3]))
        watched.expect(1, ones(), collections.deque([2, 3]))
        watched.expect(2, ones(), collections.deque([2, 4]))
        watched.expect(3, ones(), collections.deque([2]))

    def test_tuple_iterator(self) -> None:
        def function(x: torch.Tensor, items: Iterator) -> torch.Tensor:
            for item in items:
                x = x * item
            return x

        watched = static(function)
        watched.expect_fresh(1, lambda: (ones(), iter((2, 3))))
        watched.expect_fresh(1, lambda: (ones(), iter((2, 3))))
        watched.expect_fresh(2, lambda: (ones(), iter((2, 4))))
        watched.expect_fresh(3, lambda: (ones(), iter((2, 3, 4))))

    def test_partly_consumed_tuple_iterator(self) -> None:
        def function(x: torch.Tensor, items: Iterator) -> torch.Tensor:
            return x * next(items)

        def make(skip: int) -> tuple:
            items = iter((2, 3, 4))
            for _ in range(skip):
                next(items)
            return ones(), items

        watched = static(function)
        watched.expect_fresh(1, lambda: make(0))
        watched.expect_fresh(2, lambda: make(1))
        watched.expect_fresh(3, lambda: make(2))
        watched.expect_fresh(3, lambda: make(0))

    def test_range_iterator(self) -> None:
        def function(x: torch.Tensor, items: Iterator) -> torch.Tensor:
            for item in items:
                x = x + item
            return x

        watched = static(function)
        watched.expect_fresh(1, lambda: (ones(), iter(range(1, 5))))
        watched.expect_fresh(1, lambda: (ones(), iter(range(1, 5))))
        watched.expect_fresh(2, lambda: (ones(), iter(range(1, 6))))
        watched.expect_fresh(3, lambda: (ones(), iter(range(2, 5))))
        watched.expect_fresh(4, lambda: (ones(), iter(range(1, 6, 2))))

    def test_count_iterator(self) -> None:
        def function(x: torch.Tensor, numbers: Iterator) -> torch.Tensor:
            return x + next(numbers) + next(numbers)

        if TORCH < (2, 13):
            pytest.skip("torch before 2.13 has no guard for itertools.count")
        watched = static(function)
        watched.expect_fresh(1, lambda: (ones(), itertools.count(5)))
        watched.expect_fresh(1, lambda: (ones(), itertools.count(5)))
        watched.expect_fresh(2, lambda: (ones(), itertools.count(6)))
        watched.expect_fresh(3, lambda: (ones(), itertools.count(5, 2)))
