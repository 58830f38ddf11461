"""What the roots of sources lead to: globals, inputs, weak references."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import torch

from ..world import World
from .parts import attribute, in_place, number, refill
from .table import Change, row


@row(2)
def global_variables(w: World) -> Iterator[Change]:
    scope = w.scope
    yield from in_place(
        scope,
        lambda: scope.update(number=number()),
        lambda: scope.pop("number", None),
        lambda: scope.update(items=[1, 2]),
        lambda: scope.update(helper=w.functions.other),
        lambda: scope.update(unrelated=number()),
        lambda: scope.update(extra=number()),
    )
    items = scope["items"]
    yield from in_place(items, lambda: items.append(3), lambda: items.__setitem__(0, number()))


@row(3)
def global_step(w: World) -> Iterator[Change]:
    """A global that is counted up with every call."""

    def count() -> None:
        w.scope["step"] = w.scope.get("step", 0) + 1

    yield Change(count, lambda: w.scope.update(step=0))


@row(2)
def weak_references(w: World) -> Iterator[Change]:
    scope, kept, space = w.scope, w.kept, w.space
    target, layer_ref, target_ref = kept["target"], scope["layer_ref"], scope["ref"]
    back = lambda: (scope.__setitem__("ref", target_ref), scope.__setitem__("layer_ref", layer_ref))  # noqa: E731
    yield Change(lambda: scope.__setitem__("ref", weakref.ref(target)), back)
    yield Change(lambda: scope.__setitem__("ref", weakref.ref(w.classes.Thing())), back)
    yield Change(lambda: scope.__setitem__("layer_ref", weakref.ref(w.layers[1])), back)
    yield Change(lambda: scope.__setitem__("layer_ref", weakref.proxy(w.layers[0])), back)
    yield Change(lambda: scope.__setitem__("layer_ref", w.layers[0]), back)
    yield from attribute(space, "ref", lambda: weakref.ref(w.things[0]), lambda: weakref.ref(w.things[1]), lambda: None)


@row()
def weak_target_dies(w: World) -> Iterator[Change]:
    """The target of a weak reference goes, and another one comes to where it was."""
    space = w.space
    make = w.classes.Slotted
    space.mortal.target = make()
    space.mortal.ref = weakref.ref(space.mortal.target)

    def reborn(number_of: int) -> None:
        made = make()
        made.a = number_of
        space.mortal.target = made
        space.mortal.ref = weakref.ref(made)

    yield Change(lambda: setattr(space.mortal, "target", None), lambda: reborn(1))
    yield Change(lambda: reborn(1))
    yield Change(lambda: (setattr(space.mortal, "target", None), reborn(2)), lambda: reborn(1))


@row(3)
def inputs(w: World) -> Iterator[Change]:
    """What a call passes is another object in every call; here it is one that differs."""
    given, kwargs = w.inputs, w.kwargs
    yield from in_place(
        given,
        lambda: given.update(x=torch.zeros(2, 3)),
        lambda: given.update(x=torch.ones(2, 4)),
        lambda: given.update(x=torch.ones(2, 3, dtype=torch.float64)),
        lambda: given.update(x=torch.ones(2, 3, requires_grad=True)),
        lambda: given.update(x=torch.ones(3, 2).t()),
        lambda: given.update(x=None),
        lambda: given.update(n=number()),
        lambda: given.update(n=5.0),
        lambda: given.update(text="other"),
        lambda: given.update(text="".join(["mo", "de"])),
        lambda: given.update(real=1.25),
        lambda: given.pop("real", None),
        lambda: given.update(extra=1),
    )
    yield Change(lambda: setattr(w, "advanced", 2), lambda: setattr(w, "advanced", 1))
    yield from in_place(
        kwargs,
        lambda: kwargs.update(flag=False),
        lambda: kwargs.pop("mask", None),
        lambda: kwargs.update(mask=torch.zeros(3)),
        lambda: kwargs.update(mask=torch.zeros(2)),
        lambda: kwargs.update(extra=1),
        lambda: kwargs.update(scale=float("2.0")),
        lambda: kwargs.__setitem__("mask", kwargs.pop("mask", None)),
    )


@row(2)
def roots(w: World) -> Iterator[Change]:
    """Another object in the place of a root, or two that changed places."""
    for group, make in ((w.layers, w.classes.Layer), (w.things, w.classes.Thing), (w.inlines, w.classes.Inline)):
        back = refill(group)
        if make is not w.classes.Layer:  # one that costs little to make
            yield Change(lambda group=group, make=make: group.__setitem__(3, make()), back)
        yield Change(lambda group=group: group.reverse(), back)
        yield Change(lambda group=group: group.__setitem__(0, None), back)
