"""Counts of what was lifted, left and checked since the process started. Entry point: :func:`stats`."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator

from unified_guards import _C


@dataclasses.dataclass(frozen=True)
class Stats:
    """What unified_guards has done in this process so far.

    Attributes:
        frames_lifted: cache entries whose guards are checked natively.
        frames_left_to_torch: why the guards of other entries stayed torch's, and how many times each. One that was
            compiled before ``install()`` counts from the first ``stats()`` after it.
        checks: how often a native checker ran. A call of a function with several entries may take several checks.
        hits: checks that said that the compiled code may be reused.
        misses: checks that said no.
        python_callbacks: how many Python functions and torch leaf guards the checks called.
        disagreements: what ``UNIFIED_GUARDS_VERIFY`` found: under ``1`` all that was raised, under a smaller share the
            first of each cache entry.
        shapes_left_to_torch: why the shape guards of frames that are checked natively stayed one Python function of
            torch's, and how many times each.
        witness_held: hits by memory alone: nothing that the guards read had changed since an earlier check.
        witness_repaired: hits that evaluated again what hangs below what had changed.
        witness_recorded: hits that evaluated everything and remembered it. All other hits evaluated everything, too.
        witness_off: why guards on dicts are evaluated on every check all the same; None when they need not be.
        aot_entries: versions that the AOT entry points compiled.
        aot_run_eagerly: why calls through them were run without compiled code, and how many times each.
        compared: checks that ``UNIFIED_GUARDS_VERIFY`` had compared.
        overruled: of those, under a share below 1, how many were wrong and took torch's verdict.
        short_ways: calls of compiled functions that went straight to their graph (``dynamo/dispatch.py``).
        long_ways: why other calls went through torch's wrapper, and how many times each.
        short_frames: frames in the middle of such calls (``dynamo/frames.py``) that went straight to their graph.
    """

    frames_lifted: int
    frames_left_to_torch: dict[str, int]
    checks: int
    hits: int
    misses: int
    python_callbacks: int
    disagreements: tuple[str, ...]
    shapes_left_to_torch: dict[str, int] = dataclasses.field(default_factory=dict)
    aot_entries: int = 0
    aot_run_eagerly: dict[str, int] = dataclasses.field(default_factory=dict)
    witness_held: int = 0
    witness_repaired: int = 0
    witness_recorded: int = 0
    witness_off: str | None = None
    compared: int = 0
    overruled: int = 0
    short_ways: int = 0
    long_ways: dict[str, int] = dataclasses.field(default_factory=dict)
    short_frames: int = 0

    def __str__(self) -> str:
        left = sum(self.frames_left_to_torch.values())
        return "\n".join(
            [
                f"cache entries: {self.frames_lifted:,} checked natively, {left:,} left to torch",
                *_because(self.frames_left_to_torch),
                *(
                    f"  shape guards stayed Python {count:,} times: {why}"
                    for why, count in self.shapes_left_to_torch.items()
                ),
                *self._of_checks(),
                *self._of_calls(),
                *([] if self.witness_off is None else [f"dicts are evaluated on every check: {self.witness_off}"]),
                *(
                    [f"verify: {self.compared:,} answers compared, {self.overruled:,} overruled"]
                    if self.compared
                    else []
                ),
                *(f"disagreement: {text}" for text in self.disagreements),
                *self._of_aot(),
            ]
        )

    def _of_checks(self) -> Iterator[str]:
        if self.checks:
            verdicts = f"{counted(self.hits, 'hit', 'hits')}, {counted(self.misses, 'miss', 'misses')}"
            yield f"entries were asked {counted(self.checks, 'time', 'times')}: {verdicts}"
        if self.hits:
            evaluated = self.hits - self.witness_held - self.witness_repaired
            yield (
                f"hits: {self.witness_held:,} by memory alone, {self.witness_repaired:,} after repairing it, "
                f"{evaluated:,} by evaluating all checks"
            )
        if self.python_callbacks:
            yield f"calls of Python while checking: {self.python_callbacks:,}"

    def _of_calls(self) -> Iterator[str]:
        if self.short_ways or self.long_ways:
            yield f"calls: {self.short_ways:,} went the short way, {sum(self.long_ways.values()):,} torch's way"
        yield from _because(self.long_ways)
        if self.short_frames:
            yield f"frames found by torch's hook: {self.short_frames:,} went the short way"

    def _of_aot(self) -> Iterator[str]:
        if self.aot_entries or self.aot_run_eagerly:
            eager = counted(sum(self.aot_run_eagerly.values()), "call", "calls")
            yield f"aot: {counted(self.aot_entries, 'version', 'versions')} compiled, {eager} run eagerly"
        yield from _because(self.aot_run_eagerly)


def _because(reasons: dict[str, int]) -> list[str]:
    return [f"  {count:,} because: {reason}" for reason, count in reasons.items()]


def counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


_NO_WATCHER = (
    "this interpreter has no free dict watcher (there are eight, shared by all extensions), or does not report every "
    "change of a dict (Python 3.13.0 does not)"
)


class _Tally:
    def __init__(self) -> None:
        self.lifted = 0
        self.reasons: dict[str, int] = {}
        self.shapes: dict[str, int] = {}
        self.disagreements: list[str] = []
        self.compared = 0
        self.overruled = 0
        self.warned = False
        self.aot_entries = 0
        self.eager: dict[str, int] = {}
        self._lock = threading.Lock()

    def left(self, reason: str) -> None:
        with self._lock:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def compare(self) -> None:
        with self._lock:
            self.compared += 1

    def overrule(self) -> None:
        with self._lock:
            self.overruled += 1

    def shapes_left(self, reason: str) -> None:
        with self._lock:
            self.shapes[reason] = self.shapes.get(reason, 0) + 1

    def ran_eagerly(self, reason: str) -> None:
        with self._lock:
            self.eager[reason] = self.eager.get(reason, 0) + 1


tally = _Tally()


def stats() -> Stats:
    """What has been lifted, left and checked since the process started.

    Counts only grow; take the difference of two snapshots to measure a part of a program.
    """
    # Imported here: they import this module.
    from unified_guards.dynamo import install, made

    left = dict(tally.reasons)
    before = made.left_before_install(is_installed=install.is_installed())
    if before:
        left[made.BEFORE_INSTALL] = before
    checks, hits, misses, callbacks = _C.counts()
    (short_ways, long_ways), short_frames = _C.Dispatcher._totals()
    return Stats(
        tally.lifted,
        left,
        checks,
        hits,
        misses,
        callbacks,
        tuple(tally.disagreements),
        dict(tally.shapes),
        tally.aot_entries,
        dict(tally.eager),
        *_C.witness_counts(),
        witness_off=None if _C.dicts_are_versioned() else _NO_WATCHER,
        compared=tally.compared,
        overruled=tally.overruled,
        short_ways=short_ways,
        long_ways=long_ways,
        short_frames=short_frames,
    )
