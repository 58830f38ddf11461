"""What the witness tier of the native checker saves, beside torch and beside the exact tier alone.

    python -m benchmarks.witness depth|mutated|entries|options|call|memory|all [--rounds 2] [--steps 30]

Each part writes a table, a plot and all samples to benchmarks/results/witness-PART-torchX.Y-cpu.{md,svg,json}. Figures
are medians over child processes, which take turns: one for each contender and case in every round. `all` takes about
twenty-five minutes on two cores. Plots need matplotlib (`make bench-witness` installs it).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import contenders, plots, runner
from benchmarks.contenders import CONTENDERS, EXACT, OPTIONS, TORCH, UNIFIED
from benchmarks.runner import Summary, format_number, markdown
from benchmarks.witness_children import CALLED, EMPTY, EMPTY_AGAIN, LAYERS, Job, layers_workload

RESULTS = runner.ROOT / "benchmarks" / "results"
#: workload -> contender -> summary
Results = dict[str, dict[str, Summary]]
Panels = list["plots.Lines | plots.Bars"]
TIERS = (TORCH.name, UNIFIED.name, EXACT.name)

# ---- cells and series ------------------------------------------------------------------------------------------------


def _value(sides: dict[str, Summary], contender: str, key: str) -> float | None:
    """None where nothing was measured."""
    return sides[contender].median(key) if contender in sides else None


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _tiers(sides: dict[str, Summary], key: str) -> list[str]:
    """The three figures, and what they are to each other."""
    values = {name: _value(sides, name, key) for name in TIERS}
    ratios = [_ratio(values["torch"], values["unified"]), _ratio(values["unified"], values["exact"])]
    return [*map(format_number, values.values()), *map(_times, ratios)]


def _tier_header(what: str) -> list[str]:
    return [f"{what}: torch (µs)", "unified (µs)", "exact (µs)", "torch / unified", "unified / exact"]


def _series(results: Results, x: Callable[[str], float], key: str) -> dict[str, list[tuple[float, float]]]:
    found = {
        name: [(x(workload), value) for workload, sides in results.items() if (value := _value(sides, name, key))]
        for name in TIERS
    }
    return {name: points for name, points in found.items() if points}


# ---- depth -----------------------------------------------------------------------------------------------------------


def _layers_of(workload: str) -> int:
    return int(workload.removeprefix("qwen3_"))


def _depth_table(results: Results) -> str:
    rows = []
    for workload, sides in results.items():
        guards = format_number(next(iter(sides.values())).median("leaf_guards"))
        rows.append([str(_layers_of(workload)), guards, *_tiers(sides, "lookup_us"), *_tiers(sides, "hot_us")])
    return markdown(["layers", "guards", *_tier_header("in place"), *_tier_header("hot")], rows)


def _depth_panels(results: Results) -> Panels:
    ticks = [_layers_of(workload) for workload in results]
    return [
        plots.Lines(f"lookup {title}", "layers of Qwen3", "µs", _series(results, _layers_of, key), ticks)
        for title, key in (("in place", "lookup_us"), ("hot", "hot_us"))
    ]


# ---- mutated ---------------------------------------------------------------------------------------------------------


def _modules_of(workload: str) -> int:
    return int(workload.removeprefix("all "))


def _mutated_table(results: Results) -> str:
    rows = []
    for workload, sides in results.items():
        row = [workload]
        for key, ratio in (("lookup_us", "in_place_ratio"), ("hot_us", "hot_ratio")):
            row += [*_tiers(sides, key), _times(_value(sides, UNIFIED.name, ratio))]
        rows.append(row)
    paired = "the same, paired"
    return markdown(["modules", *_tier_header("in place"), paired, *_tier_header("hot"), paired], rows)


def _mutated_verdict(results: Results) -> list[str]:
    """Whether the promise of ten percent held where every module changed."""
    last = list(results)[-1]
    found = [_value(results[last], UNIFIED.name, key) for key in ("in_place_ratio", "hot_ratio")]
    if None in found:
        return []
    kept = "yes" if all(ratio is not None and ratio <= 1.1 for ratio in found) else "NO"
    in_place, hot = map(_times, found)
    return [
        f"Everything changes on every call: {in_place} the exact tier in place, {hot} hot (paired). "
        f"At most 10 % above it: {kept}."
    ]


def _mutated_panels(results: Results) -> Panels:
    ticks = [_modules_of(workload) for workload in results]
    x = "modules written to before each call"
    return [
        plots.Lines(f"lookup {title}", x, "µs", _series(results, _modules_of, key), ticks, has_zero=True)
        for title, key in (("in place", "lookup_us"), ("hot", "hot_us"))
    ]


# ---- entries ---------------------------------------------------------------------------------------------------------


def _split(workload: str) -> tuple[str, int]:
    name, _, number = workload.rpartition(", ")
    return name, int(number)


def _entries_table(results: Results) -> str:
    rows = []
    for workload, sides in results.items():
        name, number = _split(workload)
        rows.append([name, str(number), *_tiers(sides, "lookup_us"), *_tiers(sides, "step_us")])
    return markdown(["function", "entries", *_tier_header("lookup"), *_tier_header("whole call")], rows)


def _entries_panels(results: Results) -> Panels:
    panels: Panels = []
    for name in dict.fromkeys(_split(workload)[0] for workload in results):
        mine = {workload: sides for workload, sides in results.items() if _split(workload)[0] == name}
        numbers = [_split(workload)[1] for workload in mine]
        series = _series(mine, lambda workload: _split(workload)[1], "lookup_us")
        panels.append(plots.Lines(f"{name}: a lookup", "live entries", "µs", series, numbers))
    return panels


# ---- options ---------------------------------------------------------------------------------------------------------


def _kept(sides: dict[str, Summary], contender: contenders.Contender) -> list[str]:
    """Guards in torch's tree, and those that are checked natively."""
    native = _value(sides, contender.name, "checks")
    return [format_number(_value(sides, contender.name, "leaf_guards")), format_number(native)]


def _options_row(workload: str, sides: dict[str, Summary], contender: contenders.Contender) -> list[str]:
    row = [workload, contender.name, contender.unchecked, *_kept(sides, contender)]
    for key in ("lookup_us", "hot_us", "step_us"):
        value = _value(sides, contender.name, key)
        row += [format_number(value), _times(_ratio(_value(sides, TORCH.name, key), value))]
    return row


def _options_table(results: Results) -> str:
    header = ["workload", "option", "not checked any more", "guards in torch's tree", "checked natively"]
    for what in ("in place", "hot", "whole step"):
        header += [f"{what} (µs)", "torch / this"]
    rows = [_options_row(name, sides, one) for name, sides in results.items() for one in OPTIONS]
    return markdown(header, rows)


def _options_verdict(results: Results) -> list[str]:
    """The aim: every guard for less than what it costs to skip those of modules."""
    lines = []
    for workload, sides in results.items():
        ours, theirs = (_value(sides, one.name, "lookup_us") for one in (UNIFIED, contenders.SKIP_MODULES))
        if ours is None or theirs is None:
            continue
        guards, fewer = (_value(sides, one.name, "leaf_guards") for one in (UNIFIED, contenders.SKIP_MODULES))
        lines.append(
            f"- {workload}: all {format_number(guards)} guards for {format_number(ours)} µs in place; torch without "
            f"those of modules checks {format_number(fewer)} for {format_number(theirs)} µs "
            f"({_times(_ratio(theirs, ours))})."
        )
    return lines


def _options_panels(results: Results) -> Panels:
    panels: Panels = []
    for workload, sides in results.items():
        for title, key in (("in place", "lookup_us"), ("hot", "hot_us")):
            values = {one.name: _value(sides, one.name, key) for one in OPTIONS}
            rows = {name: {"": value} for name, value in values.items() if value is not None}
            panels.append(plots.Bars(f"{workload}: lookup {title}", "µs", rows, log=True))
    return panels


# ---- call ------------------------------------------------------------------------------------------------------------


def _call_table(results: Results) -> str:
    rows = []
    for workload, sides in results.items():
        torchs = _value(sides, TORCH.name, "share_us")
        for name in (*TIERS, EMPTY_AGAIN, EMPTY):
            call, share, low, high = (
                _value(sides, name, key) for key in ("call_us", "share_us", "share_low", "share_high")
            )
            guards = _value(sides, name, "leaf_guards") if name in TIERS else 0
            row = [workload, name, format_number(guards), _two(call)]
            if name == EMPTY:
                row += ["-"] * 4
            else:
                part = _ratio(share, call)
                times = _times(_ratio(torchs, share)) if name in TIERS else "-"
                row += [_two(share), f"{_two(low)} to {_two(high)}", "-" if part is None else f"{part:.1%}", times]
            rows.append(row)
    share = ["guard share (µs)", "middle half (µs)", "of the call", "torch / this"]
    return markdown(["function", "guards checked by", "guards", "whole call (µs)", *share], rows)


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _call_panels(results: Results) -> Panels:
    panels: Panels = []
    for workload, sides in results.items():
        names = [name for name in (*TIERS, EMPTY_AGAIN) if name in sides]
        rows = {name: {"": sides[name].median("share_us") or 0.0} for name in names}
        ranges = {
            name: (sides[name].median("share_low") or 0.0, sides[name].median("share_high") or 0.0) for name in names
        }
        panels.append(plots.Bars(f"{workload}: call less one with an empty root", "µs", rows, ranges))
    return panels


# ---- memory ----------------------------------------------------------------------------------------------------------

_PARTS = ("torch's tree", "unified, Python objects", "unified, native program", "unified, witness")


def _memory_parts(sides: dict[str, Summary]) -> dict[str, float] | None:
    """Bytes of each part of what a process with unified guards holds; None where a child is missing."""
    tree, held = (_value(sides, name, "held_bytes") for name in (TORCH.name, UNIFIED.name))
    if tree is None or held is None:
        return None
    program, witness = (_value(sides, UNIFIED.name, key) or 0.0 for key in ("program_bytes", "witness_bytes"))
    # The witness is not in `held`, which is taken when the guards are built: calls record it.
    return dict(zip(_PARTS, (tree, held - tree - program, program, witness), strict=True))


def _memory_table(results: Results) -> str:
    rows = []
    for workload, sides in results.items():
        parts, guards = _memory_parts(sides), _value(sides, TORCH.name, "leaf_guards")
        if parts is None or not guards:
            rows.append([workload, *["-"] * 10])
            continue
        total = sum(parts.values())
        kilobytes = [format_number(value / 1000) for value in (*parts.values(), total)]
        explained = _value(sides, UNIFIED.name, "explained_bytes")
        kilobytes.insert(2, format_number(None if explained is None else explained / 1000))
        per_guard = [format_number(value / guards) for value in (parts[_PARTS[0]], total)]
        rows.append([workload, format_number(guards), *kilobytes, *per_guard, _times(total / parts[_PARTS[0]])])
    split = ["torch's tree (kB)", "our Python objects (kB)", "of which for explain() (kB)", "native program (kB)"]
    split += ["witness (kB)", "together (kB)", "a guard: torch (bytes)", "together (bytes)", "together / torch"]
    return markdown(["workload", "guards", *split], rows)


def _memory_panels(results: Results) -> Panels:
    rows = {}
    for workload, sides in results.items():
        parts, guards = _memory_parts(sides), _value(sides, TORCH.name, "leaf_guards")
        if parts is not None and guards:
            rows[workload] = {name: max(0.0, value) / guards for name, value in parts.items()}
    return [plots.Bars("memory that guards hold", "bytes a guard", rows)]


# ---- parts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One table.

    Attributes:
        what: a line for --help.
        about: what the reader of the table has to know.
        kind: of the child processes.
        cases: which children there are for each contender; --cases picks some.
        verdict: lines below the table.
        rounds: as many as these at most; what does not vary needs one.
    """

    what: str
    about: str
    kind: str
    cases: tuple[str, ...]
    contenders: tuple[contenders.Contender, ...]
    table: Callable[[Results], str]
    panels: Callable[[Results], Panels]
    verdict: Callable[[Results], list[str]] = lambda _: []
    rounds: int | None = None
    columns: int = 2


_THREE = (TORCH, UNIFIED, EXACT)
_TIER_WORDS = (
    "*Unified* is what a program gets; *exact* is the same with `UNIFIED_GUARDS_WITNESS=0`: every guard is evaluated "
    "on every call. "
)
_PLACE_WORDS = (
    "*In place*: Dynamo's own lookup, between runs of the model, which push the guards out of the caches. *Hot*: "
    "checks one after the other. "
)
PARTS = {
    "depth": Part(
        "lookups against the number of layers",
        "Qwen3 with tiny widths and more and more layers. " + _TIER_WORDS + _PLACE_WORDS,
        "workload",
        tuple(map(layers_workload, LAYERS)),
        _THREE,
        _depth_table,
        _depth_panels,
    ),
    "mutated": Part(
        "lookups while modules change between calls",
        "Qwen3 with 36 layers. Before each lookup, and not timed, an attribute that no guard reads is set on so many "
        "of its modules: the dicts change that the guards read, what the guards say does not. "
        + _TIER_WORDS
        + _PLACE_WORDS
        + "*Paired*: both tiers of one checker in one process, in turn.",
        "mutated",
        ("qwen3_36",),
        _THREE,
        _mutated_table,
        _mutated_panels,
        _mutated_verdict,
    ),
    "entries": Part(
        "lookups of functions with several live entries",
        "Every call hits the entry that was used longest ago, so that Dynamo asks all others first (see "
        "`benchmarks/entries.py`). " + _TIER_WORDS + "Figures are those of one call of the function.",
        "entries",
        ("all",),
        _THREE,
        _entries_table,
        _entries_panels,
    ),
    "options": Part(
        "torch's own options that check less, beside ours that check everything",
        "*Torch / this*: how many times this option's figure torch's default takes. " + _PLACE_WORDS + "A dash: this "
        "torch or this unified_guards does not have the option. An entry without any guard is not looked up at all.",
        "workload",
        ("qwen3_36", "qwen3_36_decode", "mlp"),
        OPTIONS,
        _options_table,
        _options_panels,
        _options_verdict,
    ),
    "call": Part(
        "what guards add to a whole compiled call",
        "Copies of one function, compiled in one process and called in turn, a few calls at a time in an order that "
        "changes. The *guard share* is a call less the call of the copy whose guard root is empty, taken a few "
        "milliseconds apart: median and middle half of these differences. Everything is hot. *Another empty root* "
        "shows how far the method can be trusted. " + _TIER_WORDS,
        "call",
        CALLED,
        (TORCH,),  # in name: the child measures all of them
        _call_table,
        _call_panels,
    ),
    "memory": Part(
        "bytes that guards hold",
        "Bytes of malloc, Python's objects included. *Torch's tree*: what a compilation with torch's guards leaves; it "
        "is kept under unified guards, too. *Our Python objects*: what is left of the rest when the native program is "
        "subtracted; of it, *for explain()* is freed when a frame forgets all but its checker. The *witness* is what "
        "the checker itself says.",
        "memory",
        (
            "x_plus_y", "mlp", "qwen3_36", "qwen3_36_decode", "bert_24_training", "qwen3_36_regional", "adamw_200",
            "dynamic_50", "entries_8",
        ),
        (TORCH, UNIFIED),
        _memory_table,
        _memory_panels,
        rounds=1,
        columns=1,
    ),
}  # fmt: skip


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
    done = subprocess.run(command, cwd=runner.ROOT, env=environment, capture_output=True, text=True, check=False)
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
        text = _page(part, results, command, stem, wrong)
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


def _page(part: Part, results: Results, command: str, stem: str, wrong: list[str]) -> str:
    facts = runner.environment()
    where = f"torch {facts['torch']}, Python {facts['python']}, {facts['cpu']}, {facts['cores']} cores, one thread"
    lines = [f"# The witness: {part.what}", "", f"`{command}`  ", f"{where}, {facts['date']}. Medians.", ""]
    lines += [part.about.strip(), ""]
    if not _has_witness() and EXACT in part.contenders + _THREE * (part.kind == "call"):
        lines += ["This build has no witness yet: unified and exact are the same.", ""]
    if plots.is_possible():
        lines += [f"![{part.what}]({stem}.svg)", ""]
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
