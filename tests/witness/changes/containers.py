"""Changes of dicts, lists, tuples and sets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from unified_guards.guards.ir import Access, Test, guard

from ...guards import equals, item
from ..building import Thing
from .table import Step, change


@change
def an_item_of_a_dict_is_another() -> Iterator[Step]:
    thing: Any = Thing(flag=True)
    yield {"x": thing}, [equals(item("flag"), True)]
    thing.flag = False
    yield None
    thing.flag = True


@change
def an_item_of_a_dict_is_removed() -> Iterator[Step]:
    thing: Any = Thing(flag=True)
    yield {"x": thing}, [equals(item("flag"), True)]
    del thing.flag
    yield None
    thing.flag = True


@change
def an_item_is_added_to_a_dict() -> Iterator[Step]:
    thing: Any = Thing(table={"a": 1})
    yield {"x": thing}, [guard(Test.DICT_LENGTH, (item("table"),), (1,))]
    thing.table["b"] = 2
    yield None
    del thing.table["b"]


@change
def a_key_comes_into_a_dict_that_lacked_it() -> Iterator[Step]:
    thing: Any = Thing(table={"a": 1})
    yield {"x": thing}, [guard(Test.DICT_CONTAINS, (item("table"),), ("b", False))]
    thing.table["b"] = 2


@change
def the_keys_of_a_dict_change_places() -> Iterator[Step]:
    thing: Any = Thing(table={"a": 1, "b": 2})
    yield {"x": thing}, [guard(Test.KEYS, (item("table"),), (("a", "b"),))]
    thing.table["a"] = thing.table.pop("a")


@change
def a_dict_is_emptied() -> Iterator[Step]:
    thing: Any = Thing(table={"a": 1})
    yield {"x": thing}, [equals(item("table").child(Access.DICT_ITEM, "a"), 1)]
    thing.table.clear()


@change
def a_dict_in_a_dict_is_another() -> Iterator[Step]:
    thing: Any = Thing(table={"a": 1})
    yield {"x": thing}, [equals(item("table").child(Access.DICT_ITEM, "a"), 1)]
    thing.table = {"a": 2}


@change
def a_list_grows() -> Iterator[Step]:
    thing: Any = Thing(items=[1])
    yield {"x": thing}, [guard(Test.LENGTH, (item("items"),), (1, False))]
    thing.items.append(2)
    yield None
    thing.items.pop()


@change
def a_list_is_emptied() -> Iterator[Step]:
    thing: Any = Thing(items=[1])
    yield {"x": thing}, [equals(item("items").child(Access.LIST_ITEM, 0), 1)]
    thing.items.clear()


@change
def an_item_of_a_list_is_another() -> Iterator[Step]:
    thing: Any = Thing(items=[1, 2])
    yield {"x": thing}, [equals(item("items").child(Access.LIST_ITEM, 1), 2)]
    thing.items[1] = 3
    yield None
    thing.items[1] = 2


@change
def a_tuple_is_another() -> Iterator[Step]:
    thing: Any = Thing(pair=(1, 2))
    yield {"x": thing}, [equals(item("pair").child(Access.TUPLE_ITEM, 1), 2)]
    thing.pair = (1, 3)


@change
def an_object_in_a_tuple_changes() -> Iterator[Step]:
    part: Any = Thing(flag=True)
    thing: Any = Thing(pair=(1, part))
    yield {"x": thing}, [equals(item("flag", item("pair").child(Access.TUPLE_ITEM, 1)), True)]
    part.flag = False


@change
def a_set_grows() -> Iterator[Step]:
    thing: Any = Thing(items={1})
    yield {"x": thing}, [guard(Test.LENGTH, (item("items"),), (1, True))]
    thing.items.add(2)
