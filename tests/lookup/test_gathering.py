"""What a compiled function is called with: the leaves that an entry asked for, in its order."""

from __future__ import annotations

import sys
import weakref
from typing import Any

import torch

from unified_guards.guards.ir import Access, Test, guard

from .making import ARGS, FIRST, KWARGS, Lookup, asks, gathering, put


def test_leaves_come_in_the_order_that_was_asked_for() -> None:
    second = ARGS.child(Access.TUPLE_ITEM, 1)
    assert gathering(second, FIRST)("a", "b") == ["b", "a"]


def test_leaves_come_from_nested_containers_and_keywords() -> None:
    nested = FIRST.child(Access.LIST_ITEM, 1).child(Access.TUPLE_ITEM, 0).child(Access.DICT_ITEM, "a")
    named = KWARGS.child(Access.DICT_ITEM, "b")
    assert gathering(nested, named)([0, ({"a": "deep"},)], b="named") == ["deep", "named"]


def test_one_leaf_may_come_twice() -> None:
    assert gathering(FIRST, FIRST)("a") == ["a", "a"]


def test_a_container_may_be_a_leaf_beside_its_items() -> None:
    value = ("a",)
    assert gathering(FIRST, FIRST.child(Access.TUPLE_ITEM, 0))(value) == [value, "a"]


def test_a_leaf_that_is_computed_outlives_the_lookup() -> None:
    sizes = [FIRST.child(Access.TENSOR_SIZE, at) for at in range(2)]
    assert gathering(*sizes)(torch.ones(1234, 5678)) == [1234, 5678]


def test_without_leaves_the_list_is_empty() -> None:
    assert gathering()("a") == []


def test_a_missing_leaf_is_a_miss() -> None:
    lookup = gathering(FIRST)
    assert lookup() == "missed"


def test_every_call_gets_a_list_of_its_own() -> None:
    lookup = gathering(FIRST)
    first, second = lookup("a"), lookup("a")
    assert type(first) is list
    assert first is not second


def test_leaves_of_a_failed_check_are_dropped() -> None:
    lookup, value = Lookup(), object()
    second = ARGS.child(Access.TUPLE_ITEM, 1)
    put(lookup, "all", asks(lambda _: True), guard(Test.EQUALS, (second,), (1,)), gather=[FIRST, second])
    before = sys.getrefcount(value)
    for _ in range(100):
        lookup._find((value, 2), {})
        lookup._find((value,), {})
    assert sys.getrefcount(value) == before


def test_a_call_gives_back_every_reference() -> None:
    lookup, value = gathering(FIRST), object()
    before = sys.getrefcount(value)
    for _ in range(100):
        lookup(value)
    assert sys.getrefcount(value) == before


def test_only_the_call_holds_the_list() -> None:
    """A compiled function empties the list to free its inputs early."""
    alive: list[bool] = []

    class Thing:
        pass

    def compiled(flat: list[Any]) -> list[Any]:
        watched = weakref.ref(flat[0])
        flat.clear()
        alive.append(watched() is not None)
        return [None]

    lookup = Lookup()
    put(lookup, "all", gather=[FIRST.child(Access.CALL0)], compiled=compiled)
    lookup(Thing)
    assert alive == [False]
