"""What the child processes of `benchmarks.witness` measure. Each runs one job and prints samples as one line of JSON.

A sample is a dict with at least what `runner.problems` looks at: workload, backend (the contender's name), equal,
compiles, lifted, frames_left.
"""

from __future__ import annotations

import gc
import os
import random
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import median, quantiles
from typing import Any

import torch
import torch._dynamo
import torch._dynamo.guards as dynamo_guards
from torch._C._dynamo.guards import RootGuardManager

from benchmarks import entries
from benchmarks.contenders import CONTENDERS, EXACT, TORCH, UNIFIED, Contender
from benchmarks.workloads import WORKLOADS
from unified_guards.bench import measure, probe
from unified_guards.bench.workloads import qwen3_static

#: Of Qwen3; 36 are in the 8B model, and in the workload `qwen3_36`.
LAYERS = (4, 9, 18, 36, 72)
#: How many modules are written to before a call; None stands for all of them.
TOUCHED = (0, 1, 10, 100, None)
ENTRIES = (1, 2, 4, 8)
#: The tightest loop of `mutated`; each round is one check, timed on its own.
_CHECKS = 150


@dataclass(frozen=True)
class Job:
    """One child process.

    Attributes:
        kind: which function of this module runs it.
        case: which workload, where the kind has several.
    """

    kind: str
    contender: str
    case: str
    round: int
    steps: int

    @property
    def memory(self) -> bool:
        """Whether it needs an environment in which malloc can be asked for everything."""
        return self.kind == "memory"

    def __str__(self) -> str:
        return f"{self.kind}, {self.case}, {self.contender}, round {self.round + 1}"


def run(job: Job) -> list[dict[str, Any]]:
    """All samples of this process."""
    contender = CONTENDERS[job.contender]
    contender.prepare()
    return KINDS[job.kind](job, contender)


# ---- workloads as they are -------------------------------------------------------------------------------------------


def layers_workload(layers: int) -> str:
    """The name of Qwen3 with so many layers."""
    return f"qwen3_{layers}"


for _layers in LAYERS:
    WORKLOADS.setdefault(layers_workload(_layers), partial(qwen3_static, _layers))


def _named(sample: dict[str, Any], job: Job) -> dict[str, Any]:
    # Nothing is mixed here: the figures of a memory child are all about memory, and all are to be read.
    return sample | {"backend": job.contender, "memory": False}


def _workload(job: Job, contender: Contender) -> list[dict[str, Any]]:
    return [_named(measure.measure(job.case, contender.backend, steps=job.steps, memory=False), job)]


# ---- modules that change between calls -------------------------------------------------------------------------------


class _Writer:
    """Sets an attribute of some modules that no guard reads, but that lies in dicts that guards read."""

    def __init__(self, modules: list[torch.nn.Module], count: int | None) -> None:
        count = len(modules) if count is None else count
        # Evenly spread, and not the root alone: index 0 is the model.
        self.modules = [modules[-1 - at * len(modules) // count] for at in range(count)]
        self.written = 0

    def __call__(self) -> None:
        self.written += 1
        for module in self.modules:
            module.counter = self.written


def _timed(check: Callable[[Any], bool], f_locals: Any) -> float:
    start = time.perf_counter_ns()
    holds = check(f_locals)
    taken = time.perf_counter_ns() - start
    if not holds:
        raise RuntimeError("a counter that no guard reads was written, and the guards fail")
    return taken / 1000


def _hot_us(check: Callable[[Any], bool], f_locals: Any, write: Callable[[], None]) -> float:
    taken = []
    for _ in range(_CHECKS):
        write()
        taken.append(_timed(check, f_locals))
    return median(taken[_CHECKS // 5 :])


def _to_exact(checker: Any, f_locals: Any, between: Callable[[], Any], rounds: int) -> float:
    """What `check` takes as a multiple of the exact tier alone: both in one process, in turn."""
    both = {"check": checker.check, "exact": checker.exact}
    taken: dict[str, list[float]] = {name: [] for name in both}
    for at in range(rounds):
        for name in both if at % 2 else reversed(both):
            between()
            taken[name].append(_timed(both[name], f_locals))
    check, exact = (median(found[rounds // 5 :]) for found in taken.values())
    return check / exact


def _one_count(step: Callable[[], Any], build: probe.Build, write: _Writer, steps: int, checker: Any) -> dict[str, Any]:
    def step_and_write() -> None:
        step()
        write()

    f_locals = build.f_locals
    in_place, _ = probe.lookups_in_place(step_and_write, steps)
    with torch.set_grad_enabled(build.grad):
        found: dict[str, Any] = {"modules": len(write.modules), "lookup_us": in_place}
        found["hot_us"] = _hot_us(build.wrapper.root.check, f_locals, write)
        both = checker is not None
        found["hot_ratio"] = _to_exact(checker, f_locals, write, _CHECKS) if both else None
        found["in_place_ratio"] = _to_exact(checker, f_locals, step_and_write, steps) if both else None
    return found


def _checker_of(build: probe.Build) -> Any:
    """The native checker of this build, or None."""
    return getattr(getattr(build.wrapper, "entry", None), "checker", None)


def _witness_of(checker: Any) -> dict[str, Any]:
    """What the checker tells of its witness, if there is either."""
    return {} if checker is None else checker.witness or {}


def _mutated(job: Job, contender: Contender) -> list[dict[str, Any]]:
    # From few to many, each set inside the next: what the checker learns of one set is true of the next, too.
    counts: list[dict[str, Any]] = []

    def more(step: Callable[[], Any], builds: probe.BuildProbe) -> dict[str, Any]:
        (build,) = builds.live()
        assert build.f_locals is not None
        given = build.f_locals
        # Decorators of transformers compile their own frame instead, which has the model among its arguments.
        modules = list((given["self"] if "self" in given else given["args"][0]).modules())
        _Writer(modules, None)()  # the attribute is there from now on
        checker = _checker_of(build)
        for count in TOUCHED:
            found = _one_count(step, build, _Writer(modules, count), job.steps, checker)
            counts.append(found | {"witness": _witness_of(checker)})
        return {}

    base = _named(measure.measure("qwen3_36", contender.backend, steps=job.steps, memory=False, more=more), job)
    names = [
        f"{'all ' if count is None else ''}{found['modules']}" for count, found in zip(TOUCHED, counts, strict=True)
    ]
    return [base | found | {"workload": name} for name, found in zip(names, counts, strict=True)]


# ---- several entries -------------------------------------------------------------------------------------------------


def _entries(job: Job, contender: Contender) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    unified = measure.install_backend(contender.backend)
    probe.warm_up()
    with probe.BuildProbe() as builds:  # a result that is not eager's raises
        found = entries.measure(job.steps * 25, only_last=False, numbers=ENTRIES)
    stats = unified.stats() if unified is not None else None
    facts = {
        "backend": job.contender,
        "memory": False,
        "equal": True,
        "compiles": len(builds.builds),
        "lifted": stats.frames_lifted if stats is not None else 0,
        "frames_left": dict(stats.frames_left_to_torch) if stats is not None else {},
    }
    return [
        facts | {"workload": f"{name}, {number}", "lookup_us": lookup, "step_us": call, "leaf_guards": None}
        for name, numbers in found.items()
        for number, (lookup, call) in numbers.items()
    ]


# ---- a whole call ----------------------------------------------------------------------------------------------------

#: Accepts every call and reads nothing: what is left of a call without guards. The second one shows the noise.
EMPTY, EMPTY_AGAIN = "empty root", "another empty root"


def _add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + y


class _Mlp(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layers = [module for _ in range(4) for module in (torch.nn.Linear(32, 32), torch.nn.ReLU())]
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def _callable_of(case: str, name: str) -> tuple[Any, tuple[torch.Tensor, ...]]:
    """A function or module with a code object of its own, and its arguments."""
    torch.manual_seed(0)
    if case == "x_plus_y":
        return entries.copy_of(_add, name), (torch.randn(4), torch.randn(4))
    module = _Mlp().eval()
    module.__class__ = type(f"Mlp_{name}", (_Mlp,), {"forward": entries.copy_of(_Mlp.forward, name)})
    return module, (torch.randn(4, 32),)


CALLED = ("x_plus_y", "mlp")


@contextmanager
def _with_empty_roots() -> Iterator[None]:
    init = dynamo_guards.CheckFunctionManager.__init__

    def emptied(manager: Any, *args: Any, **kwargs: Any) -> None:
        init(manager, *args, **kwargs)
        wrapper = manager.guard_manager
        wrapper.full_root = wrapper.root  # Dynamo's entry must not outlive what may still point into it
        wrapper.root = RootGuardManager()

    dynamo_guards.CheckFunctionManager.__init__ = emptied
    try:
        yield
    finally:
        dynamo_guards.CheckFunctionManager.__init__ = init


@contextmanager
def _as(contender: Contender) -> Iterator[None]:
    """Compiles inside become this contender's: all of them share the process."""
    import unified_guards

    before = {name: os.environ.get(name) for name in contender.environment}
    os.environ.update(contender.environment)
    try:
        with nullcontext() if contender is TORCH else unified_guards.installed():
            yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@dataclass
class _Called:
    """One compiled copy of the function."""

    call: Callable[..., Any]
    args: tuple[torch.Tensor, ...]
    facts: dict[str, Any]
    taken: list[float] = field(default_factory=list)

    def timer(self) -> timeit.Timer:
        return timeit.Timer("call(*args)", globals={"call": self.call, "args": self.args})


def _compile_one(case: str, name: str, manager: Any, backend: str) -> _Called:
    function, args = _callable_of(case, name.replace(" ", "_"))
    with manager, probe.BuildProbe() as builds:
        compiled = torch.compile(function, backend="eager")
        expected = function(*args)
        equal = all(torch.equal(compiled(*args), expected) for _ in range(3))
    lifted = sum(_checker_of(build) is not None for build in builds.builds)
    facts = {"workload": case, "backend": name, "memory": False, "compiles": len(builds.builds), "lifted": lifted}
    facts |= {"leaf_guards": sum(build.leaves for build in builds.builds)}
    left = {"a frame": len(builds.builds) - lifted} if backend == "unified" and lifted < len(builds.builds) else {}
    return _Called(compiled, args, facts | {"equal": equal, "frames_left": left})


def _call(job: Job, contender: Contender) -> list[dict[str, Any]]:
    """Many short repeats of all contenders, in another order each time; differences are taken within a repeat."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    probe.warm_up()
    order = random.Random(job.round)
    managers = [(one.name, _as(one), one.backend) for one in (TORCH, UNIFIED, EXACT)]
    managers += [(name, _with_empty_roots(), "torch") for name in (EMPTY, EMPTY_AGAIN)]
    # Which is compiled first decides where its memory lies: another one in each process.
    order.shuffle(managers)
    called = {name: _compile_one(job.case, name, manager, backend) for name, manager, backend in managers}
    timers = {name: one.timer() for name, one in called.items()}
    number = max(1, int(150e-6 / (timers[EMPTY].timeit(200) / 200)))
    names = list(called)
    for _ in range(job.steps * 40):
        order.shuffle(names)
        for name in names:
            called[name].taken.append(timers[name].timeit(number) / number * 1e6)
    floor = called[EMPTY].taken
    return [one.facts | _shares(one.taken, floor) | {"round": job.round} for one in called.values()]


def _shares(taken: list[float], floor: list[float]) -> dict[str, Any]:
    differences = [mine - empty for mine, empty in zip(taken, floor, strict=True)]
    low, middle, high = quantiles(differences, n=4)
    return {"call_us": median(taken), "share_us": middle, "share_low": low, "share_high": high, "repeats": len(taken)}


# ---- memory ----------------------------------------------------------------------------------------------------------


def _memory(job: Job, contender: Contender) -> list[dict[str, Any]]:
    kept: list[probe.Build] = []

    def more(_step: Callable[[], Any], builds: probe.BuildProbe) -> dict[str, Any]:
        kept.extend(builds.builds)
        return {}

    if contender.backend != "torch":
        _note_bytes_when_built()
    sample = measure.measure(job.case, contender.backend, steps=job.steps, memory=True, more=more)
    frames = [build.wrapper.entry for build in kept if _checker_of(build) is not None]
    if frames:
        sample["built_bytes"] = sum(frame.built_bytes for frame in frames)
        sample["witness_bytes"] = sum(_witness_of(frame.checker).get("nbytes", 0) for frame in frames)
        sample["explained_bytes"] = _let_go(frames)
    return [_named(sample, job)]


def _note_bytes_when_built() -> None:
    """A checker grows while it is called; what a build holds has to be told from that."""
    from unified_guards.dynamo.entry import DynamoEntry

    build = DynamoEntry.build

    def build_and_note(frame: Any, *args: Any, **kwargs: Any) -> None:
        build(frame, *args, **kwargs)
        frame.built_bytes = frame.checker.nbytes

    DynamoEntry.build = build_and_note


def _let_go(frames: list[Any]) -> int | None:
    """Bytes of what frames keep for `explain()`, by dropping it; these frames are of no use afterwards."""
    gc.collect()
    before = probe.heap_bytes()
    for frame in frames:
        for name in [name for name in vars(frame) if name != "checker"]:
            delattr(frame, name)
    gc.collect()
    after = probe.heap_bytes()
    return None if before is None or after is None else before - after


KINDS: dict[str, Callable[[Job, Contender], list[dict[str, Any]]]] = {
    "workload": _workload,
    "mutated": _mutated,
    "entries": _entries,
    "call": _call,
    "memory": _memory,
}
