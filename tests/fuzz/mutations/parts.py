"""What rows are made of: setters, refilling of containers, writing through the C API."""

from __future__ import annotations

import collections
import ctypes
import itertools
from collections.abc import Callable, Iterator
from typing import Any

from ..world import World
from .table import Change, Do


def then(*steps: Do) -> Do:
    def do() -> None:
        for step in steps:
            step()

    return do


def setter(owner: Any, name: str, make: Callable[[], Any]) -> Do:
    return lambda: setattr(owner, name, make())


def put(owner: Any, name: str, value: Any) -> Do:
    return lambda: setattr(owner, name, value)


def attribute(owner: Any, name: str, *makers: Callable[[], Any]) -> Iterator[Change]:
    """The attribute bound to what each of ``makers`` gives, and back to the very object that it was."""
    back = put(owner, name, getattr(owner, name))
    for make in makers:
        yield Change(setter(owner, name, make), back)


def refill(target: Any) -> Do:
    """Puts the items of a dict, list or set back, in order."""
    if isinstance(target, dict):
        items = list(dict.items(target))

        def refill_dict() -> None:
            target.clear()
            for key, value in items:
                target[key] = value

        return refill_dict
    if isinstance(target, set):
        kept = set(target)
        return lambda: (target.clear(), target.update(kept))
    before = list(target)
    if isinstance(target, collections.deque):
        return lambda: (target.clear(), target.extend(before))
    return lambda: target.__setitem__(slice(None), before)


def in_place(target: Any, *changes: Do) -> Iterator[Change]:
    """Changes of the items of a container."""
    back = refill(target)
    for change in changes:
        yield Change(change, back)


def refill_attributes(owner: Any) -> Do:
    """Puts the instance dict back, in order. Makes the dict when there was none."""
    before = dict(vars(owner))

    def do() -> None:
        found = vars(owner)
        found.clear()
        found.update(before)

    return do


def without(kind: Any, name: str) -> Do:
    """Takes an attribute out of a class, if it is there."""
    return lambda: delattr(kind, name) if name in vars(kind) else None


def refill_class(kind: Any) -> Do:
    """Puts the attributes of a class back, in order, save for those of the language."""
    before = {name: value for name, value in vars(kind).items() if not name.startswith("__")}

    def do() -> None:
        for name in [name for name in vars(kind) if not name.startswith("__")]:
            delattr(kind, name)
        for name, value in before.items():
            setattr(kind, name, value)

    return do


fresh = itertools.count(1000)


def number() -> int:
    """A number that was not there before, above all small ones."""
    return next(fresh)


_c_setattr = ctypes.pythonapi.PyObject_SetAttr
_c_setattr.argtypes, _c_setattr.restype = [ctypes.py_object] * 3, ctypes.c_int
_c_generic_setattr = ctypes.pythonapi.PyObject_GenericSetAttr
_c_generic_setattr.argtypes, _c_generic_setattr.restype = [ctypes.py_object] * 3, ctypes.c_int
_c_setitem = ctypes.pythonapi.PyDict_SetItem
_c_setitem.argtypes, _c_setitem.restype = [ctypes.py_object] * 3, ctypes.c_int


def plain_objects(world: World) -> list[Any]:
    return [*world.things[:4], world.kept["target"]]


def born_again(owner: Any, name: str, make: Callable[[int], Any], variant: int, most: int = 12, ahead: int = 0) -> None:
    """Lets an attribute's object die and has another one made, at the same address where that can be had.

    Args:
        most: how many are made until one lies there.
        ahead: how many are made before the old one dies. They fill what is free, so that the next one takes its place.
    """
    kept = [make(variant) for _ in range(ahead)]
    address = id(getattr(owner, name, None))
    setattr(owner, name, None)
    for _ in range(most):
        made = make(variant)
        if id(made) == address:
            break
        kept.append(made)
    setattr(owner, name, made)
