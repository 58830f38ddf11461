"""What a row of the table is, and how one is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ..world import World

Do = Callable[[], object]


class Change(NamedTuple):
    """Something that happens, and how it is undone."""

    change: Do
    restore: Do | None = None


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        name: what it is called.
        changes: of a world.
        weight: how often it is drawn, relative to others.
        anywhere: whether it may happen at the very moment of a check: from another thread, or from user code that a
            guard runs. Not so where torch lets go of the GIL while it writes what guards read.
        neutral: that no guard set may notice it (save for those on dict versions).
    """

    name: str
    changes: Callable[[World], Iterator[Change]]
    weight: float
    anywhere: bool
    neutral: bool


ROWS: dict[str, Row] = {}


def row(weight: float = 1.0, *, anywhere: bool = True, neutral: bool = False) -> Callable[[Any], Any]:
    """Registers a row under its function's name."""

    def register(changes: Callable[[World], Iterator[Change]]) -> Callable[[World], Iterator[Change]]:
        ROWS[changes.__name__] = Row(changes.__name__, changes, weight, anywhere, neutral)
        return changes

    return register
