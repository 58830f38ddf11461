"""Measures one workload on one backend in this very process, which the parent starts for nothing else."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from types import CodeType
from typing import Any

import torch

from unified_guards.bench import probe
from unified_guards.bench.registry import WORKLOADS, Workload

BACKENDS = ("torch", "unified", "strict")
_FIRST_STEPS = 3
_FLUSHED_CHECKS = 30


@dataclass
class Sample:
    """What one child process reports. None means: not measured here."""

    workload: str
    backend: str
    compiles: int
    leaf_guards: int
    """Of torch's own tree, which is built in either case."""
    equal: bool
    compile_s: float
    guard_build_s: float
    lookups_per_step: int | None = None
    lookup_us: float | None = None
    hot_us: float | None = None
    flushed_us: float | None = None
    step_us: float | None = None
    held_bytes: int | None = None
    program_bytes: int | None = None
    checks: int | None = None
    lifted: int | None = None
    provenance: dict[str, int] = field(default_factory=dict)
    frames_left: dict[str, int] = field(default_factory=dict)
    callbacks_per_check: float | None = None
    more: dict[str, Any] = field(default_factory=dict)
    """What `more` of :func:`measure` found."""


class _Comparison:
    """Runs the compiled step and its eager twin, and keeps the twin in step where a step depends on its past."""

    def __init__(self, work: Workload) -> None:
        self.work = work
        self.equal = True
        self._behind = 0

    def step(self) -> Any:
        self._behind += 1
        return self.work.step()

    def compare(self) -> float:
        """One step of both; returns the seconds that the compiled one took."""
        start = time.perf_counter()
        actual = self.step()
        seconds = time.perf_counter() - start
        for _ in range(self._behind - 1 if self.work.stateful else 0):
            self.work.eager()
        self._behind = 0
        self.equal &= _same(actual, self.work.eager())
        return seconds


def _same(actual: Any, expected: Any) -> bool:
    try:
        torch.testing.assert_close(actual, expected)
    except AssertionError:
        return False
    return True


def install_backend(backend: str) -> Any:
    """Returns the unified_guards module, installed, or None for plain torch."""
    if backend == "torch":
        return None
    import unified_guards

    unified_guards.install(strict=backend == "strict")
    return unified_guards


#: Measures something else on a compiled workload: its step, and what was built for it.
More = Callable[[Callable[[], Any], probe.BuildProbe], dict[str, Any]]


def measure(
    name: str, backend: str, *, steps: int, memory: bool, device: str = "cpu", more: More | None = None
) -> dict[str, Any]:
    """One sample, as a dict for JSON. With `memory`, it stops once the guards are built: only what they hold counts."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    unified = install_backend(backend)
    probe.warm_up()
    with torch.device(device):
        work = WORKLOADS[name]().waiting_for(device)
    torch.set_grad_enabled(work.grad)
    comparison = _Comparison(work)
    with probe.BuildProbe(memory=memory) as builds:
        sample = _first_steps(name, backend, comparison, builds)
        # A stateful twin has to know how many steps it missed; the others are timed without that detour.
        step = comparison.step if work.stateful else work.step
        if not memory:
            _measure_steady(sample, step, steps, builds, unified)
        if more is not None:
            sample.more = more(step, builds)
        if not memory:
            comparison.compare()
        sample.equal = comparison.equal
        sample.compiles = len(builds.builds)
        sample.leaf_guards = sum(build.leaves for build in builds.builds)
    if memory:
        sample.held_bytes = _total([build.held_bytes for build in builds.builds])
    if unified is not None:
        _add_report(sample, unified, {build.code for build in builds.builds})
    return asdict(sample)


def print_sample(name: str, backend: str, *, steps: int, memory: bool = False, device: str = "cpu") -> None:
    """What a child process does: one sample, as one line of JSON on stdout."""
    print(json.dumps(measure(name, backend, steps=steps, memory=memory, device=device)), flush=True)


def _first_steps(name: str, backend: str, comparison: _Comparison, builds: probe.BuildProbe) -> Sample:
    compile_s = 0.0
    for _ in range(_FIRST_STEPS):
        known = len(builds.builds)
        seconds = comparison.compare()
        if len(builds.builds) > known:
            compile_s += seconds
    guard_build_s = sum(build.seconds for build in builds.builds)
    return Sample(name, backend, len(builds.builds), 0, True, compile_s, guard_build_s)


def _measure_steady(
    sample: Sample, step: Callable[[], Any], steps: int, builds: probe.BuildProbe, unified: Any
) -> None:
    before = unified.stats() if unified is not None else None
    sample.step_us = probe.step_us(step, steps)
    live = builds.live()
    if any(build.leaves for build in live):
        sample.lookup_us, sample.lookups_per_step = probe.lookups_in_place(step, steps)
    else:
        sample.lookup_us, sample.lookups_per_step = 0.0, len(live)  # Dynamo looks nothing up where nothing is guarded
    if before is not None:
        after = unified.stats()
        sample.callbacks_per_check = (after.python_callbacks - before.python_callbacks) / max(
            1, after.checks - before.checks
        )
    # One entry can serve many lookups of a step, as where 36 layers share one forward. So what checking each entry once
    # costs is scaled to the lookups of a step.
    scale = sample.lookups_per_step / max(1, len(live))
    sample.hot_us = _scaled([probe.hot_us(build) for build in live], scale)
    rounds = max(5, _FLUSHED_CHECKS // max(1, len(live)))
    sample.flushed_us = _scaled([probe.flushed_us(build, rounds) for build in live], scale)


def _add_report(sample: Sample, unified: Any, codes: set[CodeType]) -> None:
    sample.frames_left = dict(unified.stats().frames_left_to_torch)
    reports = [frame for code in codes for frame in unified.explain(code).frames]
    frames = [frame for frame in reports if frame.guard_set is not None]  # the others were left to torch
    sample.checks = sum(frame.guards_checked for frame in frames)
    sample.lifted = sum(frame.lifted for frame in frames)
    sample.program_bytes = sum(frame.program_nbytes for frame in frames)
    for frame in frames:
        for origin, count in frame.guard_set.counts_by_provenance().items():
            sample.provenance[origin] = sample.provenance.get(origin, 0) + count


def _total(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _scaled(values: list[float | None], scale: float) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) * scale if known and len(known) == len(values) else None
