"""The native checker as an object: what it counts, what it holds, and that it survives being asked from within."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._C._dynamo import guards as native

from unified_guards import _C
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.lower.rows import CannotLower, lower, make_checker

from .guards import X, equals


class Thing:
    """An object with attributes, as a module is."""


def checker(*guards: Guard, oracle: Any = None) -> _C.Checker:
    return make_checker(lower(GuardSet((item, Provenance("dynamo")) for item in guards)), oracle)


def test_counts_checks_hits_and_misses() -> None:
    made = checker(equals(X, 1))
    assert [made.check({"x": value}) for value in (1, 2, 1)] == [True, False, True]
    assert made.counts == (3, 2, 1, 0)


def test_counts_python_callbacks() -> None:
    made = checker(guard(Test.PREDICATE, (X,), (lambda x: x > 0, "x > 0")))
    made.check({"x": 1})
    made.check({"x": -1})
    assert made.counts == (2, 1, 1, 2)


@pytest.mark.parametrize(
    ("shown", "failure"),
    [({"x": 2}, "L['x'] == 1"), ({}, "L['x']"), ({"x": 1, "y": 1}, "type(L['y']) is str")],
    ids=["a value", "missing", "merged into an accessor"],
)
def test_last_failure_is_the_row_that_failed(shown: dict[str, Any], failure: str) -> None:
    y = Source.frame().child(Access.LOCAL, "y")
    program = lower(
        GuardSet(
            [(equals(X, 1), Provenance("dynamo")), (guard(Test.TYPE_IS, (y,), (id(str), "str")), Provenance("dynamo"))]
        )
    )
    made = make_checker(program)
    assert made.last_failure is None
    assert not made.check(shown)
    assert made.last_failure is not None
    assert str(program.row_origins[made.last_failure]) == failure


def test_the_callable_takes_a_dict_and_misses_on_anything_else() -> None:
    call = checker(equals(X, 1)).callable()
    assert call({"x": 1}) is True
    assert call(None) is False


def test_the_callable_outlives_the_checker() -> None:
    call = checker(equals(X, "kept")).callable()
    gc.collect()
    assert call({"x": "kept"}) is True


def test_asking_again_from_within_gives_both_their_own_answer() -> None:
    """A predicate that asks the same checker: the inner check must not overwrite what the outer one has read."""
    seen: list[bool] = []
    y = Source.frame().child(Access.LOCAL, "y")

    def ask(value: object) -> bool:
        if value == "outer":
            seen.append(made.check({"x": "inner", "y": 2}))
        return True

    made = checker(
        guard(Test.PREDICATE, (X,), (ask, "ask(x)")),
        equals(X.child(Access.TYPE), str),
        equals(y, 1),
    )
    assert made.check({"x": "outer", "y": 1})
    assert seen == [False]


def test_a_value_is_not_kept_alive() -> None:
    thing = Thing()
    thing.flag = True  # type: ignore[attr-defined]
    made = checker(equals(X.child(Access.ATTR, "flag"), True))
    assert made.check({"x": thing})
    gone = weakref.ref(thing)
    del thing
    assert gone() is None


def test_references_are_given_back() -> None:
    value, key = object(), "a key that is not interned"[:-1]
    made = checker(guard(Test.IS_NOT, (X.child(Access.ITEM, key),), (id(None), "None")))
    held = {key: value}
    before = sys.getrefcount(value), sys.getrefcount(key)
    for _ in range(1000):
        made.check({"x": held})
        made.check({"x": [1]})
    assert (sys.getrefcount(value), sys.getrefcount(key)) == before


def test_memory_is_bounded_however_many_objects_are_seen() -> None:
    """One program serves many objects (36 layers, one forward), and remembers where it read for a few of them."""
    made = checker(equals(X.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, "flag"), True))
    things = [Thing() for _ in range(500)]
    assert made.witness is not None
    sizes = []
    for thing in things:
        thing.flag = True  # type: ignore[attr-defined]
        assert made.check({"x": thing})
        sizes.append(made.nbytes)
    assert sizes[0] < sizes[-1] < 1 << 21
    assert sizes[-1] == sizes[300]


def test_an_oracle_hears_every_verdict() -> None:
    heard: list[tuple[dict[str, Any], bool]] = []
    call = checker(equals(X, 1), oracle=lambda shown, verdict: heard.append((shown, verdict))).callable()
    call({"x": 1})
    call({"x": 2})
    assert heard == [({"x": 1}, True), ({"x": 2}, False)]


def test_an_oracle_that_raises_is_heard_when_the_answer_is_used() -> None:
    def oracle(shown: dict[str, Any], verdict: bool) -> None:
        raise ValueError("wrong")

    answer = checker(equals(X, 1), oracle=oracle).callable()({"x": 1})
    with pytest.raises((ValueError, SystemError)):
        bool(answer)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(_C.OPS["IS"], 1, 0, None, 0)], "a register that nothing wrote"),
        ([(200, 0, 0, None, 0)], "no such instruction"),
        ([(_C.OPS["SAME_AS"], 0, 3, None, 0)], "no such slot"),
        ([(_C.OPS["IS"], 0)], "five fields"),
    ],
    ids=["unwritten register", "unknown op", "unwritten slot", "short row"],
)
def test_rows_that_are_not_legal_are_refused(rows: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _C.Checker(rows)


def test_a_guard_that_cannot_be_checked_here_is_refused() -> None:
    with pytest.raises(CannotLower, match="came from JSON"):
        checker(guard(Test.OPAQUE, (X,), ("an address",)))


def test_dict_layouts_are_known() -> None:
    """On the interpreters that are tested; elsewhere dicts are asked through the public API."""
    assert _C.DICT_SLOTS
    assert _C.MONITORS
    assert _C.TYPE_VERSIONS is (sys.version_info >= (3, 11))
    assert _C.DICT_TABLES is (sys.version_info >= (3, 11))


def _autocast_dtype() -> Callable[[], None]:
    torch.set_autocast_enabled("cpu", True)
    before = torch.get_autocast_dtype("cpu")
    torch.set_autocast_dtype("cpu", torch.float16)

    def undo() -> None:
        torch.set_autocast_dtype("cpu", before)
        torch.set_autocast_enabled("cpu", False)

    return undo


def _switch(get: Callable[[], Any], put: Callable[[Any], Any], other: Any) -> Callable[[], Callable[[], None]]:
    def switch() -> Callable[[], None]:
        before = get()
        put(other)
        return lambda: put(before)

    return switch


GLOBAL_STATES: dict[str, Callable[[], Callable[[], None]]] = {
    "grad mode": _switch(torch.is_grad_enabled, torch.set_grad_enabled, False),
    "autocast": _switch(
        lambda: torch.is_autocast_enabled("cpu"), lambda on: torch.set_autocast_enabled("cpu", on), True
    ),
    "dtype of autocast": _autocast_dtype,
    "cache of autocast": _switch(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled, False),
    "deterministic": _switch(
        torch.are_deterministic_algorithms_enabled, lambda on: torch.use_deterministic_algorithms(on), True
    ),
    "threads": _switch(torch.get_num_threads, torch.set_num_threads, torch.get_num_threads() + 1),
    "default dtype": _switch(torch.get_default_dtype, torch.set_default_dtype, torch.float64),
    "tf32": _switch(torch._C._get_cublas_allow_tf32, torch._C._set_cublas_allow_tf32, True),
    "torch function": _switch(_C.torch_function_state, _C.set_torch_function_state, 1),
}


@pytest.mark.parametrize("name", GLOBAL_STATES)
def test_our_global_state_changes_with_torchs(name: str) -> None:
    theirs, ours = native.GlobalStateGuard(), _C.GlobalState()
    made = guard(Test.GLOBAL_STATE, (Source.frame(),), (ours,))
    native_check = checker(made)
    assert theirs.check() and ours.check() and native_check.check({})
    undo = GLOBAL_STATES[name]()
    try:
        assert not theirs.check()
        assert not ours.check()
        assert not native_check.check({})
    finally:
        undo()
    if name != "tf32":  # not set and set to its default are two values to us, and to torch from 2.15
        assert theirs.check() and native_check.check({})
