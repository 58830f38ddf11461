"""Which guard costs how much of a check.

The times are there when the function was compiled under ``UNIFIED_GUARDS_PROFILE=1`` (``dynamo/measure.py``). Entry
point: :func:`costs_of`.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping

from unified_guards.dynamo.entry import DynamoEntry
from unified_guards.dynamo.measure import Measured
from unified_guards.guards.ir import Guard, GuardSet, Source, Test

#: Guards on what an accessor finds: they are merged into the accessor before them (Program::merge).
_MERGED = frozenset({Test.TYPE_IS, Test.IS})


@dataclasses.dataclass
class GuardCost:
    """What one guard adds to a check. The accessors that first lead to its object count as its own.

    Attributes:
        instructions: how many instructions of the native program are counted to the guard.
        live: how many of these are evaluated on every check.
        facts: words of memory that are compared instead of evaluating the instructions that are not live, for the root
            that was checked last.
        ns: nanoseconds to evaluate all the instructions, each measured alone; None when nothing was measured.
        is_live: whether the guard itself is evaluated on every check.
    """

    instructions: int = 0
    live: int = 0
    facts: int = 0
    ns: float | None = None
    is_live: bool = False


@dataclasses.dataclass(frozen=True)
class Costs:
    """What a check of one cache entry costs. Times are in nanoseconds, None where nothing was measured.

    Attributes:
        guards: for each guard that is checked.
        remembered: whether facts are remembered, so that only what is live is evaluated.
        checks: how many checks were timed in place, that is, where the program made them.
        in_place_ns: the median of these.
        torch_in_place_ns: the median of checks by torch's own guard tree there, which take turns with ours.
        check_ns: the least time of many checks in a row.
        exact_ns: the least time of a check that evaluates every guard.
        torch_ns: the least time of a check by torch's own guard tree.
        live_ns: what is evaluated on every check, added up from instructions measured alone.
    """

    guards: Mapping[Guard, GuardCost]
    remembered: bool
    checks: int = 0
    in_place_ns: float | None = None
    check_ns: float | None = None
    exact_ns: float | None = None
    torch_ns: float | None = None
    live_ns: float | None = None
    torch_in_place_ns: float | None = None


def costs_of(entry: DynamoEntry) -> Costs:
    """What a check of a cache entry costs, by guard; with times if the entry was measured."""
    measured = entry.measured or Measured()
    witness = measured.witness or entry.checker.witness or {}
    remembered = bool(witness.get("roots"))
    live_rows = witness.get("live_rows", ()) if remembered else range(entry.row_count)
    guards = _by_guard(entry, set(live_rows), witness.get("fact_rows", ()), measured.rows)
    in_place, torch_in_place = list(measured.in_place_ns), list(measured.torch_in_place_ns)
    live = set(live_rows)
    return Costs(
        guards,
        remembered,
        len(in_place),
        statistics.median(in_place) if in_place else None,
        measured.check_ns,
        measured.exact_ns,
        measured.torch_ns,
        sum(ns for row, ns in measured.rows if row in live) if measured.rows else None,
        statistics.median(torch_in_place) if torch_in_place else None,
    )


def _by_guard(
    entry: DynamoEntry, live: set[int], fact_rows: list[int], timed: list[tuple[int, float]]
) -> dict[Guard, GuardCost]:
    owners = _owners(entry.row_origins[: entry.row_count], entry.checked)
    found = {item: GuardCost(ns=0.0 if timed else None) for item in entry.checked}
    for row, owner in enumerate(owners):
        cost = found[owner]
        cost.instructions += 1
        cost.live += row in live
        cost.is_live |= _answers(row, entry.row_origins, owner) in live
    for row in fact_rows:
        found[owners[row]].facts += 1
    for row, ns in timed:
        cost = found[owners[row]]
        cost.ns = (cost.ns or 0.0) + ns
    return found


def _answers(row: int, origins: list[Guard | Source], owner: Guard) -> int:
    """The row of the instruction that answers ``owner``; -1 where ``row`` belongs to something else.

    A guard that was merged is answered by the accessor before it.
    """
    if origins[row] is not owner:
        return row if owner.test is Test.EXISTS and origins[row] is owner.source else -1
    return row - 1 if owner.test in _MERGED and row and isinstance(origins[row - 1], Source) else row


def _owners(origins: list[Guard | Source], checked: GuardSet) -> list[Guard]:
    """For each row the guard that the row is counted to. An accessor is counted to the first guard that needs it."""
    existing = {item.source: item for item in checked if item.test is Test.EXISTS}
    owners: list[Guard] = []
    owner: Guard | None = None
    for stands_for in reversed(origins):
        if isinstance(stands_for, Guard):
            owner = stands_for
        elif stands_for in existing:
            owner = existing[stands_for]
        owners.append(owner or next(iter(checked)))
    return owners[::-1]
