"""What a plan makes of the outputs of a graph."""

from __future__ import annotations

from typing import Any

import pytest

from unified_guards import _C
from unified_guards.guards.ir import GuardSet
from unified_guards.lower.rows import lower, make_checker

from .test_known import supported

pytestmark = supported

LEAF, CONSTANT, TUPLE, LIST, DICT, GIVEN = (
    _C.REBUILD[name] for name in ("LEAF", "CONSTANT", "TUPLE", "LIST", "DICT", "GIVEN")
)
OUTPUTS = ["a", "b", "c"]
Steps = list[tuple[int, int, Any]]


class Manager:
    """Stands for a guard manager."""


def function(x: Any) -> Any:
    """Whose calls these are."""
    return x


def built(steps: Any, outputs: Any = OUTPUTS, unpacked: int = -1) -> Any:
    """What a plan with these steps returns, for the argument "given"."""
    manager = Manager()
    dispatcher = _C.Dispatcher(function, None, False, -1, False, lambda *_: None, ())
    plan = (lambda: outputs, None, -1, (), [], [], steps, unpacked, 0)
    checker = make_checker(lower(GuardSet([])))
    dispatcher._add(manager, function.__code__, checker, (plan, [], None), "kNone")
    return _C.FrameGate(dispatcher)("given")


RESULTS: dict[str, tuple[Steps, Any]] = {
    "a leaf": ([(LEAF, 1, None)], "b"),
    "a constant": ([(CONSTANT, 0, 3.5)], 3.5),
    "None": ([(CONSTANT, 0, None)], None),
    "an argument": ([(GIVEN, 0, None)], "given"),
    "a tuple": ([(TUPLE, 2, None), (LEAF, 0, None), (LEAF, 1, None)], ("a", "b")),
    "a list": ([(LIST, 2, None), (LEAF, 1, None), (LEAF, 1, None)], ["b", "b"]),
    "an empty tuple": ([(TUPLE, 0, None)], ()),
    "a dict": ([(DICT, 2, ("y", 1)), (LEAF, 0, None), (CONSTANT, 0, 2)], {"y": "a", 1: 2}),
    "nested": (
        [
            *[(TUPLE, 3, None), (DICT, 1, ("k",)), (LIST, 1, None), (LEAF, 2, None)],
            *[(LIST, 0, None), (TUPLE, 1, None), (LEAF, 0, None)],
        ],
        ({"k": ["c"]}, [], ("a",)),
    ),
}


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize("kind", [list, tuple])
def test_a_result(name: str, kind: type) -> None:
    steps, expected = RESULTS[name]
    found = built(steps, kind(OUTPUTS))
    assert found == expected
    assert type(found) is type(expected)


def test_the_order_of_a_dict_is_that_of_its_keys() -> None:
    assert list(built([(DICT, 2, ("y", "x")), (LEAF, 0, None), (LEAF, 1, None)])) == ["y", "x"]


def test_a_deep_result() -> None:
    found = built([(TUPLE, 1, None)] * 500 + [(LEAF, 0, None)])
    for _ in range(500):
        (found,) = found
    assert found == "a"


BAD_STEPS: dict[str, Any] = {
    "nothing": [],
    "no list": ((LEAF, 0, None),),
    "a missing child": [(TUPLE, 2, None), (LEAF, 0, None)],
    "a step too many": [(LEAF, 0, None), (LEAF, 0, None)],
    "a child too many": [(LIST, 1, None), (LEAF, 0, None), (LEAF, 0, None)],
    "an unknown kind": [(len(_C.REBUILD), 0, None)],
    "a negative kind": [(-1, 0, None)],
    "a negative count": [(LEAF, -1, None)],
    "a count out of range": [(TUPLE, 2**40, None)],
    "two fields": [(LEAF, 0)],
    "no tuple": [[LEAF, 0, None]],
    "keys that are no tuple": [(DICT, 1, ["a"]), (LEAF, 0, None)],
    "too few keys": [(DICT, 2, ("a",)), (LEAF, 0, None), (LEAF, 0, None)],
    "an object of a leaf": [(LEAF, 0, "a")],
    "a count of a constant": [(CONSTANT, 2, "a")],
    "an argument that there is not": [(GIVEN, 1, None)],
    "too deep": [(TUPLE, 1, None)] * 2000 + [(LEAF, 0, None)],
}


@pytest.mark.parametrize("name", BAD_STEPS)
def test_steps_that_are_not_one_tree_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        built(BAD_STEPS[name])


def test_a_key_without_hash_is_refused() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        built([(DICT, 1, ([],)), (LEAF, 0, None)])


def test_too_few_outputs_raise_as_the_interpreter_does() -> None:
    with pytest.raises(IndexError):
        built([(LEAF, 2, None)], ["a"])
    with pytest.raises(ValueError, match="not enough values to unpack"):
        built([(LEAF, 2, None)], ["a"], unpacked=3)


def test_outputs_that_are_no_list_are_taken_by_index() -> None:
    assert built([(LEAF, 1, None)], "xyz") == "y"
    with pytest.raises(TypeError, match="not subscriptable"):
        built([(LEAF, 0, None)], 3)
