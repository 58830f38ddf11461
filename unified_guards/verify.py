"""Compares verdicts, as ``UNIFIED_GUARDS_VERIFY`` asks for: on how many checks, and what a wrong verdict leads to.

Entry points: :func:`share`, :class:`Judge`.
"""

from __future__ import annotations

import sys
import warnings

from unified_guards import config
from unified_guards._environment import Problem, share_to_verify
from unified_guards.errors import GuardDisagreement
from unified_guards.statistics import tally

_warned_of: set[str] = set()


def share() -> float:
    """The share of the checks of what is compiled now that is compared, from 0 to 1. Warns once of a wrong variable."""
    found = config.verify if config.is_assigned("verify") else share_to_verify()
    if not isinstance(found, Problem):
        return found
    if str(found) not in _warned_of:
        _warned_of.add(str(found))
        _warn(str(found))
    return 0.0


def _warn(message: str) -> None:
    try:
        warnings.warn(message, stacklevel=3)
    except Warning:  # warnings are errors here; neither importing torch nor a check may fail by one
        print(message, file=sys.stderr)


class Judge:
    """Decides what becomes of a verdict that another evaluator of the same cache entry does not share.

    It raises where every check is compared. Otherwise the verdict of the other evaluator counts.
    """

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
        given = [("the native checker", verdict), (self.other, not verdict)]
        verdicts = "; ".join(f"{who} says {said}{'' if said else why}" for who, said in given)
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
