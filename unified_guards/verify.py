"""Compares verdicts, as ``UNIFIED_GUARDS_VERIFY`` asks for: on how many checks, and what a wrong verdict leads to.

Entry points: :func:`share`, :class:`Judge`.
"""

from __future__ import annotations

from unified_guards import config
from unified_guards._environment import Problem, share_to_verify, warn
from unified_guards.errors import GuardDisagreement
from unified_guards.statistics import tally

_warned_of: set[str] = set()


def share() -> float:
    """The share of the checks of what is compiled now that is compared, from 0 to 1. Warns once of a wrong variable."""
    found = config.verify if config.is_assigned("verify") else share_to_verify()
    if not isinstance(found, Problem):
        return found
    warn_once(found)
    return 0.0


def warn_once(problem: Problem) -> None:
    """Warns of what is wrong in the environment, the first time."""
    if str(problem) not in _warned_of:
        _warned_of.add(str(problem))
        warn(str(problem))


_BUG = "This is a bug in unified_guards: please report it with the program"


class Judge:
    """Decides what becomes of a verdict that another evaluator of the same cache entry does not share, and of a call.

    It raises where every check is compared. Otherwise the verdict of the other evaluator counts, and Dynamo's code.
    """

    def __init__(self, share: float, name: str, other: str) -> None:
        self.share = share
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
        unless = " (unless code of yours that a guard runs answers differently each time)" if verdict else ""
        message = f"{self.name}: {verdicts}. {_BUG}{unless}. Until then, leave this function out of install()."
        self._tell(message, "Its verdict is overruled in the checks that are compared.")
        tally.overrule()
        return not verdict

    def differ(self, how: str) -> None:
        """A call on the short way does something else than Dynamo's code, which counts where nothing is raised.

        Args:
            how: says what, after "a call that goes straight to the graph".
        """
        message = f"{self.name}: a call that goes straight to the graph {how}. {_BUG}. Until then, switch that off."
        self._tell(f"{message} (UNIFIED_GUARDS_DISPATCH=0)", "The calls that are compared do what Dynamo's code does.")

    def _tell(self, message: str, consequence: str) -> None:
        """Raises, or warns the first time."""
        if self.raises:
            tally.disagreements.append(message)
            raise GuardDisagreement(message)
        if not self.warned:
            self.warned = True
            tally.disagreements.append(message)
            warn(f"{message} {consequence}")
