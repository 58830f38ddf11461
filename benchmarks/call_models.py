"""What a call of a compiled model costs beside its graph, in place: lookup, gathering of inputs, wrappers.

    python -m benchmarks.call_models [--rounds 5] [--steps 60] [case ...]

The graph is exchanged for one that gives the outputs of an earlier call at once, so that what is timed is all that is
not the graph. What a direct call of the exchanged graph with the same inputs takes is taken off. *In place*: before
each call that is timed, and before each direct one, the model has run with its own graph, and the caches of the
processor are full of its data. *Hot*: such calls one after the other. *Whole*: with its own graph. Torch and unified
guards run in turn, each in its own process. Medians over rounds.
Written to benchmarks/results/call-models-torchX.Y-cpu.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch
import torch._dynamo

from benchmarks import interleaved
from unified_guards.bench.workloads import qwen3, tokens

CONTENDERS = ("torch", "unified")
HOT = 300


class Graph:
    """A graph that can be told to give the outputs of its last call at once."""

    def __init__(self, module: Any) -> None:
        self.module, self.is_still = module, False
        self.inputs: tuple[Any, ...] = ()
        self.outputs: Any = None

    def __call__(self, *inputs: Any) -> Any:
        if self.is_still:
            return self.outputs
        self.inputs, self.outputs = inputs, self.module(*inputs)
        return self.outputs


class Kernels(Graph):
    """The same in place of what Inductor has compiled: it takes a list, which it empties."""

    def __call__(self, inputs: list[Any]) -> Any:
        if self.is_still:
            inputs.clear()
            return list(self.outputs)
        self.inputs = tuple(inputs)
        self.outputs = self.module(inputs)
        return self.outputs


class Case(NamedTuple):
    """A step, and the graphs that it runs."""

    step: Callable[[], Any]
    graphs: list[Graph]


def _still(graphs: list[Graph], *, are: bool) -> None:
    for graph in graphs:
        graph.is_still = are


# -- the cases ---------------------------------------------------------------------------------------------------------


def _static(compile_it: Callable[[Any], Any]) -> Callable[[], Any]:
    model, ids = qwen3(), tokens(8)
    compiled = compile_it(model)
    return lambda: compiled(input_ids=ids, use_cache=False)


def _decode(compile_it: Callable[[Any], Any]) -> Callable[[], Any]:
    from transformers import StaticCache

    model = qwen3()
    cache = StaticCache(model.config, max_cache_len=1024)
    model(input_ids=tokens(8), past_key_values=cache)
    one, compiled = tokens(1), compile_it(model)
    return lambda: compiled(input_ids=one, past_key_values=cache)


def _layers(compile_it: Callable[[Any], Any]) -> Callable[[], Any]:
    model, ids = qwen3(), tokens(8)
    layers = model.model.layers
    with torch.no_grad():
        hidden = model.model.embed_tokens(ids)
        positions = torch.arange(8)[None]
        angles = model.model.rotary_emb(hidden, positions)
    for layer in layers:
        compile_it(layer)

    def step() -> Any:
        value = hidden
        for layer in layers:
            value = layer(value, position_embeddings=angles)
        return value

    return step


def _adamw(compile_it: Callable[[Any], Any]) -> Callable[[], Any]:
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(200)]
    for parameter in parameters:
        parameter.grad = torch.ones(2)
    return compile_it(torch.optim.AdamW(parameters, lr=1e-3, foreach=True).step)


def _by_eager(make: Callable[..., Any], *, in_place: bool = False) -> Case:
    graphs: list[Graph] = []

    def backend(module: Any, _: Any) -> Graph:
        graphs.append(Graph(module))
        return graphs[-1]

    def compile_it(what: Any) -> Any:
        return what.compile(backend=backend) if in_place else torch.compile(what, backend=backend)

    return Case(make(compile_it), graphs)


def _by_inductor(make: Callable[..., Any]) -> Case:
    from torch._inductor.output_code import CompiledFxGraph

    made: list[Any] = []
    call = CompiledFxGraph.__call__
    step = make(lambda what: torch.compile(what, dynamic=False))

    def noting(self: Any, inputs: Any) -> Any:
        if self not in made:
            made.append(self)
        return call(self, inputs)

    CompiledFxGraph.__call__ = noting
    step()
    CompiledFxGraph.__call__ = call
    step()
    graphs: list[Graph] = []
    for graph in made:
        graphs.append(Kernels(graph.current_callable))
        graph.current_callable = graphs[-1]
    return Case(step, graphs)


CASES: dict[str, Callable[[], Case]] = {
    "qwen3": lambda: _by_eager(_static),
    "qwen3_decode": lambda: _by_eager(_decode),
    "qwen3_layers": lambda: _by_eager(_layers, in_place=True),
    "adamw": lambda: _by_eager(_adamw),
    "qwen3_inductor": lambda: _by_inductor(_static),
    "qwen3_decode_inductor": lambda: _by_inductor(_decode),
}
NAMES = {
    "qwen3": "Qwen3, 36 layers, eager backend",
    "qwen3_decode": "Qwen3, 36 layers, one token with a StaticCache, eager backend",
    "qwen3_layers": "36 layers of Qwen3 compiled one by one, eager backend",
    "adamw": "AdamW.step, 200 parameters, eager backend",
    "qwen3_inductor": "Qwen3, 36 layers, inductor",
    "qwen3_decode_inductor": "Qwen3, 36 layers, one token with a StaticCache, inductor",
}


# -- measuring ---------------------------------------------------------------------------------------------------------


def _timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - begin) / 1000


def measure(case: Case, steps: int) -> dict[str, float]:
    """Medians, in microseconds."""
    for _ in range(4):
        case.step()
    compiled = len(case.graphs)

    def directly() -> None:
        for graph in case.graphs:
            graph(list(graph.inputs)) if isinstance(graph, Kernels) else graph(*graph.inputs)

    def in_place(call: Callable[[], Any]) -> float:
        _still(case.graphs, are=False)
        whole.append(_timed(case.step))
        _still(case.graphs, are=True)
        return _timed(call)

    whole: list[float] = []
    calls = [(in_place(case.step), in_place(directly)) for _ in range(steps)]
    hot = median(_timed(case.step) for _ in range(HOT)) - median(_timed(directly) for _ in range(HOT))
    assert len(case.graphs) == compiled, "something was compiled in the middle"
    taken, taken_off = map(median, zip(*calls, strict=True))
    return {"whole": median(whole), "in place": taken - taken_off, "hot": hot}


def _child(contender: str, name: str, steps: int) -> None:
    if contender != "torch":
        import unified_guards

        unified_guards.install()
    torch.set_num_threads(1)
    with torch.no_grad():
        print(json.dumps(measure(CASES[name](), steps)))


def _run(contender: str, name: str, steps: int) -> dict[str, float]:
    found: dict[str, float] = interleaved.run_child("call_models", [name, "--child", contender, f"--steps={steps}"], {})
    return found


def _row(name: str, rounds: dict[str, list[dict[str, float]]]) -> list[str]:
    row = [NAMES[name]]
    for what in ("in place", "hot", "whole"):
        torchs, ours = (median(each[what] for each in rounds[who]) for who in CONTENDERS)
        row += [f"{torchs:.1f}", f"{ours:.1f}", f"{torchs / ours:.2f}x"]
    ratios = [one["in place"] / other["in place"] for one, other in zip(*rounds.values(), strict=True)]
    row.insert(4, f"{min(ratios):.1f}x to {max(ratios):.1f}x")
    return row


HEADER = (
    "model", "in place, torch (µs)", "unified (µs)", "ratio", "of single rounds",
    "hot, torch (µs)", "unified (µs)", "ratio", "whole, torch (µs)", "unified (µs)", "ratio",
)  # fmt: skip


def main() -> None:
    """Runs the children and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"all by default: {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60, help="calls in place of each case in each process")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.cases if name not in CASES]
    if unknown:
        parser.error(f"no case called {', '.join(unknown)}; there are {', '.join(CASES)}")
    if arguments.child:
        _child(arguments.child, arguments.cases[0], arguments.steps)
        return
    rows = []
    for name in arguments.cases or CASES:
        rounds = interleaved.in_turn(
            CONTENDERS, arguments.rounds, lambda who, name=name: _run(who, name, arguments.steps)
        )
        rows.append(_row(name, rounds))
        print(rows[-1], file=sys.stderr, flush=True)
    command = f"python -m benchmarks.call_models --rounds {arguments.rounds} --steps {arguments.steps}"
    about = [" ".join((__doc__ or "").split("\n\n")[2].split())]
    text = interleaved.page("Calls of models, without their graphs", command, about, HEADER, rows)
    if not arguments.cases:
        interleaved.write("call-models", text)
    print(text)


if __name__ == "__main__":
    main()
