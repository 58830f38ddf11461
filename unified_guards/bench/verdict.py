"""Says whether unified guards are worth it for a program, from what its step costs with torch's guards and with ours.

Two things are known: the parts (guards, and the rest of the calls beside the graphs), each measured by itself, and the
whole step, which holds everything and varies more than the parts take. Where they do not agree, that is said. Entry
points: :class:`Cost`, :func:`judge`, :func:`lines_of_explained`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from statistics import median, quantiles
from typing import TYPE_CHECKING, Literal

from unified_guards.bench.runner import format_number

if TYPE_CHECKING:
    from unified_guards.bench.steps import Clock
    from unified_guards.report.explain import Report

Verdict = Literal["worth it", "hardly worth it", "not worth it"]

#: From which share of a step on saving it is worth it, and hardly so.
WORTH, HARDLY = 0.05, 0.01
#: What lies that much apart is not called the same.
_CLOSE = 0.02


@dataclasses.dataclass(frozen=True)
class Cost:
    """A step of a program with one kind of guards, in µs.

    Attributes:
        step: the median of all runs.
        medians: of parts of runs; how far they lie apart is what the machine and the program vary by.
        guards: what its lookups take, in place.
        rest: what its calls take besides, without their graphs; None where that is not known.
    """

    step: float
    medians: tuple[float, ...]
    guards: float
    rest: float | None

    @property
    def overhead(self) -> float:
        """Guards and the rest of the calls, as far as it is known."""
        return self.guards + (self.rest or 0.0)

    @property
    def range(self) -> tuple[float, float]:
        """The least and the greatest of the medians."""
        return min(self.medians), max(self.medians)

    @property
    def spread(self) -> float:
        """How far the medians lie apart; where there are some, their middle half."""
        if len(self.medians) < 4:
            return max(self.medians) - min(self.medians)
        low, _, high = quantiles(self.medians, n=4, method="inclusive")
        return high - low


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the costs before and after say, as shares of the step before.

    Attributes:
        by_parts: what guards and the rest of the calls save.
        by_step: by how much the whole step is shorter.
        noise: by how much medians of whole steps differ although nothing is changed.
    """

    torch: Cost
    unified: Cost
    by_parts: float
    by_step: float
    noise: float

    @property
    def falls_short(self) -> bool:
        """Whether the whole step is clearly not as much shorter as the parts say."""
        return self.by_step + self.noise < self.by_parts / 2 - _CLOSE / 4

    @property
    def exceeds(self) -> bool:
        """Whether the whole step is clearly shorter than the parts say."""
        return self.by_step - self.noise > self.by_parts + _CLOSE

    @property
    def saving(self) -> float:
        """The share of a step that is saved: what the parts say, unless whole steps clearly say something else."""
        if self.falls_short:
            return self.by_step
        return self.by_step - self.noise if self.exceeds else self.by_parts

    @property
    def verdict(self) -> Verdict:
        """Whether it is worth it."""
        return verdict_on(self.saving)

    def lines(self) -> Iterator[str]:
        """The verdict and its reasons, for people."""
        yield f"{self.verdict.capitalize()}: {self._share()}."
        yield self._whole()

    def _share(self) -> str:
        before, after = self.torch, self.unified
        guards = f"guards are {percent(before.guards / before.step)} of your step of {micros(before.step)}"
        ours = f"unified ones {percent(after.guards / after.step)}"
        if before.rest is None or after.rest is None:
            return f"{guards}, {ours}"
        rest = f"{percent(before.rest / before.step)} and {percent(after.rest / after.step)}"
        return f"{guards}, {ours}; the rest of its calls {rest}"

    def _whole(self) -> str:
        parts, step = percent(abs(self.by_parts)), percent(abs(self.by_step))
        saves = f"saves {parts}" if self.by_parts >= 0 else f"costs {parts} more"
        told = f"together that {saves} of a step, and the whole step is {step} {_shorter(self.by_step)}"
        if self.falls_short:
            return (
                f"But {told}: it waits for something else meanwhile (a device, data, another thread), or the machine "
                "was busy. Whole steps count."
            )
        if self.exceeds:
            return f"{told.capitalize()}, which is more than these parts: what runs between the lookups is faster, too."
        if abs(self.by_step) > self.noise and abs(self.by_step - self.by_parts) > _CLOSE:
            return f"{told.capitalize()}: what runs between them takes another time, too."
        if abs(self.by_step) <= self.noise:
            varies = f"with the same guards, medians of half a run vary by {percent(self.noise)}"
            return f"{told.capitalize()}; {varies}, so that the parts say it better than the whole."
        return f"{told.capitalize()}."


def verdict_on(saving: float) -> Verdict:
    """Whether it is worth it to save this share of a step."""
    return "worth it" if saving >= WORTH else "hardly worth it" if saving >= HARDLY else "not worth it"


def judge(torch: Cost, unified: Cost) -> Judgement:
    """Compares the costs of a step with torch's guards and with ours."""
    if torch.rest is None or unified.rest is None:
        saved = torch.guards - unified.guards
    else:
        saved = torch.overhead - unified.overhead
    by_step = (torch.step - unified.step) / torch.step
    return Judgement(torch, unified, saved / torch.step, by_step, max(torch.spread, unified.spread) / torch.step)


def lines_of_explained(clock: Clock, report: Report, program: str) -> Iterator[str]:
    """The step of a program that was run with measured guards, and a verdict, for people.

    Of torch's guards only the least time is known: of a check that follows another one at once.
    """
    measured = f"`python -m unified_guards bench --script {program}` measures a step with torch's guards and with ours."
    steps = clock.steps()
    checked = [(frame.costs, frame.counts[0]) for frame in report.frames if frame.costs is not None]
    per_step = 0.0 if steps is None else sum(steps.calls.values()) / clock.calls
    ours = per_step * sum((costs.in_place_ns or 0) * checks for costs, checks in checked) / 1000
    theirs = per_step * sum((costs.torch_ns or 0) * checks for costs, checks in checked) / 1000
    if steps is None or not ours or not theirs:
        yield f"How long a step takes is not known: too few calls were made without a compilation. {measured}"
        return
    step, beside = median(steps.us), clock.beside_us(steps)
    shares = f"guards take {micros(ours)} of it ({percent(ours / step)})"
    if beside is not None:
        rest = max(0.0, beside - ours)
        shares += f", the rest of its calls {micros(rest)} ({percent(rest / step)})"
    yield f"A step, from one call of {clock.names[steps.key]} to the next: {micros(step)} while measured; {shares}."
    # Of the step that it would be with torch's guards. What the rest of its calls would take is not known.
    before = step - ours + theirs
    said = f"Torch's guards were timed many in a row alone: {micros(theirs)} for a step"
    worth = ", so it is worth it" if (theirs - ours) / before >= WORTH else ""
    yield f"{said}. In place they take several times that{worth}. {measured}"


def percent(share: float) -> str:
    """A share as people read it."""
    value = share * 100
    return f"{value:.0f} %" if value >= 10 else f"{value:.1f} %" if value >= 0.1 else f"{value:.2g} %"


def micros(value: float) -> str:
    """A time in µs, or in ms where that is long."""
    return f"{format_number(value / 1000)} ms" if value >= 100_000 else f"{format_number(value)} µs"


def _shorter(share: float) -> str:
    return "shorter" if share >= 0 else "longer"


__all__ = ["Cost", "Judgement", "Verdict", "judge", "lines_of_explained", "micros", "percent", "verdict_on"]
