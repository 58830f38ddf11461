"""What a hit costs: torch's ``aot_function``, which checks nothing, beside ours, which checks everything.

    python -m benchmarks.aot [--rounds 15] [--json FILE]

Both compile the same function with the same compiler, a nop that returns the graph's own ``forward``. In each round the
two are timed one after the other, in either order, and so is the compiled function that torch made, called on a flat
list: what is left of torch's call when nobody flattens or rebuilds. Ours may cost less than that: what the function
does not read is no input of its graph. Medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from functorch.compile import aot_function as torch_aot_function
from functorch.compile import make_boxed_func
from torch.utils import _pytree as pytree

import unified_guards


class Case(NamedTuple):
    """A function and the arguments of every call."""

    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...]


def _first_and_last(*tensors: torch.Tensor) -> torch.Tensor:
    return tensors[0] + tensors[-1]


def _increment(x: torch.Tensor) -> torch.Tensor:
    return x + 1


def _one_weight(parameters: dict[str, dict[str, torch.Tensor]], x: torch.Tensor) -> torch.Tensor:
    return x + parameters["layer0"]["weight"]


def cases() -> list[Case]:
    """1 tensor, 50 tensors, a pytree of 400 parameters; for inference and for training."""
    found = []
    for suffix, grad in (("", False), (", training", True)):
        tensors = [torch.ones(4, requires_grad=grad) for _ in range(50)]
        parameters = {
            f"layer{at}": {name: torch.ones(4, requires_grad=grad) for name in ("weight", "bias")} for at in range(200)
        }
        found += [
            Case(f"1 tensor{suffix}", _increment, (tensors[0],)),
            Case(f"50 tensors{suffix}", _first_and_last, tuple(tensors)),
            Case(f"pytree of 400 parameters{suffix}", _one_weight, (parameters, tensors[0])),
        ]
    return found


def _compiler(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
    return make_boxed_func(graph.forward)


def _compiled_of(function: Callable[..., Any]) -> Callable[[list[Any]], Any]:
    """The flat compiled function that torch's wrapper holds in its closure."""
    cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
    return cells["cached_res"].cell_contents[0]


def _seconds(call: Callable[[], Any], repeat: int) -> float:
    start = time.perf_counter()
    for _ in range(repeat):
        call()
    return (time.perf_counter() - start) / repeat


class Result(NamedTuple):
    """Microseconds of one case: whole calls, and torch's compiled function alone."""

    name: str
    torch_us: float
    unified_us: float
    floor_us: float
    guards: int


def measure(case: Case, rounds: int) -> Result:
    """Interleaved medians of one case."""
    theirs = torch_aot_function(case.function, _compiler)
    ours = unified_guards.aot_function(case.function, _compiler)
    torch.testing.assert_close(ours(*case.args), theirs(*case.args))
    compiled, flat = _compiled_of(theirs), pytree.arg_tree_leaves(*case.args)
    args = case.args
    calls: dict[str, Callable[[], Any]] = {
        "torch": lambda: theirs(*args),
        "unified": lambda: ours(*args),
        "floor": lambda: compiled(list(flat)),
    }
    repeat = max(50, int(0.02 / _seconds(calls["torch"], 50)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for at in range(rounds):
        names = list(calls) if at % 2 else list(reversed(calls))
        for name in names:
            times[name].append(_seconds(calls[name], repeat) * 1e6)
    medians = {name: statistics.median(found) for name, found in times.items()}
    info = ours.cache_info()
    if info.recompiles or info.eager:
        raise RuntimeError(f"{case.name}: measured something else than hits: {info}")
    guards = len(ours.explain().frames[0].guard_set)
    return Result(case.name, medians["torch"], medians["unified"], medians["floor"], guards)


def table(results: list[Result]) -> str:
    """Markdown."""
    lines = [
        "| call | guards | torch (µs) | unified (µs) | unified / torch | torch's compiled function alone (µs) |",
        "|---|---|---|---|---|---|",
    ]
    for found in results:
        lines.append(
            f"| {found.name} | {found.guards} | {found.torch_us:.2f} | {found.unified_us:.2f} "
            f"| {found.unified_us / found.torch_us:.2f} | {found.floor_us:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measures every case and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.aot", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds for each case")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = [measure(case, options.rounds) for case in cases()]
    command = " ".join(["python -m benchmarks.aot", *sys.argv[1:]])
    print(f"torch {torch.__version__}, Python {sys.version.split()[0]}, one thread; `{command}`\n")
    print(table(results))
    if options.json:
        with open(options.json, "w") as file:
            json.dump([found._asdict() for found in results], file, indent=1)


if __name__ == "__main__":
    main()
