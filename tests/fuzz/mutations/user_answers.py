"""Objects that answer for themselves: descriptors, overridden methods, metaclasses, proxies."""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Iterator

from ..world import World
from .parts import attribute, in_place, number, put, setter, then, without
from .table import Change, Do, row


@row(2)
def foreign_descriptors(w: World) -> Iterator[Change]:
    """The descriptor of another class's field, which has nothing to say about objects of this one."""
    made = w.strange
    for name in ("a", "b"):
        own = vars(made.Borrower)[name]
        yield Change(put(made.Borrower, name, vars(made.Lender)[name]), put(made.Borrower, name, own))
        yield Change(put(made.Borrower, name, vars(types.FunctionType)["__code__"]), put(made.Borrower, name, own))
    slot = vars(w.classes.Slotted)["a"]
    yield Change(put(w.classes.Slotted, "a", vars(made.Lender)["a"]), put(w.classes.Slotted, "a", slot))
    yield Change(put(w.classes.Thing, "own", vars(made.Lender)["a"]), without(w.classes.Thing, "own"))
    borrower = w.space.borrower
    yield from attribute(borrower, "a", number)


@row(2)
def overriding_containers(w: World) -> Iterator[Change]:
    space = w.space
    one, two, three = space.over_dict, space.over_list, space.over_set
    yield from in_place(
        one,
        lambda: one.__setitem__("a", number()),
        lambda: dict.__setitem__(one, "a", number()),
        lambda: one.pop("b", None),
        lambda: one.__setitem__("extra", 1),
        lambda: one.clear(),
    )
    yield from in_place(two, lambda: two.append(3), lambda: two.__setitem__(0, number()), lambda: two.clear())
    yield from in_place(three, lambda: three.add("absent"), lambda: three.discard(1), lambda: three.clear())
    yield from attribute(space, "over_tuple", lambda: w.strange.OverTuple([1]), lambda: (1, [2]))
    yield from attribute(space, "over_dict", lambda: {"a": 1, "b": [1]})
    yield from attribute(space, "over_list", lambda: [1, [2]])


@row()
def overriding_methods(w: World) -> Iterator[Change]:
    """What the overrides say, or whether there is one."""
    made = w.strange
    for kind, name in (
        *((made.OverDict, "__getitem__"), (made.OverDict, "keys"), (made.OverDict, "__len__")),
        *((made.OverList, "__getitem__"), (made.OverList, "__len__"), (made.OverSet, "__iter__")),
        *((made.OverTuple, "__getitem__"), (made.OverTuple, "__len__"), (made.OverSet, "__len__")),
    ):
        before = vars(kind)[name]
        yield Change(put(kind, name, lambda *_: 7), put(kind, name, before))
        yield Change(put(kind, name, getattr(kind.__base__, name)), put(kind, name, before))
    yield Change(put(w.classes.PlainList, "__len__", lambda self: 7), without(w.classes.PlainList, "__len__"))
    for name in ("__getitem__", "__len__"):
        yield Change(put(w.classes.Attributes, name, lambda *_: 7), without(w.classes.Attributes, name))


@row(2)
def mro_of_its_own(w: World) -> Iterator[Change]:
    """A class that is found in the mro and is no base: what happens to it moves no version."""
    # The interpreter's own cache of attributes is not told either, and keeps nothing alive.
    made = w.strange
    found, other = made.Extra.extra_scale, property(lambda self: 77)
    kept = w.kept.setdefault("of Extra", [object(), object(), found, other])

    def tell(do: Do) -> Do:
        return then(do, sys._clear_type_cache)

    for value in kept[:2]:
        yield Change(tell(put(made.Extra, "extra_scale", value)), tell(put(made.Extra, "extra_scale", found)))
    yield Change(put(made.Extra, "extra_scale", kept[1]), tell(put(made.Extra, "extra_scale", found)))
    yield Change(setter(made.MroMade, "extra_scale", number), without(made.MroMade, "extra_scale"))
    yield Change(tell(put(made.Extra, "extra", kept[0])), tell(without(made.Extra, "extra")))
    yield Change(tell(put(made.Extra, "own", other)), tell(without(made.Extra, "own")))
    yield from attribute(w.space.mro_made, "own", number)
    before = vars(made.MroMeta)["mro"]
    again = lambda: setattr(made.MroMade, "__bases__", made.MroMade.__bases__)  # noqa: E731
    yield Change(
        then(put(made.MroMeta, "mro", lambda cls: type.mro(cls)), again), then(put(made.MroMeta, "mro", before), again)
    )


@row()
def metaclass_that_answers(w: World) -> Iterator[Change]:
    made = w.strange
    yield from attribute(made.Answered, "shared", number)
    before = vars(made.Answering)["__getattribute__"]
    yield Change(
        put(made.Answering, "__getattribute__", lambda cls, name: 77 if name == "shared" else before(cls, name)),
        put(made.Answering, "__getattribute__", before),
    )


@row(2)
def instance_dict_of_another_kind(w: World) -> Iterator[Change]:
    """A subclass of dict as ``__dict__``; then it changes, by way of the object and past it."""
    made = w.strange
    for thing in (w.things[0], w.things[2], w.layers[0].inner, w.layers[1].norm):
        before = vars(thing)
        yield Change(
            lambda thing=thing: setattr(thing, "__dict__", made.SlyDict(vars(thing))), put(thing, "__dict__", before)
        )
        yield Change(
            lambda thing=thing: setattr(thing, "__dict__", made.SlyDict(vars(thing), own=number(), training=False)),
            put(thing, "__dict__", before),
        )
    sneaky = w.space.sneaky
    held = vars(sneaky)
    yield from in_place(
        held,
        lambda: dict.__setitem__(held, "own", number()),
        lambda: held.pop("own", None),
        lambda: held.__setitem__("extra", 1),
    )
    yield from attribute(sneaky, "own", number)
    yield Change(lambda: setattr(sneaky, "__dict__", dict(vars(sneaky))), put(sneaky, "__dict__", held))


@row()
def class_level_dict(w: World) -> Iterator[Change]:
    """What a property shows as the ``__dict__``, and the one that is there."""
    masked = w.space.masked
    stash = w.strange.Masked.stash
    yield from in_place(stash, lambda: stash.update(shown=number()), lambda: stash.update(own=number(), extra=1))
    yield Change(lambda: object.__setattr__(masked, "own", number()), lambda: object.__setattr__(masked, "own", 1))
    yield from attribute(w.strange.Masked, "stash", lambda: {"shown": number()})


@row()
def modules_with_a_class(w: World) -> Iterator[Change]:
    module = w.space.own_module
    back = put(module, "_level", 3)
    yield Change(setter(module, "_level", number), back)
    yield Change(lambda: vars(module).__setitem__("_level", number()), back)
    yield Change(put(module, "__class__", w.strange.OtherModule), put(module, "__class__", w.strange.OwnModule))
    yield Change(put(module, "__class__", types.ModuleType), put(module, "__class__", w.strange.OwnModule))
    yield Change(lambda: vars(module).__setitem__("made", number()), lambda: vars(module).pop("made", None))


@row(2)
def keys_with_a_python_eq(w: World) -> Iterator[Change]:
    """Beside the guarded key, one of the same hash whose equality is Python code."""
    keys, kind = w.space.equal_keys, w.strange.EqualKey
    yield from in_place(
        keys,
        lambda: keys.__setitem__("kk", number()),
        lambda: keys.pop("kk", None),
        lambda: keys.__setitem__("kk", keys.pop("kk", 2)),
        lambda: keys.__setitem__("k" + "k", 2),
    )
    before = vars(kind)["__eq__"]
    yield Change(put(kind, "__eq__", lambda self, other: True), put(kind, "__eq__", before))
    words = w.space.words
    sly = kind()
    yield from in_place(words, lambda: words.__setitem__(sly, 1))


@row()
def proxies(w: World) -> Iterator[Change]:
    things = w.things
    yield from attribute(
        w.space, "proxy", lambda: weakref.proxy(things[0]), lambda: things[1], lambda: weakref.proxy(w.classes.Inline())
    )
    yield from attribute(things[1], "own", number)
    target = w.classes.Thing()
    kept = [target]

    def dies() -> None:
        made = w.classes.Thing()
        w.space.proxy = weakref.proxy(made)

    yield Change(dies, put(w.space, "proxy", w.space.proxy))
    yield Change(lambda: setattr(w.space, "proxy", weakref.proxy(kept[0])), put(w.space, "proxy", w.space.proxy))


@row()
def behind_code_of_the_users(w: World) -> Iterator[Change]:
    """What properties and ``__bool__`` read."""
    posted, fleeting = w.space.posted, w.space.fleeting
    yield from attribute(posted, "_price", number)
    yield Change(put(w.strange.Posted, "price", 5), put(w.strange.Posted, "price", vars(w.strange.Posted)["price"]))
    yield from attribute(fleeting, "own", number)
    yield Change(
        put(w.strange.Fleeting, "dying", property(lambda self: 3)),
        put(w.strange.Fleeting, "dying", vars(w.strange.Fleeting)["dying"]),
    )


@row(0.2, neutral=True)
def type_cache_cleared(w: World) -> Iterator[Change]:
    yield Change(sys._clear_type_cache)
