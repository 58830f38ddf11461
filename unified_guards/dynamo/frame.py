"""The unified guards of one cache entry of Dynamo's: the set, its native checker, and why it was missed.

Entry point: :class:`Frame`.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from torch._guards import CompileContext

from unified_guards import _C
from unified_guards._environment import is_set
from unified_guards.dynamo import strict
from unified_guards.guards import semantics
from unified_guards.guards.describe import describe, failing_of
from unified_guards.guards.ir import Guard, GuardSet, Source
from unified_guards.lower.discriminators import program_of
from unified_guards.lower.rows import Program, lower, make_checker
from unified_guards.report import costs
from unified_guards.simplify.driver import simplify
from unified_guards.simplify.work import Removed

#: Of one entry that are kept.
_MOST_MISSES = 8


class Miss(NamedTuple):
    """Why a function was compiled again although there was a cache entry.

    Attributes:
        at: when, in seconds since the epoch.
        guard: the guard of the entry that did not hold, or the source that was missing.
        text: the guard, the values that it was asked about, who made it and for which line.
    """

    at: float
    guard: Guard | Source
    text: str


class Frame:
    """The unified guards of one cache entry.

    Attributes:
        guard_set: everything that was lifted.
        checked: what is left to check after simplification.
        removed: the rest, each with the rule that removed it.
        stopped: where simplification used up its steps; None when it did not.
        python_callbacks: how many Python functions one full check calls.
        misses: why the last recompilations happened although there was this entry, the newest last.
        compile_id: torch's name for the compilation that made the entry, as in its logs: "0/1".
        compiled_at: when that was, in seconds since the epoch.
        meaning: what each row of the native program stands for, for reading a failure; then those of `telling`.
        rows: how many the native program has.
        telling: guards that tell this entry from the others of its code, asked first (lower/discriminators.py).
        checker: the native checker.
        measured: what its checks cost; None unless that is measured (report/costs.py).
    """

    def __init__(self, guard_set: GuardSet) -> None:
        self.guard_set = guard_set
        self.checked: GuardSet
        self.removed: list[Removed]
        self.stopped: str | None
        self.checked, self.removed, self.stopped = simplify(guard_set)
        self.meaning: list[Any] = []
        self.rows = 0
        self.python_callbacks = 0
        self.misses: collections.deque[Miss] = collections.deque(maxlen=_MOST_MISSES)
        self.compile_id = str(CompileContext.current_compile_id())
        self.compiled_at = time.time()
        self.telling: list[Guard] = []
        self.checker: _C.Checker
        self.measured: costs.Measured | None = None

    def build(self, oracle: Callable[[dict[str, Any], bool], bool | None] | None, share: float = 1) -> None:
        """Lowers what is to be checked; ``oracle`` is told of that share of the checks."""
        program: Program = lower(self.checked)
        self.meaning, self.rows = program.meaning, len(program.rows)
        self.python_callbacks = program.python_callbacks
        witness = is_set("UNIFIED_GUARDS_WITNESS", "1")
        self.checker = make_checker(program, oracle, witness=witness, share=share)

    def tell(self, item: Guard) -> None:
        """Has the checker ask a guard of `checked` before all others."""
        told = program_of(item)
        self.checker.ask_first(told.rows, len(self.meaning))
        self.meaning += told.meaning

    @property
    def last_failure(self) -> str | None:
        """The guard, or the source that was missing, at which the last miss stopped."""
        at = self.checker.last_failure
        if at is None:
            return None
        meaning = self.meaning[at]
        return f"{meaning} is missing" if isinstance(meaning, Source) else str(meaning)

    @property
    def extras(self) -> GuardSet:
        """The guards that nobody but `install(strict=True)` asked for."""
        return GuardSet(
            (item, maker)
            for item, maker in self.checked.entries()
            if all(each.maker == strict.MAKER for each in self.checked.provenance(item))
        )

    def stopped_at_an_extra(self) -> bool:
        """Whether it was such a guard at which the last miss stopped, or what nothing but such guards reads."""
        at, extras = self.checker.last_failure, self.extras
        meaning = None if at is None else self.meaning[at]
        if isinstance(meaning, Source):
            others = GuardSet(entry for entry in self.checked.entries() if entry[0] not in extras)
            return meaning not in others.sources()
        return meaning in extras

    def failing_extra(self, f_locals: dict[str, Any]) -> str | None:
        """The first such guard that does not hold, as :func:`describe` tells it."""
        extras = self.extras
        failing = semantics.explain_failure(extras, f_locals)
        return None if failing is None else describe(failing, extras.provenance(failing), f_locals)

    def note_miss(self, f_locals: dict[str, Any]) -> None:
        """Called when a frame that this entry did not fit is compiled again."""
        at = self.checker.last_failure
        if at is None:
            return
        meaning = self.meaning[at]
        if isinstance(meaning, Source):
            self.misses.append(Miss(time.time(), meaning, f"{meaning} is missing"))
        else:
            failing = failing_of(self.checked, meaning, f_locals)
            text = describe(failing, self.checked.provenance(failing), f_locals)
            self.misses.append(Miss(time.time(), failing, text))
