"""Compiles a small model on one device, changes it under its guards, and times a lookup. Entry point: :func:`run`.

It takes about a second on a CPU, and two on the first use of Dynamo. It needs no compiler: the backend runs the graph
as it is.
"""

from __future__ import annotations

import dataclasses
import time
import types
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch._dynamo

from unified_guards.bench.probe import Build, BuildProbe, torch_root
from unified_guards.dynamo.install import installed
from unified_guards.statistics import stats

_LAYERS = 8
_ROUNDS = 15
_BATCH_SECONDS = 0.004


@dataclasses.dataclass(frozen=True)
class Result:
    """What the self-test found on one device.

    Attributes:
        decisions: how many times the model was called after something had changed, or had not.
        wrong: what went wrong, in words; empty when nothing did.
        torch_us: one evaluation of torch's guards on the model in µs, with everything in the processor's caches.
        unified_us: the same of the native checker.
    """

    decisions: int
    wrong: tuple[str, ...]
    torch_us: float
    unified_us: float


class _Layer(torch.nn.Module):  # type: ignore[misc]
    def __init__(self, device: str) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.full((4,), 1.25, device=device))
        self.negate = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * self.scale + 1
        return -y if self.negate else y


def _call(model: Callable[..., Any], x: torch.Tensor) -> Any:
    return model(x)


def _copy_of_call() -> Callable[..., Any]:
    """A function with a code object of its own. Cache entries belong to code objects, so its entries are its own."""
    return types.FunctionType(_call.__code__.replace(), _call.__globals__)


class _Compiled:
    """A compiled call that counts its compilations."""

    def __init__(self) -> None:
        self.count = 0
        self.call = torch.compile(_copy_of_call(), backend=self._backend, dynamic=False)

    def _backend(self, graph: Any, _: Any) -> Callable[..., Any]:
        self.count += 1
        forward: Callable[..., Any] = graph.forward
        return forward


def _decisions(compiled: _Compiled, model: Any, x: torch.Tensor) -> list[str | None]:
    """For each change what went wrong after it; None where the decision and the result were right."""
    flagged = model[_LAYERS // 2]

    def ask(change: str, shown: torch.Tensor, *, recompiles: bool) -> str | None:
        before = compiled.count
        actual, expected = compiled.call(model, shown), model(shown)
        if (compiled.count > before) != recompiles:
            return f"{change}: {'not ' if recompiles else ''}compiled again"
        same = actual.dtype == expected.dtype and torch.equal(actual, expected)
        return None if same else f"{change}: the result is not eager's"

    found = [
        ask("the first call", x, recompiles=True),
        ask("nothing", x, recompiles=False),
        ask("another dtype", x.double(), recompiles=True),
        ask("another shape", x[:1], recompiles=True),
    ]
    flagged.negate = True
    found.append(ask("a flag of one layer", x, recompiles=True))
    flagged.negate = False
    return [*found, ask("everything as before", x, recompiles=False)]


def _paired_us(*builds: Build) -> list[float]:
    """What one check of each build takes, in µs. The builds are timed in turn, so that noise hits all of them."""
    checks = [(build.wrapper.root.check, build.f_locals) for build in builds]

    def seconds(check: Callable[[Any], bool], f_locals: Any, number: int) -> float:
        start = time.perf_counter()
        for _ in range(number):
            check(f_locals)
        return time.perf_counter() - start

    number = max(20, int(_BATCH_SECONDS / (seconds(*checks[0], 200) / 200)))
    times: list[list[float]] = [[] for _ in checks]
    for at in range(_ROUNDS):
        for which in range(len(checks)) if at % 2 else reversed(range(len(checks))):
            times[which].append(seconds(*checks[which], number) / number * 1e6)
    return [median(found) for found in times]


def run(device: str) -> Result:
    """The self-test on one device.

    Args:
        device: as torch calls it: ``"cpu"``, ``"cuda:0"``.
    """
    model = torch.nn.Sequential(*(_Layer(device) for _ in range(_LAYERS)))
    x = torch.arange(8.0, device=device).reshape(2, 4)
    left = stats().frames_left_to_torch
    with BuildProbe() as probe:
        # Under UNIFIED_GUARDS=1 guards are unified from the start: torch's tree is then kept beside the checker.
        _Compiled().call(model, x)
        first = len(probe.builds)
        with installed():
            found = _decisions(_Compiled(), model, x)
    wrong = [text for text in found if text is not None]
    wrong += [f"a frame was left to torch: {why}" for why in stats().frames_left_to_torch if why not in left]
    theirs, ours = _of_torch(probe.builds[0]), probe.builds[first]
    if not (theirs.wrapper.root.check(theirs.f_locals) and ours.wrapper.root.check(ours.f_locals)):
        wrong.append("guards do not hold on what they were made from")
    torch_us, unified_us = _paired_us(theirs, ours)
    return Result(len(found), tuple(wrong), torch_us, unified_us)


def _of_torch(build: Build) -> Build:
    return dataclasses.replace(build, wrapper=types.SimpleNamespace(root=torch_root(build.wrapper)))
