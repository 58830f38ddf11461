"""Changes of instances: their dict, inline values and slots; and of what globals and weak references lead to."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

from unified_guards.guards.ir import Access, Source, Test, guard

from ...guards import attr, equals, item, type_is
from ..building import Other, Thing
from .table import Step, change


@change
def the_dict_of_an_instance_is_another() -> Iterator[Step]:
    thing: Any = Thing(flag=True)
    before = vars(thing)
    yield {"x": thing}, [equals(item("flag"), True)]
    thing.__dict__ = {"flag": False}
    yield None
    thing.__dict__ = before


@change
def the_class_of_an_object_is_another() -> Iterator[Step]:
    thing: Any = Thing(part=Thing())
    yield {"x": thing}, [type_is(item("part"), Thing)]
    thing.part.__class__ = Other
    yield None
    thing.part.__class__ = Thing


class Inline:
    """Its instances keep their values without a dict, from Python 3.11 on."""

    def __init__(self) -> None:
        self.flag = True
        self.other = 1


@change
def a_value_of_an_instance_without_a_dict_is_another() -> Iterator[Step]:
    thing = Inline()
    yield {"x": thing}, [equals(attr("flag"), True)]
    thing.flag = False
    yield None
    thing.flag = True


@change
def a_value_of_an_instance_without_a_dict_is_removed() -> Iterator[Step]:
    thing = Inline()
    yield {"x": thing}, [equals(attr("flag"), True)]
    del thing.flag


@change
def an_instance_gets_its_dict_and_another_value_in_it() -> Iterator[Step]:
    thing = Inline()
    yield {"x": thing}, [equals(attr("flag"), True)]
    vars(thing)["flag"] = False


class Slotted:
    __slots__ = ("flag",)

    def __init__(self) -> None:
        self.flag = True


@change
def a_slot_is_written() -> Iterator[Step]:
    thing = Slotted()
    yield {"x": thing}, [equals(attr("flag"), True)]
    thing.flag = False
    yield None
    thing.flag = True


@change
def a_slot_is_emptied() -> Iterator[Step]:
    thing = Slotted()
    yield {"x": thing}, [equals(attr("flag"), True)]
    del thing.flag


@change
def the_target_of_a_weak_reference_dies() -> Iterator[Step]:
    target = Thing()
    thing: Any = Thing(reference=weakref.ref(target))
    yield {"x": thing}, [type_is(item("reference").child(Access.WEAKREF_CALL), Thing)]
    del target


@change
def the_target_of_a_weak_reference_among_globals_dies() -> Iterator[Step]:
    target = Thing()
    scope = {"name": weakref.ref(target)}
    yield {}, [type_is(Source.frame().child(Access.GLOBALS, scope).child(Access.GLOBAL_WEAKREF, "name"), Thing)]
    del target


@change
def a_global_is_another() -> Iterator[Step]:
    scope = {"name": 1}
    yield {}, [equals(Source.frame().child(Access.GLOBALS, scope).child(Access.DICT_ITEM, "name"), 1)]
    scope["name"] = 2
    yield None
    scope["name"] = 1


@change
def what_an_identity_is_about_is_another() -> Iterator[Step]:
    target = Thing()
    thing: Any = Thing(part=target)
    yield {"x": thing}, [guard(Test.IS_TARGET, (item("part"),), (weakref.ref(target), "it"))]
    thing.part = Thing()
