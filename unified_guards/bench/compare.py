"""Runs a user's program with torch's guards and with unified ones, and says what was saved. See script.py for how it is
measured, and verdict.py for what is said of it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from unified_guards.bench import plots
from unified_guards.bench.runner import CHECKS, format_number, markdown
from unified_guards.bench.script import QUIET_CALLS
from unified_guards.bench.verdict import Cost, Judgement, judge, percent
from unified_guards.statistics import counted

_BACKENDS = ("torch", "unified")
_WORDS = {"torch": "torch's guards", "unified": "unified guards"}
#: How many calls are good.
_GOOD = 30
_MOST_FRAMES, _MOST_CAUSES = 10, 5
#: A program is run in this many rounds if the first round, one run with each kind of guards, took these seconds.
_MORE_ROUNDS = ((15.0, 3), (45.0, 2))


class ProgramFailed(Exception):
    """A run of the program ended with an exit status that is not 0.

    Attributes:
        status: that exit status, for the command to pass on.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Program:
    """A user's program: a path, or with ``is_module`` the name of a module, and its own arguments."""

    name: str
    arguments: Sequence[str]
    is_module: bool = False

    def __str__(self) -> str:
        return " ".join([*(["-m"] if self.is_module else []), self.name, *self.arguments])


def measure(program: Program, rounds: int | None) -> list[dict[str, Any]]:
    """One sample for each run. Every other round runs the backends in reverse: torch, unified, unified, torch.

    Args:
        program: what to run.
        rounds: how often with each kind of guards; None: once, and again if that takes a short time.

    Raises:
        ProgramFailed: a run ended with an exit status that is not 0.
    """
    began = time.perf_counter()
    samples = _in_turn(program, range(rounds or 1), rounds or 1)
    if rounds is None and all(sample["frames"] for sample in samples):
        spent = time.perf_counter() - began
        rounds = next((more for most, more in _MORE_ROUNDS if spent <= most), 1)
        if rounds > 1:
            print(f"That was short, so it is run in {rounds} rounds (--rounds says how many).", file=sys.stderr)
        samples += _in_turn(program, range(1, rounds), rounds)
    return samples


def _in_turn(program: Program, rounds: range, of: int) -> list[dict[str, Any]]:
    samples = []
    for at in rounds:
        for number, backend in enumerate(_BACKENDS if at % 2 == 0 else _BACKENDS[::-1], 1):
            run = f"[{2 * at + number}/{2 * of}] {program}, {_WORDS[backend]} ..."
            print(run, end=" ", file=sys.stderr, flush=True)
            start = time.perf_counter()
            try:
                samples.append(_run(program, backend))
            finally:
                print(f"{time.perf_counter() - start:.1f} s", file=sys.stderr, flush=True)
    return samples


def _run(program: Program, backend: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "sample.json"
        command = [sys.executable, "-m", "unified_guards.bench.script", "--backend", backend, "--out", str(out)]
        command += [*(["-m"] if program.is_module else []), program.name, *program.arguments]
        # UNIFIED_GUARDS would install unified guards in the run that is to have torch's.
        environment = {name: value for name, value in os.environ.items() if name != "UNIFIED_GUARDS"}
        environment.setdefault("KINETO_LOG_LEVEL", "6")  # each profiler tells of its start at level 5 (USDT)
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            status = done.returncode if done.returncode > 0 else 128 - done.returncode
            said = f"{done.stdout[-3000:]}{done.stderr[-10000:]}"
            raise ProgramFailed(f"{said}\n{program} ended with exit status {status}, with {_WORDS[backend]}.", status)
        if not out.exists():
            raise ProgramFailed(f"{program} ended by os._exit(), so that nothing could be written about it.", 1)
        sample: dict[str, Any] = json.loads(out.read_text())
        return sample


# ---- what was saved --------------------------------------------------------------------------------------------------


class Measured(NamedTuple):
    """A frame in the runs with one backend.

    Attributes:
        guards: how many there are.
        checks: how many are left of them after simplifying; None with torch's guards.
        lookups: per call of compiled code.
        micros: what one of them takes.
    """

    guards: int
    checks: int | None
    lookups: float
    micros: float


@dataclasses.dataclass(frozen=True)
class Side:
    """One backend, as medians over its runs.

    Attributes:
        calls: how often compiled code was called in a whole run.
        frames: (compile id, name) -> guards, checks, lookups per call, time of a lookup in µs.
        build_s: what building all guards took.
        begins_with: what the call that begins a step calls; None where no steps were found.
        step_us: how long a step takes.
        medians_us: the medians of the halves of each run.
        calls_per_step: how often compiled code is called in one.
        beside_us: what these calls take beside their graphs; None where that is not known.
    """

    calls: int
    frames: dict[tuple[str, str], Measured]
    build_s: float
    begins_with: str | None = None
    step_us: float = 0.0
    medians_us: tuple[float, ...] = ()
    calls_per_step: float = 0.0
    beside_us: float | None = None

    @property
    def lookups_per_call(self) -> float:
        """How many lookups end in compiled code while compiled code is called once."""
        return sum(frame.lookups for frame in self.frames.values())

    @property
    def us_per_call(self) -> float:
        """What these lookups take, in µs."""
        return sum(frame.lookups * frame.micros for frame in self.frames.values())

    @property
    def cost(self) -> Cost:
        """What a step costs."""
        guards = self.us_per_call * self.calls_per_step
        rest = None if self.beside_us is None else max(0.0, self.beside_us - guards)
        return Cost(self.step_us, self.medians_us, guards, rest)


def side(samples: Sequence[dict[str, Any]]) -> Side:
    """The runs with one backend."""
    found: dict[tuple[str, str], list[Measured]] = {}
    for sample in samples:
        for frame in sample["frames"]:
            if frame["lookups"]:
                counts = (frame["guards"], frame["checks"], frame["lookups"] / sample["measured_calls"])
                found.setdefault((frame["id"], frame["name"]), []).append(Measured(*counts, frame["lookup_us"]))
    frames = {
        key: runs[0]._replace(lookups=median(run.lookups for run in runs), micros=median(run.micros for run in runs))
        for key, runs in found.items()
    }
    builds = [sum(frame["build_s"] for frame in sample["frames"]) for sample in samples]
    calls = int(median(sample["calls"] for sample in samples))
    return Side(calls, frames, median(builds), *_step([sample["step"] for sample in samples]))


def _step(steps: Sequence[dict[str, Any] | None]) -> tuple[Any, ...]:
    """What is said of steps in a :class:`Side`: nothing where a run had none, or others than the first run."""
    found = [step for step in steps if step is not None]
    if len(found) < len(steps) or len({step["begins_with"] for step in found}) != 1:
        return ()
    beside = [step["beside_us"] for step in found]
    return (
        found[0]["begins_with"],
        median(step["us"] for step in found),
        tuple(each for step in found for each in step["halves_us"]),
        median(step["calls"] for step in found),
        None if None in beside else median(beside),
    )


class Comparison:
    """What the runs of a program say."""

    def __init__(self, program: Program, samples: Sequence[dict[str, Any]]) -> None:
        self.program = program
        self.samples = list(samples)
        self.of = {name: [sample for sample in samples if sample["backend"] == name] for name in _BACKENDS}
        self.torch, self.unified = side(self.of["torch"]), side(self.of["unified"])

    @property
    def saved_us(self) -> float:
        """What a call of compiled code saves, in µs; negative if unified guards take longer."""
        return self.torch.us_per_call - self.unified.us_per_call

    def nothing_to_compare(self) -> str | None:
        """Why there are no figures; None if there are."""
        plain = self.of["torch"]
        if any(sample["lifted"] for sample in plain):
            return (
                f"{self.program} installs unified guards itself, so that no run has torch's. "
                "Take that out, and run the same command again."
            )
        if not plain[0]["frames"]:
            return (
                f"{self.program} compiles nothing: it has to call torch.compile, and then what that returned. So there "
                "are no guards, and nothing to save. `python -m unified_guards doctor` says what is switched off."
            )
        if self.torch.frames and self.unified.frames:
            return None
        gave_up = next((sample["gave_up"] for sample in self.samples if sample["gave_up"]), None)
        if gave_up is not None:
            return f"{self.program} could not be measured, because it has a profiler of its own: {gave_up}"
        if any(sample["measured_calls"] for sample in self.samples):
            return f"{self.program} looks up no guards when it calls compiled code: there is nothing to save."
        return self._too_few_calls()

    def _too_few_calls(self) -> str:
        quiet, needed = min(sample["quiet_calls"] for sample in self.samples), QUIET_CALLS + 1
        return (
            f"{self.program} was not measured: found were {counted(self.torch.calls, 'call', 'calls')} of compiled "
            f"code, {quiet:,} of them after the last compilation. Needed are {needed} after it, and {_GOOD} are good. "
            f"Have it take {max(_GOOD - quiet, 1):,} more steps; where it compiles again and again, mend that first."
        )

    @property
    def judgement(self) -> Judgement | None:
        """What the steps say; None where there are none to compare."""
        plain, ours = self.torch, self.unified
        if plain.begins_with is None or plain.begins_with != ours.begins_with:
            return None
        return judge(plain.cost, ours.cost)

    def rows(self) -> list[list[str]]:
        """The rows of the table."""
        calls = self.torch.calls
        sides = (self.torch, self.unified)
        return [
            *self._rows_of_step(),
            ["lookups per call of compiled code", *(format_number(each.lookups_per_call) for each in sides), ""],
            _row("lookups per call, in place (µs)", *(each.us_per_call for each in sides)),
            _row(f"lookups in all, {calls:,} calls (ms)", *(each.us_per_call * calls / 1000 for each in sides)),
            _row("guard building, once (s)", *(each.build_s for each in sides)),
        ]

    def _rows_of_step(self) -> Iterator[list[str]]:
        found = self.judgement
        if found is None:
            return
        costs = (found.torch, found.unified)
        yield _row("whole step (µs)", *(cost.step for cost in costs))
        yield ["  medians of half a run", *(" to ".join(map(format_number, cost.range)) for cost in costs), ""]
        yield _row("guards of a step, in place (µs)", *(cost.guards for cost in costs))
        yield ["  share of the step", *(percent(cost.guards / cost.step) for cost in costs), ""]
        rests = [cost.rest for cost in costs]
        if rests[0] is not None and rests[1] is not None:
            yield _row("rest of its calls (µs)", rests[0], rests[1])
            yield ["  share of the step", *(percent((cost.rest or 0) / cost.step) for cost in costs), ""]

    def frames(self) -> list[tuple[str, Measured, Measured]]:
        """The frames that spend the most on lookups: name, with torch's guards, with ours."""
        both = [key for key in self.torch.frames if key in self.unified.frames]
        both.sort(key=lambda key: -self.torch.frames[key].lookups * self.torch.frames[key].micros)
        return [
            (f"{key[1]} [{key[0]}]", self.torch.frames[key], self.unified.frames[key]) for key in both[:_MOST_FRAMES]
        ]

    def frame_rows(self) -> list[list[str]]:
        """The rows of the table of :meth:`frames`."""
        return [
            [
                name,
                *map(format_number, (ours.guards, ours.checks, theirs.lookups)),
                *_row("", theirs.micros, ours.micros)[1:],
            ]
            for name, theirs, ours in self.frames()
        ]

    def lines(self) -> Iterator[str]:
        """What the figures mean."""
        calls, saved = self.torch.calls, self.saved_us
        yield from self._lines_of_step()
        if saved <= 0:
            yield f"Unified guards save nothing here: the lookups of a call take {-saved:.1f} µs more."
        else:
            in_all = saved * calls / 1e6
            lookups = f"Lookups take {format_number(saved)} µs less per call, {in_all:.3g} s less in {calls:,} calls."
            building = self.unified.build_s - self.torch.build_s
            earned = int(building * 1e6 / saved) + 1
            yield (
                lookups
                if building <= 0
                else (f"{lookups} Building them took {building:.3f} s more, once: earned back after {earned:,} calls.")
            )
        breaks = self.of["unified"][0]["graph_breaks"]
        if breaks:
            yield (
                f"Graph breaks: {breaks}. Each splits a function into parts that look up guards of their own; "
                "TORCH_LOGS=graph_breaks names them."
            )
        for reason, count in self.of["unified"][0]["frames_left"].items():
            yield f"Left to torch's guards: {count} frames, because: {reason}"
        found = self.judgement
        if saved > 0 and (found is None or found.verdict != "not worth it"):
            yield f"To switch them on: UNIFIED_GUARDS=1 python {self.program}"

    def recompiles(self) -> Iterator[str]:
        """What was compiled again and what to do, each cause once for each function, the most frequent first."""
        found: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        for each in self.of["unified"][0].get("recompiles", ()):
            found.setdefault((each["function"], *each["causes"]), []).append(each)
        groups = sorted(found.values(), key=len, reverse=True)
        if groups:
            yield f"Recompiles: {sum(map(len, groups))}."
        for group in groups[:_MOST_CAUSES]:
            first, times = group[0], f", {len(group)} times" if len(group) > 1 else ""
            again = "compiled again" if first["compiled"] else "not compiled again"
            yield f"  {first['function']} was {again}{times}, because of: {first['text']}"
            yield from (f"    {line}" for line in first["lines"])
        if len(groups) > _MOST_CAUSES:
            yield f"  {len(groups) - _MOST_CAUSES} other causes: UNIFIED_GUARDS_LOG=recompiles tells each as it happens"

    def _lines_of_step(self) -> Iterator[str]:
        """The verdict, and what a step is."""
        found = self.judgement
        if found is None:
            yield (
                "How long a step takes is not known: no function or module was called often enough without a "
                "compilation in between, or not the same one in all runs. So there is no verdict."
            )
            return
        yield from found.lines()
        calls = format_number(self.torch.calls_per_step)
        name = self.torch.begins_with
        yield f"A step lasts from one call of {name} to the next; calls of compiled code in it: {calls}."
        if found.torch.rest is None or found.unified.rest is None:
            yield (
                "What the rest of its calls takes is not known: they have several graphs, with code of yours in "
                "between, or there were too few of them to be timed."
            )

    def __str__(self) -> str:
        problem = self.nothing_to_compare()
        if problem is not None:
            return "\n".join([problem, *self.recompiles()])
        frames = markdown(
            ["frame", "guards", CHECKS, "lookups per call", "torch (µs)", "unified (µs)", "torch / unified"],
            self.frame_rows(),
        )
        table = markdown(["", "torch", "unified", "torch / unified"], self.rows())
        return "\n".join([table, "", frames, "", *self.lines(), *self.recompiles()])

    def panels(self) -> list[plots.Pairs]:
        """The panels of the plot."""
        rows = {"all lookups of a call": (self.torch.us_per_call, self.unified.us_per_call)}
        rows |= {
            name: (theirs.lookups * theirs.micros, theirs.lookups * ours.micros) for name, theirs, ours in self.frames()
        }
        return [plots.Pairs(f"{self.program}: guard lookups, in place", "µs in a call of compiled code", rows)]

    def as_dict(self) -> dict[str, Any]:
        """For JSON. Figures are null where there is nothing to compare."""
        problem = self.nothing_to_compare()
        figures = {
            name: {"us_per_call": each.us_per_call, "lookups_per_call": each.lookups_per_call, "build_s": each.build_s}
            for name, each in (("torch", self.torch), ("unified", self.unified))
        }
        return {
            "program": str(self.program),
            "nothing_to_compare": problem,
            "calls": self.torch.calls,
            "saved_us_per_call": self.saved_us if problem is None else None,
            "step": None if problem is not None else self._step_as_dict(),
            **(figures if problem is None else dict.fromkeys(figures)),
            "samples": self.samples,
        }

    def _step_as_dict(self) -> dict[str, Any] | None:
        found = self.judgement
        if found is None:
            return None
        costs = {"torch": dataclasses.asdict(found.torch), "unified": dataclasses.asdict(found.unified)}
        shares = {"saved_by_parts": found.by_parts, "saved_by_step": found.by_step, "noise": found.noise}
        calls = {"begins_with": self.torch.begins_with, "calls": self.torch.calls_per_step}
        return {"verdict": found.verdict, **calls, **costs, **shares}


def _row(label: str, theirs: float, ours: float) -> list[str]:
    return [label, format_number(theirs), format_number(ours), f"{theirs / ours:.2f}x" if ours else "-"]
