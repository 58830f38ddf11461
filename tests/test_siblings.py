"""Several cache entries of one function: what tells them apart is asked first, and each still answers for itself."""

from __future__ import annotations

import functools
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.eval_frame import _debug_get_cache_entry_list

import unified_guards
from unified_guards import _C
from unified_guards.dynamo.entry import DynamoEntry
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper, entries_of
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, TensorFacts, Test, guard
from unified_guards.lower.discriminators import MOST, discriminate, program_of, shared
from unified_guards.lower.rows import lower, make_checker

from .guards import equals
from .harness import Watched, collect, ones, static
from .property import repeatable
from .shapes import shape

L = Source.frame().child
X, Y = L(Access.LOCAL, "x"), L(Access.LOCAL, "y")


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    with unified_guards.installed():
        yield
    torch._dynamo.reset()


# ---- which guards tell two entries apart -----------------------------------------------------------------------------


class Entry:
    """An entry as lower/discriminators.py sees it, with a native checker."""

    def __init__(self, *guards: Guard) -> None:
        self.checked = GuardSet((item, Provenance("dynamo")) for item in guards)
        self.discriminators: list[Guard] = []
        program = lower(self.checked)
        self.row_origins = program.row_origins
        self.checker = make_checker(program)

    def tell(self, item: Guard) -> None:
        program = program_of(item)
        self.checker.ask_first(program.rows, len(self.row_origins))
        self.row_origins += program.row_origins

    @property
    def last_failure(self) -> tuple[str, bool] | None:
        """Where the last miss stopped, and whether that was asked first."""
        at = self.checker.last_failure
        return None if at is None else (str(self.row_origins[at]), at >= len(lower(self.checked).row_origins))


def is_type(source: Source, kind: type) -> Guard:
    return guard(Test.TYPE_IS, (source,), (id(kind), kind.__name__))


def is_object(source: Source, value: object, test: Test = Test.IS) -> Guard:
    return guard(test, (source,), (id(value), repr(value)))


def is_tensor(source: Source, *sizes: int | None, grad: bool = False) -> Guard:
    example = torch.ones(*(1 if size is None else size for size in sizes), requires_grad=grad)
    keys, dtype, device, _ = _C.tensor_facts(example, None)
    strides = tuple(None if None in sizes else stride for stride in example.stride())
    facts = TensorFacts(id(torch.Tensor), keys, dtype, device, grad, sizes, strides, False, "torch.Tensor", "float32")
    return guard(Test.TENSOR, (source,), (facts,))


ROWS = X.child(Access.TENSOR_SIZE, 0)

PAIRS: dict[str, tuple[Guard, Guard]] = {
    "a shape expression": (shape("v0 % 4 == 0", ROWS), shape("v0 % 4 != 0", ROWS)),
    "a range": (shape("v0 <= 6", ROWS), shape("7 <= v0", ROWS)),
    "a relation of sizes": (shape("2*v0 > v1", ROWS, Y), shape("2*v0 <= v1", ROWS, Y)),
    "a residue": (shape("v0 % 4 == 1", ROWS), shape("v0 % 4 == 2", ROWS)),
    "an int": (equals(X, 1), equals(X, 2)),
    "a string": (equals(X, "a"), equals(X, "b")),
    "an int or a bool": (equals(X, 1), equals(X, True)),
    "a type": (is_type(X, int), is_type(X, str)),
    "a type or a value of another": (is_type(X, int), equals(X, "a")),
    "None or an int": (is_object(X, None), is_type(X, int)),
    "None or anything": (is_object(X, None), is_object(X, None, Test.IS_NOT)),
    "True or False": (is_object(X, True), is_object(X, False)),
    "a tensor's size": (is_tensor(X, 2, 3), is_tensor(X, 4, 3)),
    "a tensor's rank": (is_tensor(X, 2), is_tensor(X, 2, 3)),
    "a tensor's gradient": (is_tensor(X, 2), is_tensor(X, 2, grad=True)),
    "a tensor or None": (is_tensor(X, 2), is_object(X, None)),
    "a length": (guard(Test.LENGTH, (X,), (1, False)), guard(Test.LENGTH, (X,), (2, False))),
    "the length of a dict": (guard(Test.DICT_LENGTH, (X,), (1,)), guard(Test.DICT_LENGTH, (X,), (2,))),
    "a key": (guard(Test.DICT_CONTAINS, (X,), ("a", True)), guard(Test.DICT_CONTAINS, (X,), ("a", False))),
}


@pytest.mark.parametrize("name", PAIRS)
def test_each_of_two_entries_asks_first_what_tells_it_from_the_other(name: str) -> None:
    one, two = PAIRS[name]
    common = equals(Y, "both")
    first, second = Entry(common, one), Entry(common, two)
    discriminate(second, [first], Entry.tell)
    assert first.discriminators == [one]
    assert second.discriminators == [two]


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        (is_tensor(X, None, 3), is_tensor(X, 2, 3)),
        (is_type(X, int), equals(X, 1)),
        (is_type(X, type(None)), is_object(X, None)),
    ],
    ids=["a dynamic size", "a dynamic int", "a singleton"],
)
def test_of_a_wide_and_a_narrow_entry_only_the_narrow_one_can_tell(wide: Guard, narrow: Guard) -> None:
    first, second = Entry(narrow), Entry(wide)
    discriminate(second, [first], Entry.tell)
    assert first.discriminators == [narrow]
    assert second.discriminators == []


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (guard(Test.PREDICATE, (X,), (bool, "bool(x)")), guard(Test.PREDICATE, (X,), (any, "any(x)"))),
        (equals(X, (1,)), equals(X, (2,))),
        (equals(X.child(Access.CALL0), 1), equals(X.child(Access.CALL0), 2)),
        (equals(X, 1), equals(Y, 1)),
        (shape("v0 % 4 == 0", ROWS), shape("v0 % 3 != 0", ROWS)),
        (shape("v0 < 3", X.child(Access.CALL0)), shape("v0 >= 3", X.child(Access.CALL0))),
        (shape(f"v0 < {2**70}", X), shape(f"v0 >= {2**70}", X)),
    ],
    ids=[
        "a predicate",
        "a value that may compare in Python",
        "a path that runs code",
        "another source",
        "expressions that may both hold",
        "an expression over a path that runs code",
        "an expression that is asked of Python",
    ],
)
def test_what_may_run_code_or_need_not_differ_is_not_asked_first(one: Guard, two: Guard) -> None:
    first, second = Entry(one), Entry(two)
    discriminate(second, [first], Entry.tell)
    assert first.discriminators == second.discriminators == []


def test_one_guard_tells_an_entry_from_all_others_when_it_can() -> None:
    entries = [Entry(is_tensor(X, size), is_tensor(Y, size)) for size in range(2, 10)]
    for at, entry in enumerate(entries):
        discriminate(entry, entries[:at], Entry.tell)
    assert [len(entry.discriminators) for entry in entries] == [1] * 8


def test_no_entry_asks_many_guards_first() -> None:
    sources = [L(Access.LOCAL, f"x{at}") for at in range(12)]
    first = Entry(*(equals(source, 0) for source in sources))
    for source in sources:
        discriminate(Entry(*(equals(other, int(other is source)) for other in sources)), [first], Entry.tell)
    assert len(first.discriminators) == MOST


def test_shared_guards_are_those_of_all() -> None:
    one, two = Entry(equals(X, 1), equals(Y, 1)), Entry(equals(X, 2), equals(Y, 1))
    assert shared(one, [two]) == 1
    assert shared(one, []) == 0


# ---- the native checker ----------------------------------------------------------------------------------------------


def told(item: Guard, *others: Guard) -> Entry:
    """An entry that asks ``item`` before ``others``."""
    made = Entry(*others, item)
    made.tell(item)
    return made


def asked() -> tuple[Guard, list[object]]:
    """A guard that holds, and what it was asked."""
    seen: list[object] = []

    def ask(value: object) -> bool:
        seen.append(value)
        return True

    return guard(Test.PREDICATE, (Y,), (ask, "ask(y)")), seen


VALUES: dict[str, tuple[Guard, Callable[[], Any], Callable[[], Any]]] = {
    "an int": (equals(X, 10**20), lambda: 10**20, lambda: 10**21),
    "a string": (equals(X, "ab"), lambda: "".join("ab"), lambda: "".join("ba")),
    "a type": (is_type(X, int), lambda: 1, lambda: True),
    "an object": (is_object(X, None), lambda: None, lambda: 0),
    "not an object": (is_object(X, None, Test.IS_NOT), lambda: 0, lambda: None),
    "a list": (guard(Test.LENGTH, (X,), (2, False)), lambda: [1, 2], lambda: [1]),
    "a dict": (guard(Test.DICT_LENGTH, (X,), (1,)), lambda: {1: 1}, list),
    "a key": (guard(Test.DICT_CONTAINS, (X,), ("a", True)), lambda: {"a": 1}, dict),
    "no key": (guard(Test.DICT_CONTAINS, (X,), ("a", False)), dict, lambda: {"a": 1}),
    "a size": (is_tensor(X, 2, 3), lambda: torch.ones(2, 3), lambda: torch.ones(3, 3)),
    "a rank": (is_tensor(X, 2, 3), lambda: torch.ones(2, 3), lambda: torch.ones(2)),
    "strides": (is_tensor(X, 2, 3), lambda: torch.ones(2, 3), lambda: torch.ones(3, 2).T),
    "a dtype": (is_tensor(X, 2, 3), lambda: torch.ones(2, 3), lambda: torch.ones(2, 3, dtype=torch.int32)),
    "a gradient": (is_tensor(X, 2), lambda: torch.ones(2), lambda: torch.ones(2, requires_grad=True)),
    "a parameter": (is_tensor(X, 2), lambda: torch.ones(2), lambda: torch.nn.Parameter(torch.ones(2))),
    "no tensor": (is_tensor(X, 2), lambda: torch.ones(2), lambda: [1, 2]),
    "an expression": (shape("v0 % 4 == 0", ROWS), lambda: torch.ones(8), lambda: torch.ones(9)),
    "a dimension": (shape("v0 < 9", ROWS), lambda: torch.ones(8), lambda: torch.ones(())),
    "a scalar": (shape("v0 // 2 < 9", X), lambda: 17, lambda: 18),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_guard_that_is_asked_first_answers_as_it_does_later(name: str) -> None:
    item, good, bad = VALUES[name]
    later, seen = asked()
    made = told(item, later)
    assert made.checker.check({"x": good(), "y": "then"})
    assert not made.checker.check({"x": bad(), "y": "never"})
    assert seen == ["then"], "only what fails in the program runs what comes before it there"


class Holder:
    """An object with attributes."""

    def __init__(self, value: object) -> None:
        self.value = value


@pytest.mark.parametrize(
    ("source", "hold"),
    [
        (X.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, "value"), Holder),
        (X.child(Access.ATTR, "value"), Holder),
        (X.child(Access.ITEM, "value"), lambda value: {"value": value}),
        (X.child(Access.LIST_ITEM, 0), lambda value: [value]),
        (X.child(Access.TUPLE_ITEM, 0), lambda value: (value,)),
        (L(Access.GLOBALS, {"held": (1,)}).child(Access.DICT_ITEM, "held").child(Access.TUPLE_ITEM, 0), None),
    ],
    ids=["__dict__", "an attribute", "an item", "a list", "a tuple", "a global"],
)
def test_the_path_to_it_is_followed(source: Source, hold: Callable[[object], Any] | None) -> None:
    for value in (1, 2):
        made = told(equals(source, value))
        shown = {} if hold is None else {"x": hold(1)}
        if hold is Holder:
            vars(shown["x"])  # makes its dict
        assert made.checker.check(shown) is (value == 1)
        assert made.last_failure == (None if value == 1 else (f"{source} == 2", True))


@pytest.mark.parametrize("shown", [{}, {"x": None}, {"x": ()}], ids=["no local", "no tuple", "no item"])
def test_a_path_that_ends_early_is_a_miss(shown: dict[str, Any]) -> None:
    assert not told(equals(X.child(Access.TUPLE_ITEM, 0), 1)).checker.check(shown)


@pytest.mark.parametrize(
    ("item", "value", "holds"),
    [
        (equals(X.child(Access.ATTR, "value"), 1), property(lambda self: 1), True),
        (equals(X.child(Access.ATTR, "value"), 2), property(lambda self: 1), False),
    ],
    ids=["holds", "fails"],
)
def test_what_would_run_code_is_left_to_the_program(item: Guard, value: property, holds: bool) -> None:
    kind = type("Computed", (), {"value": value})
    later, seen = asked()
    assert told(item, later).checker.check({"x": kind(), "y": 1}) is holds
    assert seen == [1]


def test_a_tensor_whose_metadata_is_computed_is_left_to_the_program() -> None:
    later, seen = asked()
    sparse = torch.ones(2, 3).to_sparse_csr()
    assert not told(is_tensor(X, 2, 3), later).checker.check({"x": sparse, "y": 1})
    assert seen == [1]


def test_a_miss_is_counted_and_named_whichever_asks() -> None:
    made = told(equals(X, 1), equals(Y, 1))
    before = _C.counts()
    assert not made.checker.check({"x": 2, "y": 1})
    assert made.last_failure == ("L['x'] == 1", True)
    assert not made.checker.check({"y": 1})
    assert made.last_failure == ("L['x']", True)
    assert not made.checker.check({"x": 1, "y": 2})
    assert made.last_failure == ("L['y'] == 1", False)
    assert made.checker.check({"x": 1, "y": 1})
    assert made.checker.counts == (4, 1, 3, 0)
    assert [now - then for now, then in zip(_C.counts(), before, strict=True)] == [4, 1, 3, 0]


@pytest.mark.parametrize(
    "value", [2**70, 2**63 - 1, 10.5, "text"], ids=["many bits", "overflow", "a float", "no number"]
)
def test_an_expression_over_numbers_without_registers_is_left_to_the_program(value: object) -> None:
    later, seen = asked()
    assert not told(shape("v0 + 1 < 9", X), later).checker.check({"x": value, "y": 1})
    assert seen == [1]


def test_what_asks_first_is_part_of_the_size() -> None:
    made = Entry(equals(X, 1))
    before = made.checker.nbytes, made.checker.length
    made.tell(equals(X, 1))
    assert made.checker.nbytes > before[0]
    assert made.checker.length == before[1] + 2


@pytest.mark.parametrize(
    "item",
    [
        is_tensor(X, *range(1, 10)),
        equals(functools.reduce(lambda source, at: source.child(Access.TUPLE_ITEM, at), range(8), X), 1),
    ],
    ids=["many dimensions", "a long path"],
)
def test_what_is_too_large_to_ask_first_is_refused_natively_and_not_chosen(item: Guard) -> None:
    made = Entry(item)
    with pytest.raises(ValueError, match="discriminator"):
        made.tell(item)
    other = Entry(is_object(item.source, None))
    discriminate(other, [made], Entry.tell)
    assert made.discriminators == []


def test_a_guard_may_make_another_entry_while_it_is_asked() -> None:
    """The keys of a strange dict compare in Python, in which anything may happen; also that the entry is told more."""

    class Strange:
        def __hash__(self) -> int:
            return hash("a")

        def __eq__(self, other: object) -> bool:
            made.tell(equals(Y, 0))
            return False

    made = told(equals(X.child(Access.ITEM, "a"), 1))
    before = made.checker.length
    assert not made.checker.check({"x": {Strange(): 1, "b": 1}, "y": 0})
    assert made.checker.length > before


# ---- the entries of a compiled function ------------------------------------------------------------------------------


def frames(function: Callable[..., Any]) -> list[DynamoEntry]:
    return entries_of(function.__code__)


def eight() -> tuple[Watched, list[tuple[torch.Tensor, torch.Tensor]]]:
    """A function with eight entries, and arguments for each."""

    def scale(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * y

    watched = static(scale)
    arguments = [(ones(size), ones(size)) for size in range(2, 10)]
    for at, given_ in enumerate(arguments, 1):
        watched.expect(at, *given_)
    return watched, arguments


def test_one_entry_asks_nothing_first() -> None:
    watched = static(lambda x: x + 1)
    watched.expect(1, ones(2))
    (frame,) = frames(watched.function)
    assert frame.discriminators == []
    assert len(frame.row_origins) == len(lower(frame.checked).row_origins)


def test_each_of_eight_entries_is_found_in_any_order() -> None:
    watched, arguments = eight()
    for given_ in [*arguments, *reversed(arguments), *arguments[::3]]:
        watched.expect(8, *given_)


def test_a_wrong_entry_fails_at_what_tells_it_apart() -> None:
    watched, arguments = eight()
    watched(*arguments[0])
    found = frames(watched.function)[1:]
    assert len(found) == 7
    for frame in found:
        assert [frame.last_failure] == [str(item) for item in frame.discriminators]


def test_what_all_share_is_evaluated_by_one_entry_a_lookup() -> None:
    """A predicate that every entry has, counted."""
    calls: list[object] = []
    y = equals(Y, "shared")
    counted = guard(Test.PREDICATE, (Y,), (lambda value: calls.append(value) or True, "counted(y)"))
    entries = [Entry(y, counted, is_tensor(X, size)) for size in range(2, 10)]
    for at, entry in enumerate(entries):
        discriminate(entry, entries[:at], Entry.tell)
    verdicts = [entry.checker.check({"x": ones(6), "y": "shared"}) for entry in entries]
    assert verdicts == [size == 6 for size in range(2, 10)]
    assert len(calls) == 1


def test_a_shared_guard_that_fails_makes_all_miss() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.negate = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return -x if self.negate else x + 1

    net = Net()
    watched = static(net)
    for at, size in enumerate((2, 3, 4), 1):
        watched.expect(at, ones(size))
    net.negate = True
    watched.expect(4, ones(3))
    watched.expect(4, ones(3))
    net.negate = False
    watched.expect(4, ones(3))


def test_of_several_entries_that_fit_the_one_used_last_is_chosen() -> None:
    """As torch: a dynamic entry is made after a static one, and fits what that one does."""

    def entries_used(install: bool) -> list[list[int]]:
        torch._dynamo.reset()
        calls: list[int] = []
        made = 0

        def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
            nonlocal made
            made += 1
            number = made

            def run(*args: Any) -> Any:
                calls.append(number)
                return graph.forward(*args)

            return run

        def double(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        if not install:
            unified_guards.uninstall()
        compiled = torch.compile(double, backend=backend)
        found = []
        for size in (3, 4, 3, 5, 3, 3, 4):
            calls.clear()
            compiled(ones(size))
            found.append(list(calls))
        return found

    ours = entries_used(True)
    with_torch = _uninstalled(lambda: entries_used(False))
    assert ours == with_torch


def _uninstalled(function: Callable[[], Any]) -> Any:
    """What ``function`` gives in a thread-wide pause of the installation."""
    from unified_guards.dynamo import install

    inside, install._inside = install._inside, 0
    install._patch_as_wanted()
    try:
        return function()
    finally:
        install._inside = inside
        install._patch_as_wanted()


def test_a_mutation_between_two_checks_is_seen() -> None:
    """Nothing is remembered from one entry's check to the next's: not for the same dict, not within a lookup."""
    shared_, other = equals(Y, 1), is_tensor
    first, second = Entry(shared_, other(X, 2)), Entry(shared_, other(X, 3))
    discriminate(second, [first], Entry.tell)
    shown = {"x": ones(3), "y": 1}
    assert not first.checker.check(shown)
    shown["y"] = 2
    assert not second.checker.check(shown)
    shown["y"] = 1
    assert second.checker.check(shown)


def test_what_user_code_in_one_entrys_guard_changes_is_seen_by_the_next() -> None:
    state = Holder(1)

    def change(value: object) -> bool:
        state.value = 2
        return False

    source = X.child(Access.ATTR, "value")
    first = Entry(equals(source, 1), guard(Test.PREDICATE, (Y,), (change, "change(y)")))
    second = Entry(equals(source, 1))
    discriminate(second, [first], Entry.tell)
    shown = {"x": state, "y": 0}
    assert [entry.checker.check(shown) for entry in (first, second)] == [False, False]


def test_an_exception_in_one_entrys_guard_does_not_touch_the_next() -> None:
    def fail(value: object) -> bool:
        raise ValueError("no")

    first = Entry(equals(X, 1), guard(Test.PREDICATE, (Y,), (fail, "fail(y)")))
    second = Entry(equals(X, 1), equals(Y, 0))
    discriminate(second, [first], Entry.tell)
    assert [entry.checker.check({"x": 1, "y": 0}) for entry in (first, second)] == [False, True]


def test_asking_from_within_another_entrys_guard_gives_each_its_own_answer() -> None:
    answers: list[bool] = []

    def ask(value: object) -> bool:
        answers.append(second.checker.check({"x": 2, "y": value}))
        return True

    first = Entry(equals(X, 1), guard(Test.PREDICATE, (Y,), (ask, "ask(y)")))
    second = Entry(equals(X, 2))
    discriminate(second, [first], Entry.tell)
    assert first.checker.check({"x": 1, "y": 0})
    assert answers == [True]
    assert first.checker.last_failure is None


def test_threads_get_the_entry_of_their_own_arguments() -> None:
    watched, arguments = eight()
    wrong: list[object] = []

    def run(which: int) -> None:
        x, y = arguments[which]
        for _ in range(300):
            if watched.compiled(x, y).shape != x.shape:
                wrong.append(which)

    threads = [threading.Thread(target=run, args=(at,)) for at in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert watched.graphs == 8


def test_an_entry_whose_object_has_died_tells_nothing() -> None:
    def use(x: torch.Tensor, thing: Any) -> torch.Tensor:
        return x + thing.value

    watched = static(use)
    kept, doomed = Holder(1), type("Doomed", (Holder,), {})(2)
    watched.expect(1, ones(2), kept)
    watched.expect(2, ones(2), doomed)
    assert len(frames(use)) == 2
    gone = weakref.ref(frames(use)[0])
    del doomed
    torch._dynamo.reset()
    collect()
    assert gone() is None
    watched.expect(3, ones(2), kept)
    assert [frame.discriminators for frame in frames(use)] == [[]]


def test_entries_that_are_reset_are_forgotten() -> None:
    watched, arguments = eight()
    torch._dynamo.reset()
    watched.expect(9, *arguments[0])
    watched.expect(10, *arguments[1])
    assert [len(frame.discriminators) for frame in frames(watched.function)] == [1, 1]


def test_entries_do_not_keep_one_another_or_a_model_alive() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    net = Net()
    watched = static(net)
    for size in (2, 3, 4):
        watched(ones(size))
    found = [weakref.ref(frame) for frame in frames(Net.forward)]
    model = weakref.ref(net)
    assert len(found) == 3
    del net, watched
    torch._dynamo.reset()
    gc.collect()
    assert model() is None
    assert [frame() for frame in found] == [None] * 3


def test_memory_stays_flat_over_recompiles() -> None:
    def add(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    sizes = []
    for _ in range(4):
        torch._dynamo.reset()
        watched = static(add)
        for size in range(2, 8):
            watched(ones(size))
        sizes.append(sum(frame.checker.nbytes for frame in frames(add)))
    assert len(set(sizes[1:])) == 1


def test_entries_of_torch_and_of_ours_live_beside_each_other() -> None:
    def add(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    watched = static(add)
    watched.expect(1, ones(2))
    _uninstalled(lambda: watched.expect(2, ones(3)))
    watched.expect(3, ones(4))
    for size in (2, 3, 4, 3, 2):
        watched.expect(3, ones(size))
    kinds = [type(entry.guard_manager) for entry in _debug_get_cache_entry_list(add.__code__)]
    assert kinds.count(UnifiedGuardManagerWrapper) == 2


def test_a_report_says_what_is_shared_and_what_is_asked_first() -> None:
    watched, _ = eight()
    report = unified_guards.explain(watched.function)
    for frame in report.frames:
        assert frame.siblings == 7
        assert frame.shared == frame.guards_checked - 2  # x and y
        assert len(frame.discriminators) == 1
        assert f"shares {frame.shared} checks with 7 other entries; asks first: L['x'] is" in frame.summary()
        assert frame.instructions > 0


def test_a_report_on_one_entry_says_nothing_of_others() -> None:
    watched = static(lambda x: x + 1)
    watched(ones(2))
    (frame,) = unified_guards.explain(watched.function).frames
    assert (frame.siblings, frame.shared, frame.discriminators) == (0, 0, ())
    assert "shares" not in frame.summary()


# ---- the same decisions as torch -------------------------------------------------------------------------------------


def _branch(x: torch.Tensor, mode: Any, items: Any, flag: Any) -> torch.Tensor:
    if mode is None:
        return x
    if mode == "add":
        x = x + len(items)
    elif mode == 3:
        x = x * 3
    if flag and "key" in items:
        x = x - 1
    return x * 2


ARGUMENTS = st.tuples(
    st.sampled_from(
        [ones(2), ones(3), ones(2, 2), ones(2, requires_grad=True), torch.ones(2, dtype=torch.int32), ones(4)[::2]]
    ),
    st.sampled_from([None, "add", "other", 3, 4, 3.0, True]),
    st.sampled_from([[], [1], (1, 2), {}, {"key": 1}]),
    st.sampled_from([True, False, 0, 1, None]),
)


@repeatable(25)
@given(st.lists(ARGUMENTS, min_size=3, max_size=8), st.booleans())
def test_every_entry_decides_as_torchs_tree_does(calls: list[tuple[Any, ...]], dynamic: bool) -> None:
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=64):
        compiled = torch.compile(_branch, backend="eager", dynamic=None if dynamic else False)
        for arguments in calls:
            compiled(*arguments)
    entries = _debug_get_cache_entry_list(_branch.__code__)
    names = ("x", "mode", "items", "flag")
    for arguments in calls:
        shown = dict(zip(names, arguments, strict=True))
        wrappers = [entry.guard_manager for entry in entries]
        ours = [bool(wrapper.root.check(shown)) for wrapper in wrappers]
        theirs = [bool(wrapper.torch_root.check_verbose(shown).result) for wrapper in wrappers]
        assert ours == theirs, (arguments, [wrapper.entry.last_failure for wrapper in wrappers])


# ---- the entries of an AOT entry point -------------------------------------------------------------------------------


def test_versions_of_an_aot_function_ask_first_what_tells_them_apart() -> None:
    fast = unified_guards.aot_function(lambda x, mode: x + 1 if mode == "up" else x - 1, lambda graph, _: graph.forward)
    for mode, found in (("up", 2.0), ("down", 0.0), ("up", 2.0), ("down", 0.0)):
        assert fast(ones(2), mode).tolist() == [found] * 2
    newest, oldest = fast.explain().frames
    assert fast.cache_info().hits == 4
    assert [str(item) for item in newest.discriminators] == ["L['args'][1] == 'down'"]
    assert [str(item) for item in oldest.discriminators] == ["L['args'][1] == 'up'"]
    assert newest.shared == newest.guards_checked - 1
    assert "L['args'][1] == 'up'" in str(fast.recompiles()[0])
