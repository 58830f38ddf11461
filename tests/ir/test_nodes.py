"""Sources and guards are interned: the same path, or the same question, is the same object."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from unified_guards.guards.ir import Access, Source, Test, guard
from unified_guards.lower.rows import lower, make_checker

from ..guards import equals, local
from .making import item, set_of

KEYS = ["a", 1, 2.5, None, True, b"a", (1, "a"), 1 + 2j, slice(1, 2), -0.0, 0.0, (True,), (1,), int, 10**30, "1"]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_the_same_path_is_the_same_object(key: object) -> None:
    assert item(key) is item(copy.copy(key))


def test_keys_that_differ_are_different_sources() -> None:
    sources = [item(key) for key in KEYS]
    assert len({id(source) for source in sources}) == len(KEYS)


@pytest.mark.parametrize("access", [Access.DICT_ITEM, Access.ITEM, Access.ATTR, Access.GENERIC_ATTR])
def test_the_way_of_access_is_part_of_the_path(access: Access) -> None:
    others = {Access.DICT_ITEM, Access.ITEM, Access.ATTR, Access.GENERIC_ATTR} - {access}
    assert all(local().child(access, "a") is not local().child(other, "a") for other in others)


def test_the_base_is_part_of_the_path() -> None:
    assert item("a", local("x")) is not item("a", local("y"))


def test_depth_counts_the_steps_from_the_frame() -> None:
    assert [Source.frame().depth, local().depth, item("a").depth] == [0, 1, 2]


VALUES = [3, True, 3.0, 0.0, -0.0, float("inf"), "3", None, (3,), (3.0,), (True,), b"3", slice(0, 3), 3j]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_the_same_guard_is_the_same_object(value: object) -> None:
    assert equals(local(), value) is equals(local(), copy.deepcopy(value))


def test_guards_that_differ_in_a_value_are_different() -> None:
    guards = [equals(local(), value) for value in VALUES]
    assert len(set(guards)) == len(VALUES)


def test_guards_on_mutable_values_are_the_same_only_for_the_same_object() -> None:
    value = [1]
    assert equals(local(), value) is equals(local(), value)
    assert equals(local(), value) is not equals(local(), [1])


@pytest.mark.parametrize(
    "wrap", [float, lambda value: (value,), lambda value: complex(value, 0)], ids=["", "tuple", "complex"]
)
def test_guards_on_two_nans_are_two_guards(wrap: Callable[[float], Any]) -> None:
    """A NaN is equal to nothing but itself: another one must not take its place."""
    first, second = wrap(float("nan")), wrap(float("nan"))
    guards = [equals(local(), first), equals(local(), second)]
    assert guards[0] is not guards[1]
    for found, value in zip(guards, (first, second), strict=True):
        assert make_checker(lower(set_of(found))).check({"x": value})


def test_the_order_of_related_sources_matters() -> None:
    x, y = local("x"), local("y")
    assert guard(Test.SAME, (x, y)) is not guard(Test.SAME, (y, x))
    assert guard(Test.SAME, (x, y)) is guard(Test.SAME, (x, y))


@pytest.mark.parametrize(("node", "name"), [(local(), "key"), (equals(local(), 3), "params")], ids=["source", "guard"])
def test_a_node_cannot_be_changed(node: Any, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(node, name, getattr(node, name))
    with pytest.raises(AttributeError):
        node.another = 1


@pytest.mark.parametrize("node", [local(), equals(local(), 3)], ids=["source", "guard"])
def test_a_node_refuses_to_be_pickled_and_says_what_to_do(node: object) -> None:
    with pytest.raises(TypeError, match="to_json"):
        pickle.dumps(node)
