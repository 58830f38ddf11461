"""One compiled version of a function: its guards, what is checked of them, and why it was passed over.

Dynamo's cache entries (``dynamo/entry.py``) and the graphs of ``make_fx`` (``aot/fx_guards.py``) have both one of
these. Entry point: :class:`Entry`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from unified_guards.guards.ir import Guard, GuardSet, Source
from unified_guards.lower.discriminators import program_of
from unified_guards.lower.rows import Program, Row, lower
from unified_guards.simplify.driver import simplify
from unified_guards.simplify.work import Removed

if TYPE_CHECKING:
    from unified_guards.guards.failures import Look


class Failure(NamedTuple):
    """Why an entry did not fit.

    Attributes:
        origin: the guard that did not hold, or the source at which there was no value.
        text: the guard, the values that it saw, who asked for it and for which line of the program.
    """

    origin: Guard | Source
    text: str


def text_of(failure: Failure | None) -> str:
    """The text of a failure; "never checked" for None, an entry whose check has not failed yet."""
    return "never checked" if failure is None else failure.text


class Entry:
    """One compiled version of a function.

    Attributes:
        guard_set: everything that was lifted.
        checked: what is left to check after simplification.
        removed: the rest, each with the rule that removed it.
        stopped: where simplification used up its steps; None when it did not.
        row_origins: what each row of the native program stands for: a guard, or for an accessor its source. Shape
            expressions follow, then the rows of `discriminators`.
        row_count: how many rows the program has.
        python_callbacks: how many Python functions one full check calls.
        discriminators: guards that fail where other entries of the function fit. They are asked first.
    """

    def __init__(self, guard_set: GuardSet) -> None:
        self.guard_set = guard_set
        self.checked: GuardSet
        self.removed: list[Removed]
        self.stopped: str | None
        self.checked, self.removed, self.stopped = simplify(guard_set)
        self.row_origins: list[Guard | Source] = []
        self.row_count = 0
        self.python_callbacks = 0
        self.discriminators: list[Guard] = []

    def lower(self) -> Program:
        """The program that checks `checked`. The entry keeps what its rows stand for, and not the rows.

        Raises:
            CannotLower: a guard has no native form.
        """
        program = lower(self.checked)
        self.row_origins, self.row_count = program.row_origins, len(program.rows)
        self.python_callbacks = program.python_callbacks
        return program

    def discriminator_rows(self, item: Guard) -> tuple[list[Row], int]:
        """The rows that make the native checker ask a guard of `checked` before all others.

        Returns:
            The rows that ask it, and the number by which the checker reports that the first of them failed.
        """
        program, first = program_of(item), len(self.row_origins)
        self.row_origins += program.row_origins
        return program.rows, first

    def origin_of(self, row: int | None) -> Guard | Source | None:
        """What a row stands for, given the row at which a check failed; None when no check has failed yet."""
        return None if row is None else self.row_origins[row]

    def told(self, row: int | None) -> str | None:
        """The guard or source that a row stands for, in words, without looking at a value; None for no row."""
        origin = self.origin_of(row)
        return f"{origin} is missing" if isinstance(origin, Source) else None if origin is None else str(origin)

    def look(self, row: int | None, f_locals: dict[str, Any]) -> Look | None:
        """What the check of ``f_locals`` that failed at ``row`` was asked about; None when no check has failed yet."""
        origin = self.origin_of(row)
        if origin is None:
            return None
        # Imported here, because it loads the slow evaluator: a program that never misses does not need it.
        from unified_guards.guards.failures import failing_of, look

        if isinstance(origin, Source):
            return look(origin, (), f_locals)
        failing = failing_of(self.checked, origin, f_locals)
        return look(failing, self.checked.provenance(failing), f_locals)

    def failure(self, row: int | None, f_locals: dict[str, Any]) -> Failure | None:
        """Why a check of ``f_locals`` failed at ``row``; None when no check has failed yet."""
        seen = self.look(row, f_locals)
        if seen is None:
            return None
        from unified_guards.guards.failures import describe

        return Failure(seen.origin, describe(seen))
