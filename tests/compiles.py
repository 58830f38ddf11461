"""Compilations that do not measure torch's guards: for that torch flushes the caches of the processor, each time."""

from __future__ import annotations

from typing import Any

import torch._dynamo.guards

#: How often torch asks the guards before it measures.
WARMING = 10


def _ask(root: Any, scope: dict[str, Any], times: int) -> float:
    """Asks as often as torch does, since a guard may run code of the user's; says that it took no time."""
    for _ in range(WARMING + times):
        root.check(scope)
    return 0.0


def measure_no_guards() -> None:
    torch._dynamo.guards.profile_guard_manager = _ask
