"""Dicts that change with every call: facts about them are on single entries, and on searches that find none."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from ..world import STIRRED, World
from .parts import _c_setitem, in_place, number, refill
from .table import Change, row

Entries = dict[str, Any]


class Key(str):
    """A key that is no exact string, and equal to one."""

    __slots__ = ()


def _spelt(name: str) -> str:
    """An equal string that is another object."""
    return "".join(list(name))


def _stirred(w: World) -> Iterator[tuple[Entries, str]]:
    """Each with a name that guards ask for."""
    yield w.space.stirred, "number"
    yield vars(w.things[1]), "own"
    yield vars(w.things[3]), "own"
    yield vars(w.layers[1]), "flag"
    yield w.scope, "number"


def _each(w: World, *changes: Callable[[Entries, str], object]) -> Iterator[Change]:
    for entries, name in _stirred(w):
        yield from in_place(entries, *(functools.partial(change, entries, name) for change in changes))


def _put_at_the_end(entries: Entries, name: str, value: Any) -> None:
    entries.pop(name, None)
    entries[name] = value


def _emptied_from_the_end(entries: Entries) -> None:
    """The same table: its entries are used again."""
    while entries:
        entries.popitem()


@row(4)
def entries_of_a_stirred_dict(w: World) -> Iterator[Change]:
    yield from _each(
        w,
        lambda entries, name: entries.__setitem__(name, number()),
        lambda entries, name: entries.__setitem__(name, None),
        lambda entries, name: entries.pop(name, None),
        lambda entries, name: _put_at_the_end(entries, name, number()),
        lambda entries, name: _c_setitem(entries, name, number()),
        lambda entries, name: entries.setdefault(name, number()),
        lambda entries, name: entries.clear(),
    )


@row(2)
def entries_that_come(w: World) -> Iterator[Change]:
    """Names that guards say are not there."""
    yield from _each(
        w,
        lambda entries, name: entries.update(extra=number(), absent=1),
        lambda entries, name: entries.update({_spelt("extra"): 1, _spelt("absent"): 1}),
        lambda entries, name: entries.update({Key("extra"): 1, Key("absent"): 1}),
        lambda entries, name: _put_at_the_end(entries, "absent", entries.pop(name, None)),
    )


@row(2)
def entries_by_another_key(w: World) -> Iterator[Change]:
    """A key that is equal to the name, and another object, or no exact string."""

    def rekeyed(make: Callable[[str], str], anew: bool, entries: Entries, name: str) -> None:
        before = entries.pop(name, None)
        entries[make(name)] = number() if anew else before

    kinds = ((make, anew) for make in (_spelt, Key) for anew in (False, True))
    yield from _each(w, *(functools.partial(rekeyed, make, anew) for make, anew in kinds))


@row(2)
def entries_used_again(w: World) -> Iterator[Change]:
    """Another name where one was: in the same table, and in one that is made where the first was freed."""

    def again(empty: Callable[[Entries], object], entries: Entries, name: str) -> None:
        before = list(entries.items())
        empty(entries)
        entries.update((f"another_{key}" if key == name else key, value) for key, value in before)

    def swapped(empty: Callable[[Entries], object], entries: Entries, name: str) -> None:
        before = list(entries.items())
        empty(entries)
        entries.update(reversed(before))
        entries[name] = number()

    yield from _each(
        w, *(functools.partial(do, empty) for do in (again, swapped) for empty in (_emptied_from_the_end, dict.clear))
    )


@row(2, neutral=True)
def tables_made_again(w: World) -> Iterator[Change]:
    """What the dict maps is as it was, and in order; its table is another one, perhaps where the first was."""

    def grow(entries: Entries) -> None:
        for at in range(100):
            entries[f"grown{at}"] = at
        for at in range(100):
            del entries[f"grown{at}"]

    def turn_general(entries: Any) -> None:
        entries[7] = 7
        del entries[7]

    def again(entries: Entries) -> None:
        before = dict(entries)
        entries.clear()
        entries.update(before)

    for entries, _ in _stirred(w):
        for do in (grow, turn_general, again):
            yield Change(functools.partial(do, entries), refill(entries))


@row(2)
def values_where_one_was_freed(w: World) -> Iterator[Change]:
    """Another object at the address of the value that was there."""

    def reborn(name: str, make: Callable[[], Any], entries: Entries) -> None:
        entries[name] = None
        entries[name] = make()

    stirred = w.space.stirred
    for name, makers in {
        "real": (lambda: float("1.5"), lambda: float("0.5")),
        "items": (lambda: [3], lambda: [1, 2], lambda: {"k": 1}),
        "inner": (lambda: {"k": 2}, list, lambda: {"k": 1}),
    }.items():
        yield from in_place(stirred, *(functools.partial(reborn, name, make, stirred) for make in makers))
    yield Change(lambda: stirred["inner"].update(k=number()), refill(stirred["inner"]))


@row(2, neutral=True)
def stirred_again(w: World) -> Iterator[Change]:
    for entries, _ in _stirred(w):
        yield Change(lambda entries=entries: entries.__setitem__(STIRRED, number()))
