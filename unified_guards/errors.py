"""Everything that this package raises on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unified_guards.guards.ir import Guard, Provenance


class UnifiedGuardsError(Exception):
    """The base class of all errors of this package."""


class GuardError(UnifiedGuardsError, RuntimeError):
    """A traced graph was called on inputs for which it was not made.

    Attributes:
        guard: the guard that does not hold; None when a value that some guard reads is missing.
        provenance: who asked for it.
    """

    def __init__(self, message: str, guard: Guard | None, provenance: tuple[Provenance, ...]) -> None:
        super().__init__(message)
        self.guard = guard
        self.provenance = provenance


class RecompileLimitError(UnifiedGuardsError, RuntimeError):
    """A function needed more versions than its ``recompile_limit``, and ``on_recompile_limit="error"``.

    The message says how many there are, and which guard of each does not hold.
    """


class FallbackError(UnifiedGuardsError, RuntimeError):
    """Under ``UNIFIED_GUARDS_NO_FALLBACK=1``: a frame's guards could not be lifted. The message says why.

    Raised where the frame is compiled. Without the variable the reason is counted in
    ``stats().frames_left_to_torch``, and the frame keeps torch's guards.
    """


class GuardDisagreement(UnifiedGuardsError, AssertionError):
    """Under ``UNIFIED_GUARDS_VERIFY=1``: the native checker and torch's tree gave different verdicts on a frame.

    Raised by the call that was checked; the message has both verdicts and the guard that failed. It is a bug of ours,
    or code of yours that a guard runs answers differently each time.
    """


class Unguardable(UnifiedGuardsError):
    """Never leaves this package: a call of an AOT entry point is run eagerly, because something that it depends on
    cannot be checked later. The message says what."""
