"""Objects to guard, and questions about what a checker remembers of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from unified_guards import _C

CHECKOUT = Path(__file__).resolve().parents[2]

#: Whether guards on dicts can be answered by facts: without, the same tests hold, by evaluation.
VERSIONED = _C.dicts_are_versioned()
NEEDS_VERSIONS = pytest.mark.skipif(not VERSIONED, reason="no free dict watcher: guards on dicts are evaluated")


class Thing:
    """An object with attributes, as a module is."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Other(Thing):
    """Another class of the same layout."""


def told(made: _C.Checker, name: str) -> Any:
    assert made.witness is not None
    return made.witness[name]


def recorded(made: _C.Checker, shown: dict[str, Any]) -> _C.Checker:
    """The checker after the two checks that it takes to remember."""
    for _ in range(2):
        assert made.check(shown)
    return made


def holds(made: _C.Checker, shown: dict[str, Any]) -> bool:
    """The verdict, which both tiers must agree on."""
    verdict = made.check(shown)
    assert made.exact(shown) is verdict
    return verdict


def held_by(made: _C.Checker, shown: dict[str, Any]) -> bool:
    """Whether one more check passes by what is remembered, repaired or not, and records nothing."""
    held, taken = told(made, "held") + told(made, "repaired"), told(made, "recorded")
    assert holds(made, shown)
    return bool(told(made, "held") + told(made, "repaired") == held + 1 and told(made, "recorded") == taken)
