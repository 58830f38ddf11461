"""What a lookup costs when a function has several cache entries, each for another size.

    python -m benchmarks.entries [--rounds 5] [--steps 200]

A step calls the compiled function once for each entry, so that every call hits the entry that was used longest ago:
Dynamo keeps the entries in order of use and asks all others first. Torch and unified guards run in turn, each in its
own process, which measures all numbers of entries in turn. Medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import types
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
import torch._dynamo

from benchmarks.probe import lookups_in_place, step_us, warm_up
from benchmarks.runner import ROOT, child_environment, environment, markdown

ENTRIES = (1, 2, 4, 8, 16)
BACKENDS = ("torch", "unified")
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


def _copy(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The same function with a code object, and so cache entries, of its own."""
    code = function.__code__.replace(co_name=name)
    return types.FunctionType(code, function.__globals__, name, function.__defaults__, function.__closure__)


def _step(name: str, entries: int) -> Callable[[], None]:
    """One call for each of so many entries, all of which are compiled already."""
    if name == "x * y":
        function = _copy(_scale, f"scale_{entries}")
        arguments = [(torch.ones(size, 4), torch.ones(size, 4)) for size in range(2, 2 + entries)]
    else:
        module = _Layers()
        kind = type(f"Layers{entries}", (_Layers,), {"forward": _copy(_Layers.forward, f"forward_{entries}")})
        module.__class__ = kind
        function, arguments = module, [(torch.ones(size, 4),) for size in range(2, 2 + entries)]
    compiled = torch.compile(function, backend="eager", dynamic=False)

    def step() -> None:
        for given in arguments:
            compiled(*given)

    step()
    return step


FUNCTIONS = ("x * y", "16 layers")


def measure(steps: int) -> Figures:
    """All figures of this process, each the median of three, taken in turn."""
    torch._dynamo.config.recompile_limit = max(ENTRIES)
    found: Figures = {}
    for name in FUNCTIONS:
        all_steps = {entries: _step(name, entries) for entries in ENTRIES}
        samples: dict[int, list[tuple[float, float]]] = {entries: [] for entries in ENTRIES}
        for _ in range(3):
            for entries, step in all_steps.items():
                lookups, count = lookups_in_place(step, max(20, steps // entries))
                samples[entries].append((lookups / count, step_us(step, 7) / entries))
        found[name] = {
            entries: (median(lookup for lookup, _ in taken), median(call for _, call in taken))
            for entries, taken in samples.items()
        }
    return found


def _child(backend: str, steps: int) -> None:
    if backend == "unified":
        import unified_guards

        unified_guards.install()
    torch.set_num_threads(1)
    warm_up()
    print(json.dumps(measure(steps)))


def _run(backend: str, steps: int) -> dict[str, dict[str, list[float]]]:
    command = [sys.executable, "-m", "benchmarks.entries", "--child", backend, f"--steps={steps}"]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"{backend} failed ({done.returncode}):\n{done.stderr[-3000:]}")
    return dict(json.loads(lines[-1]))


def table(samples: dict[str, list[dict[str, dict[str, list[float]]]]]) -> str:
    """Markdown; ratios are medians of the ratios within each process."""
    rows = []
    for name in FUNCTIONS:
        for entries in map(str, ENTRIES):
            row = [name, entries]
            for which in (0, 1):
                taken = {backend: [one[name][entries][which] for one in samples[backend]] for backend in BACKENDS}
                to_one = {
                    backend: [one[name][entries][which] / one[name]["1"][which] for one in samples[backend]]
                    for backend in BACKENDS
                }
                row += [f"{median(taken[backend]):.2f} ({median(to_one[backend]):.2f}x)" for backend in BACKENDS]
            rows.append(row)
    header = ["function", "entries", "lookup: torch (µs)", "unified (µs)", "whole call: torch (µs)", "unified (µs)"]
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
