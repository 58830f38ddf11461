"""A cache entry of Dynamo's whose guards are checked natively, and why it was passed over.

Entry point: :class:`DynamoEntry`.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, NamedTuple

from torch._guards import CompileContext

from unified_guards import _C, config
from unified_guards.dynamo import recompiles
from unified_guards.dynamo.measure import Measured, Observer
from unified_guards.dynamo.strict.known import MAKER
from unified_guards.entry import Entry
from unified_guards.guards.ir import Guard, GuardSet, Source
from unified_guards.lower.rows import make_checker
from unified_guards.verify import Judge

if TYPE_CHECKING:
    from unified_guards.dynamo.saved import Saved
    from unified_guards.report.advice import Advice

#: How many of the last recompilations are kept of one entry.
_MOST_RECOMPILATIONS = 8
_AGAIN = "compiled again"


class Recompilation(NamedTuple):
    """Why a function was compiled again although there was a cache entry.

    Attributes:
        at: when, in seconds since the epoch.
        guard: the guard of the entry that did not hold, or the source that was missing; None where all guards hold, and
            the entry is another backend's.
        text: the guard, the values that it saw, who asked for it and for which line of the program.
        advice: the cause in the user's words, and what to do; None if that could not be found out.
        compile_id: torch's name for the compilation that this led to, as in its logs: "0/1"; None for none.
        limit: what to do about the limit for which the function was not compiled; None where it was.
    """

    at: float
    guard: Guard | Source | None
    text: str
    advice: Advice | None = None
    compile_id: str | None = None
    limit: Advice | None = None

    def lines(self, told: Collection[str] = (), outcome: str = _AGAIN) -> list[str]:
        """What happened, the cause, and what to do, for reading. Of remedies that were told before, the cause alone."""
        what = outcome if self.limit is None else "not compiled again, for a limit is reached,"
        if self.compile_id is None and outcome == _AGAIN:
            what = "not compiled again, for that was forbidden, and did not fit"
        lines = [f"{what} because of: {self.text}"]
        for advice in (self.advice, self.limit):
            if advice is not None:
                lines += [f"  {line}" for line in advice.lines(told)]
        return lines


class DynamoEntry(Entry):
    """One cache entry.

    Attributes:
        recompilations: the last times that the function was compiled again although there was this entry, the newest
            last.
        function: the name of what was compiled, with the file and line where it starts.
        compile_id: torch's name for the compilation that made the entry, as in its logs: "0/1"; None if it was loaded
            outside of one.
        compiled_at: when that was, in seconds since the epoch.
        checker: the native checker.
        measured: what its checks cost; None unless that is measured (dynamo/measure.py).
        judge: what becomes of a call that goes wrong; None unless UNIFIED_GUARDS_VERIFY compares some.
        saved: what is known of the guards' having been saved or loaded; None where they were neither.
    """

    def __init__(self, guard_set: GuardSet) -> None:
        super().__init__(guard_set)
        self.recompilations: collections.deque[Recompilation] = collections.deque(maxlen=_MOST_RECOMPILATIONS)
        self.function = ""
        compile_id = CompileContext.current_compile_id()
        self.compile_id = None if compile_id is None else str(compile_id)
        self.compiled_at = time.time()
        self.checker: _C.Checker
        self.measured: Measured | None = None
        self.judge: Judge | None = None
        self.saved: Saved | None = None

    def build(self, observer: Observer | None, share: float = 1) -> None:
        """Lowers the guards and makes the native checker. ``observer`` is told of that share of the checks."""
        self.checker = make_checker(self.lower(), observer, witness=config.witness, share=share)

    def ask_first(self, item: Guard) -> None:
        """Has the checker ask a guard of `checked` before all others."""
        self.checker.ask_first(*self.discriminator_rows(item))

    @property
    def last_failure(self) -> str | None:
        """The guard, or the source that was missing, at which the last miss stopped."""
        return self.told(self.checker.last_failure)

    @property
    def extras(self) -> GuardSet:
        """The guards that nobody but `install(strict=True)` asked for."""
        return GuardSet(
            (item, maker)
            for item, maker in self.checked.entries()
            if all(each.maker == MAKER for each in self.checked.provenance(item))
        )

    def stopped_at_an_extra(self) -> bool:
        """Whether the last miss stopped at a guard of `extras`, or at a source that only guards of `extras` read."""
        origin, extras = self.origin_of(self.checker.last_failure), self.extras
        if isinstance(origin, Source):
            others = GuardSet(entry for entry in self.checked.entries() if entry[0] not in extras)
            return origin not in others.sources()
        return origin in extras

    def failing_extra(self, f_locals: dict[str, Any]) -> str | None:
        """The first guard of `extras` that does not hold, told as in :class:`Recompilation`."""
        # Imported here: only a miss is explained by the slow evaluator.
        from unified_guards.guards.failures import describe, look
        from unified_guards.guards.semantics import explain_failure

        extras = self.extras
        failing = explain_failure(extras, f_locals)
        return None if failing is None else describe(look(failing, extras.provenance(failing), f_locals))

    def note_recompilation(self, f_locals: dict[str, Any], *, holds: bool = False) -> None:
        """Called when a frame that this entry did not fit is compiled again.

        Args:
            f_locals: the locals of the frame.
            holds: whether all guards hold, so that the entry was passed over because of its backend.
        """
        # Imported here: only a miss is explained.
        from unified_guards.guards.failures import describe
        from unified_guards.report import advice

        compile_id = CompileContext.current_compile_id()
        led_to = None if compile_id is None else str(compile_id)
        if holds:
            if led_to is None:
                return  # asked by something else than a compilation
            made = Recompilation(time.time(), None, "no guard, for all of them hold", advice.NO_GUARD, led_to)
        else:
            seen = self.look(self.checker.last_failure, f_locals)
            if seen is None:
                return
            made = Recompilation(time.time(), seen.origin, describe(seen), advice.advice_on(seen), led_to)
        self.recompilations.append(made)
        recompiles.note(self, made)

    def not_for(self, noted: Recompilation, limit: str, most: int) -> Recompilation:
        """Replaces what was noted last, where the frame is not compiled because a limit is reached."""
        from unified_guards.report.advice import on_limit

        made = noted._replace(limit=on_limit(limit, most))
        if self.recompilations and self.recompilations[-1] is noted:
            self.recompilations[-1] = made
        return made
