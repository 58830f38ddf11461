"""Exceptions, oracles, and a lookup that is asked, or changed, from within."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from unified_guards import _C
from unified_guards.guards.ir import Access

from .making import ARGS, CALL, DICT, FIRST, LEAF, LIST, TUPLE, Lookup, asks, first_is, put, raising

# -- exceptions --------------------------------------------------------------------------------------------------------


def test_what_the_compiled_function_raises_propagates() -> None:
    lookup = Lookup()
    put(lookup, "all", compiled=raising)
    with pytest.raises(LookupError, match="from within"):
        lookup()
    assert lookup.missed == []


def test_what_a_rebuilding_call_raises_propagates() -> None:
    lookup = Lookup()
    put(lookup, "all", rebuild=[(LIST, 1, None), (CALL, 0, raising)])
    with pytest.raises(LookupError, match="from within"):
        lookup()


def test_a_guard_that_raises_is_a_miss() -> None:
    lookup = Lookup()
    put(lookup, "all", asks(raising))
    assert lookup(1) == "missed"


def test_endless_recursion_is_a_recursion_error() -> None:
    lookup = Lookup()
    put(lookup, "all", compiled=lambda flat: [lookup()])
    with pytest.raises(RecursionError):
        lookup()


# -- an observer -------------------------------------------------------------------------------------------------------


def test_an_oracle_hears_every_verdict_on_its_entry() -> None:
    heard: list[Any] = []
    lookup = Lookup()
    put(lookup, "one", first_is(1), observer=lambda frame, verdict: heard.append((frame, verdict)))
    put(lookup, "two", first_is(2))
    lookup(1)
    lookup(3, a=4)
    assert heard == [({"args": (1,), "kwargs": {}}, True), ({"args": (3,), "kwargs": {"a": 4}}, False)]


@pytest.mark.parametrize("value", [1, 2], ids=["hit", "miss"])
def test_what_an_oracle_raises_propagates(value: int) -> None:
    lookup, leaf = Lookup(), object()
    second = ARGS.child(Access.TUPLE_ITEM, 1)
    put(lookup, "one", first_is(1), gather=[second], observer=raising)
    before = sys.getrefcount(leaf)
    for ask in (lookup, lambda *args: lookup._find(args, {})):
        with pytest.raises(LookupError, match="from within"):
            ask(value, leaf)
    assert lookup.missed == []
    assert sys.getrefcount(leaf) == before


def test_the_torch_function_state_that_an_oracle_leaves_is_put_back() -> None:
    lookup = Lookup()
    before = _C.torch_function_state()
    put(lookup, "all", observer=lambda *_: _C.set_torch_function_state(2))
    lookup()
    assert _C.torch_function_state() == before


# -- asked from within -------------------------------------------------------------------------------------------------


def test_a_compiled_function_may_call_its_lookup() -> None:
    lookup = Lookup()
    put(lookup, "inner", first_is(1))
    rebuild = [(TUPLE, 2, None), (LEAF, 0, None), (LEAF, 1, None)]
    put(lookup, "outer", first_is(2), gather=[FIRST], compiled=lambda flat: [lookup(1), *flat], rebuild=rebuild)
    assert lookup(2) == ("inner", 2)
    assert lookup._keys() == ["inner", "outer"]


def test_a_compiled_function_may_drop_its_entry() -> None:
    lookup = Lookup()

    def compiled(flat: list[Any]) -> list[Any]:
        lookup._clear()
        gc.collect()
        return [lookup("a miss"), "kept"]

    put(lookup, "all", first_is(1), compiled=compiled, rebuild=[(DICT, 1, ("key",)), (LEAF, 1, None)])
    assert lookup(1) == {"key": "kept"}
    assert lookup._keys() == []


def test_a_guard_that_drops_its_entry_is_a_miss() -> None:
    lookup, leaf = Lookup(), object()
    put(lookup, "all", asks(lambda _: lookup._drop("all")), gather=[FIRST])
    before = sys.getrefcount(leaf)
    assert lookup(leaf) == "missed"
    lookup.missed.clear()
    assert sys.getrefcount(leaf) == before


def test_a_guard_that_adds_an_entry_starts_the_walk_again() -> None:
    lookup = Lookup()

    def ask(_: object) -> bool:
        if "new" not in lookup._keys():
            put(lookup, "new")
        return False

    put(lookup, "all", asks(ask))
    assert lookup(1) == "new"


def test_a_guard_that_always_adds_an_entry_ends_in_a_miss() -> None:
    lookup = Lookup()

    def ask(_: object) -> bool:
        put(lookup, object(), asks(ask))
        return True

    put(lookup, "all", asks(ask))
    assert lookup(1) == "missed"
    assert 1 < len(lookup._keys()) < 20


def test_a_guard_that_calls_the_lookup_gets_its_own_answer() -> None:
    """The inner call must not overwrite what the outer one has gathered."""
    lookup, seen = Lookup(), []

    def ask(value: object) -> bool:
        if value == "outer":
            seen.append(lookup("inner"))
        return True

    second = FIRST.child(Access.TYPE)
    put(lookup, "all", asks(ask), gather=[FIRST, second], compiled=lambda flat: [flat])
    assert lookup("outer") == ["outer", str]
    assert seen == [["inner", str]]


def test_guards_run_without_torch_functions_and_the_call_with() -> None:
    seen: list[bool] = []

    class Mode(TorchFunctionMode):
        pass

    def look(_: object) -> Any:
        seen.append(torch._C._is_torch_function_enabled())
        return [True]

    lookup = Lookup()
    put(lookup, "all", asks(look), compiled=look)
    with Mode():
        lookup(1)
    assert seen == [False, True]
