"""What the page says, gathered from a report as plain lists for JSON. Entry point: :func:`gather`.

A large model has thousands of guards over paths that begin alike, made for lines that repeat. So texts, sources, lines
of the program, stacks and guards are tables. Each row stands in its table once, and other rows name it by its number:

- ``sources``: [base, text, label]; in the text :data:`BASE` stands for the text of the base; the label is what the
  treemap calls this step of the path, -1 where the step is not worth a label (``__dict__``).
- ``guards``: [text, test, makers, sources]; in the text ``BASE i BASE`` stands for the text of the i-th source, ``BASE
  s BASE`` for those of all sources; makers are pairs of a maker and a stack, -1 where there is no stack.
- ``stacks``: lines, the innermost last; ``lines``: [file, line, function, source code].
- ``codes``: [name, how many entries there are, how many there may be, what there is to say or null].
- ``entries``: one for each cache entry. ``break``: null, or the line where its graph ended, the reason, and hints. Its
  ``guards``: [guard, state, instructions, live, facts, ns] for each guard that was lifted, then those that took the
  place of others; for one that is not checked, [.., rule, becomes] follow.
"""

from __future__ import annotations

import datetime
import platform
import sys
import traceback
from collections.abc import Hashable
from typing import Any

import torch

from unified_guards.guards.ir import Access, Guard, Provenance, Source, Test
from unified_guards.report.explain import FrameReport, Report
from unified_guards.simplify.work import Removed

#: Stands in a text for the text of a source. Unicode keeps this character for private use, so no other text has it.
BASE = "\ue000"
#: Characters of a text that are shown; a guard may compare with a whole prompt.
_MOST_TEXT = 1000

#: What becomes of a guard.
WITNESS, VOLATILE, TORCH, EVALUATED, REMOVED = range(5)
_OF_TORCH = frozenset({Test.TORCH_LEAF, Test.PREDICATE, Test.SHAPE})

_NAMED = frozenset(
    {Access.DICT_ITEM, Access.ITEM, Access.ATTR, Access.GENERIC_ATTR, Access.GLOBAL_WEAKREF, Access.LOCAL}
)
_NUMBERED = frozenset({Access.LIST_ITEM, Access.TUPLE_ITEM, Access.SET_ITEM, Access.DICT_KEY_AT, Access.DICT_VALUE_AT})
#: Where modules keep what a user knows by its own name.
_HOUSEKEEPING = frozenset({"_modules", "_parameters", "_buffers"})


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"


class _Table:
    """Rows, each once."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self.numbers: dict[Hashable, int] = {}

    def number(self, row: Any) -> int:
        """The number of a hashable row."""
        known = self.numbers.get(row)
        if known is None:
            known = self.numbers[row] = len(self.rows)
            self.rows.append(row)
        return known


class _Tables:
    def __init__(self) -> None:
        self.texts, self.tests, self.makers, self.rules = _Table(), _Table(), _Table(), _Table()
        self.files, self.lines, self.stacks = _Table(), _Table(), _Table()
        self.sources: list[list[int]] = []
        self.guards: list[list[Any]] = []
        self._sources: dict[Source, int] = {}
        self._guards: dict[Guard, int] = {}
        self._stacks: dict[int, tuple[traceback.StackSummary, int]] = {}

    def source(self, item: Source) -> int:
        known = self._sources.get(item)
        if known is not None:
            return known
        missing = [step for step in item.steps() if step not in self._sources]
        for step in reversed(missing):
            base = -1 if step.base is None else self._sources[step.base]
            alone = step.base.text if step.base is not None else ""
            text = step.text.replace(alone, BASE, 1) if alone else step.text
            label = _label(step)
            self._sources[step] = len(self.sources)
            named = -1 if label is None else self.texts.number(label)
            self.sources.append([base, self.texts.number(_shortened(text)), named])
        return self._sources[item]

    def guard(self, item: Guard, makers: tuple[Provenance, ...] = ()) -> int:
        known = self._guards.get(item)
        if known is None:
            known = self._guards[item] = len(self.guards)
            sources = [self.source(source) for source in item.sources]
            text = self.texts.number(_shortened(_text(item)))
            self.guards.append([text, self.tests.number(item.test.name.lower()), [], sources])
        if makers and not self.guards[known][2]:
            self.guards[known][2] = [[self.makers.number(each.maker), self.stack(each.stack)] for each in makers]
        return known

    def stack(self, stack: traceback.StackSummary | None) -> int:
        if not stack:
            return -1
        known = self._stacks.get(id(stack))
        if known is None:
            lines = tuple(self.lines.number(self._line(line)) for line in stack)
            known = self._stacks[id(stack)] = (stack, self.stacks.number(lines))
        return known[1]

    def _line(self, line: traceback.FrameSummary) -> tuple[int, int, int, int]:
        code = _shortened(line.line or "")
        return (
            self.files.number(line.filename),
            line.lineno or 0,
            self.texts.number(line.name),
            self.texts.number(code),
        )

    def data(self) -> dict[str, Any]:
        names = ("texts", "tests", "makers", "rules", "files", "lines", "stacks")
        rows = {name: getattr(self, name).rows for name in names}
        return {**rows, "sources": self.sources, "guards": self.guards}


def _text(item: Guard) -> str:
    places = [f"{BASE}{at}{BASE}" for at in range(len(item.sources))]
    return item.worded(places, f"{BASE}s{BASE}")


def _label(step: Source) -> str | None:
    """What the treemap calls this step of a path."""
    if step.access is Access.GLOBALS:
        return "globals"
    if step.access is Access.TYPE:
        return "its type"
    if step.access in _NUMBERED:
        return str(step.key)
    if step.access in _NAMED and step.key not in _HOUSEKEEPING:
        return _shortened(str(step.key))
    return None


def _state(item: Guard, frame: FrameReport) -> int:
    costs = frame.costs
    if item.test in _OF_TORCH or any(step.access is Access.CALL1 for each in item.sources for step in each.steps()):
        return TORCH
    if costs is None or not costs.remembered:
        return EVALUATED
    return VOLATILE if costs.guards[item].is_live else WITNESS


def _checked(item: Guard, frame: FrameReport) -> list[Any]:
    cost = None if frame.costs is None else frame.costs.guards[item]
    state = _state(item, frame)
    if cost is None:
        return [state, 0, 0, 0, None]
    return [state, cost.instructions, cost.live, cost.facts, None if cost.ns is None else round(cost.ns, 1)]


def _rows(frame: FrameReport, tables: _Tables) -> list[list[Any]]:
    if frame.guard_set is None or frame.checked is None:
        return []
    removed = {step.guard: step for step in frame.removed}
    rows = []
    for item in frame.guard_set:
        number = tables.guard(item, frame.guard_set.provenance(item))
        if item in frame.checked:
            rows.append([number, *_checked(item, frame)])
            continue
        rows.append([number, REMOVED, 0, 0, 0, None, *_why(removed[item], tables)])
    for item in frame.checked:
        if item not in frame.guard_set:
            rows.append([tables.guard(item, frame.checked.provenance(item)), *_checked(item, frame)])
    return rows


def _why(step: Removed, tables: _Tables) -> list[int]:
    return [tables.rules.number(step.rule), -1 if step.becomes is None else tables.guard(step.becomes)]


def _misses(frame: FrameReport, tables: _Tables) -> list[list[Any]]:
    """[when, text, guard, advice]; those of AOT entry points have no time, no guard and no advice.

    The advice is a list of texts: the name of the cause, then lines for reading.
    """
    if not frame.recompilations:
        return [[None, _shortened(text), -1, []] for text in frame.recompile_reasons]
    return [
        [
            each.at,
            _shortened(each.text),
            tables.guard(each.guard) if isinstance(each.guard, Guard) else -1,
            [
                [advice.name, *map(_shortened, advice.lines())]
                for advice in (each.advice, each.limit)
                if advice is not None
            ],
        ]
        for each in frame.recompilations
    ]


def _times(frame: FrameReport) -> dict[str, Any]:
    costs = frame.costs
    if costs is None:
        return {}
    names = ("in_place_ns", "torch_in_place_ns", "check_ns", "exact_ns", "torch_ns", "live_ns")
    times = {name: getattr(costs, name) for name in names}
    return {**{name: ns and round(ns, 1) for name, ns in times.items()}, "timed": costs.checks}


def _entry(frame: FrameReport, tables: _Tables) -> dict[str, Any]:
    checks, hits, misses, callbacks = frame.counts
    return {
        "name": frame.name,
        "id": frame.compile_id,
        "at": frame.compiled_at,
        "torch": None if frame.guard_set is not None else (frame.left_because or ""),
        "break": frame.graph_break
        and [_shortened(text) for text in (*frame.graph_break[:2], *frame.graph_break.hints)],
        "lifted": frame.lifted,
        "merged": frame.merged,
        "makers": {} if frame.guard_set is None else frame.guard_set.counts_by_provenance(),
        "guards": _rows(frame, tables),
        "steps": [[tables.guard(step.guard), *_why(step, tables)] for step in frame.removed],
        "stopped": frame.stopped,
        "checks": frame.guards_checked,
        "instructions": frame.instructions,
        "nbytes": frame.program_nbytes,
        "callbacks": frame.python_callbacks,
        "counts": [checks, hits, misses, callbacks],
        "roots": frame.roots,
        "facts": frame.facts,
        "tensors": frame.tensors,
        "live": len(frame.live),
        "witness_nbytes": frame.witness_nbytes,
        "remembered": frame.costs is not None and frame.costs.remembered,
        "siblings": frame.siblings,
        "telling": [tables.guard(item) for item in frame.discriminators],
        "misses": _misses(frame, tables),
        "times": _times(frame),
    }


def gather(report: Report) -> dict[str, Any]:
    """Everything that the page shows, for ``json.dumps``."""
    tables = _Tables()
    entries = [_entry(frame, tables) for frame in report.frames]
    recompiles = [str(each) for each in getattr(report, "recompiles", ())]
    from unified_guards import __version__

    return {
        "title": report.name,
        "made": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": f"unified_guards {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "command": " ".join(sys.argv),
        "entries": entries,
        "recompiles": recompiles,
        "codes": [[code.name, code.entries, code.most, code.note] for code in report.codes],
        **tables.data(),
    }
