"""What a lookup costs when a function has several cache entries, each for another size.

    python -m benchmarks.entries [--rounds 5] [--steps 800]

A step calls the compiled function once for each entry, so that every call hits the entry that was used longest ago:
Dynamo keeps the entries in order of use and asks all others first. Torch and unified guards run in turn, each in its
own process, which measures all numbers of entries in turn. Medians over rounds.

*Dynamo's own* is what is left when nothing is asked of the entries that are not hit: their checkers are replaced by a
builtin that says no, the order of the entries is fixed, and the last is hit.
"""

from __future__ import annotations

import argparse
import collections
import json
import operator
import subprocess
import sys
import types
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch
import torch._dynamo
from torch._C._dynamo.guards import RootGuardManager

from benchmarks import ROOT
from unified_guards.bench.probe import lookups_in_place, step_us, warm_up
from unified_guards.bench.runner import child_environment, environment, markdown

ENTRIES = (1, 2, 4, 8, 16)
BACKENDS = ("torch", "unified", "dynamo's own")
#: function -> number of entries -> (µs of a lookup, µs of a whole call)
Figures = dict[str, dict[int, tuple[float, float]]]


def _scale(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x * y).sin() + x.shape[0]


class _Layers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(16)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def copy_of(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The same function with a code object, and so cache entries, of its own."""
    code = function.__code__.replace(co_name=name)
    return types.FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)


def _entries_of(code: types.CodeType) -> int:
    """How many entries this code is given: the end of the name that it got from :func:`copy_of`."""
    end = code.co_name.rpartition("_")[2]
    return int(end) if end.isdigit() else 0


def _ask_nothing_of_earlier_entries() -> None:
    from torch._C._dynamo.eval_frame import _set_lru_cache

    from unified_guards.dynamo import unify

    original, seen = unify._unify, collections.Counter[types.CodeType]()

    def unify_the_last(wrapper: Any, code: types.CodeType, *rest: Any) -> None:
        original(wrapper, code, *rest)
        seen[code] += 1
        if seen[code] < _entries_of(code):
            wrapper.root = RootGuardManager()
            wrapper.root.add_lambda_guard(operator.not_, ["no"], None)

    unify._unify = unify_the_last
    _set_lru_cache(False)  # in the order in which they were made


def _step(name: str, entries: int, *, only_last: bool) -> tuple[Callable[[], None], int]:
    """Calls that hit each of so many entries, all compiled already, or only the last; and the number of calls."""
    if name == "x * y":
        function = copy_of(_scale, f"scale_{entries}")
        arguments = [(torch.ones(size, 4), torch.ones(size, 4)) for size in range(2, 2 + entries)]
    else:
        module = _Layers()
        kind = type(f"Layers{entries}", (_Layers,), {"forward": copy_of(_Layers.forward, f"forward_{entries}")})
        module.__class__ = kind
        function, arguments = module, [(torch.ones(size, 4),) for size in range(2, 2 + entries)]
    compiled = torch.compile(function, backend="eager", dynamic=False)

    for given in arguments:
        torch.testing.assert_close(compiled(*given), function(*given))
    called = arguments[-1:] if only_last else arguments

    def step() -> None:
        for given in called:
            compiled(*given)

    return step, len(called)


FUNCTIONS = ("x * y", "16 layers")


def measure(steps: int, *, only_last: bool, numbers: Sequence[int] = ENTRIES) -> Figures:
    """All figures of this process, each the median of three, taken in turn."""
    torch._dynamo.config.recompile_limit = max(numbers)
    found: Figures = {}
    for name in FUNCTIONS:
        all_steps = {entries: _step(name, entries, only_last=only_last) for entries in numbers}
        samples: dict[int, list[tuple[float, float]]] = {entries: [] for entries in numbers}
        for _ in range(3):
            for entries, (step, calls) in all_steps.items():
                lookups, count = lookups_in_place(step, max(20, steps // calls))
                samples[entries].append((lookups / count, step_us(step, 7) / calls))
        found[name] = {
            entries: (median(lookup for lookup, _ in taken), median(call for _, call in taken))
            for entries, taken in samples.items()
        }
    return found


def _child(backend: str, steps: int) -> None:
    if backend != "torch":
        import unified_guards

        unified_guards.install()
    if backend == "dynamo's own":
        _ask_nothing_of_earlier_entries()
    torch.set_num_threads(1)
    warm_up()
    print(json.dumps(measure(steps, only_last=backend == "dynamo's own")))


def _run(backend: str, steps: int) -> dict[str, dict[str, list[float]]]:
    command = [sys.executable, "-m", "benchmarks.entries", "--child", backend, f"--steps={steps}"]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"{backend} failed ({done.returncode}):\n{done.stderr[-3000:]}")
    return dict(json.loads(lines[-1]))


def _cell(taken: list[dict[str, dict[str, list[float]]]], name: str, entries: str, which: int) -> str:
    figure = median(one[name][entries][which] for one in taken)
    to_one = median(one[name][entries][which] / one[name]["1"][which] for one in taken)
    return f"{figure:.2f} ({to_one:.2f}x)"


def table(samples: dict[str, list[dict[str, dict[str, list[float]]]]]) -> str:
    """Markdown; ratios are medians of the ratios within each process."""
    rows = []
    for name in FUNCTIONS:
        for entries in map(str, ENTRIES):
            cells = [_cell(samples[backend], name, entries, 0) for backend in BACKENDS]
            cells += [_cell(samples[backend], name, entries, 1) for backend in BACKENDS[:2]]
            rows.append([name, entries, *cells])
    lookup = ["lookup: torch (µs)", "unified (µs)", "Dynamo's own (µs)"]
    header = ["function", "entries", *lookup, "whole call: torch (µs)", "unified (µs)"]
    return markdown(header, rows)


def main() -> None:
    """Measures in child processes and prints the table; in a child, measures and prints JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.entries", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="how many processes for each backend")
    parser.add_argument("--steps", type=int, default=800, help="calls that are measured for each figure")
    parser.add_argument("--child", choices=BACKENDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _child(options.child, options.steps)
        return
    samples: dict[str, list[Any]] = {backend: [] for backend in BACKENDS}
    for at in range(options.rounds):
        for backend in BACKENDS if at % 2 == 0 else BACKENDS[::-1]:
            samples[backend].append(_run(backend, options.steps))
            print(f"round {at + 1}, {backend}: done", file=sys.stderr, flush=True)
    facts = environment()
    command = " ".join(["python -m benchmarks.entries", *sys.argv[1:]])
    print(f"torch {facts['torch']}, Python {facts['python']}, {facts['cpu']}, one thread; `{command}`\n")
    print(table(samples))


if __name__ == "__main__":
    main()
