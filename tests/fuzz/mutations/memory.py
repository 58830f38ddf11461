"""Objects that die, and others that are made where they lay."""

from __future__ import annotations

import functools
import gc
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..world import World
from .parts import born_again, number
from .table import Change, row

#: Places for a small object that may be free in a process that has done much. Too few, and what is made lies elsewhere.
FREE = 50_000


@row(6)
def freed_and_made_again(w: World) -> Iterator[Change]:
    mortal = w.space.mortal
    for name, make in w.mortals().items():
        restore = functools.partial(born_again, mortal, name, make, 0)
        yield Change(functools.partial(born_again, mortal, name, make, 1), restore)
        yield Change(restore, restore)


@row(0.005)
def class_freed_and_made_again(w: World) -> Iterator[Change]:
    """A class refers to itself, so that it takes a collection to free it."""
    mortal, make = w.space.mortal, w.mortals()["klass"]

    def again(variant: int) -> None:
        address, mortal.klass = id(getattr(mortal, "klass", None)), None
        gc.collect()
        mortal.klass = make(variant)
        kept = []
        while id(mortal.klass) != address and len(kept) < 20:
            kept.append(mortal.klass)
            mortal.klass = make(variant)

    yield Change(functools.partial(again, 1), functools.partial(again, 0))


@row(2)
def mortals_in_place(w: World) -> Iterator[Change]:
    """Changes of what was freed and made again; it is another object each time."""
    mortal, makers = w.space.mortal, w.mortals()

    def of(name: str, change: Callable[[Any], object]) -> Change:
        return Change(
            lambda: change(getattr(mortal, name)), functools.partial(born_again, mortal, name, makers[name], 0)
        )

    yield of("thing", lambda one: setattr(one, "a", number()))
    yield of("thing", vars)  # its values move into a dict
    yield of("slotted", lambda one: setattr(one, "a", number()))
    yield of("function", lambda one: setattr(one, "__defaults__", (number(),)))
    yield of("klass", lambda one: setattr(one, "number", number()))
    yield of("module", lambda one: setattr(one, "limit", number()))
    yield of("dict", lambda one: one.update(k=number()))
    yield of("list", lambda one: one.append(1))
    yield of("set", lambda one: one.add(1))
    yield of("cell", lambda one: setattr(one, "cell_contents", number()))
    yield of("name_space", lambda one: setattr(one, "k", number()))
    yield of("tensor", lambda one: torch._dynamo.mark_dynamic(one, 0))
    yield of("over_dict", lambda one: one.update(k=number()))
    yield of("over_list", lambda one: one.append(1))
    yield of("mro_class", lambda one: setattr(one, "number", number()))
    yield of("borrower", lambda one: setattr(one, "a", number()))
    yield of("own_module", lambda one: vars(one).update(_level=number()))
    yield of("sneaky", lambda one: setattr(one, "own", number()))

    def method_of(function: Callable[[], Any]) -> Change:
        """A bound method where one was that is over another function, or over no function at all."""

        def change() -> None:
            inner = function()  # made first: its parts are not to take the place
            born_again(mortal, "method", lambda _: types.MethodType(inner, w.inlines[0]), 1, ahead=FREE)

        return Change(change, functools.partial(born_again, mortal, "method", makers["method"], 0))

    yield method_of(lambda: w.classes.Inline)
    yield method_of(lambda: functools.partial(len))
    yield method_of(lambda: lambda self: 3)


@row(0.5, neutral=True)
def garbage(w: World) -> Iterator[Change]:
    """Memory is taken and given back all around."""

    def churn() -> None:
        for _ in range(20):
            [object() for _ in range(20)], [{"a": 1} for _ in range(10)], [[1] for _ in range(10)]

    yield Change(churn)
    yield Change(functools.partial(gc.collect, 0))


@row(0.002, neutral=True)
def full_collection(w: World) -> Iterator[Change]:
    yield Change(gc.collect)
