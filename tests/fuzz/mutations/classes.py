"""Classes: attributes, descriptors, bases, metaclasses, names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..world import World
from .parts import attribute, in_place, number, put, refill_class, setter, without
from .table import Change, row


@row(2)
def class_attributes(w: World) -> Iterator[Change]:
    made = w.classes
    yield from attribute(made.Thing, "shared", number, lambda: 1.0)
    yield from attribute(made.Thing, "table", lambda: {"a": 1, "b": [1, 2]}, lambda: None)
    yield from attribute(made.Root, "level", number)
    yield from attribute(made.Base, "family", lambda: "other")
    yield from attribute(made.Layer, "scale", number)
    yield from attribute(made.Inline, "kind", lambda: "other")
    table = made.Thing.table
    below = table["b"]
    yield from in_place(table, lambda: table.__setitem__("a", number()), lambda: table.clear())
    yield from in_place(below, lambda: below.reverse(), lambda: below.append(3))
    yield Change(lambda: type.__setattr__(made.Thing, "shared", number()), put(made.Thing, "shared", 1))


@row()
def class_attribute_added(w: World) -> Iterator[Change]:
    """Between the object and where an attribute of it is found, or where none was."""

    made = w.classes
    targets: list[tuple[Any, str]] = [(made.Thing, "level"), (made.Base, "level"), (made.Thing, "extra")]
    targets += [(made.Root, "extra"), (made.Inline, "extra"), (made.Layer, "extra"), (made.Thing, "unrelated")]
    targets += [(made.Slotted, "extra"), (made.Meta, "extra"), (made.Inner, "calls")]
    for kind, name in targets:
        yield Change(setter(kind, name, number), without(kind, name))


@row()
def class_attribute_deleted(w: World) -> Iterator[Change]:
    made = w.classes
    for kind, name in ((made.Thing, "shared"), (made.Base, "family"), (made.Inline, "kind"), (made.Thing, "value")):
        back = refill_class(kind)
        back()  # now what has no dunder comes last, as it will whenever it is put back
        yield Change(without(kind, name), back)


@row()
def class_descriptors(w: World) -> Iterator[Change]:
    """A property or a ``__getattr__`` comes to a class: it goes before what the instance has, or answers for it."""

    made = w.classes
    for kind, name in ((made.Thing, "own"), (made.Inline, "a"), (made.Thing, "text")):
        yield Change(put(kind, name, property(lambda self: 77)), without(kind, name))
    yield from attribute(made.Slotted, "a", lambda: property(lambda self: 77))
    for kind in (made.Thing, made.Inline, made.Slotted):
        for name in ("__getattr__", "__getattribute__"):
            yield Change(put(kind, name, lambda self, name: 77), without(kind, name))
    yield Change(
        put(made.Thing, "value", property(lambda self: 5)), put(made.Thing, "value", vars(made.Thing)["value"])
    )
    yield Change(put(made.Thing, "__len__", lambda self: 3), without(made.Thing, "__len__"))


@row()
def class_bases(w: World) -> Iterator[Change]:
    made = w.classes
    yield Change(put(made.Thing, "__bases__", (made.OtherBase,)), put(made.Thing, "__bases__", (made.Base,)))
    yield Change(put(made.Twin, "__bases__", (made.OtherBase,)), put(made.Twin, "__bases__", (made.Thing,)))


@row()
def metaclass(w: World) -> Iterator[Change]:
    made = w.classes
    yield from attribute(made.Meta, "tag", number)
    yield Change(put(made.Thing, "__class__", made.OtherMeta), put(made.Thing, "__class__", made.Meta))
    yield Change(put(made.Meta, "computed", 5), put(made.Meta, "computed", vars(made.Meta)["computed"]))
    yield Change(
        put(made.Meta, "shared", property(lambda cls: 5)),
        lambda: "shared" in vars(made.Meta) and delattr(made.Meta, "shared"),
    )


@row()
def class_attribute_becomes_a_descriptor(w: World) -> Iterator[Change]:
    made = w.classes
    yield from attribute(made.Thing, "worn", made.Worn, number)
    for name in ("__get__", "__set__"):
        yield Change(put(made.Worn, name, lambda *_: 77), without(made.Worn, name))
    worn = made.Thing.worn
    descriptors = type("Descriptor", (), {"__get__": lambda *_: 77})
    yield Change(put(worn, "__class__", descriptors), put(worn, "__class__", made.Worn))


@row()
def members_of_an_enumeration(w: World) -> Iterator[Change]:
    shades = w.classes.Shade
    dark, light = shades.DARK, shades.LIGHT
    yield Change(
        lambda: type.__setattr__(shades, "DARK", light),
        lambda: type.__setattr__(shades, "DARK", dark),
    )
    yield from attribute(dark, "_value_", number)


@row()
def metaclass_answers(w: World) -> Iterator[Change]:
    meta = w.classes.Meta
    yield Change(put(meta, "__getattr__", lambda cls, name: 77), without(meta, "__getattr__"))

    def instead(cls: Any, name: str) -> Any:
        return 77 if name in ("shared", "worn") else type.__getattribute__(cls, name)

    yield Change(put(meta, "__getattribute__", instead), without(meta, "__getattribute__"))


@row()
def class_names(w: World) -> Iterator[Change]:
    yield from attribute(w.classes.Thing, "__name__", lambda: "Renamed")
    yield from attribute(w.classes.Thing, "__qualname__", lambda: "Renamed")
    yield from attribute(w.classes.Thing, "__doc__", lambda: "text")


@row(0.5, neutral=True)
def subclasses_come_and_go(w: World) -> Iterator[Change]:
    yield Change(lambda: type("Temporary", (w.classes.Thing,), {"shared": 5})().own)
    yield Change(lambda: type("Temporary", (w.classes.Layer,), {}))
