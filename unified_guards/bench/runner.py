"""The parent's side: starts the children, interleaves the backends over rounds, and prints medians and ratios."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

Samples = list[dict[str, Any]]


@dataclass(frozen=True)
class Job:
    workload: str
    backend: str
    round: int
    memory: bool = False


def child_environment(*, memory: bool = False) -> dict[str, str]:
    # What is set for the user's programs must not install guards in the plain-torch children.
    env = {key: value for key, value in os.environ.items() if not key.startswith("UNIFIED_GUARDS")}
    env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "KINETO_LOG_LEVEL": "6"}
    if memory:
        # Everything through malloc, Python's objects too, and nothing hidden in per-thread caches or second arenas.
        env |= {"PYTHONMALLOC": "malloc", "MALLOC_ARENA_MAX": "1", "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    return env


def plan(names: list[str], backends: list[str], rounds: int, *, memory: bool) -> list[Job]:
    """All jobs, in order. Rounds are on the outside, so that a slow phase of the machine hits all workloads alike.

    Every other round runs the backends in reverse: torch, unified, unified, torch.
    """
    jobs = [
        Job(name, backend, number)
        for number in range(rounds)
        for name in names
        for backend in (backends if number % 2 == 0 else backends[::-1])
    ]
    return jobs + [Job(name, backend, 0, memory=True) for name in names for backend in backends if memory]


@dataclass(frozen=True)
class Child:
    """A module that measures one workload: ``python -m MODULE WORKLOAD --child BACKEND --steps=N [--memory]``.

    Attributes:
        module: prints the sample as its last line, in JSON.
        folder: where the module is found; None where the interpreter finds it anyway.
        options: more arguments for it.
    """

    module: str
    folder: Path | None = None
    options: tuple[str, ...] = ()

    def command(self, job: Job, steps: int) -> list[str]:
        """What runs a job in a process of its own."""
        command = [sys.executable, "-m", self.module, job.workload, "--child", job.backend, f"--steps={steps}"]
        return [*command, *self.options, *(["--memory"] if job.memory else [])]


def run_child(child: Child, job: Job, steps: int) -> dict[str, Any] | None:
    environment = child_environment(memory=job.memory)
    done = subprocess.run(
        child.command(job, steps), cwd=child.folder, env=environment, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode == 0 and lines:
        return dict(json.loads(lines[-1]))
    print(f"{job.workload} on {job.backend} failed ({done.returncode}):\n{done.stderr[-3000:]}", file=sys.stderr)
    return None


def run(
    child: Child, names: list[str], backends: list[str], *, rounds: int, steps: int, memory: bool
) -> tuple[Samples, int]:
    """All samples, and the number of children that failed."""
    jobs = plan(names, backends, rounds, memory=memory)
    samples: Samples = []
    for number, job in enumerate(jobs, 1):
        what = "memory" if job.memory else f"round {job.round + 1}"
        print(f"[{number}/{len(jobs)}] {job.workload}, {job.backend}, {what} ...", end=" ", file=sys.stderr, flush=True)
        start = time.perf_counter()
        sample = run_child(child, job, steps)
        print(f"{time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
        if sample is not None:
            samples.append(sample | {"memory": job.memory, "round": job.round})
    return samples, len(jobs) - len(samples)


class Summary:
    """The samples of one workload on one backend, as medians."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def median(self, key: str) -> float | None:
        # The memory children run on a slower allocator, with collections in between: their times do not count.
        values = [s[key] for s in self.samples if s[key] is not None and (key == "held_bytes" or not s["memory"])]
        return median(values) if values else None

    def per_guard(self, key: str) -> float | None:
        total, guards = self.median(key), self.median("leaf_guards")
        return None if total is None or not guards else total / guards

    def all_equal(self) -> bool:
        return all(sample["equal"] for sample in self.samples)

    def compiles(self) -> set[int]:
        return {sample["compiles"] for sample in self.samples}

    def as_dict(self) -> dict[str, Any]:
        keys = [k for k, v in self.samples[0].items() if isinstance(v, (int, float, type(None))) and k != "round"]
        medians = {key: self.median(key) for key in keys if key not in ("equal", "memory")}
        first = self.samples[0]
        return medians | {
            "equal": self.all_equal(),
            "bytes_per_guard": self.per_guard("held_bytes"),
            "program_bytes_per_guard": self.per_guard("program_bytes"),
            "provenance": first["provenance"],
            "frames_left": first["frames_left"],
        }


def summarise(samples: Samples) -> dict[str, dict[str, Summary]]:
    """workload -> backend -> summary, in the order in which they were run."""
    grouped: dict[str, dict[str, Samples]] = {}
    for sample in samples:
        grouped.setdefault(sample["workload"], {}).setdefault(sample["backend"], []).append(sample)
    return {name: {b: Summary(found) for b, found in sides.items()} for name, sides in grouped.items()}


#: The head of a column: how many checks are left of the guards.
CHECKS = "checks after simplifying"


def format_number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def ratio(sides: dict[str, Summary], key: str) -> float | None:
    """Torch's figure, divided by the unified one."""
    if set(sides) != {"torch", "unified"}:
        return None
    plain, ours = sides["torch"].median(key), sides["unified"].median(key)
    return None if plain is None or not ours else plain / ours


def _pair(sides: dict[str, Summary], key: str, scale: float = 1.0) -> str:
    values = [sides[backend].median(key) for backend in ("torch", "unified", "strict") if backend in sides]
    return " / ".join(format_number(None if value is None else value * scale) for value in values)


def _with_ratio(sides: dict[str, Summary], key: str) -> list[str]:
    factor = ratio(sides, key)
    return [_pair(sides, key), "-" if factor is None else f"{factor:.2f}x"]


def _bytes_per_guard(sides: dict[str, Summary]) -> str:
    cells = [format_number(side.per_guard("held_bytes")) for _, side in sorted(sides.items())]
    program = sides["unified"].per_guard("program_bytes") if "unified" in sides else None
    return " / ".join(cells) + ("" if program is None else f" (program {format_number(program)})")


def _overhead(sides: dict[str, Summary]) -> str:
    factor = ratio(sides, "guard_build_s")
    return "-" if factor is None else f"{(1 / factor - 1) * 100:+.0f} %"


def _simplified(sides: dict[str, Summary]) -> str:
    """Guards before and after simplification."""
    if "unified" not in sides:
        return "-"
    return " / ".join(format_number(sides["unified"].median(key)) for key in ("lifted", "checks"))


def _health(sides: dict[str, Summary]) -> list[str]:
    left = callbacks = "-"
    if "unified" in sides:
        first = sides["unified"].samples[0]
        left = "; ".join(f"{count} {reason}" for reason, count in first["frames_left"].items()) or "0"
        callbacks = format_number(sides["unified"].median("callbacks_per_check"))
    return [left, callbacks, "yes" if all(side.all_equal() for side in sides.values()) else "NO"]


_HEADER = [
    "workload", "leaf guards", "lifted / checked", "lookups a step", "lookup in place µs", "ratio", "hot µs", "ratio",
    "caches flushed µs", "ratio", "step µs", "ratio", "compile s", "guard build s", "overhead", "bytes a guard",
    "compiles", "left to torch", "callbacks a check", "equal",
]  # fmt: skip


def _row(name: str, sides: dict[str, Summary]) -> Iterator[str]:
    any_side = next(iter(sides.values()))
    yield name
    yield format_number(any_side.median("leaf_guards"))
    yield _simplified(sides)
    yield format_number(any_side.median("lookups_per_step"))
    for key in ("lookup_us", "hot_us", "flushed_us", "step_us"):
        yield from _with_ratio(sides, key)
    yield _pair(sides, "compile_s")
    yield _pair(sides, "guard_build_s")
    yield _overhead(sides)
    yield _bytes_per_guard(sides)
    yield _pair(sides, "compiles")
    yield from _health(sides)


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A GitHub table whose columns are padded, so that it reads well in a terminal too."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"

    return "\n".join([line(header), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])


def table(summary: dict[str, dict[str, Summary]]) -> str:
    return markdown(_HEADER, [list(_row(name, sides)) for name, sides in summary.items()])


def problems(summary: dict[str, dict[str, Summary]]) -> list[str]:
    """What is wrong with the samples, whatever the times are: results, numbers of compiles, guards left to torch."""
    found = []
    for name, sides in summary.items():
        if not all(side.all_equal() for side in sides.values()):
            found.append(f"{name}: a result differs from eager's")
        if len(set().union(*(side.compiles() for side in sides.values()))) != 1:
            counts = {backend: sorted(side.compiles()) for backend, side in sides.items()}
            found.append(f"{name}: the number of compiles differs: {counts}")
        for sample in sides["unified"].samples[:1] if "unified" in sides else []:
            if not sample["lifted"] or sample["frames_left"]:
                found.append(f"{name}: {sample['lifted']} guards lifted, frames left to torch: {sample['frames_left']}")
    return found


def environment(device: str = "cpu") -> dict[str, Any]:
    import torch

    facts = Path("/proc/cpuinfo")  # of Linux
    lines = facts.read_text().splitlines() if facts.exists() else []
    models = [line for line in lines if line.startswith("model name")]
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": models[0].split(":", 1)[1].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "device": device if device == "cpu" else torch.get_device_module(device).get_device_name(device),
        "threads": 1,
        "date": time.strftime("%Y-%m-%d"),
    }
