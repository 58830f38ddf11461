"""What ``UNIFIED_GUARDS_VERIFY`` asks for, and what becomes of a verdict that another evaluator does not give.

Entry points: :func:`share`, :class:`Judge`.
"""

from __future__ import annotations

import sys
import warnings

from unified_guards import config
from unified_guards._environment import Problem, share_to_verify
from unified_guards.errors import GuardDisagreement
from unified_guards.statistics import tally

_told: set[str] = set()


def share() -> float:
    """Of the checks of what is compiled now, how many are to be compared: from 0 to 1. Says once what is wrong."""
    found = config.verify if config.is_assigned("verify") else share_to_verify()
    if not isinstance(found, Problem):
        return found
    if str(found) not in _told:
        _told.add(str(found))
        _warn(str(found))
    return 0.0


def _warn(message: str) -> None:
    try:
        warnings.warn(message, stacklevel=3)
    except Warning:  # warnings are errors here; neither importing torch nor a check may fail by one
        print(message, file=sys.stderr)


class Judge:
    """Of one cache entry: raises on a wrong verdict where every check is compared, else takes the other one's."""

    def __init__(self, share: float, name: str, other: str) -> None:
        self.raises = share >= 1
        self.name = name
        self.other = other
        self.warned = False

    def disagree(self, verdict: bool, failing: str | None) -> bool:
        """The verdict to give instead of ``verdict``.

        Args:
            verdict: of the native checker.
            failing: where the one that says no fails, or nothing.
        """
        why = "" if failing is None else f", failing at: {failing}"
        told = [("the native checker", verdict), (self.other, not verdict)]
        verdicts = "; ".join(f"{who} says {said}{'' if said else why}" for who, said in told)
        message = f"{self.name}: {verdicts}. This is a bug in unified_guards: please report it with the program"
        if verdict:
            message += " (unless code of yours that a guard runs answers differently each time)"
        message += ". Until then, leave this function out of install()."
        if self.raises:
            tally.disagreements.append(message)
            raise GuardDisagreement(message)
        tally.overrule()
        if not self.warned:
            self.warned = True
            tally.disagreements.append(message)
            _warn(f"{message} Its verdict is overruled in the checks that are compared.")
        return not verdict
