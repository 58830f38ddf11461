"""What the AOT entry points raise."""

from __future__ import annotations

from unified_guards.guards.ir import Guard, Provenance


class GuardError(RuntimeError):
    """A traced graph was called on inputs for which it was not made.

    Attributes:
        guard: the guard that does not hold; None when a value that some guard reads is missing.
        provenance: who asked for it.
    """

    def __init__(self, message: str, guard: Guard | None, provenance: tuple[Provenance, ...]) -> None:
        super().__init__(message)
        self.guard = guard
        self.provenance = provenance


class RecompileLimitError(RuntimeError):
    """A function needed more versions than its ``recompile_limit``, and ``on_recompile_limit="error"``.

    The message says how many there are, and which guard of each does not hold.
    """


class Unguardable(Exception):
    """This call is run eagerly: something that it depends on cannot be checked later. The message says what."""
