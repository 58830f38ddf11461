"""What the guard check of a function costs that was compiled ahead of time, saved, and loaded in another process.

    python -m benchmarks.saved [--rounds 3] [--layers 36] [--steps 60]

One process compiles Qwen3 with ``torch.compile(...).aot_compile`` and saves it. Torch and unified guards then load it
in turn, each in its own process, and time ``guard_check``, which every call of a loaded function begins with: it binds
the arguments and asks the guards. *In place*: the model has just run. *Hot*: many checks in a row. Medians over rounds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import timeit
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch._dynamo

from benchmarks import ROOT
from unified_guards.bench.runner import child_environment, environment, markdown

BACKENDS = ("torch", "unified")
#: What is measured, in the order of the table.
FIGURES = {
    "guard check, in place (µs)": "in_place",
    "guard check, hot (µs)": "hot",
    "of which binding the arguments (µs)": "binding",
    "loading (s)": "loading",
}


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """What is compiled: a function at the top of a module that returns a tensor, because torch cannot save more."""
    return model(input_ids=ids, use_cache=False).logits


def _can_be_saved(guards: Any) -> list[bool]:
    """Which guards are kept. Torch's own choice keeps some that it then refuses to save."""
    refused = set(torch._dynamo.guards.CheckFunctionManager.UNSUPPORTED_SERIALIZATION_GUARD_TYPES)
    return [not (each.is_global or refused & {each.guard_type, *each.derived_guard_types}) for each in guards]


def _inputs(layers: int) -> tuple[Any, torch.Tensor]:
    from unified_guards.bench.workloads import qwen3, tokens

    torch.set_num_threads(1)
    return qwen3(num_hidden_layers=layers), tokens(8)


def _save(file: str, layers: int) -> None:
    from benchmarks.saved import logits as function  # in a module that can be imported, not in __main__

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager", options={"guard_filter_fn": _can_be_saved})
    with torch.no_grad():
        compiled.aot_compile((_inputs(layers), {})).save_compiled_function(file)


def _measure(file: str, layers: int, steps: int, backend: str) -> dict[str, Any]:
    args = _inputs(layers)
    if backend == "unified":
        import unified_guards

        unified_guards.install()
    start = time.perf_counter()
    with open(file, "rb") as opened:
        made = torch.compiler.load_compiled_function(opened)
    found: dict[str, Any] = {"loading": time.perf_counter() - start}
    with torch.no_grad():
        torch.testing.assert_close(made(*args), logits(*args))
        in_place = []
        for _ in range(steps):
            made.fn(*args)
            start = time.perf_counter()
            fits = made.guard_check(*args)
            in_place.append(time.perf_counter() - start)
            assert fits
        found["in_place"] = median(in_place) * 1e6
        for name, call in (("hot", made.guard_check), ("binding", made.prepare_f_locals)):
            found[name] = min(timeit.Timer(lambda call=call: call(*args)).repeat(7, 200)) / 200 * 1e6
    if backend == "unified":
        report = unified_guards.explain(made).frames[0]
        assert report.python_callbacks == 0, report
        found["guards"] = report.lifted
    return found


def _child(*given: str) -> str:
    command = [sys.executable, "-m", "benchmarks.saved", *given]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(given)} failed ({done.returncode}):\n{done.stderr[-3000:]}")
    return done.stdout


def table(samples: dict[str, list[dict[str, Any]]]) -> str:
    """Markdown; medians over the processes of each backend."""
    rows = []
    for title, name in FIGURES.items():
        torchs, ours = (median(one[name] for one in samples[backend]) for backend in BACKENDS)
        rows.append([title, f"{torchs:.3g}", f"{ours:.3g}", f"{torchs / ours:.1f}x"])
    return markdown(["", "torch", "unified", "torch / unified"], rows)


def main() -> None:
    """Measures in child processes and prints the table; in a child, saves, or measures and prints JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.saved", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="how many processes for each backend")
    parser.add_argument("--layers", type=int, default=36, help="how deep the model is")
    parser.add_argument("--steps", type=int, default=60, help="how many checks in place")
    parser.add_argument("--child", choices=("save", *BACKENDS), help=argparse.SUPPRESS)
    parser.add_argument("--file", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "save":
        _save(options.file, options.layers)
        return
    if options.child:
        print(json.dumps(_measure(options.file, options.layers, options.steps, options.child)))
        return
    samples: dict[str, list[Any]] = {backend: [] for backend in BACKENDS}
    with tempfile.TemporaryDirectory() as folder:
        given = [f"--file={Path(folder, 'qwen3')}", f"--layers={options.layers}", f"--steps={options.steps}"]
        _child("--child=save", *given)
        for at in range(options.rounds):
            for backend in BACKENDS if at % 2 == 0 else BACKENDS[::-1]:
                samples[backend].append(json.loads(_child(f"--child={backend}", *given).splitlines()[-1]))
                print(f"round {at + 1}, {backend}: done", file=sys.stderr, flush=True)
    facts = environment()
    command = " ".join(["python -m benchmarks.saved", *sys.argv[1:]])
    guards = samples["unified"][0]["guards"]
    print(
        f"torch {facts['torch']}, Python {facts['python']}, {facts['cpu']}, one thread; {options.layers} layers, "
        f"{guards} guards; `{command}`\n"
    )
    print(table(samples))


if __name__ == "__main__":
    main()
