"""Attributes of plain objects: set, deleted, in instance dicts, slots and inline values."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

import torch

from ..world import Color, Point, World
from .parts import (
    _c_generic_setattr,
    _c_setattr,
    _c_setitem,
    attribute,
    in_place,
    number,
    plain_objects,
    put,
    refill_attributes,
    setter,
    then,
)
from .table import Change, row


@row(3)
def setattr_value(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        yield from attribute(thing, "own", number, lambda: 2.0, lambda: True, lambda: None, lambda: [2])
        yield from attribute(thing, "text", lambda: "other", lambda: b"text", number)
        yield from attribute(thing, "real", lambda: -0.5, lambda: float("nan"))
        yield from attribute(thing, "flag", lambda: False, lambda: 1)


@row(2)
def setattr_equal_value(w: World) -> Iterator[Change]:
    """Another object that is equal: only guards on identity notice."""
    for thing in plain_objects(w):
        yield from attribute(thing, "text", lambda: "".join(["te", "xt"]))
        yield from attribute(thing, "real", lambda: float("0.5"))
        yield from attribute(thing, "items", lambda: [1, 2.5, "three", [4, (5,)]])
        yield from attribute(thing, "config", lambda: {"alpha": 0.5, "deep": {"k": [1]}, 3: None})
        yield from attribute(thing, "pair", lambda: (1, (2, "x"), None))
        yield from attribute(thing, "child", lambda: w.classes.Inline())


@row(2, neutral=True)
def setattr_same_object(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        for name in ("own", "text", "items", "config"):
            yield Change(put(thing, name, getattr(thing, name)))


@row(2)
def setattr_child(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        yield from attribute(thing, "child", lambda: None, lambda: w.classes.OtherInline(), lambda: w.classes.Slotted())
        yield from attribute(thing.child, "a", number, lambda: None)


@row(2)
def setattr_inline(w: World) -> Iterator[Change]:
    """Objects whose dict was never asked for."""
    for one in w.inlines:
        yield from attribute(one, "a", number, lambda: True)
        yield from attribute(one, "b", lambda: "c")
        yield from attribute(one, "items", lambda: [1, 2, 3], lambda: [1, 2])
        yield from attribute(one, "c", lambda: 1)


@row()
def inline_attribute_deleted(w: World) -> Iterator[Change]:
    def missing(one: Any) -> None:
        if hasattr(one, "c"):
            del one.c

    for one in w.inlines:
        yield Change(functools.partial(missing, one), put(one, "c", None))


@row()
def inline_attribute_added(w: World) -> Iterator[Change]:
    def drop(one: Any) -> None:
        if hasattr(one, "extra"):
            del one.extra

    for one in w.inlines:
        yield Change(setter(one, "extra", number), functools.partial(drop, one))


@row(0.3, neutral=True)
def inline_materialised(w: World) -> Iterator[Change]:
    """From here on the object has a dict of its own."""
    for one in w.inlines[3:]:
        yield Change(functools.partial(vars, one))


@row()
def inline_then_through_the_dict(w: World) -> Iterator[Change]:
    for one in w.inlines[4:]:
        yield Change(lambda one=one: vars(one).__setitem__("a", number()), put(one, "a", 1))


@row()
def many_attributes(w: World) -> Iterator[Change]:
    """More than an object keeps inline, or than a shared key table holds."""
    for thing in (w.things[0], w.inlines[5]):

        def grow(thing: Any = thing) -> None:
            for at in range(40):
                setattr(thing, f"grown{at}", at)

        yield Change(grow, refill_attributes(thing))


@row(2)
def object_setattr(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        yield Change(lambda thing=thing: object.__setattr__(thing, "own", number()), put(thing, "own", thing.own))
    frozen = w.space.frozen
    yield Change(
        lambda: object.__setattr__(frozen, "items", (5, 6)), lambda: object.__setattr__(frozen, "items", (1, 2))
    )
    yield Change(lambda: object.__setattr__(frozen, "width", number()), lambda: object.__setattr__(frozen, "width", 2))


@row()
def c_level_setattr(w: World) -> Iterator[Change]:
    for thing in (w.things[0], w.things[2], w.inlines[0], w.inlines[1]):
        name = "own" if hasattr(thing, "own") else "a"
        back = put(thing, name, getattr(thing, name))
        yield Change(lambda thing=thing, name=name: _c_setattr(thing, name, number()), back)
        yield Change(lambda thing=thing, name=name: _c_generic_setattr(thing, name, number()), back)


@row()
def delattr_and_back(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        back = refill_attributes(thing)
        yield Change(lambda thing=thing: vars(thing).pop("own", None), back)
        yield Change(lambda thing=thing: thing.__delattr__("items") if "items" in vars(thing) else None, back)


@row()
def attribute_order(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):

        def move(thing: Any = thing) -> None:
            before = vars(thing).pop("own", 2)
            thing.own = before

        yield Change(move, refill_attributes(thing))


@row()
def instance_dict_replaced(w: World) -> Iterator[Change]:
    """Another dict with the same items, then with others."""
    for thing in plain_objects(w):
        before = vars(thing)
        yield Change(lambda thing=thing: setattr(thing, "__dict__", dict(vars(thing))), put(thing, "__dict__", before))
        yield Change(
            lambda thing=thing: setattr(thing, "__dict__", {**vars(thing), "own": number()}),
            put(thing, "__dict__", before),
        )


@row(0.5)
def instance_dicts_exchanged(w: World) -> Iterator[Change]:
    one, two = w.things[0], w.things[1]
    first, second = vars(one), vars(two)

    def exchange() -> None:
        one.__dict__, two.__dict__ = vars(two), vars(one)

    yield Change(exchange, then(put(one, "__dict__", first), put(two, "__dict__", second)))


@row(2)
def through_the_instance_dict(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        back = refill_attributes(thing)
        yield Change(lambda thing=thing: vars(thing).__setitem__("own", number()), back)
        yield Change(lambda thing=thing: vars(thing).update(own=number(), text="new"), back)
        yield Change(lambda thing=thing: vars(thing).setdefault("extra", number()), back)
        yield Change(lambda thing=thing: vars(thing).popitem(), back)
        yield Change(lambda thing=thing: vars(thing).clear(), back)
        yield Change(lambda thing=thing: vars(thing).__ior__({"own": number()}), back)
        yield Change(lambda thing=thing: _c_setitem(vars(thing), "own", number()), back)
        yield Change(lambda thing=thing: vars(thing).pop("own", None), back)
        yield Change(lambda thing=thing: vars(thing).__setitem__(1, 2), back)  # no longer only text


@row(2)
def class_assigned(w: World) -> Iterator[Change]:
    made = w.classes
    for thing in plain_objects(w):
        yield Change(put(thing, "__class__", made.Twin), put(thing, "__class__", made.Thing))
    for one in w.inlines[2:]:  # it makes the dict of the object, and some are to keep their values inline
        yield Change(put(one, "__class__", made.OtherInline), put(one, "__class__", made.Inline))
    slotted = w.space.slotted
    yield Change(put(slotted, "__class__", made.SlottedTwin), put(slotted, "__class__", made.Slotted))


@row()
def slots(w: World) -> Iterator[Change]:
    slotted = w.space.slotted

    def missing() -> None:
        if hasattr(slotted, "b"):
            del slotted.b

    back = put(slotted, "b", slotted.b)
    yield from attribute(slotted, "a", number, lambda: True)
    yield Change(missing, back)
    yield Change(setter(slotted, "b", lambda: [1, 2]), back)
    yield Change(put(slotted, "c", 1), lambda: slotted.__delattr__("c") if hasattr(slotted, "c") else None)


@row()
def behind_a_property(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        yield from attribute(thing, "_value", number)


@row()
def behind_getattr(w: World) -> Iterator[Change]:
    dynamic = w.space.dynamic
    yield from in_place(
        dynamic.table,
        lambda: dynamic.table.update(found=number()),
        lambda: dynamic.table.pop("found", None),
        lambda: dynamic.table.update(extra=1),
    )
    yield Change(setter(dynamic, "found", lambda: 1), lambda: vars(dynamic).pop("found", None))
    yield Change(setter(dynamic, "found", number), lambda: vars(dynamic).pop("found", None))
    yield from attribute(w.space.hooked, "seen", number)


@row()
def shadowing(w: World) -> Iterator[Change]:
    """An attribute of the class, found in the instance from now on."""
    for thing in plain_objects(w):
        back = refill_attributes(thing)
        for name in ("shared", "level", "method", "table"):
            yield Change(setter(thing, name, number), back)
        yield Change(lambda thing=thing: setattr(thing, "shared", type(thing).shared), back)


@row()
def namespaces(w: World) -> Iterator[Change]:
    space = w.space.name_space
    yield from attribute(space, "heads", number)
    yield from attribute(space.inner, "eps", lambda: 0.25)
    yield from attribute(space, "inner", lambda: types.SimpleNamespace(eps=0.5))
    yield Change(setter(space, "extra", number), lambda: vars(space).pop("extra", None))


@row()
def dataclasses_and_namedtuples(w: World) -> Iterator[Change]:
    config = w.space.config
    yield from attribute(config, "width", number)
    yield from attribute(config, "inner", lambda: w.classes.Config(3), lambda: w.classes.Config(4), lambda: None)
    yield from attribute(config.inner, "name", lambda: "b")
    yield from attribute(w.space, "point", Point, lambda: Point(1, 3), lambda: (1, 2))
    yield from attribute(w.space, "frozen", w.classes.Frozen, lambda: w.classes.Frozen(3))


@row(2)
def below_the_space(w: World) -> Iterator[Change]:
    """What the one object above everything else holds is replaced."""
    space = w.space
    yield from attribute(space, "color", lambda: Color.BLUE, lambda: 1)
    yield from attribute(space, "dtype", lambda: torch.float64, lambda: "float32")
    yield from attribute(space, "device", lambda: torch.device("cpu"), lambda: torch.device("meta"))
    yield from attribute(space, "size", lambda: torch.Size([2, 3]), lambda: torch.Size([3]), lambda: (2, 3))
    yield from attribute(space, "span", lambda: range(1, 9, 2), lambda: range(1, 7, 2))
    yield from attribute(space, "part", lambda: slice(1, 4), lambda: slice(1, 5))
    yield from attribute(space, "nan", lambda: float("nan"), lambda: -float("nan"), lambda: 1.0)
    yield from attribute(space, "zero", lambda: -0.0, lambda: 0, lambda: 5e-324)
    yield from attribute(space, "pole", lambda: complex(1, float("nan")), lambda: 1j, lambda: complex(float("nan"), 1))
    yield from attribute(space, "octets", lambda: bytes([111, 99]), lambda: "octets")
    yield from attribute(space, "thing_class", lambda: w.classes.Twin, lambda: int)
    yield from attribute(space, "bare", lambda: w.functions.other, lambda: len)
    yield from attribute(space, "method", lambda: w.things[0].method, lambda: w.things[1].method)
    yield from attribute(space, "partial", lambda: functools.partial(w.functions.helper, a=2), lambda: None)
