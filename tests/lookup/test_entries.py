"""Which entry is called, in which order, and how entries are added, told of and dropped."""

from __future__ import annotations

import sys
import weakref
from typing import Any

import pytest

from unified_guards import _C
from unified_guards.lower.rows import lower

from .making import FIRST, ONE_LEAF, Key, Lookup, first_is, put, set_of, three

# -- hits and misses ---------------------------------------------------------------------------------------------------


def test_a_hit_returns_what_the_compiled_function_does() -> None:
    lookup = Lookup()
    put(lookup, "one", first_is(1))
    assert lookup(1) == "one"
    assert lookup.missed == []


def test_a_miss_calls_miss_with_args_and_kwargs() -> None:
    lookup = Lookup()
    put(lookup, "one", first_is(1))
    assert lookup(2, 3, a=4) == "missed"
    assert lookup.missed == [((2, 3), {"a": 4})]


def test_without_keywords_miss_gets_an_empty_dict() -> None:
    lookup = Lookup()
    lookup()
    assert lookup.missed == [((), {})]


def test_each_call_has_keywords_of_its_own() -> None:
    lookup = Lookup()
    lookup()
    lookup()
    assert lookup.missed[0][1] is not lookup.missed[1][1]


def test_without_a_miss_method_a_miss_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="_miss"):
        _C.Lookup()(1)


def test_what_miss_raises_propagates() -> None:
    class Raising(_C.Lookup):
        def _miss(self, args: Any, kwargs: Any) -> Any:
            raise KeyError("missed")

    with pytest.raises(KeyError, match="missed"):
        Raising()(1)


def test_hits_and_misses_are_counted() -> None:
    lookup = Lookup()
    put(lookup, "one", first_is(1))
    for value in (1, 2, 1, 1):
        lookup(value)
    assert (lookup._hits, lookup._misses) == (3, 1)


def test_a_subclass_inherits_the_call() -> None:
    class Further(Lookup):
        pass

    lookup = Further()
    put(lookup, "one", first_is(1))
    assert lookup(1) == "one"
    assert type(lookup).__call__ is _C.Lookup.__call__


def test_a_subclass_may_take_arguments() -> None:
    class Named(Lookup):
        def __init__(self, name: str, *, size: int) -> None:
            super().__init__()
            self.name = name, size

    assert Named("a", size=3).name == ("a", 3)


def test_a_subclass_can_be_referenced_weakly() -> None:
    lookup = Lookup()
    assert weakref.ref(lookup)() is lookup


# -- order -------------------------------------------------------------------------------------------------------------


def test_a_new_entry_is_in_front() -> None:
    assert three()._keys() == [3, 2, 1]


def test_a_hit_moves_to_the_front() -> None:
    lookup = three()
    lookup(1)
    assert lookup._keys() == [1, 3, 2]


def test_a_miss_moves_nothing() -> None:
    lookup = three()
    lookup(4)
    assert lookup._keys() == [3, 2, 1]


def test_the_first_entry_that_passes_is_called() -> None:
    lookup = Lookup()
    put(lookup, "older")
    put(lookup, "newer")
    assert lookup() == "newer"
    assert lookup._counts("older") == (0, 0, 0, 0)


def test_find_gives_the_key_and_moves_it_to_the_front() -> None:
    lookup = three()
    assert lookup._find((1,), {}) == 1
    assert lookup._keys() == [1, 3, 2]
    assert lookup._find((4,), {}) is None


def test_find_calls_nothing_and_keeps_nothing() -> None:
    called: list[Any] = []
    lookup, value = Lookup(), object()
    put(lookup, "all", gather=[FIRST], compiled=called.append)
    before = sys.getrefcount(value)
    assert lookup._find((value,), {}) == "all"
    assert sys.getrefcount(value) == before
    assert (called, lookup.missed, lookup._hits, lookup._misses) == ([], [], 0, 0)


# -- entries -----------------------------------------------------------------------------------------------------------


def test_keys_are_compared_by_identity() -> None:
    lookup, one, two = Lookup(), Key(), Key()
    put(lookup, one, first_is(1))
    put(lookup, two, first_is(2))
    assert lookup._drop(one)
    (left,) = lookup._keys()
    assert left is two


def test_a_key_that_is_there_is_refused() -> None:
    lookup = three()
    with pytest.raises(ValueError, match="this key"):
        put(lookup, 3)
    assert lookup._keys() == [3, 2, 1]


def test_drop_says_whether_there_was_an_entry() -> None:
    lookup = three()
    assert [lookup._drop(2), lookup._drop(2)] == [True, False]
    assert lookup._keys() == [3, 1]
    assert lookup(2) == "missed"


def test_clear_drops_every_entry() -> None:
    lookup = three()
    lookup._clear()
    assert lookup._keys() == []
    assert lookup(1) == "missed"


def test_an_entry_says_what_it_counts_and_holds() -> None:
    lookup = three()
    lookup(1)
    lookup(2)
    assert [lookup._counts(key) for key in (1, 2, 3)] == [(2, 1, 1, 0), (2, 1, 1, 0), (2, 0, 2, 0)]
    assert lookup._nbytes(1) > 100
    assert lookup._length(1) == 4


def test_an_entry_knows_the_row_that_failed() -> None:
    lookup, guards = Lookup(), set_of(first_is(1))
    program = lower(guards)
    lookup._add("one", program.rows, list, ONE_LEAF)
    assert lookup._last_failure("one") is None
    lookup(2)
    row = lookup._last_failure("one")
    assert row is not None
    assert program.row_origins[row] is first_is(1)


@pytest.mark.parametrize("method", ["_counts", "_nbytes", "_length", "_last_failure"])
def test_an_unknown_key_is_a_key_error(method: str) -> None:
    with pytest.raises(KeyError, match="never added"):
        getattr(Lookup(), method)("never added")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(_C.OPS["IS"], 1, 0, None, 0)], "a register that nothing wrote"),
        ([(_C.OPS["GATHER"], 0, 1, None, 0)], "missing from what is gathered"),
        ([(_C.OPS["GATHER"], 0, 2**32 - 1, None, 0)], "missing from what is gathered"),
        ([(_C.OPS["GATHER"], 0, 0, None, 0)] * 2, "missing from what is gathered"),
        ([(_C.OPS["READ_INT"], 0, 0, None, 0)], "no shape code"),
        ([(_C.OPS["SHARES_STORAGE"], 0, 1, None, 0)], "no such slot"),
        ([(1, 2)], "five fields"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_rows_that_are_not_legal_are_refused(rows: list[Any], message: str) -> None:
    lookup = Lookup()
    with pytest.raises(ValueError, match=message):
        lookup._add("key", rows, list, ONE_LEAF)
    assert lookup._keys() == []
