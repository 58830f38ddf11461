"""What makes the checker ask again: every change of ``changes/`` moves the verdict."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest

from unified_guards import _C

from ..guards import attr, checker, equals, item, program_of
from .building import VERSIONED, Thing, held_by, holds, recorded, told
from .changes.objects import Inline
from .changes.table import CHANGES


# On Python 3.12 whatever reads attributes fails on 7a57238, because all of it is evaluated: inline_slot() takes the
# word without its lowest bit for the address of the values, which is the word plus one there; words_hold() says no.
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_moves_the_verdict(name: str) -> None:
    changes = CHANGES[name]()
    first = next(changes)
    assert first is not None
    shown, guards = first
    made = recorded(checker(*guards), shown)
    # Where no version of a type is believed, attributes are read on every check.
    if VERSIONED and _C.DICT_SLOTS and (_C.TYPE_VERSIONS or "__dict__" in str(guards[0])):
        live = [str(program_of(*guards).row_origins[row]) for row in told(made, "live_rows")]
        assert str(guards[0]) not in live, "the guard is evaluated on every check"
    assert held_by(made, shown)
    undone = next(changes, first)  # the generator ends, unless it has something to undo
    try:
        assert not holds(made, shown)
        assert made.last_failure is not None
    finally:
        next(changes, None)
    if undone is None:
        for _ in range(3):
            assert holds(made, shown)


@pytest.mark.parametrize("name", CHANGES)
def test_without_a_witness_the_verdicts_are_the_same(name: str) -> None:
    changes = CHANGES[name]()
    first = next(changes)
    assert first is not None
    shown, guards = first
    made = checker(*guards, witness=False)
    recorded(made, shown)
    next(changes, None)
    try:
        assert not made.check(shown)
    finally:
        next(changes, None)
    assert made.witness is None


@pytest.mark.skipif(sys.version_info < (3, 11), reason="every instance has a dict")
def test_the_dict_of_an_instance_is_not_made() -> None:
    thing = Inline()
    made = recorded(checker(equals(attr("flag"), True)), {"x": thing})
    assert held_by(made, {"x": thing})
    assert not [part for part in gc.get_referents(thing) if type(part) is dict]


def test_a_change_that_nothing_looks_at_is_no_miss() -> None:
    thing: Any = Thing(flag=True, other=1)
    made = recorded(checker(equals(item("flag"), True)), {"x": thing})
    thing.other = 2
    thing.more = 3
    assert held_by(made, {"x": thing})
