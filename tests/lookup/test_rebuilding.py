"""What the caller gets: the result, rebuilt from what the compiled function returned."""

from __future__ import annotations

import collections
from typing import Any

import pytest

from unified_guards import _C

from .making import CALL, CONSTANT, DICT, GIVEN, LEAF, LIST, ONE_LEAF, TUPLE, Lookup, put

Point = collections.namedtuple("Point", "x y")
FLAT = ["a", "b", "c"]
REBUILDS: dict[str, tuple[list[tuple[int, int, Any]], Any]] = {
    "a leaf": ([(LEAF, 1, None)], "b"),
    "a constant": ([(CONSTANT, 0, 3.5)], 3.5),
    "None": ([(CONSTANT, 0, None)], None),
    "a tuple": ([(TUPLE, 2, None), (LEAF, 0, None), (LEAF, 1, None)], ("a", "b")),
    "a list": ([(LIST, 2, None), (LEAF, 1, None), (LEAF, 1, None)], ["b", "b"]),
    "an empty tuple": ([(TUPLE, 0, None)], ()),
    "a dict": ([(DICT, 2, ("y", 1)), (LEAF, 0, None), (CONSTANT, 0, 2)], {"y": "a", 1: 2}),
    "a call": ([(CALL, 2, Point._make), (LEAF, 0, None), (LEAF, 1, None)], Point("a", "b")),
    "a call without children": ([(CALL, 0, tuple)], ()),
    "nested": (
        [
            *[(TUPLE, 3, None), (DICT, 1, ("k",)), (LIST, 1, None), (LEAF, 2, None)],
            *[(LIST, 0, None), (CALL, 1, list), (LEAF, 0, None)],
        ],
        ({"k": ["c"]}, [], ["a"]),
    ),
}


@pytest.mark.parametrize("name", REBUILDS)
@pytest.mark.parametrize("kind", [list, tuple])
def test_the_result_is_rebuilt(name: str, kind: type) -> None:
    rebuild, expected = REBUILDS[name]
    lookup = Lookup()
    put(lookup, "all", compiled=lambda flat: kind(FLAT), rebuild=rebuild)
    found = lookup()
    assert found == expected
    assert type(found) is type(expected)


def test_the_order_of_a_dict_is_that_of_its_keys() -> None:
    lookup = Lookup()
    put(lookup, "all", compiled=lambda flat: FLAT, rebuild=[(DICT, 2, ("y", "x")), (LEAF, 0, None), (LEAF, 1, None)])
    assert list(lookup()) == ["y", "x"]


def test_the_kinds_have_names() -> None:
    names = {"LEAF": LEAF, "CONSTANT": CONSTANT, "TUPLE": TUPLE, "LIST": LIST, "DICT": DICT, "CALL": CALL}
    assert _C.REBUILD == {**names, "GIVEN": GIVEN}


def test_nothing_is_given_to_an_entry_of_a_lookup() -> None:
    with pytest.raises(ValueError, match="gives nothing beside"):
        put(Lookup(), "all", rebuild=[(GIVEN, 0, None)])


BAD_REBUILDS: dict[str, list[Any]] = {
    "nothing": [],
    "a missing child": [(TUPLE, 2, None), (LEAF, 0, None)],
    "a step too many": [(LEAF, 0, None), (LEAF, 0, None)],
    "a child too many": [(LIST, 1, None), (LEAF, 0, None), (LEAF, 0, None)],
    "an unknown kind": [(6, 0, None)],
    "a negative kind": [(-1, 0, None)],
    "a negative count": [(LEAF, -1, None)],
    "a count out of range": [(TUPLE, 2**40, None)],
    "two fields": [(LEAF, 0)],
    "no tuple": [[LEAF, 0, None]],
    "keys that are no tuple": [(DICT, 1, ["a"]), (LEAF, 0, None)],
    "too few keys": [(DICT, 2, ("a",)), (LEAF, 0, None), (LEAF, 0, None)],
    "nothing to call": [(CALL, 0, 3)],
    "an object of a leaf": [(LEAF, 0, "a")],
    "a count of a constant": [(CONSTANT, 2, "a")],
    "too deep": [(TUPLE, 1, None)] * 2000 + [(LEAF, 0, None)],
}


@pytest.mark.parametrize("name", BAD_REBUILDS)
def test_a_rebuild_that_is_not_one_tree_is_refused(name: str) -> None:
    lookup = Lookup()
    with pytest.raises(ValueError, match=r".+"):
        put(lookup, "all", rebuild=BAD_REBUILDS[name])
    assert lookup._keys() == []


def test_a_key_without_hash_is_refused() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        put(Lookup(), "all", rebuild=[(DICT, 1, ([],)), (LEAF, 0, None)])


def test_a_deep_result_is_rebuilt() -> None:
    lookup = Lookup()
    put(lookup, "all", rebuild=[(TUPLE, 1, None)] * 500 + ONE_LEAF)
    found = lookup()
    for _ in range(500):
        (found,) = found
    assert found == "all"


def test_too_few_outputs_are_a_runtime_error_that_counts() -> None:
    lookup = Lookup()
    put(lookup, "all", compiled=lambda flat: ["a"], rebuild=[(TUPLE, 2, None), (LEAF, 0, None), (LEAF, 2, None)])
    with pytest.raises(RuntimeError, match=r"at least 3 flat outputs and returned 1"):
        lookup()


def test_outputs_that_a_call_takes_away_are_a_runtime_error() -> None:
    flat = ["a", "b"]
    rebuild = [(TUPLE, 2, None), (CALL, 0, lambda children: flat.clear()), (LEAF, 1, None)]
    lookup = Lookup()
    put(lookup, "all", compiled=lambda _: flat, rebuild=rebuild)
    with pytest.raises(RuntimeError, match=r"at least 2 flat outputs and returned 0"):
        lookup()


def test_outputs_that_are_no_list_are_a_type_error() -> None:
    lookup = Lookup()
    put(lookup, "all", compiled=lambda flat: 3)
    with pytest.raises(TypeError, match="list or tuple of flat outputs, not int"):
        lookup()
