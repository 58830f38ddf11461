"""`make demo`: steps with torch's guards and with unified ones; then a model changes under its guards.

The steps: a small graph, and 36 layers of Qwen3 that are compiled one by one, as regional compilation does it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import ROOT
from benchmarks.workloads import CHILD
from unified_guards.bench import runner
from unified_guards.bench.registry import WORKLOADS
from unified_guards.bench.verdict import Cost, judge, percent

if TYPE_CHECKING:
    import torch

_WORKLOADS = ("mlp", "qwen3_36_regional")
_CHANGED_LAYER, _LAYERS, _FEWER_LAYERS = 3, 12, 6
_ABOUT = {
    "mlp": "a small graph, four linear layers",
    "qwen3_36_regional": "Qwen3 (36 layers, tiny widths, random weights), its layers compiled one by one",
}


@dataclass(frozen=True)
class Change:
    """Something that happens to the model between two calls, and the number of tokens of the next call."""

    name: str
    apply: Callable[[], None]
    recompiles: bool = True
    tokens: int = 8


def _changes(model: Any) -> list[Change]:
    def flip_flag() -> None:
        model.model.layers[_CHANGED_LAYER].self_attn.training = True

    def cast_in_place() -> None:
        for parameter in (model.model.norm.weight, model.lm_head.weight):
            parameter.data = parameter.data.double()

    def drop_layers() -> None:
        model.config.num_hidden_layers = _FEWER_LAYERS

    return [
        Change("nothing", lambda: None, recompiles=False),
        Change(f"layers[{_CHANGED_LAYER}].self_attn.training = True", flip_flag),
        Change("norm and lm_head .data = .data.double()", cast_in_place),
        Change(f"config.num_hidden_layers = {_FEWER_LAYERS}", drop_layers),
        Change("8 tokens -> 12 tokens", lambda: None, tokens=12),
        Change("nothing", lambda: None, recompiles=False, tokens=12),
    ]


def _mutations(backend: str) -> None:
    """The child that changes the model; one JSON line per change."""
    import torch

    from unified_guards.bench.measure import install_backend
    from unified_guards.bench.probe import BuildProbe
    from unified_guards.bench.workloads import qwen3, tokens

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    install_backend(backend)
    # Dropout that is off until the flag of one layer is set, so that the flag shows in the result.
    model = qwen3(attention_dropout=0.5, num_hidden_layers=_LAYERS)
    compiled = torch.compile(model, backend="eager")

    def logits(call: Callable[..., Any], ids: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return call(input_ids=ids, use_cache=False).logits

    with BuildProbe() as probe:
        last = logits(compiled, tokens(8))
        for change in _changes(model):
            change.apply()
            known, start, ids = len(probe.builds), time.perf_counter(), tokens(change.tokens)
            actual, eager = logits(compiled, ids), logits(model, ids)
            changed = eager.shape != last.shape or eager.dtype != last.dtype or not torch.equal(eager, last)
            facts = {
                "name": change.name,
                "recompiled": len(probe.builds) > known,
                "expected": change.recompiles,
                "equal": actual.dtype == eager.dtype and torch.equal(actual, eager),
                "changed": changed,
                "seconds": time.perf_counter() - start,
            }
            print(json.dumps(facts), flush=True)
            last = eager


def _show_mutations(backend: str) -> bool:
    """Prints each change as soon as the child reports it; true if every one of them went right."""
    print(f"\nNow a Qwen3 of {_LAYERS} layers changes under its compiled code (half a minute):", flush=True)
    names = ("change", "recompiled", "equals eager", "eager's result", "")
    line = "  {:<44} {:<12} {:<14} {:<16} {}"
    print(line.format(*names).rstrip(), flush=True)
    command = [sys.executable, "-m", "benchmarks.demo", "--child", backend]
    right = True
    with subprocess.Popen(
        command, cwd=ROOT, env=runner.child_environment(), stdout=subprocess.PIPE, text=True
    ) as child:
        for text in child.stdout or ():
            if not text.startswith("{"):
                continue
            facts = json.loads(text)
            good = facts["equal"] and facts["recompiled"] == facts["expected"]
            right &= good
            recompiled = "yes" if facts["recompiled"] else "no"
            cells = [facts["name"], recompiled, "yes" if facts["equal"] else "NO"]
            cells += [
                "differs" if facts["changed"] else "as before",
                f"{facts['seconds']:.1f} s{'' if good else '  WRONG'}",
            ]
            print(line.format(*cells), flush=True)
    return right and child.returncode == 0


def _show_figures(name: str, sides: dict[str, runner.Summary]) -> None:
    any_side = next(iter(sides.values()))
    print(f"\n{name}: {_ABOUT.get(name, 'a workload of benchmarks/workloads.py')}\n")
    print(f"Guards in torch's tree: {runner.format_number(any_side.median('leaf_guards'))}")
    if "unified" in sides:
        first = sides["unified"].samples[0]
        origins = ", ".join(f"{origin} {count:,}" for origin, count in sorted(first["provenance"].items()))
        left = "; ".join(f"{count} {reason}" for reason, count in first["frames_left"].items()) or "none"
        print(f"Guards lifted:          {first['lifted']:,} from torch's tree; by provenance: {origins}")
        print(f"Native checks:          {first['checks']:,} after simplification, in {first['program_bytes']:,} bytes")
        print(f"Frames left to torch:   {left}; Python callbacks a check: {first['callbacks_per_check']:g}")
    labels = {
        "step_us": "whole step (µs)",
        "lookup_us": "lookups of a step, in place (µs)",
        "hot_us": "lookups of a step, hot (µs)",
        "flushed_us": "lookups of a step, caches flushed (µs)",
        "compile_s": "first call, compiling (s)",
        "guard_build_s": "of which guard building (s)",
    }
    rows = []
    for key, label in labels.items():
        factor = runner.ratio(sides, key)
        values = [runner.format_number(sides[b].median(key)) if b in sides else "-" for b in ("torch", "unified")]
        rows.append([label, *values, "-" if factor is None else f"{factor:.2f}x"])
    print("\n" + runner.markdown(["", "torch", "unified", "torch / unified"], rows))
    if set(sides) == {"torch", "unified"}:
        print("\n" + _in_words(*(_cost(sides[backend]) for backend in ("torch", "unified"))))


def _cost(side: runner.Summary) -> Cost:
    steps = tuple(sample["step_us"] for sample in side.samples)
    return Cost(side.median("step_us") or 0.0, steps, side.median("lookup_us") or 0.0, None)


def _in_words(torch: Cost, unified: Cost) -> str:
    """What the whole step and its lookups say together."""
    found = judge(torch, unified)
    shorter = f"{percent(abs(found.by_step))} {'shorter' if found.by_step >= 0 else 'longer'}"
    guards = f"Guards go from {percent(torch.guards / torch.step)} of it to {percent(unified.guards / unified.step)}"
    ranges = " and ".join(" to ".join(map(runner.format_number, cost.range)) for cost in (torch, unified))
    return (
        f"The whole step is {shorter}. {guards}; what is saved besides is what torch does around each call.\n"
        f"Whole steps, from process to process: {ranges} µs."
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2, help="child processes per backend (default 2)")
    parser.add_argument("--workload", choices=WORKLOADS, help="this one, instead of the two of the demo")
    parser.add_argument("--only", choices=("torch", "unified"), help="one backend alone")
    parser.add_argument("--child", choices=("torch", "unified"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        _mutations(options.child)
        return 0
    backends = [options.only] if options.only else ["torch", "unified"]
    names = [options.workload] if options.workload else list(_WORKLOADS)
    print(
        "Steps with torch's guards and with unified ones, in turn, each in its own process (half a minute).", flush=True
    )
    samples, failed = runner.run(CHILD, names, backends, rounds=options.rounds, steps=30, memory=False)
    if failed:
        return 1
    summary = runner.summarise(samples)
    for name in names:
        _show_figures(name, summary[name])
    found = runner.problems(summary)
    for problem in found:
        print(f"WRONG: {problem}", file=sys.stderr)
    right = _show_mutations(backends[-1])
    print("\nEvery change was noticed and every result is eager's." if right else "\nSomething above is WRONG.")
    return 0 if right and not found else 1


if __name__ == "__main__":
    raise SystemExit(main())
