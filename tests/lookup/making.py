"""A lookup of entries, the guards of an entry, and what it gathers and makes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from unified_guards import _C
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.lower.rows import lower

ARGS = Source.frame().child(Access.LOCAL, "args")
KWARGS = Source.frame().child(Access.LOCAL, "kwargs")
FIRST = ARGS.child(Access.TUPLE_ITEM, 0)
LEAF, CONSTANT, TUPLE, LIST, DICT, CALL, GIVEN = range(7)
ONE_LEAF = [(LEAF, 0, None)]


class Lookup(_C.Lookup):
    """Remembers the calls that no entry fitted."""

    def __init__(self) -> None:
        self.missed: list[Any] = []

    def _miss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.missed.append((args, kwargs))
        return "missed"


class Key:
    """Equal to every other: keys are compared by identity."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def set_of(*guards: Guard) -> GuardSet:
    return GuardSet((item, Provenance("aot")) for item in guards)


def first_is(value: object) -> Guard:
    return guard(Test.EQUALS, (FIRST,), (value,))


def asks(function: Callable[[Any], Any], source: Source = FIRST) -> Guard:
    return guard(Test.PREDICATE, (source,), (function, "it says so"))


def put(
    lookup: _C.Lookup,
    key: object,
    *guards: Guard,
    gather: Sequence[Source] = (),
    compiled: Callable[[list[Any]], Any] | None = None,
    rebuild: list[tuple[int, int, Any]] | None = None,
    observer: Any = None,
) -> None:
    """An entry that returns its key, unless told otherwise."""
    rows = lower(set_of(*guards), gather).rows
    lookup._add(key, rows, compiled or (lambda flat: [key]), ONE_LEAF if rebuild is None else rebuild, observer)


def gathering(*sources: Source) -> Lookup:
    """A lookup that returns what it gathered."""
    lookup = Lookup()
    put(lookup, "all", gather=sources, compiled=lambda flat: [flat])
    return lookup


def three() -> Lookup:
    lookup = Lookup()
    for value in (1, 2, 3):
        put(lookup, value, first_is(value))
    return lookup


def raising(*_: Any) -> Any:
    raise LookupError("from within")
