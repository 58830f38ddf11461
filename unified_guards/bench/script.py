"""Runs a user's program and measures its steps, in place. Started by ``bench --script``, once for each run.

Lookups are timed by Dynamo's own profiler event, in short windows: the profiler is started before a call of compiled
code and stopped some steps later, when nothing has been compiled for a while. A lookup belongs to the compiled region
that begins after it. In a window after that, calls and their graphs are timed (steps.py). Between windows the program
runs as it would: these are the steps of which the time is given.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Hashable, Iterable
from pathlib import Path
from statistics import median
from types import CodeType
from typing import Any

import torch._dynamo
import torch._dynamo.guards as dynamo_guards
from torch._guards import CompileContext
from torch.profiler import ProfilerActivity, profile

import unified_guards
from unified_guards.bench.measure import install_backend
from unified_guards.bench.probe import LOOKUP_EVENT, leaf_guards, torch_root
from unified_guards.bench.steps import Clock, Steps
from unified_guards.cli.run import run_program
from unified_guards.dynamo import recompiles
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper

_REGION_EVENT = "Torch-Compiled Region: "
#: How many calls: without a compilation before a window may begin, at least and at most in one, at most between two.
QUIET_CALLS, _WINDOW_CALLS, _MOST_IN_WINDOW, _MOST_BETWEEN = 5, 10, 400, 1000
_WINDOWS = 10  # of each kind
_WINDOW_SECONDS = 2.0


@dataclasses.dataclass
class Frame:
    """One cache entry.

    Attributes:
        guards: how many were lifted; where the guards are torch's, the leaf guards of its tree.
        checks: how many of them are left to check after simplifying; None where the guards are torch's.
        build_s: what building its guards took.
        lookups_us: each measured lookup that ended in this entry, in µs.
    """

    name: str
    guards: int
    checks: int | None
    build_s: float
    lookups_us: list[float] = dataclasses.field(default_factory=list)


def attribute(events: Iterable[tuple[str, float]]) -> dict[str | None, list[float]]:
    """Lookups in µs by the region that each of them found; under None those that found none.

    Args:
        events: (name, duration in µs), in the order in which they began.
    """
    found: dict[str | None, list[float]] = {}
    waiting: float | None = None
    for name, micros in events:
        is_region = name.startswith(_REGION_EVENT)
        if waiting is not None and (is_region or name.startswith(LOOKUP_EVENT)):
            found.setdefault(name.removeprefix(_REGION_EVENT) if is_region else None, []).append(waiting)
            waiting = None
        if name.startswith(LOOKUP_EVENT):
            waiting = micros
    if waiting is not None:
        found.setdefault(None, []).append(waiting)
    return found


@dataclasses.dataclass
class Window:
    """Some calls in which lookups are measured, or calls are timed.

    Attributes:
        key: what was called when it was opened.
        profiler: measures lookups; None where calls are timed.
        timed_before: how many calls had been timed before, by what was called.
        began: when it was opened, in seconds.
        calls: that it has seen to their end.
    """

    key: Hashable
    profiler: Any
    timed_before: dict[Hashable, int]
    began: float = dataclasses.field(default_factory=time.perf_counter)
    calls: int = 0

    def is_over(self, key: Hashable) -> bool:
        """Whether it ends before a call of this: it is long enough, and would be whole steps."""
        return self.calls >= _WINDOW_CALLS and (key == self.key or self.calls >= _MOST_IN_WINDOW)


class Recorder(Clock):
    """Counts calls of compiled code on this thread, notes its steps, and measures lookups and calls in windows.

    Attributes:
        frames: by compile id, as torch writes it.
        measured_calls: how many calls were in windows in which lookups were measured.
        gave_up: why no more windows are opened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frames: dict[str, Frame] = {}
        self.measured_calls = 0
        self.gave_up: str | None = None
        self._last_build = 0
        self._next_window = 0
        self._windows = 0
        self._window: Window | None = None

    def install(self) -> None:
        """Has Dynamo call this recorder, for the rest of the process."""
        super().install()
        construct = dynamo_guards.CheckFunctionManager.__init__
        recorder = self

        def timed_construct(manager: Any, f_code: CodeType, *args: Any, **kwargs: Any) -> None:
            start = time.perf_counter()
            construct(manager, f_code, *args, **kwargs)
            recorder.built(f_code, manager.guard_manager, time.perf_counter() - start)

        dynamo_guards.CheckFunctionManager.__init__ = timed_construct

    def built(self, code: CodeType, wrapper: Any, seconds: float) -> None:
        """Called when Dynamo has made a cache entry."""
        self._last_build = self.calls
        self.disturb()
        name = f"{code.co_name} ({Path(code.co_filename).name}:{code.co_firstlineno})"
        self.frames[str(CompileContext.current_compile_id())] = Frame(name, *_counts(wrapper), seconds)

    @property
    def quiet_calls(self) -> int:
        """How many calls there were after the one in which something was compiled last."""
        return self.calls - self._last_build

    def begins(self, key: Hashable) -> None:
        """Opens a window, or closes the one that is open where a step ends."""
        window = self._window
        if window is not None:
            self.disturb()
            if window.is_over(key):
                self.close()
        if self._window is None and self._is_time_for_a_window():
            self._open(key)

    def ends(self) -> None:
        """Closes a window that takes too long, or in which something was compiled."""
        window = self._window
        if window is None:
            return
        window.calls += 1
        if time.perf_counter() - window.began > _WINDOW_SECONDS or self._last_build == self.calls:
            self.close()

    # ---- windows -----------------------------------------------------------------------------------------------------

    def _is_time_for_a_window(self) -> bool:
        if self.gave_up is not None or self._windows == 2 * _WINDOWS:
            return False
        return self.calls > max(self._next_window, self._last_build + QUIET_CALLS)

    def _open(self, key: Hashable) -> None:
        """Lookups are measured in every other window, calls in those between."""
        profiler = None if self._windows % 2 else profile(activities=[ProfilerActivity.CPU])
        try:
            if profiler is not None:
                profiler.start()
        except RuntimeError as error:  # the program has a profiler of its own
            self.gave_up = str(error)
            return
        self.is_timing = profiler is None
        self._windows += 1
        self.disturb()
        self._window = Window(key, profiler, {what: len(timed) for what, timed in self.timed.items()})

    def close(self) -> None:
        """Ends the window that is open, if one is."""
        window, self._window = self._window, None
        if window is None:
            return
        self.is_timing = False
        self.disturb()
        # What was measured while something was compiled is not what a program pays later.
        is_good = window.calls > 0 and self._last_build <= self.calls - window.calls
        if window.profiler is not None:
            window.profiler.stop()
            self._next_window = self.calls
            if is_good:
                self._note_lookups(window)
            return
        self._next_window = self.calls + min(_MOST_BETWEEN, _WINDOW_CALLS * 2**self._windows)
        for what, timed in () if is_good else self.timed.items():
            while len(timed) > window.timed_before.get(what, 0):
                timed.pop()

    def _note_lookups(self, window: Window) -> None:
        raw = sorted(window.profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
        for region, micros in attribute((event.name(), event.duration_ns() / 1000) for event in raw).items():
            if region in self.frames:
                self.frames[region].lookups_us += micros
        self.measured_calls += window.calls


def _counts(wrapper: Any) -> tuple[int, int | None]:
    """How many guards an entry has, and how many checks."""
    if not isinstance(wrapper, UnifiedGuardManagerWrapper):
        return leaf_guards(torch_root(wrapper)), None
    return sum(1 for _ in wrapper.entry.guard_set.entries()), len(wrapper.entry.checked)


def _step(recorder: Recorder, steps: Steps) -> dict[str, Any]:
    return {
        "begins_with": recorder.names[steps.key],
        "number": len(steps.us),
        "us": median(steps.us),
        "halves_us": steps.halves_us,
        "calls": sum(steps.calls.values()),
        "beside_us": recorder.beside_us(steps),
    }


def report(recorder: Recorder, backend: str, seconds: float) -> dict[str, Any]:
    """What the parent process reads."""
    frames = [
        {
            "id": compile_id,
            "name": frame.name,
            "guards": frame.guards,
            "checks": frame.checks,
            "build_s": frame.build_s,
            "lookups": len(frame.lookups_us),
            "lookup_us": median(frame.lookups_us) if frame.lookups_us else None,
        }
        for compile_id, frame in recorder.frames.items()
    ]
    stats, steps = unified_guards.stats(), recorder.steps()
    return {
        "backend": backend,
        "seconds": seconds,
        "calls": recorder.calls,
        "quiet_calls": recorder.quiet_calls,
        "measured_calls": recorder.measured_calls,
        "frames": frames,
        "step": None if steps is None else _step(recorder, steps),
        "short_ways": stats.short_ways,
        "graph_breaks": sum(torch._dynamo.utils.counters["graph_break"].values()),
        "frames_left": stats.frames_left_to_torch,
        "lifted": stats.frames_lifted,
        "gave_up": recorder.gave_up,
        "recompiles": [_recompile(each) for each in recompiles.collected or ()],
    }


def _recompile(made: recompiles.Recompile) -> dict[str, Any]:
    """Why a function was compiled again, for the report: of the version that was used last."""
    first = made.reasons[0]
    advice = [each for each in (first.advice, first.limit) if each is not None]
    return {
        "function": made.function,
        "text": first.text,
        "compiled": made.reached is None,
        "causes": [each.name for each in advice],
        "lines": [line for each in advice for line in each.lines()],
    }


def main() -> None:
    """Runs the program to its end; whatever it raises, and its exit status, are let through."""
    parser = argparse.ArgumentParser(prog="python -m unified_guards.bench.script")
    parser.add_argument("--backend", choices=("torch", "unified"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("-m", dest="is_module", action="store_true")
    parser.add_argument("program")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    install_backend(options.backend)
    recompiles.collected = []  # stays empty with torch's guards
    recorder = Recorder()
    recorder.install()
    start = time.perf_counter()
    try:
        run_program(options.program, options.arguments, is_module=options.is_module)
    finally:
        recorder.close()
        seconds = time.perf_counter() - start
        options.out.write_text(json.dumps(report(recorder, options.backend, seconds)))


if __name__ == "__main__":
    main()
