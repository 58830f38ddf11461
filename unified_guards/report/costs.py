"""What the checks of a program cost, measured while it runs, and which guard how much of it.

Off unless ``UNIFIED_GUARDS_PROFILE=1`` when a function is compiled: then every check is timed where the program makes
it, and now and then the same frame is checked again, instruction by instruction (csrc/check/profile.h). Entry points:
:func:`watch`, :func:`costs_of`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import statistics
import time
import types
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from unified_guards._environment import is_set
from unified_guards.guards.ir import Guard, GuardSet, Source, Test

if TYPE_CHECKING:
    from unified_guards.dynamo.frame import Frame

Oracle = Callable[[dict[str, Any], bool], bool | None]

#: Of one entry: how many of the last checks are kept, and how often a frame is checked again to measure one.
_MOST_CHECKS, _PASSES = 4096, 20
#: Merged into the accessor before them (Program::merge).
_MERGED = frozenset({Test.TYPE_IS, Test.IS})


class Compiled(NamedTuple):
    """A cache entry that was made while a program was explained."""

    code: types.CodeType
    frame: Frame | None
    why: str | None  # it was left to torch


#: What was compiled, kept alive for the report that `python -m unified_guards explain` writes; None outside of that.
compiled: list[Compiled] | None = None


def note(code: types.CodeType, frame: Frame | None, why: str | None = None) -> None:
    """Called when a frame has been compiled."""
    if compiled is not None:
        compiled.append(Compiled(code, frame, why))


def is_on() -> bool:
    """Whether functions that are compiled now are measured."""
    return is_set("UNIFIED_GUARDS_PROFILE")


class Measured:
    """What was measured of one cache entry.

    Attributes:
        in_place_ns: how long each of the last checks took where the program made it, in nanoseconds.
        check_ns: a check, the least of many in a row, so that all it reads is in the cache.
        exact_ns: the same of a check that evaluates every guard.
        torch_ns: the same of torch's own guard tree, called from Python.
        rows: for each instruction its row and what it takes to evaluate it alone.
        witness: what the checker remembered then, as `_C.Checker.witness` has it.
    """

    def __init__(self) -> None:
        self.in_place_ns: collections.deque[int] = collections.deque(maxlen=_MOST_CHECKS)
        self.check_ns: float | None = None
        self.exact_ns: float | None = None
        self.torch_ns: float | None = None
        self.rows: list[tuple[int, float]] = []
        self.witness: dict[str, Any] | None = None

    def measure(self, frame: Frame, torch_root: Any, f_locals: dict[str, Any]) -> None:
        """Checks a frame that passes again and again."""
        self.check_ns, self.exact_ns, self.rows = frame.checker.profile(f_locals, _PASSES)
        self.witness = frame.checker.witness
        # Torch's tree does the same every time, so an earlier measurement that was less disturbed is as good.
        torch_ns = min(_ns_of(torch_root.check, f_locals) for _ in range(_PASSES))
        self.torch_ns = torch_ns if self.torch_ns is None else min(torch_ns, self.torch_ns)


def _ns_of(check: Callable[[dict[str, Any]], object], f_locals: dict[str, Any]) -> int:
    began = time.perf_counter_ns()
    check(f_locals)
    return time.perf_counter_ns() - began


def watch(frame: Frame, torch_root: Any, oracle: Oracle | None) -> Oracle:
    """An oracle that measures, and then asks ``oracle``. The 1st, 4th, 16th … check that passes is looked at closely:
    what is remembered settles with the first few."""
    measured = frame.measured = Measured()
    held = weakref.ref(frame)
    hits = 0

    def measuring(f_locals: dict[str, Any], verdict: bool) -> bool | None:
        nonlocal hits
        frame = held()
        if frame is not None:
            measured.in_place_ns.append(frame.checker.last_ns)
            hits += verdict
            if verdict and hits.bit_count() == 1 and hits.bit_length() % 2 == 1:
                with contextlib.suppress(Exception):  # only for reading: the call goes on
                    measured.measure(frame, torch_root, f_locals)
        return None if oracle is None else oracle(f_locals, verdict)

    return measuring


@dataclasses.dataclass
class GuardCost:
    """What one guard adds to a check, with the steps that first lead to its object.

    Attributes:
        instructions: of the native program.
        live: how many of these are evaluated on every check.
        facts: words of memory that are compared instead of evaluating the others, for the root that was checked last.
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
        checks: how many were timed where the program made them.
        in_place_ns: the median of these.
        check_ns: the least of many checks in a row.
        exact_ns: the same when every guard is evaluated.
        torch_ns: the same of torch's own guard tree.
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


def costs_of(frame: Frame) -> Costs:
    """What a check of a cache entry costs, by guard; times where it was measured."""
    measured = frame.measured or Measured()
    witness = measured.witness or frame.checker.witness or {}
    remembered = bool(witness.get("roots"))
    live_rows = witness.get("live_rows", ()) if remembered else range(frame.rows)
    guards = _by_guard(frame, set(live_rows), witness.get("fact_rows", ()), measured.rows)
    in_place = measured.in_place_ns
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
    )


def _by_guard(
    frame: Frame, live: set[int], fact_rows: list[int], timed: list[tuple[int, float]]
) -> dict[Guard, GuardCost]:
    owners = _owners(frame.meaning[: frame.rows], frame.checked)
    found = {item: GuardCost(ns=0.0 if timed else None) for item in frame.checked}
    for row, owner in enumerate(owners):
        cost = found[owner]
        cost.instructions += 1
        cost.live += row in live
        cost.is_live |= _answers(row, frame.meaning, owner) in live
    for row in fact_rows:
        found[owners[row]].facts += 1
    for row, ns in timed:
        cost = found[owners[row]]
        cost.ns = (cost.ns or 0.0) + ns
    return found


def _answers(row: int, meaning: list[Guard | Source], owner: Guard) -> int:
    """The instruction that answers ``owner``, if it is at this row: one that is merged is answered by the accessor."""
    if meaning[row] is not owner:
        return row if owner.test is Test.EXISTS and meaning[row] is owner.source else -1
    return row - 1 if owner.test in _MERGED and row and isinstance(meaning[row - 1], Source) else row


def _owners(meaning: list[Guard | Source], checked: GuardSet) -> list[Guard]:
    """For each row the guard that it is counted to: an accessor to the first guard that needs it."""
    existing = {item.source: item for item in checked if item.test is Test.EXISTS}
    owners: list[Guard] = []
    owner: Guard | None = None
    for stands_for in reversed(meaning):
        if isinstance(stands_for, Guard):
            owner = stands_for
        elif stands_for in existing:
            owner = existing[stands_for]
        owners.append(owner or next(iter(checked)))
    return owners[::-1]
