"""The native lookup of entries: which one is called, with what, and what becomes of its result."""

from __future__ import annotations

import collections
import gc
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from unified_guards import _C
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.lower.rows import lower

ARGS = Source.frame().child(Access.LOCAL, "args")
KWARGS = Source.frame().child(Access.LOCAL, "kwargs")
FIRST = ARGS.child(Access.TUPLE_ITEM, 0)
LEAF, CONSTANT, TUPLE, LIST, DICT, CALL = range(6)
ONE_LEAF = [(LEAF, 0, None)]


class Lookup(_C.Lookup):
    """Remembers the calls that no entry fitted."""

    def __init__(self) -> None:
        self.missed: list[Any] = []

    def _miss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.missed.append((args, kwargs))
        return "missed"


class Key:
    """Equal to every other: keys are compared by identity."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def set_of(*guards: Guard) -> GuardSet:
    return GuardSet((item, Provenance("aot")) for item in guards)


def first_is(value: object) -> Guard:
    return guard(Test.EQUALS, (FIRST,), (value,))


def asks(function: Callable[[Any], Any], source: Source = FIRST) -> Guard:
    return guard(Test.PREDICATE, (source,), (function, "it says so"))


def put(
    lookup: _C.Lookup,
    key: object,
    *guards: Guard,
    gather: Sequence[Source] = (),
    compiled: Callable[[list[Any]], Any] | None = None,
    rebuild: list[tuple[int, int, Any]] | None = None,
    oracle: Any = None,
) -> None:
    """An entry that returns its key, unless told otherwise."""
    rows = lower(set_of(*guards), gather).rows
    lookup._add(key, rows, compiled or (lambda flat: [key]), ONE_LEAF if rebuild is None else rebuild, oracle)


def gathering(*sources: Source) -> Lookup:
    """A lookup that returns what it gathered."""
    lookup = Lookup()
    put(lookup, "all", gather=sources, compiled=lambda flat: [flat])
    return lookup


@pytest.fixture(autouse=True)
def nothing_is_left_uncollected() -> Iterator[None]:
    yield
    gc.collect()


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


def three() -> Lookup:
    lookup = Lookup()
    for value in (1, 2, 3):
        put(lookup, value, first_is(value))
    return lookup


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
    assert program.meaning[row] is first_is(1)


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


# -- gathering ---------------------------------------------------------------------------------------------------------


def test_leaves_come_in_the_order_that_was_asked_for() -> None:
    second = ARGS.child(Access.TUPLE_ITEM, 1)
    assert gathering(second, FIRST)("a", "b") == ["b", "a"]


def test_leaves_come_from_nested_containers_and_keywords() -> None:
    nested = FIRST.child(Access.LIST_ITEM, 1).child(Access.TUPLE_ITEM, 0).child(Access.DICT_ITEM, "a")
    named = KWARGS.child(Access.DICT_ITEM, "b")
    assert gathering(nested, named)([0, ({"a": "deep"},)], b="named") == ["deep", "named"]


def test_one_leaf_may_come_twice() -> None:
    assert gathering(FIRST, FIRST)("a") == ["a", "a"]


def test_a_container_may_be_a_leaf_beside_its_items() -> None:
    value = ("a",)
    assert gathering(FIRST, FIRST.child(Access.TUPLE_ITEM, 0))(value) == [value, "a"]


def test_a_leaf_that_is_computed_outlives_the_lookup() -> None:
    sizes = [FIRST.child(Access.TENSOR_SIZE, at) for at in range(2)]
    assert gathering(*sizes)(torch.ones(1234, 5678)) == [1234, 5678]


def test_without_leaves_the_list_is_empty() -> None:
    assert gathering()("a") == []


def test_a_missing_leaf_is_a_miss() -> None:
    lookup = gathering(FIRST)
    assert lookup() == "missed"


def test_every_call_gets_a_list_of_its_own() -> None:
    lookup = gathering(FIRST)
    first, second = lookup("a"), lookup("a")
    assert type(first) is list
    assert first is not second


def test_leaves_of_a_failed_check_are_dropped() -> None:
    lookup, value = Lookup(), object()
    second = ARGS.child(Access.TUPLE_ITEM, 1)
    put(lookup, "all", asks(lambda _: True), guard(Test.EQUALS, (second,), (1,)), gather=[FIRST, second])
    before = sys.getrefcount(value)
    for _ in range(100):
        lookup._find((value, 2), {})
        lookup._find((value,), {})
    assert sys.getrefcount(value) == before


def test_a_call_gives_back_every_reference() -> None:
    lookup, value = gathering(FIRST), object()
    before = sys.getrefcount(value)
    for _ in range(100):
        lookup(value)
    assert sys.getrefcount(value) == before


def test_only_the_call_holds_the_list() -> None:
    """A compiled function empties the list to free its inputs early."""
    alive: list[bool] = []

    class Thing:
        pass

    def compiled(flat: list[Any]) -> list[Any]:
        watched = weakref.ref(flat[0])
        flat.clear()
        alive.append(watched() is not None)
        return [None]

    lookup = Lookup()
    put(lookup, "all", gather=[FIRST.child(Access.CALL0)], compiled=compiled)
    lookup(Thing)
    assert alive == [False]


# -- rebuilding --------------------------------------------------------------------------------------------------------

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
    assert _C.REBUILD == {"LEAF": LEAF, "CONSTANT": CONSTANT, "TUPLE": TUPLE, "LIST": LIST, "DICT": DICT, "CALL": CALL}


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


# -- exceptions --------------------------------------------------------------------------------------------------------


def raising(*_: Any) -> Any:
    raise LookupError("from within")


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


# -- an oracle ---------------------------------------------------------------------------------------------------------


def test_an_oracle_hears_every_verdict_on_its_entry() -> None:
    heard: list[Any] = []
    lookup = Lookup()
    put(lookup, "one", first_is(1), oracle=lambda frame, verdict: heard.append((frame, verdict)))
    put(lookup, "two", first_is(2))
    lookup(1)
    lookup(3, a=4)
    assert heard == [({"args": (1,), "kwargs": {}}, True), ({"args": (3,), "kwargs": {"a": 4}}, False)]


@pytest.mark.parametrize("value", [1, 2], ids=["hit", "miss"])
def test_what_an_oracle_raises_propagates(value: int) -> None:
    lookup, leaf = Lookup(), object()
    second = ARGS.child(Access.TUPLE_ITEM, 1)
    put(lookup, "one", first_is(1), gather=[second], oracle=raising)
    before = sys.getrefcount(leaf)
    for ask in (lookup, lambda *args: lookup._find(args, {})):
        with pytest.raises(LookupError, match="from within"):
            ask(value, leaf)
    assert lookup.missed == []
    assert sys.getrefcount(leaf) == before


def test_the_torch_function_state_that_an_oracle_leaves_is_put_back() -> None:
    lookup = Lookup()
    before = _C.torch_function_state()
    put(lookup, "all", oracle=lambda *_: _C.set_torch_function_state(2))
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


# -- lifetime ----------------------------------------------------------------------------------------------------------


class Model:
    """What holds a lookup."""

    lookup: Lookup


def held_by_a_constant(model: Model) -> None:
    put(model.lookup, "all", guard(Test.EXISTS, (Source.frame().child(Access.CONSTANT, model),)))


def held_by_a_value(model: Model) -> None:
    put(model.lookup, "all", first_is([model]))


def held_by_a_key(model: Model) -> None:
    put(model.lookup, model)


def held_by_the_compiled_function(model: Model) -> None:
    put(model.lookup, "all", compiled=lambda flat: [model])


def held_by_the_rebuild(model: Model) -> None:
    put(model.lookup, "all", rebuild=[(CONSTANT, 0, model)])


def held_by_the_oracle(model: Model) -> None:
    put(model.lookup, "all", oracle=lambda frame, verdict: model)


@pytest.mark.parametrize(
    "hold",
    [
        held_by_a_constant,
        held_by_a_value,
        held_by_a_key,
        held_by_the_compiled_function,
        held_by_the_rebuild,
        held_by_the_oracle,
    ],
)
def test_a_cycle_through_an_entry_is_collected(hold: Callable[[Model], None]) -> None:
    model = Model()
    model.lookup = Lookup()
    hold(model)
    model.lookup(1)
    model.lookup.missed.clear()
    watched = weakref.ref(model), weakref.ref(model.lookup)
    del model
    gc.collect()
    assert [found() for found in watched] == [None, None]


def test_an_entry_keeps_what_it_holds_alive() -> None:
    model = Model()
    watched = weakref.ref(model)
    lookup = Lookup()
    put(lookup, "all", rebuild=[(CONSTANT, 0, model)])
    del model
    gc.collect()
    assert lookup() is watched()


@pytest.mark.parametrize("drop", [lambda lookup: lookup._drop("all"), lambda lookup: lookup._clear()])
def test_what_is_dropped_is_freed_at_once(drop: Callable[[Lookup], Any]) -> None:
    model, lookup = Model(), Lookup()
    watched = weakref.ref(model)
    put(lookup, "all", rebuild=[(CONSTANT, 0, model)])
    del model
    drop(lookup)
    assert watched() is None


def test_a_destructor_may_change_the_lookup() -> None:
    lookup = Lookup()

    class Adding:
        def __del__(self) -> None:
            put(lookup, "added")
            lookup._drop("other")

    put(lookup, "other")
    put(lookup, "all", rebuild=[(CONSTANT, 0, Adding())])
    lookup._drop("all")
    assert lookup._keys() == ["added"]
