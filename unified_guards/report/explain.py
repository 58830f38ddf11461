"""What was made of a function's guards, for reading. Entry point: :func:`explain`."""

from __future__ import annotations

import collections
import dataclasses
import os
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.eval_frame import _debug_get_cache_entry_list

from unified_guards.dynamo import dispatch
from unified_guards.dynamo.entry import DynamoEntry, Recompilation
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper, entries_of
from unified_guards.dynamo.measure import Compiled
from unified_guards.guards.ir import Guard, GuardSet, Source
from unified_guards.lower.discriminators import shared
from unified_guards.report.costs import Costs, costs_of
from unified_guards.simplify.work import Removed


def _renamed(old: str, new: str) -> Any:
    """The attribute ``old``, which reads ``new`` and warns, until 0.2."""

    def read(self: Any) -> Any:
        warnings.warn(f"FrameReport.{old} is now FrameReport.{new}", DeprecationWarning, stacklevel=2)
        return getattr(self, new)

    return property(read, doc=f"The old name of :attr:`{new}`, until 0.2.")


@dataclasses.dataclass(frozen=True)
class FrameReport:
    """One cache entry.

    Attributes:
        name: the function, with the file and line where it starts.
        guard_set: everything that was lifted; None when the guards stayed torch's.
        checked: the guards that are checked on every call.
        removed: the guards that need not be checked, each with the rule that says why.
        guards_checked: how many guards are checked on every call, those of shapes one by one.
        instructions: length of the native program that checks them.
        program_nbytes: bytes that the native program holds.
        python_callbacks: Python functions that one full check calls.
        counts: what :class:`Stats` counts, for this entry alone: (checks, hits, misses, python_callbacks).
        last_failure: the guard at which the last miss stopped.
        recompile_reasons: why the function was compiled again although there was this entry, the newest reason last:
            the guard that did not hold, the values that it saw, who asked for it and for which line.
        siblings: how many other entries of the same code are checked natively.
        shared: how many guards of this entry all those entries have, too. They are checked after `discriminators`.
        discriminators: the guards that tell this entry from the others. They are asked first.
        stopped: where simplification used up its steps; None when it did not.
        roots: how many objects the witness remembers facts for. 36 layers that share one ``forward`` are 36 roots.
        facts: words of memory that are compared instead of evaluating guards, added up over all roots.
        tensors: tensors that are compared besides, added up over all roots.
        live: what is evaluated on every check all the same, for the root that was checked last.
        witness_nbytes: bytes that the witness takes; part of `program_nbytes`.
        recompilations: the same as `recompile_reasons`, each with its guard, its time, and advice on what to do.
        compile_id: torch's name for the compilation that made the entry, as in its logs: "0/1".
        compiled_at: when that was, in seconds since the epoch.
        costs: what a check costs, by guard; times only if ``UNIFIED_GUARDS_PROFILE=1`` when it was compiled.
        left_because: why the guards stayed torch's, if that is known.
    """

    name: str
    guard_set: GuardSet | None
    checked: GuardSet | None = None
    removed: tuple[Removed, ...] = ()
    guards_checked: int = 0
    instructions: int = 0
    program_nbytes: int = 0
    python_callbacks: int = 0
    counts: tuple[int, int, int, int] = (0, 0, 0, 0)
    last_failure: str | None = None
    recompile_reasons: tuple[str, ...] = ()
    siblings: int = 0
    shared: int = 0
    discriminators: tuple[Guard, ...] = ()
    stopped: str | None = None
    roots: int = 0
    facts: int = 0
    tensors: int = 0
    live: tuple[Guard | Source, ...] = ()
    witness_nbytes: int = 0
    recompilations: tuple[Recompilation, ...] = ()
    compile_id: str | None = None
    compiled_at: float | None = None
    costs: Costs | None = None
    left_because: str | None = None

    # The names in 0.1 before its release: "checks" and "misses" mean something else in Stats.
    checks = _renamed("checks", "guards_checked")
    misses = _renamed("misses", "recompile_reasons")
    missed = _renamed("missed", "recompilations")
    telling = _renamed("telling", "discriminators")

    @property
    def lifted(self) -> int:
        """How many guards were lifted. One that several makers asked for counts once for each of them."""
        return 0 if self.guard_set is None else sum(1 for _ in self.guard_set.entries())

    @property
    def merged(self) -> int:
        """How many of the lifted guards say the same as another."""
        return 0 if self.guard_set is None else self.lifted - len(self.guard_set)

    def summary(self) -> str:
        """Counts, without the guards themselves."""
        if self.guard_set is None:
            return f"{self.name}\n  torch's own: compiled without install(), without guards, or left (see stats())"
        makers = ", ".join(f"{count} {maker}" for maker, count in self.guard_set.counts_by_provenance().items())
        lines = [
            self.name,
            f"  lifted {self.lifted} guards ({makers}) over {len(self.guard_set.sources())} sources",
            f"  merged {self.merged} that said the same",
            *self._simplification(),
            f"  checks {self.guards_checked} in {self.instructions} instructions, {self.program_nbytes} bytes, "
            f"{self.python_callbacks} Python callbacks",
            *self._of_witness(),
            *self._of_siblings(),
            f"  asked {self.counts[0]} times: {self.counts[1]} hits, {self.counts[2]} misses",
        ]
        if self.last_failure is not None:
            lines.append(f"  the last miss stopped at: {self.last_failure}")
        lines += [f"  {line}" for line in self._recompiles()]
        return "\n".join(lines)

    def _recompiles(self) -> list[str]:
        """Why it was compiled again, and what to do. What is to be done is told once."""
        told: set[str] = set()
        lines: list[str] = []
        for each in self.recompilations:
            lines += each.lines(told)
            told.update(advice.remedy for advice in (each.advice, each.limit) if advice is not None)
        return lines or [f"compiled again because of: {reason}" for reason in self.recompile_reasons]

    def _simplification(self) -> list[str]:
        """How often each rule applied, and where simplification stopped if it used up its steps."""
        steps = collections.Counter(
            ("removed" if item.becomes is None else "rewrote", item.rule) for item in self.removed
        )
        lines = [f"  {what} {count}: {rule}" for (what, rule), count in steps.items()]
        return lines if self.stopped is None else [*lines, f"  simplification stopped {self.stopped}"]

    def _of_witness(self) -> Iterator[str]:
        if self.roots:
            of = f"{self.roots} objects" if self.roots > 1 else "one object"
            yield (
                f"  remembers of {of}: {self.facts} facts and {self.tensors} tensors to compare, in "
                f"{self.witness_nbytes} bytes; evaluates {len(self.live)} instructions on every check"
            )

    def _of_siblings(self) -> Iterator[str]:
        if self.siblings:
            others = f"{self.siblings} other entries" if self.siblings > 1 else "another entry"
            first = "; ".join(map(str, self.discriminators)) or "nothing, for no one guard tells them apart"
            yield f"  shares {self.shared} of them with {others}; asks first: {first}"

    def __str__(self) -> str:
        if self.guard_set is None:
            return self.summary()
        lines = [self.summary(), *_indented(self.guard_set)]
        if self.removed:
            lines += ["  simplified:", *_indented(*self.removed), "  to:", *_indented(self.checked)]
        return "\n".join(lines)


def _indented(*parts: object) -> list[str]:
    return [f"    {line}" for part in parts for line in str(part).splitlines()]


@dataclasses.dataclass(frozen=True)
class Report:
    """What was made of the guards of a function: one :class:`FrameReport` for each of its cache entries."""

    name: str
    frames: tuple[FrameReport, ...]
    calls: tuple[int, dict[str, int]] | None = dataclasses.field(default=None, kw_only=True)
    """How many calls of the target went straight to a graph, and why others did not; None where that is not known."""

    def summary(self) -> str:
        """Counts of every frame, without the guards themselves."""
        return "\n".join([*(frame.summary() for frame in self.frames), *self._ways()]) or self._empty()

    def _ways(self) -> list[str]:
        if self.calls is None:
            return []
        short, long = self.calls
        lines = [f"calls of {self.name}: {short} went the short way, {sum(long.values())} torch's way"]
        return [*lines, *(f"  {count} because: {reason}" for reason, count in long.items())]

    def _empty(self) -> str:
        return (
            f"{self.name} has no compiled code yet: call unified_guards.install(), compile it with torch.compile "
            "and call it once."
        )

    def __str__(self) -> str:
        parts = [*map(str, self.frames), "\n".join(self._ways())]
        return "\n\n".join(filter(None, parts)) or self._empty()

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Writes the report as one page that needs nothing else, for any browser.

        Args:
            path: the file. One that is there is overwritten.

        Returns:
            The path.

        Raises:
            FileNotFoundError: the folder does not exist.
        """
        # Imported here, because page.py imports this module.
        from unified_guards.report.html.page import write

        return write(self, path)


def _codes(target: Any) -> Iterator[types.CodeType]:
    """The code objects that Dynamo may have compiled for ``target``."""
    if isinstance(target, types.CodeType):
        yield target
        return
    if isinstance(target, torch.nn.Module):
        inner = getattr(target, "_orig_mod", target)
        yield from _codes(inner.forward)
        yield from _codes(type(inner).__call__)
        return
    inner = getattr(target, "_torchdynamo_orig_callable", None) or getattr(target, "__wrapped__", None)
    if inner is not None and inner is not target:
        yield from _codes(inner)
    code = getattr(getattr(target, "__func__", target), "__code__", None)
    if isinstance(code, types.CodeType):
        yield code


def _name_of(code: types.CodeType) -> str:
    return f"{code.co_name} ({code.co_filename}:{code.co_firstlineno})"


def frame_report(name: str, entry: DynamoEntry, entries: list[DynamoEntry]) -> FrameReport:
    """The report of one entry of a function that has these."""
    siblings = [other for other in entries if other is not entry]
    return FrameReport(
        name,
        entry.guard_set,
        entry.checked,
        tuple(entry.removed),
        len(entry.checked),
        entry.checker.length,
        entry.checker.nbytes,
        entry.python_callbacks,
        entry.checker.counts,
        entry.last_failure,
        tuple(each.text for each in entry.recompilations),
        len(siblings),
        shared(entry, siblings),
        tuple(entry.discriminators),
        stopped=entry.stopped,
        recompilations=tuple(entry.recompilations),
        compile_id=entry.compile_id,
        compiled_at=entry.compiled_at,
        costs=costs_of(entry),
        **_remembered(entry),
    )


def report_of(name: str, made: Sequence[Compiled]) -> Report:
    """A report on everything that was compiled while a program ran, whether it is still there or not."""
    frames = []
    for code, entry, why in made:
        of_code = [each.entry for each in made if each.code is code and each.entry is not None]
        title = _name_of(code)
        frames.append(
            FrameReport(title, None, left_because=why) if entry is None else frame_report(title, entry, of_code)
        )
    return Report(name, tuple(frames))


def _entry_report(code: types.CodeType, wrapper: Any, entries: list[DynamoEntry]) -> FrameReport:
    name = _name_of(code)
    if not isinstance(wrapper, UnifiedGuardManagerWrapper):
        return FrameReport(name, None)
    return frame_report(name, wrapper.entry, entries)


def _remembered(entry: DynamoEntry) -> dict[str, Any]:
    witness = entry.checker.witness
    if witness is not None and not witness["roots"] and entry.measured is not None:
        witness = entry.measured.witness  # the objects have died since
    if witness is None:
        return {}
    live = tuple(entry.row_origins[row] for row in witness["live_rows"])
    counted = {name: witness[name] for name in ("roots", "facts", "tensors")}
    return {**counted, "live": live, "witness_nbytes": witness["nbytes"]}


def _resumed(code: types.CodeType) -> Iterator[types.CodeType]:
    """The code that Dynamo made to go on after graph breaks in ``code``, itself possibly broken again."""
    from torch._dynamo.resume_execution import ContinueExecutionCache

    for made in ContinueExecutionCache.cache.get(code, {}).values():
        if isinstance(made, types.CodeType):
            yield made


def explain(target: Callable[..., Any] | types.CodeType) -> Report:
    """The unified guards of a compiled function, module or code object.

    Args:
        target: what was given to ``torch.compile``, what it or an AOT entry point returned, or a code object.

    Returns:
        A :class:`Report`; printing it shows every guard with who asked for it, what was merged or removed, and what
        stayed with torch. Without compiled code it says what to do.

    Raises:
        TypeError: ``target`` is nothing that Dynamo compiles.
    """
    if hasattr(target, "cache_info") and hasattr(target, "explain"):
        found: Report = target.explain()  # what aot_function or aot_module returned
        return found
    codes = list(dict.fromkeys(_codes(target)))
    if not codes:
        raise TypeError(
            "explain() takes a function, a module, what torch.compile returned, or a code object; "
            f"got {type(target).__name__}"
        )
    frames: list[FrameReport] = []
    seen: set[types.CodeType] = set()
    while codes:
        code = codes.pop(0)
        if code in seen:
            continue
        seen.add(code)
        entries = entries_of(code)
        frames += (_entry_report(code, entry.guard_manager, entries) for entry in _debug_get_cache_entry_list(code))
        codes += _resumed(code)
    name = getattr(target, "co_name", None) or getattr(target, "__name__", type(target).__name__)
    return Report(str(name), tuple(frames), calls=dispatch.counts_of(target))
