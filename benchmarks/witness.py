"""What the witness tier of the native checker saves, beside torch and beside the exact tier alone.

    python -m benchmarks.witness depth|mutated|entries|options|call|memory|all [--rounds 2] [--steps 30]

Each part writes a table, a plot and all samples to benchmarks/results/witness-PART-torchX.Y-cpu.{md,svg,json}; git
keeps the tables alone, each with the command that makes the rest again. Figures are medians over child processes, which
take turns: one for each contender and case in every round. `all` takes about twenty-five minutes on two cores. Plots
need matplotlib (`make bench-witness` installs it).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.contenders import CONTENDERS, EXACT, TORCH, UNIFIED
from benchmarks.witness_children import Job
from benchmarks.witness_parts import PARTS, THREE, Part, Results
from unified_guards.bench import plots, runner

RESULTS = ROOT / "benchmarks" / "results"

# ---- running ---------------------------------------------------------------------------------------------------------


def jobs_of(part: Part, cases: Sequence[str], rounds: int, steps: int) -> list[Job]:
    """Rounds on the outside, so that a slow phase of the machine hits all; the order turns with each round."""
    return [
        Job(part.kind, contender.name, case, number, steps)
        for number in range(min(rounds, part.rounds or rounds))
        for case in cases
        for contender in (part.contenders if number % 2 == 0 else part.contenders[::-1])
        if contender.is_available()
    ]


def _run_child(job: Job) -> list[dict[str, Any]] | None:
    """None if it failed."""
    command = [sys.executable, "-m", "benchmarks.witness", "--child", json.dumps(asdict(job))]
    environment = runner.child_environment(memory=job.memory) | CONTENDERS[job.contender].environment
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("[{")]
    if done.returncode == 0 and lines:
        return list(json.loads(lines[-1]))
    print(f"{job} failed ({done.returncode}):\n{done.stderr[-3000:]}", file=sys.stderr)
    return None


class Bench:
    """Runs jobs, each only once although two parts may want it, and writes what was found."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.known: dict[Job, list[dict[str, Any]] | None] = {}

    def samples(self, jobs: Iterable[Job]) -> tuple[runner.Samples, list[str]]:
        """All samples, and which children failed."""
        found: runner.Samples = []
        failed = []
        jobs = list(jobs)
        for number, job in enumerate(jobs, 1):
            if job not in self.known:
                print(f"[{number}/{len(jobs)}] {job} ...", end=" ", file=sys.stderr, flush=True)
                start = time.perf_counter()
                self.known[job] = _run_child(job)
                print(f"{time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
            samples = self.known[job]
            if samples is None:
                failed.append(f"a child process failed: {job}")
            found += [sample | {"round": job.round} for sample in samples or ()]
        return found, failed

    def part(self, name: str, jobs: list[Job], command: str) -> list[str]:
        """Measures one part and writes its files; returns what is wrong."""
        part = PARTS[name]
        samples, failed = self.samples(jobs)
        if not samples:
            return failed
        results = runner.summarise(samples)
        wrong = failed + problems(results)
        stem = f"witness-{name}-torch{_version()}-cpu"
        if plots.is_possible():
            plots.draw(self.out / f"{stem}.svg", part.panels(results), part.columns)
        text = _page(part, results, command, wrong)
        (self.out / f"{stem}.md").write_text(text)
        content = {"command": command, "environment": runner.environment(), "problems": wrong, "samples": samples}
        (self.out / f"{stem}.json").write_text(json.dumps(content, indent=1) + "\n")
        print(text, flush=True)
        return [f"{name}: {line}" for line in wrong]


def problems(results: Results) -> list[str]:
    """What must hold whatever the times are: of each contender alone, and if that is right, of all together."""
    found = []
    for workload, sides in results.items():
        alone = []
        for name, side in sides.items():
            native = name in CONTENDERS and CONTENDERS[name].backend != TORCH.backend
            alone += runner.problems({f"{workload}, {name}": {(UNIFIED if native else TORCH).name: side}})
        found += alone or runner.problems({workload: sides})
    return found


def _version() -> str:
    return ".".join(str(runner.environment()["torch"]).split(".")[:2])


def _page(part: Part, results: Results, command: str, wrong: list[str]) -> str:
    facts = runner.environment()
    where = f"torch {facts['torch']}, Python {facts['python']}, {facts['cpu']}, {facts['cores']} cores, one thread"
    lines = [f"# The witness: {part.what}", "", f"`{command}`  ", f"{where}, {facts['date']}. Medians.", ""]
    lines += [part.about.strip(), ""]
    if not _has_witness() and EXACT in part.contenders + THREE * (part.kind == "call"):
        lines += ["This build has no witness yet: unified and exact are the same.", ""]
    lines += [part.table(results), ""]
    verdict = part.verdict(results)
    lines += [*verdict, ""] if verdict else []
    lines += [f"WRONG: {line}" for line in wrong] or ["All results equal eager's; no frame was left to torch."]
    return "\n".join(lines) + "\n"


def _has_witness() -> bool:
    from unified_guards import _C

    return hasattr(_C.Checker, "witness")


# ---- the command line ------------------------------------------------------------------------------------------------


def _arguments(given: Sequence[str]) -> argparse.Namespace:
    listed = "\n".join(f"  {name:<8} {part.what}" for name, part in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.witness",
        description=f"{(__doc__ or '').splitlines()[0]}\n\n{listed}\n  all      each of these",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("part", nargs="?", help="one of these")
    parser.add_argument("--rounds", type=int, default=2, help="child processes for each contender and case (default 2)")
    parser.add_argument("--steps", type=int, default=30, help="steps that each figure is the median of (default 30)")
    parser.add_argument("--cases", nargs="+", metavar="case", help="some of the cases of a part, say qwen3_4 of depth")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="default: benchmarks/results")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.child:
        return options
    if options.part != "all" and options.part not in PARTS:
        called = f"no part is called {options.part!r}" if options.part else "which part?"
        parser.error(f"{called}; there are {', '.join(PARTS)}, and all of them: all")
    options.names = list(PARTS) if options.part == "all" else [options.part]
    cases = {case for name in options.names for case in PARTS[name].cases}
    unknown = [case for case in options.cases or () if case not in cases]
    if unknown:
        parser.error(f"{options.part} has no case {', '.join(unknown)}; it has {', '.join(sorted(cases))}")
    if min(options.rounds, options.steps) < 1:
        parser.error("--rounds and --steps are 1 or more")
    return options


def _child(text: str) -> None:
    from benchmarks import witness_children

    print(json.dumps(witness_children.run(witness_children.Job(**json.loads(text)))), flush=True)


def main(given: Sequence[str] | None = None) -> int:
    """Measures in child processes and writes the files; in a child, measures and prints JSON."""
    given = sys.argv[1:] if given is None else given
    options = _arguments(given)
    if options.child:
        _child(options.child)
        return 0
    if not plots.is_possible():
        print("No matplotlib, so no plots: pip install --group bench", file=sys.stderr)
    options.out.mkdir(parents=True, exist_ok=True)
    bench, wrong = Bench(options.out), []
    for name in options.names:
        part = PARTS[name]
        cases = [case for case in part.cases if options.cases is None or case in options.cases]
        command = " ".join(["python -m benchmarks.witness", *given])
        wrong += bench.part(name, jobs_of(part, cases, options.rounds, options.steps), command) if cases else []
    for line in wrong:
        print(f"WRONG: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
