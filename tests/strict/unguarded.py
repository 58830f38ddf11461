"""What Dynamo reads and does not guard: a function, and a change after which it gives something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch


@dataclasses.dataclass
class Unguarded:
    """A function, the arguments of its calls, and a change between two of them.

    ``ends`` is in the reason for which strict mode ends the graph; None where a guard notices the change.
    """

    function: Callable[..., Any]
    change: Callable[[], Any]
    undo: Callable[[], Any] = lambda: None
    args: Callable[[], tuple[Any, ...]] = lambda: (torch.ones(2),)
    ends: str | None = None
    dynamic: bool = False


UNGUARDED: dict[str, Callable[[], Unguarded]] = {}


def unguarded(make: Callable[[], Unguarded]) -> Callable[[], Unguarded]:
    UNGUARDED[make.__name__] = make
    return make


def reads(
    name: str,
    make: Callable[[], Any],
    read: Callable[[Any], Any],
    change: Callable[[Any], Any],
    undo: Callable[[Any], Any] = lambda held: None,
    ends: str | None = None,
) -> None:
    """A number that is read of something that ``make`` gives."""

    def made() -> Unguarded:
        held = make()

        def helper() -> float:
            return float(read(held))

        return Unguarded(lambda x: x + helper(), lambda: change(held), lambda: undo(held), ends=ends)

    UNGUARDED[name] = made


def takes(
    name: str,
    function: Callable[..., Any],
    first: Callable[[], tuple[Any, ...]],
    then: Callable[[], tuple[Any, ...]],
    ends: str | None = None,
    dynamic: bool = False,
) -> None:
    """A function that is called with other arguments."""

    def made() -> Unguarded:
        given = [first]

        def change() -> None:
            given[0] = then

        return Unguarded(function, change, args=lambda: given[0](), ends=ends, dynamic=dynamic)

    UNGUARDED[name] = made
