"""Another object at the address of a dead one is noticed."""

from __future__ import annotations

from typing import Any

from unified_guards.guards.ir import Access

from ..guards import checker, equals, item
from .building import Thing, held_by, holds, recorded


def test_another_number_at_the_same_address_is_noticed() -> None:
    thing: Any = Thing(scale=float("1.5"))
    made = recorded(checker(equals(item("scale"), float("1.5"))), {"x": thing})
    assert held_by(made, {"x": thing})
    for step in range(20):
        thing.scale = 0
        thing.scale = float(step)
        assert not holds(made, {"x": thing})


def test_another_number_at_the_same_address_in_a_list_is_noticed() -> None:
    """A list has no version: its items are pointers, and the allocator gives out the same memory again."""
    thing: Any = Thing(items=[float("1.5")])
    made = recorded(checker(equals(item("items").child(Access.LIST_ITEM, 0), float("1.5"))), {"x": thing})
    assert held_by(made, {"x": thing})
    for step in range(20):
        thing.items[0] = None
        thing.items[0] = float(step)
        assert not holds(made, {"x": thing})


def test_another_object_at_the_same_address_in_a_list_is_noticed() -> None:
    thing: Any = Thing(items=[Thing(flag=True)])
    made = recorded(checker(equals(item("flag", item("items").child(Access.LIST_ITEM, 0)), True)), {"x": thing})
    where = id(thing.items[0])
    again = 0
    for _ in range(50):
        thing.items[0] = None
        thing.items[0] = Thing(flag=False)
        again += id(thing.items[0]) == where
        assert not holds(made, {"x": thing})
    assert again, "the allocator never gave out the same memory"


def test_another_root_at_the_same_address_is_noticed() -> None:
    made = checker(equals(item("flag"), True))
    for _ in range(50):
        thing: Any = Thing(flag=True)
        recorded(made, {"x": thing})
        assert held_by(made, {"x": thing})
        del thing
        assert not holds(made, {"x": Thing(flag=False)})
