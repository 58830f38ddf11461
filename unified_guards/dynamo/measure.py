"""Measures the checks of a program while it runs.

Off unless ``UNIFIED_GUARDS_PROFILE=1`` when a function is compiled: then every check is timed where the program makes
it, and now and then the same frame is checked again, instruction by instruction (csrc/check/profile.h). Entry points:
:func:`watch`, :func:`torch_first`, :func:`note`. ``report/costs.py`` says what each guard costs.
"""

from __future__ import annotations

import collections
import contextlib
import time
import types
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from unified_guards import config

if TYPE_CHECKING:
    from unified_guards.dynamo.entry import DynamoEntry
    from unified_guards.dynamo.made import Made

#: Is called after a check with the frame and the verdict. It may return another verdict.
Observer = Callable[[dict[str, Any], bool], bool | None]

#: Of one entry: how many of the last checks are kept, and how often a frame is checked again to measure one.
_MOST_CHECKS, _PASSES = 4096, 20
#: Ours and torch's are measured in turns, so many checks each. The first of a turn is left out: it meets caches that
#: the other has left.
_TURN = 4


class Compiled(NamedTuple):
    """A cache entry that was made while a program was explained."""

    code: types.CodeType
    entry: DynamoEntry | None
    made: Made


#: What was compiled, kept alive for the report that `python -m unified_guards explain` writes; None outside of that.
compiled: list[Compiled] | None = None


def note(code: types.CodeType, entry: DynamoEntry | None, made: Made) -> None:
    """Called when a frame has been compiled. There is no entry of ours where its guards stayed torch's."""
    if compiled is not None:
        compiled.append(Compiled(code, entry, made))


def is_on() -> bool:
    """Whether functions that are compiled now are measured."""
    return config.profile


class Measured:
    """What was measured of one cache entry.

    Attributes:
        in_place_ns: how long each of the last checks took where the program made it, in nanoseconds.
        torch_in_place_ns: the same of torch's own guard tree, which takes turns with ours, called from Python.
        check_ns: a check, the least of many in a row, so that all it reads is in the cache.
        exact_ns: the same of a check that evaluates every guard.
        torch_ns: the same of torch's own guard tree, called from Python.
        rows: for each instruction its row and what it takes to evaluate it alone.
        witness: what the checker remembered then, as `_C.Checker.witness` has it.
    """

    def __init__(self) -> None:
        self.in_place_ns: collections.deque[int] = collections.deque(maxlen=_MOST_CHECKS)
        self.torch_in_place_ns: collections.deque[int] = collections.deque(maxlen=_MOST_CHECKS)
        self.is_in_place = True
        self.check_ns: float | None = None
        self.exact_ns: float | None = None
        self.torch_ns: float | None = None
        self.rows: list[tuple[int, float]] = []
        self.witness: dict[str, Any] | None = None

    def measure(self, entry: DynamoEntry, torch_root: Any, f_locals: dict[str, Any]) -> None:
        """Checks a frame that passes again and again."""
        self.check_ns, self.exact_ns, self.rows = entry.checker.profile(f_locals, _PASSES)
        self.witness = entry.checker.witness
        # Torch's tree does the same every time, so an earlier measurement that was less disturbed is as good.
        torch_ns = min(_ns_of(torch_root.check, f_locals) for _ in range(_PASSES))
        self.torch_ns = torch_ns if self.torch_ns is None else min(torch_ns, self.torch_ns)


def _ns_of(check: Callable[[dict[str, Any]], object], f_locals: dict[str, Any]) -> int:
    began = time.perf_counter_ns()
    check(f_locals)
    return time.perf_counter_ns() - began


def watch(entry: DynamoEntry, torch_root: Any, oracle: Observer | None) -> Observer:
    """An observer that measures each check, and then asks ``oracle``.

    The 1st, 4th, 16th … check that passes is repeated instruction by instruction: the first few still change what is
    remembered, and later ones show what a check costs from then on.
    """
    measured = entry.measured = Measured()
    held = weakref.ref(entry)
    hits = 0

    def measuring(f_locals: dict[str, Any], verdict: bool) -> bool | None:
        nonlocal hits
        entry = held()
        if entry is not None:
            if measured.is_in_place:
                measured.in_place_ns.append(entry.checker.last_ns)
            hits += verdict
            if verdict and hits.bit_count() == 1 and hits.bit_length() % 2 == 1:
                with contextlib.suppress(Exception):  # a measurement that fails must not stop the call
                    measured.measure(entry, torch_root, f_locals)
        return None if oracle is None else oracle(f_locals, verdict)

    return measuring


def torch_first(entry: DynamoEntry, torch_root: Any) -> Callable[[dict[str, Any]], None]:
    """What is called ahead of each check of an entry that is watched: in every other turn it measures torch's tree.

    So both are measured where the program makes a check, with what its own work has left in the caches. Where torch's
    tree has run, ours meets its own data warm, and is not measured.
    """
    measured = entry.measured
    checks = 0

    def before(f_locals: dict[str, Any]) -> None:
        nonlocal checks
        if measured is None:
            return
        turn, at = divmod(checks, _TURN)
        checks += 1
        is_torchs = turn % 2 == 1
        measured.is_in_place = not is_torchs and (at > 0 or turn == 0)
        if is_torchs:
            began = time.perf_counter_ns()
            holds = torch_root.check(f_locals)
            took = time.perf_counter_ns() - began
            if holds and at > 0:
                measured.torch_in_place_ns.append(took)

    return before
