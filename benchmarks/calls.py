"""What a whole call of a compiled function costs, from ``compiled(x)`` to its result, and what of it is not the graph.

    python -m benchmarks.calls [--rounds 5] [--seconds 0.2]

The *graph alone* is what was compiled, called directly with the inputs that Dynamo's code would gather: the kernels of
Inductor, the GraphModule of the eager backend. The *overhead* is the whole call less the graph alone; both are measured
in one process, a few calls of each in turn. Torch and unified guards run in turn, each in its own process. Medians over
rounds, and from the least to the greatest of them. Written to benchmarks/results/calls-torchX.Y-cpu.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any, NamedTuple

import torch
import torch._dynamo
from torch._dynamo.eval_frame import _debug_get_cache_entry_list

from benchmarks import interleaved
from unified_guards.dynamo.gated import own_code
from unified_guards.dynamo.graphs import graph_of
from unified_guards.dynamo.symbols import Global, Local, Read

CONTENDERS = {"torch": {}, "long way": {"UNIFIED_GUARDS_DISPATCH": "0"}, "unified": {}}
Nothing = Callable[[], Any]


class Case(NamedTuple):
    """A call, and the graph alone; None where there is more than one, or none."""

    call: Nothing
    graph: Nothing | None


# -- the graph alone ---------------------------------------------------------------------------------------------------


def graph_alone(function: Any, *bound: Any) -> Nothing | None:
    """A call of the graph of the only cache entry of a function, on what its parameters are bound to."""
    (entry,) = _debug_get_cache_entry_list(function.__code__)
    _, plan = own_code(entry.code)
    if plan is None:
        return None
    names = function.__code__.co_varnames
    values: dict[Any, Any] = {Local(name): value for name, value in zip(names, bound, strict=False)}
    for read in plan.reads:
        values[read] = _value_of(read, values, function.__globals__)
    graph = graph_of(function.__globals__[plan.graph])
    assert graph is not None, "another form of graph"
    inputs = [values[item] for item in plan.inputs]
    called = graph.owner if graph.attribute is None else getattr(graph.owner, graph.attribute)
    return (lambda: called(*inputs)) if graph.outputs < 0 else (lambda: called(list(inputs)))


def _value_of(read: Global | Read, values: dict[Any, Any], names: dict[str, Any]) -> Any:
    if isinstance(read, Global):
        return names[read.name]
    base = values[read.base]
    if read.kind == "item":
        return base[read.key]
    if read.kind == "attribute":
        return getattr(base, read.key)
    return getattr(base, read.kind)(*([] if read.key is None else [read.key]))


# -- the cases ---------------------------------------------------------------------------------------------------------


def _add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + y


def _sine(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.sin(x) + y


def _named(x: torch.Tensor, y: torch.Tensor, *, first: bool = True, second: str = "a") -> torch.Tensor:
    return x + y if first and second else x


class _Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class _Mlp(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        return x


def _x_plus_y() -> Case:
    x, y = torch.ones(4), torch.ones(4)
    compiled = torch.compile(_add, backend="eager")
    compiled(x, y)
    return Case(lambda: compiled(x, y), graph_alone(_add, x, y))


def _inductor() -> Case:
    x, y = torch.ones(4), torch.ones(4)
    compiled = torch.compile(_sine)
    for _ in range(2):
        compiled(x, y)
    return Case(lambda: compiled(x, y), graph_alone(_sine, x, y))


def _keywords() -> Case:
    x, y = torch.ones(4), torch.ones(4)
    compiled = torch.compile(_named, backend="eager")
    compiled(x, y=y)
    return Case(lambda: compiled(x, y=y, second="a"), graph_alone(_named, x, y))


def _module(kind: type[torch.nn.Module], width: int, backend: str = "eager") -> Case:
    torch.manual_seed(0)
    module, x = kind(), torch.ones(2, width)
    compiled = torch.compile(module, backend=backend)
    for _ in range(2):
        compiled(x)
    return Case(lambda: compiled(x), graph_alone(kind.forward, module, x))


def _adamw() -> Case:
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(200)]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, foreach=True)
    for parameter in parameters:
        parameter.grad = torch.ones(2)
    step = torch.compile(optimizer.step, backend="eager")
    for _ in range(3):
        step()
    return Case(step, None)


def _layers() -> Case:
    torch.manual_seed(0)
    layers = [_Mlp() for _ in range(36)]
    for layer in layers:
        layer.compile(backend="eager")
    x = torch.ones(2, 8)

    def call() -> None:
        value = x
        for layer in layers:
            value = layer(value)

    call()
    graphs = [graph_alone(_Mlp.forward, layer, x) for layer in layers]

    def alone() -> None:
        for graph in graphs:
            assert graph is not None
            graph()

    return Case(call, alone if all(graphs) else None)


SCALE = 2.0
counted = 0


def _scaled(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x * SCALE + y


def _in_a_loop(*, of_a_module: bool) -> Case:
    """A loop counts its steps. At module level the count is a global of the module that changes in every call."""
    x, y = torch.ones(4), torch.ones(4)
    compiled = torch.compile(_scaled, backend="eager")
    compiled(x, y)
    steps = itertools.count()

    def in_function() -> Any:
        counted = next(steps)
        return compiled(x, y), counted

    def in_module() -> Any:
        global counted
        counted = next(steps)
        return compiled(x, y), counted

    return Case(in_module if of_a_module else in_function, graph_alone(_scaled, x, y))


CASES: dict[str, Callable[[], Case]] = {
    "`x + y`, eager backend": _x_plus_y,
    "`sin(x) + y`, inductor, no gradients": _inductor,
    "keyword call with defaults": _keywords,
    "a small module, `torch.compile(module)`": lambda: _module(_Small, 4),
    "4-layer MLP": lambda: _module(_Mlp, 8),
    "4-layer MLP, inductor": lambda: _module(_Mlp, 8, "inductor"),
    "AdamW.step, 200 parameters": _adamw,
    "36 MLPs compiled one by one": _layers,
    "`x * SCALE + y`, loop in a function": lambda: _in_a_loop(of_a_module=False),
    "`x * SCALE + y`, loop at module level": lambda: _in_a_loop(of_a_module=True),
}


# -- measuring ---------------------------------------------------------------------------------------------------------


def _time(call: Nothing, count: int) -> float:
    begin = time.perf_counter_ns()
    for _ in range(count):
        call()
    return (time.perf_counter_ns() - begin) / count / 1000


def measure(case: Case, seconds: float) -> dict[str, float]:
    """Medians, in microseconds, of a whole call and of the graph alone, taken in turn."""
    measured = {"call": case.call} | ({} if case.graph is None else {"graph": case.graph})
    once = max(_time(each, 20) for each in measured.values())
    count = max(1, int(1000 / once))
    found: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(max(9, int(seconds * 1e6 / (once * count * len(measured))))):
        for name, each in measured.items():
            found[name].append(_time(each, count))
    return {name: median(times) for name, times in found.items()}


def _child(contender: str, seconds: float) -> None:
    if contender != "torch":
        import unified_guards

        unified_guards.install()
    torch.set_num_threads(1)
    with torch.no_grad():
        found = {}
        for name, make in CASES.items():
            torch._dynamo.reset()
            found[name] = measure(make(), seconds)
    print(json.dumps(found))


def _run(contender: str, seconds: float) -> dict[str, dict[str, float]]:
    options = ["--child", contender, f"--seconds={seconds}"]
    found: dict[str, dict[str, float]] = interleaved.run_child("calls", options, CONTENDERS[contender])
    return found


def _rows(rounds: dict[str, list[dict[str, dict[str, float]]]]) -> Iterator[list[str]]:
    for name in CASES:
        calls = {who: median(each[name]["call"] for each in found) for who, found in rounds.items()}
        pairs = zip(rounds["torch"], rounds["unified"], strict=True)
        ratios = [torchs[name]["call"] / ours[name]["call"] for torchs, ours in pairs]
        row = [name, *(f"{calls[who]:.2f}" for who in CONTENDERS), f"{calls['torch'] / calls['unified']:.2f}x"]
        row.append(f"{min(ratios):.2f} to {max(ratios):.2f}")
        if "graph" in rounds["torch"][0][name]:
            over = {who: [each[name]["call"] - each[name]["graph"] for each in found] for who, found in rounds.items()}
            graph = median(each[name]["graph"] for found in rounds.values() for each in found)
            middle = {who: median(found) for who, found in over.items()}
            spread = f"{min(over['unified']):.2f} to {max(over['unified']):.2f}"
            row += [f"{graph:.2f}", f"{middle['torch']:.2f}", f"{middle['unified']:.2f}", spread]
            yield [*row, f"{middle['torch'] / middle['unified']:.2f}x"]
        else:
            yield [*row, "-", "-", "-", "-", "-"]


HEADER = (
    "call", "torch (µs)", "unified, long way (µs)", "unified (µs)", "torch / unified", "from, to",
    "graph alone (µs)", "overhead, torch (µs)", "overhead, unified (µs)", "from, to", "torch / unified",
)  # fmt: skip


def main() -> None:
    """Runs the children and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each case in each process")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _child(arguments.child, arguments.seconds)
        return
    rounds = interleaved.in_turn(CONTENDERS, arguments.rounds, lambda who: _run(who, arguments.seconds))
    command = f"python -m benchmarks.calls --rounds {arguments.rounds} --seconds {arguments.seconds}"
    about = [
        " ".join((__doc__ or "").split("\n\n")[2].split()),
        "*Unified, long way*: with `UNIFIED_GUARDS_DISPATCH=0`, every call goes through torch's wrapper.",
    ]
    text = interleaved.page("Whole calls", command, about, HEADER, list(_rows(rounds)))
    interleaved.write("calls", text)
    print(text)


if __name__ == "__main__":
    main()
