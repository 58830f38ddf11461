"""Rewrites a :class:`GuardSet` into a smaller one with the same verdict on every frame.

Rules are listed in :data:`RULES`; each names itself in what it removes, so that a report can say why. Exact duplicates
are already one guard in a GuardSet; who asked for them is in its provenance. Entry point: :func:`simplify`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from unified_guards.ir import Guard, GuardSet, Source, Test


class Removed(NamedTuple):
    """A guard that is not checked, and the rule that says why it need not be."""

    guard: Guard
    rule: str


def existence_is_implied(guard_set: GuardSet) -> Iterator[Guard]:
    """``x exists`` holds when another guard reads ``x`` or something below it."""
    wanted = [item for item in guard_set if item.test is Test.EXISTS]
    if not wanted:
        return
    read: set[Source | None] = {source for item in guard_set if item.test is not Test.EXISTS for source in item.sources}
    above = {source.base for source in read if source is not None} | {item.source.base for item in wanted}
    while above:
        read |= above
        above = {source.base for source in above if source is not None} - read
    yield from (item for item in wanted if item.source in read)


RULES: dict[str, Callable[[GuardSet], Iterator[Guard]]] = {
    "existence is implied": existence_is_implied,
}


def simplify(guard_set: GuardSet) -> tuple[GuardSet, list[Removed]]:
    """The guards that need checking, and those that do not with the rule that removed each.

    A set that no rule applies to comes back as the same object.
    """
    removed = [Removed(item, name) for name, rule in RULES.items() for item in rule(guard_set)]
    if not removed:
        return guard_set, []
    gone = {item.guard for item in removed}
    return GuardSet((item, maker) for item, maker in guard_set.entries() if item not in gone), removed
