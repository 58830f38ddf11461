"""Runs a user's program and measures its guard lookups in place. Started by ``bench --script``, once for each backend.

Lookups are timed by Dynamo's own profiler event, in short windows: the profiler is started before a call of compiled
code and stopped a few calls later, when nothing has been compiled for a while. Between windows the program runs as it
would. A lookup belongs to the compiled region that begins after it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from types import CodeType
from typing import Any

import torch._dynamo
import torch._dynamo.guards as dynamo_guards
from torch._dynamo.eval_frame import OptimizeContext
from torch._guards import CompileContext
from torch.profiler import ProfilerActivity, profile

import unified_guards
from unified_guards.bench.measure import install_backend
from unified_guards.bench.probe import LOOKUP_EVENT, leaf_guards, torch_root
from unified_guards.cli.run import run_program
from unified_guards.dynamo import recompiles

_REGION_EVENT = "Torch-Compiled Region: "
#: How many calls: without a compilation before a window may begin, in one window, at most between two windows.
QUIET_CALLS, _WINDOW_CALLS, _MOST_BETWEEN = 5, 20, 1000
_WINDOWS = 10
_WINDOW_SECONDS = 2.0


@dataclasses.dataclass
class Frame:
    """One cache entry.

    Attributes:
        guards: leaf guards of torch's own tree, which is built in either case.
        build_s: what building its guards took.
        lookups_us: each measured lookup that ended in this entry, in µs.
    """

    name: str
    guards: int
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


class Recorder:
    """Counts calls of compiled code on this thread, and measures some of them.

    Attributes:
        frames: by compile id, as torch writes it.
        calls: how often compiled code was called from code that is not compiled.
        measured_calls: how many of these calls were in windows.
        gave_up: why no more windows are opened.
    """

    def __init__(self) -> None:
        self.frames: dict[str, Frame] = {}
        self.calls = 0
        self.measured_calls = 0
        self.gave_up: str | None = None
        self._thread = threading.get_ident()
        self._depth = 0
        self._last_build = 0
        self._next_window = 0
        self._windows = 0
        self._profiler: Any = None
        self._window_calls = 0
        self._window_start = 0.0

    # ---- what Dynamo calls -------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Has Dynamo call this recorder, for the rest of the process."""
        init, construct = OptimizeContext.__init__, dynamo_guards.CheckFunctionManager.__init__
        recorder = self

        def init_with_hook(context: Any, *args: Any, **kwargs: Any) -> None:
            init(context, *args, **kwargs)
            context.enter_exit_hooks.append(recorder.enter)

        def timed_construct(manager: Any, f_code: CodeType, *args: Any, **kwargs: Any) -> None:
            start = time.perf_counter()
            construct(manager, f_code, *args, **kwargs)
            recorder.built(f_code, manager.guard_manager, time.perf_counter() - start)

        OptimizeContext.__init__ = init_with_hook
        dynamo_guards.CheckFunctionManager.__init__ = timed_construct

    def built(self, code: CodeType, wrapper: Any, seconds: float) -> None:
        """Called when Dynamo has made a cache entry."""
        self._last_build = self.calls
        name = f"{code.co_name} ({Path(code.co_filename).name}:{code.co_firstlineno})"
        self.frames[str(CompileContext.current_compile_id())] = Frame(name, leaf_guards(torch_root(wrapper)), seconds)

    def enter(self) -> Callable[[], None]:
        """Called when compiled code is called. Returns what to call when that ends."""
        if threading.get_ident() != self._thread:
            return lambda: None
        self._depth += 1
        if self._depth == 1:
            self.calls += 1
            if self._is_time_for_a_window():
                self._open()
        return self._leave

    def _leave(self) -> None:
        self._depth -= 1
        if self._depth or self._profiler is None:
            return
        self._window_calls += 1
        spent = time.perf_counter() - self._window_start
        if self._window_calls >= _WINDOW_CALLS or spent > _WINDOW_SECONDS or self._last_build == self.calls:
            self.close()

    # ---- windows -----------------------------------------------------------------------------------------------------

    def _is_time_for_a_window(self) -> bool:
        if self._profiler is not None or self.gave_up is not None or self._windows == _WINDOWS:
            return False
        return self.calls > max(self._next_window, self._last_build + QUIET_CALLS)

    def _open(self) -> None:
        profiler = profile(activities=[ProfilerActivity.CPU])
        try:
            profiler.start()
        except RuntimeError as error:  # the program has a profiler of its own
            self.gave_up = str(error)
            return
        self._profiler, self._window_calls = profiler, 0
        self._windows += 1
        self._window_start = time.perf_counter()

    def close(self) -> None:
        """Ends the window that is open, if one is."""
        profiler, self._profiler = self._profiler, None
        if profiler is None:
            return
        profiler.stop()
        self._next_window = self.calls + min(_MOST_BETWEEN, _WINDOW_CALLS * 2**self._windows)
        if not self._window_calls or self._last_build > self.calls - self._window_calls:
            return  # something was compiled, which is not what a program pays later
        raw = sorted(profiler.profiler.kineto_results.events(), key=lambda event: event.start_ns())
        for region, micros in attribute((event.name(), event.duration_ns() / 1000) for event in raw).items():
            if region in self.frames:
                self.frames[region].lookups_us += micros
        self.measured_calls += self._window_calls


def report(recorder: Recorder, backend: str, seconds: float) -> dict[str, Any]:
    """What the parent process reads."""
    frames = [
        {
            "id": compile_id,
            "name": frame.name,
            "guards": frame.guards,
            "build_s": frame.build_s,
            "lookups": len(frame.lookups_us),
            "lookup_us": median(frame.lookups_us) if frame.lookups_us else None,
        }
        for compile_id, frame in recorder.frames.items()
    ]
    stats = unified_guards.stats()
    return {
        "backend": backend,
        "seconds": seconds,
        "calls": recorder.calls,
        "measured_calls": recorder.measured_calls,
        "frames": frames,
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
