"""What a change is, and how one is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from unified_guards.guards.ir import Guard

#: A change yields what is shown to the guards and the guards, and, resumed, changes something that they look at. One
#: that yields again undoes it.
Step = tuple[dict[str, Any], list[Guard]] | None
Change = Callable[[], Iterator[Step]]
CHANGES: dict[str, Change] = {}


def change(function: Change) -> Change:
    CHANGES[function.__name__.replace("_", " ")] = function
    return function
