"""Looks at guards from outside, in the same way for torch's tree and for unified guards.

Nothing here knows which of the two is installed: it times `CheckFunctionManager.__init__`, whatever is patched into it,
and calls the root that Dynamo would call.
"""

from __future__ import annotations

import ctypes
import gc
import time
import timeit
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from types import CodeType, TracebackType
from typing import Any

import torch
import torch._dynamo.guards as dynamo_guards
from torch._C._dynamo.guards import DictGuardManager, LeafGuard, RootGuardManager, profile_guard_manager
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch.profiler import ProfilerActivity, profile

LOOKUP_EVENT = "TorchDynamo Cache Lookup"


class _MallInfo2(ctypes.Structure):
    _names = ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")
    _fields_ = [(name, ctypes.c_size_t) for name in _names]


def _find_mallinfo2() -> Callable[[], _MallInfo2] | None:
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)  # glibc 2.33 and newer
    if function is not None:
        function.restype = _MallInfo2
    return function


_mallinfo2 = _find_mallinfo2()


def heap_bytes() -> int | None:
    """Bytes handed out by malloc. Python's objects are among them only under PYTHONMALLOC=malloc."""
    if _mallinfo2 is None:
        return None
    info = _mallinfo2()
    return int(info.uordblks + info.hblkhd)


def tree_parts(manager: Any) -> Iterator[Any]:
    """Every leaf guard and accessor of a guard tree; a guard that relates two sources comes once for each of them."""
    yield from manager.get_leaf_guards()
    yield from manager.get_accessors()
    if isinstance(manager, RootGuardManager):
        yield from manager.get_epilogue_lambda_guards()
    children = list(manager.get_child_managers())
    if isinstance(manager, DictGuardManager):
        children += [child for pair in manager.get_key_value_managers().values() for child in pair if child is not None]
    for child in children:
        yield from tree_parts(child)


def torch_root(wrapper: Any) -> Any:
    """The root of torch's own tree, which unified guards keep beside the checker."""
    return getattr(wrapper, "torch_root", wrapper.root)


def leaf_guards(root: Any) -> int:
    return sum(isinstance(part, LeafGuard) for part in tree_parts(root))


@dataclass
class Build:
    """One construction of guards, that is, one compilation."""

    code: CodeType
    seconds: float
    held_bytes: int | None
    leaves: int
    wrapper: Any
    f_locals: dict[str, Any] | None
    grad: bool
    """Whether the frame ran with gradients; an optimizer's step, say, switches them off outside its frame."""

    def is_live(self) -> bool:
        return any(entry.guard_manager is self.wrapper for entry in _debug_get_cache_entry_list(self.code))


class BuildProbe:
    """Records every build while it is entered. It keeps the frames' locals alive: for short-lived processes only."""

    def __init__(self, *, memory: bool = False, inspect: Callable[[Any], Any] | None = None) -> None:
        self.builds: list[Build] = []
        self.inspected: list[Any] = []
        self._memory = memory
        self._inspect = inspect
        self._seen: tuple[dict[str, Any] | None, int, bool] = (None, 0, True)
        self._own_seconds = 0.0

    def __enter__(self) -> BuildProbe:
        self._init = dynamo_guards.CheckFunctionManager.__init__
        self._hook = dynamo_guards.guard_manager_testing_hook_fn
        probe, init = self, self._init

        def timed_init(manager: Any, f_code: CodeType, *args: Any, **kwargs: Any) -> None:
            probe._record(manager, f_code, lambda: init(manager, f_code, *args, **kwargs))

        dynamo_guards.CheckFunctionManager.__init__ = timed_init
        dynamo_guards.guard_manager_testing_hook_fn = self._on_tree
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        dynamo_guards.CheckFunctionManager.__init__ = self._init
        dynamo_guards.guard_manager_testing_hook_fn = self._hook

    def _on_tree(self, wrapper: Any, f_locals: dict[str, Any], _builder: Any) -> None:
        """Dynamo calls this inside the constructor, while torch's own tree is still the root."""
        start = time.perf_counter()
        self._seen = (f_locals, leaf_guards(wrapper.root), torch.is_grad_enabled())
        if self._inspect is not None:
            self.inspected.append(self._inspect(wrapper.root))
        self._own_seconds = time.perf_counter() - start

    def _heap(self) -> int | None:
        if not self._memory:
            return None
        gc.collect()
        return heap_bytes()

    def _record(self, manager: Any, code: CodeType, construct: Callable[[], None]) -> None:
        self._seen, self._own_seconds = (None, 0, True), 0.0
        before = self._heap()
        start = time.perf_counter()
        construct()
        seconds = time.perf_counter() - start - self._own_seconds
        after = self._heap()
        held = None if before is None or after is None else after - before
        f_locals, leaves, grad = self._seen
        self.builds.append(Build(code, seconds, held, leaves, manager.guard_manager, f_locals, grad))

    def live(self) -> list[Build]:
        return [build for build in self.builds if build.is_live()]


def _accepted(build: Build) -> bool:
    return build.f_locals is not None and bool(build.wrapper.root.check(build.f_locals))


def hot_us(build: Build) -> float | None:
    """One check with everything in the cache, in µs; includes about 0.1 µs for Python's call. None if it fails."""
    with torch.set_grad_enabled(build.grad):
        if not _accepted(build):
            return None
        names = {"check": build.wrapper.root.check, "f_locals": build.f_locals}
        timer = timeit.Timer("check(f_locals)", globals=names)
        number = max(1, timer.autorange()[0] // 4)
        return median(timer.repeat(7, number)) / number * 1e6


def flushed_us(build: Build, rounds: int) -> float | None:
    """One check in µs, each after torch's own guard profiler has flushed the processor's caches."""
    with torch.set_grad_enabled(build.grad):
        if not _accepted(build):
            return None
        return float(profile_guard_manager(build.wrapper.root, build.f_locals, rounds))


def lookups_in_place(step: Callable[[], Any], steps: int) -> tuple[float, int]:
    """The lookups of one step in µs (summed, median over steps) and their number, with the model running in between.

    The profiler adds a constant to each lookup and some memory traffic to the model; both backends carry the same.
    """
    warm = max(2, steps // 5)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(warm + steps):
            step()
    # The raw events: profiler.events() builds a tree of 100,000 operators first, which takes longer than the run.
    events = [e for e in profiler.profiler.kineto_results.events() if e.name().startswith(LOOKUP_EVENT)]
    events.sort(key=lambda event: event.start_ns())
    per_step, rest = divmod(len(events), warm + steps)
    if rest or not per_step:
        raise RuntimeError(f"{len(events)} cache lookups in {warm + steps} steps: not the same number in each")
    micros = [event.duration_ns() / 1000 for event in events]
    sums = [sum(micros[i : i + per_step]) for i in range(warm * per_step, len(micros), per_step)]
    return median(sums), per_step


def step_us(step: Callable[[], Any], batches: int) -> float:
    """A whole step in µs, unprofiled. Short steps are timed many at a time, so that the clock does not count."""
    start = time.perf_counter()
    step()
    once = time.perf_counter() - start
    number = max(1, int(2e-3 / max(once, 1e-6)))
    return median(timeit.Timer(step).repeat(batches, number)) / number * 1e6


def warm_up() -> None:
    """Compiles something tiny, so that first-use imports and caches inside Dynamo are not charged to a workload."""
    torch.compile(lambda x: x * 2 + 1, backend="eager")(torch.ones(3))
