"""What was made of a function's guards, for reading. Entry point: :func:`explain`."""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from unified_guards.dynamo import compat, dispatch, made
from unified_guards.dynamo.entry import DynamoEntry, Recompilation
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper, entries_of, managers_on
from unified_guards.dynamo.made import GraphBreak, Made
from unified_guards.dynamo.measure import Compiled
from unified_guards.dynamo.saved import Saved, managers_of
from unified_guards.guards.ir import Guard, GuardSet, Source
from unified_guards.lower.discriminators import shared
from unified_guards.report.costs import Costs, costs_of
from unified_guards.report.targets import find, is_given_up
from unified_guards.simplify.work import Removed
from unified_guards.statistics import counted


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
        left_because: why the guards stayed torch's; None where they did not.
        saved: what is known of the guards' having been saved or loaded; None where they were neither.
        ahead_of_time: whether a call that does not fit is refused, and nothing compiled again.
        graph_break: where the graph ended before the function did, and why; None where it did not.
        number: which entry of its function it is in the report, counted from 1, the oldest.
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
    saved: Saved | None = None
    ahead_of_time: bool = False
    graph_break: GraphBreak | None = None
    number: int = 1

    # The names in 0.1 before its release: "checks" and "misses" mean something else in Stats.
    checks = _renamed("checks", "guards_checked")
    misses = _renamed("misses", "recompile_reasons")
    missed = _renamed("missed", "recompilations")
    telling = _renamed("telling", "discriminators")

    @property
    def title(self) -> str:
        """The name, with torch's id of the compilation as its logs have it; where there is none, the number."""
        return f"{self.name} [{self.compile_id or f'entry {self.number}'}]"

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
            return "\n".join([self.title, f"  torch's own guards: {self.left_because}", *self._of_graph_break()])
        makers = ", ".join(f"{maker} {count:,}" for maker, count in self.guard_set.counts_by_provenance().items())
        lines = [
            self.title,
            *([] if self.saved is None else [f"  {self.saved}"]),
            f"  {self._relation()}",
            f"  guards are of {makers}, over {counted(len(self.guard_set.sources()), 'source', 'sources')}",
            *([f"  {self.merged:,} said the same as another"] if self.merged else []),
            *self._simplification(),
            f"  checks take {counted(self.instructions, 'instruction', 'instructions')}, "
            f"{self.program_nbytes:,} bytes, {counted(self.python_callbacks, 'Python callback', 'Python callbacks')}",
            *self._of_witness(),
            *self._of_siblings(),
            *self._of_graph_break(),
            f"  asked {counted(self.counts[0], 'time', 'times')}: {counted(self.counts[1], 'hit', 'hits')}, "
            f"{counted(self.counts[2], 'miss', 'misses')}",
        ]
        if self.last_failure is not None:
            lines.append(f"  the last miss stopped at: {self.last_failure}")
        lines += [f"  {line}" for line in self._recompiles()]
        return "\n".join(lines)

    def _relation(self) -> str:
        """How many guards there are, and what is left of them to check."""
        checks = counted(self.guards_checked, "check", "checks")
        return f"{counted(self.lifted, 'guard', 'guards')}, {checks} after simplifying"

    def _recompiles(self) -> list[str]:
        """Why it was compiled again, and what to do. What is to be done is told once."""
        outcome = "refused a call" if self.ahead_of_time else "compiled again"
        told: set[str] = set()
        lines: list[str] = []
        for each in self.recompilations:
            lines += each.lines(told, outcome)
            told.update(advice.remedy for advice in (each.advice, each.limit) if advice is not None)
        return lines or [f"{outcome} because of: {reason}" for reason in self.recompile_reasons]

    def _simplification(self) -> list[str]:
        """How often each rule applied, and where simplification stopped if it used up its steps."""
        steps = collections.Counter(
            ("removed" if item.becomes is None else "rewrote", item.rule) for item in self.removed
        )
        lines = [f"  {what} {count:,}: {rule}" for (what, rule), count in steps.items()]
        return lines if self.stopped is None else [*lines, f"  simplification stopped {self.stopped}"]

    def _of_witness(self) -> Iterator[str]:
        if self.roots:
            of = f"{self.roots:,} objects" if self.roots > 1 else "one object"
            yield (
                f"  remembers of {of}: {counted(self.facts, 'fact', 'facts')} and "
                f"{counted(self.tensors, 'tensor', 'tensors')} to compare, in "
                f"{self.witness_nbytes:,} bytes; evaluates {counted(len(self.live), 'instruction', 'instructions')} "
                "each time"
            )

    def _of_siblings(self) -> Iterator[str]:
        if self.siblings:
            others = f"{self.siblings:,} other entries" if self.siblings > 1 else "another entry"
            first = "; ".join(map(str, self.discriminators)) or "nothing, for no one guard tells them apart"
            yield f"  shares {counted(self.shared, 'check', 'checks')} with {others}; asks first: {first}"

    def _of_graph_break(self) -> list[str]:
        return [] if self.graph_break is None else [f"  graph break {self.graph_break}".replace("\n", "\n  ")]

    def __str__(self) -> str:
        if self.guard_set is None:
            return self.summary()
        lines = [self.summary(), *_indented(self.guard_set)]
        if self.saved is not None and self.saved.dropped:
            lines += ["  dropped by torch when it saved them:", *_indented(*self.saved.dropped)]
        if self.removed:
            lines += ["  simplified:", *_indented(*self.removed), "  to:", *_indented(self.checked)]
        return "\n".join(lines)


def _indented(*parts: object) -> list[str]:
    return [f"    {line}" for part in parts for line in str(part).splitlines()]


@dataclasses.dataclass(frozen=True)
class CodeReport:
    """How many cache entries torch has for one code object, and whether it makes more.

    Attributes:
        name: the function, with the file and line where it starts.
        entries: how many there are, those of all who share the code.
        most: how many there may be (``torch._dynamo.config.recompile_limit``).
        uncompiled: why torch runs the code uncompiled where no entry fits; None while it compiles it then.
    """

    name: str
    entries: int
    most: int
    uncompiled: str | None = None

    @property
    def note(self) -> str | None:
        """What there is to say beside the count; None while all is as it should be."""
        if not self.entries:
            return f"{self.name} runs uncompiled: {self.uncompiled}"
        if self.uncompiled is not None:
            return f"{self.name} is compiled no more, and runs uncompiled where no entry fits: {self.uncompiled}"
        if self.entries >= self.most:
            return f"{self.name} is at the limit: where no entry fits it will run uncompiled (fullgraph=True: raise)"
        return None

    def __str__(self) -> str:
        line = f"entries of {self.name}: {self.entries} of at most {self.most}"
        return line if self.note is None else f"{line}\n{self.note}"


@dataclasses.dataclass(frozen=True)
class Report:
    """What was made of the guards of a function: one :class:`FrameReport` for each of its cache entries.

    Of each function the newest entry is the first.
    """

    name: str
    frames: tuple[FrameReport, ...]
    calls: tuple[int, dict[str, int]] | None = dataclasses.field(default=None, kw_only=True)
    """How many calls of the target went straight to a graph, and why others did not; None where that is not known."""
    _SORTED: ClassVar[str] = "of each function the newest first"
    codes: tuple[CodeReport, ...] = dataclasses.field(default=(), kw_only=True)
    """For each code object how many entries it has of how many, and whether torch compiles it again."""

    def summary(self) -> str:
        """Counts of every frame, without the guards themselves."""
        parts = [*(frame.summary() for frame in self.frames), *self._of_codes(), *self._ways()]
        return "\n".join([*self._empty(), *self._order(), *parts])

    def _order(self) -> list[str]:
        """How the entries are listed and marked."""
        if not self.frames:
            return []
        listed = f"{self._SORTED}; " if len(self.frames) > 1 else ""
        ids = "[0/1] is torch's id of a compilation, as in TORCH_LOGS"
        numbers = "[entry 1] is the first one, where torch's id is not known"
        known = [frame.compile_id is not None for frame in self.frames]
        marked = [text for text, is_needed in ((ids, any(known)), (numbers, not all(known))) if is_needed]
        return [f"{counted(len(self.frames), 'cache entry', 'cache entries')}: {listed}{'; '.join(marked)}"]

    def _of_codes(self) -> list[str]:
        counts = [f"{each.name.partition(' (')[0]} {each.entries}" for each in self.codes if each.entries]
        most = {each.most for each in self.codes if each.entries}
        lines = [f"entries, of at most {min(most)} for each code: {', '.join(counts)}"] if counts else []
        return [*lines, *(each.note for each in self.codes if each.note is not None)]

    def _ways(self) -> list[str]:
        if self.calls is None:
            return []
        short, long = self.calls
        lines = [f"calls of {self.name}: {short:,} went the short way, {sum(long.values()):,} torch's way"]
        return [*lines, *(f"  {count:,} because: {reason}" for reason, count in long.items())]

    def _empty(self) -> list[str]:
        if self.frames or self.codes:
            return []
        missing = (
            "call what torch.compile returned once"
            if self.calls is not None
            else ("call unified_guards.install(), compile it with torch.compile and call it once")
        )
        return [f"{self.name} has no compiled code yet: {missing}."]

    def __str__(self) -> str:
        parts = [*map(str, self.frames), "\n".join(self._of_codes()), "\n".join(self._ways())]
        return "\n\n".join([*self._empty(), *self._order(), *filter(None, parts)])

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
        saved=entry.saved,
        **_remembered(entry),
    )


def given_up() -> list[CodeReport]:
    """The functions of the user's that torch has tried to compile, and runs uncompiled."""
    codes = [code for code in made.seen() if is_given_up(code) and not made.entry_count(code)]
    return [_code_report(made.name_of(code), code, 0, 0) for code in codes]


def report_of(name: str, compiled: Sequence[Compiled], others: Sequence[CodeReport] = ()) -> Report:
    """A report on everything that was compiled while a program ran, whether it is still there or not.

    Args:
        name: of the program.
        compiled: the entries.
        others: code that has none.
    """
    made_of: dict[int, list[FrameReport]] = {}
    for code, entry, known in compiled:
        of_code = [each.entry for each in compiled if each.code is code and each.entry is not None]
        frame = _left_report(known.name, known) if entry is None else frame_report(known.name, entry, of_code)
        made_of.setdefault(id(code), []).append(dataclasses.replace(frame, graph_break=known.graph_break))
    frames = [frame for of_one in made_of.values() for frame in _newest_first(of_one[::-1])]
    names = {id(each.code): each.made.name for each in reversed(compiled)}
    counts = collections.Counter(id(each.code) for each in compiled)
    codes = {id(each.code): each.code for each in compiled}
    most = min(compat.recompile_limits(None))
    return Report(
        name,
        tuple(frames),
        codes=(*(_code_report(names[key], code, counts[key], most) for key, code in codes.items()), *others),
    )


def _newest_first(frames: Sequence[FrameReport]) -> list[FrameReport]:
    """The entries of one function. Torch lists that first which was used last; those without an id stay behind.

    The number of each is put in.
    """

    def id_of(frame: FrameReport) -> list[int]:
        return [int(part) for part in re.findall(r"\d+", frame.compile_id or "")]

    ordered = sorted(frames, key=id_of, reverse=True)
    return [dataclasses.replace(frame, number=len(ordered) - at) for at, frame in enumerate(ordered)]


def _left_report(name: str, known: Made | None, wrapper: Any = None) -> FrameReport:
    if known is None:
        return FrameReport(name, None, left_because=made.BEFORE_INSTALL, compile_id=made.compile_id_of(wrapper))
    return FrameReport(name, None, left_because=known.left, compile_id=known.compile_id)


def _entry_report(code: types.CodeType, wrapper: Any, entries: list[DynamoEntry]) -> FrameReport:
    known = made.of(wrapper)
    name = made.name_of(code) if known is None else known.name
    if isinstance(wrapper, UnifiedGuardManagerWrapper):
        report = frame_report(name, wrapper.entry, entries)
    else:
        report = _left_report(name, known, wrapper)
    return dataclasses.replace(report, graph_break=None if known is None else known.graph_break)


def _code_report(name: str, code: types.CodeType, entries: int, most: int) -> CodeReport:
    why = made.uncompiled(code)
    where = f" (at {why.where})" if why is not None and why.where is not None else ""
    return CodeReport(name, entries, most, None if why is None else f"{why.reason}{where}")


def _remembered(entry: DynamoEntry) -> dict[str, Any]:
    witness = entry.checker.witness
    if witness is not None and not witness["roots"] and entry.measured is not None:
        witness = entry.measured.witness  # the objects have died since
    if witness is None:
        return {}
    live = tuple(entry.row_origins[row] for row in witness["live_rows"])
    counted = {name: witness[name] for name in ("roots", "facts", "tensors")}
    return {**counted, "live": live, "witness_nbytes": witness["nbytes"]}


def explain(target: Callable[..., Any] | types.CodeType) -> Report:
    """The unified guards of a compiled function, module or code object.

    Args:
        target: what was given to ``torch.compile``, what it, its ``aot_compile`` or an AOT entry point returned, what
            ``torch.compiler.load_compiled_function`` did, a module of which parts are compiled, or a code object.

    Returns:
        A :class:`Report`; printing it shows every guard with who asked for it, what was merged or removed, what stayed
        with torch and why, graph breaks, and how many entries there are of how many. Without compiled code it says what
        to do.

    Raises:
        TypeError: ``target`` is nothing that Dynamo compiles.
    """
    if hasattr(target, "cache_info") and hasattr(target, "explain"):
        own: Report = target.explain()  # what aot_function or aot_module returned
        return own
    ahead_of_time = [_entry_report(code, manager, []) for code, manager in managers_of(target)]
    if ahead_of_time:
        refusing = (dataclasses.replace(report, ahead_of_time=True) for report in ahead_of_time)
        return Report(type(target).__name__, tuple(refusing))
    found = find(target)
    most = min(compat.recompile_limits(next(iter(found.wrappers), None)))
    frames: list[FrameReport] = []
    codes: list[CodeReport] = []
    left: list[CodeReport] = []  # what torch leaves uncompiled as a matter of course
    for code in found.compiled():
        ours = entries_of(code)
        its = [manager for manager in managers_on(code) if found.has(code, manager)]
        reports = _newest_first([_entry_report(code, manager, ours) for manager in its])
        frames += reports
        if reports or made.uncompiled(code) is not None:
            name = reports[0].name if reports else made.name_of(code)
            codes.append(_code_report(name, code, made.entry_count(code) if reports else 0, most))
            left += [codes[-1]] if not reports and not is_given_up(code) else []
    if frames:
        codes = [each for each in codes if each not in left]
    calls = [counts for wrapper in found.wrappers if (counts := dispatch.counts_of(wrapper)) is not None]
    return Report(found.name, tuple(frames), calls=_added(calls), codes=tuple(codes))


def _added(calls: list[tuple[int, dict[str, int]]]) -> tuple[int, dict[str, int]] | None:
    if not calls:
        return None
    long: collections.Counter[str] = collections.Counter()
    for _, reasons in calls:
        long.update(reasons)
    return sum(short for short, _ in calls), dict(long)
