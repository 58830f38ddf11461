"""Kinds of guards that torch does not have: the native checker and the reference agree about each."""

from __future__ import annotations

import collections
import copy
import enum
import weakref
from typing import Any

import pytest
import torch

from unified_guards.guards import semantics
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.guards.serialize import dumps, loads
from unified_guards.lower.rows import lower, make_checker

from ..shapes import shape
from .building import Values
from .cases.accessors import deleted
from .cases.leaf_guards import FloatSubclass, moved_to_end
from .cases.tensors import Subclass
from .objects import Bag, IntSubclass, LyingClass, Raises, RaisingEq, StrSubclass

#: By name: the guards, and what to show them with what is to be said of it.
OWN: dict[str, tuple[list[Guard], dict[str, tuple[Values, bool]]]] = {}
X, Y, Z = (Source.frame().child(Access.LOCAL, name) for name in "xyz")


def own(name: str, guards: list[Guard], passes: dict[str, Any], fails: dict[str, Any]) -> None:
    """What is shown is the value of each local in turn (a tuple), or of x alone."""

    def shown(value: Any) -> Values:
        return dict(zip("xyz", value, strict=False)) if type(value) is tuple else {"x": value}

    table = {label: (shown(value), True) for label, value in passes.items()}
    table |= {label: (shown(value), False) for label, value in fails.items()}
    OWN[name] = (guards, table | {"missing": ({}, False)})


class Number(enum.IntEnum):
    ONE = 1


class DictSubclass(dict):  # type: ignore[type-arg]
    pass


class EqualKey:
    """Equal to others of its type, but only for those that ask."""

    def __init__(self, answer: Any = True) -> None:
        self.answer = answer

    def __eq__(self, other: object) -> bool:
        if isinstance(self.answer, Exception):
            raise self.answer
        return bool(self.answer)

    def __hash__(self) -> int:
        return id(self)


class EmptyingKey:
    """Comparing it empties the dict that it is in."""

    def __init__(self) -> None:
        self.within: dict[Any, Any] = {self: 1, "b": 2}

    def __eq__(self, other: object) -> bool:
        if self is not other:
            self.within.clear()
        return True

    def __hash__(self) -> int:
        return 7


def not_interned(text: str) -> str:
    return "".join(list(text))


def filled_backwards() -> Bag:
    """The instance shares its keys with its class, in another order than its own."""

    class Shared(Bag):
        def __init__(self, names: str) -> None:
            for name in names:
                setattr(self, name, name)

    Shared("ab")
    return Shared("ba")


KEY_OBJECT, NAN = EqualKey(), float("nan")

own(
    "keys",
    [guard(Test.KEYS, (X,), (("a", "b"),))],
    {
        "passes": {"a": 1, "b": 2},
        "equal": {not_interned("a"): 1, "b": 2},
        "after a deletion": deleted({"c": 0, "a": 1, "b": 2}, "c"),
        "of an instance": Bag(a=1, b=2).__dict__,
    },
    {
        "order": {"b": 2, "a": 1},
        "order of an instance": filled_backwards().__dict__,
        "fewer": {"a": 1},
        "more": {"a": 1, "b": 2, "c": 3},
        "other": {"a": 1, "c": 2},
        "a key of a subclass": {StrSubclass("a"): 1, "b": 2},
        "an OrderedDict": collections.OrderedDict(a=1, b=2),
        "a subclass": DictSubclass(a=1, b=2),
        "a list": ["a", "b"],
        "no dict": 3,
        "lying": LyingClass(dict),
        "raising": Raises(),
    },
)
own("no keys", [guard(Test.KEYS, (X,), ((),))], {"passes": {}}, {"more": {"a": 1}, "an OrderedDict": moved_to_end()})
own(
    "keys of many types",
    [guard(Test.KEYS, (X,), ((1, None, (2, "a"), NAN),))],
    {"passes": {1: 0, None: 0, (2, "a"): 0, NAN: 0}},
    {
        "True for 1": {True: 0, None: 0, (2, "a"): 0, NAN: 0},
        "1.0 for 1": {1.0: 0, None: 0, (2, "a"): 0, NAN: 0},
        "another nan": {1: 0, None: 0, (2, "a"): 0, float("nan"): 0},
    },
)
own(
    "a key with an equality of its own",
    [guard(Test.KEYS, (X,), ((KEY_OBJECT, "b"),))],
    {"the same": {KEY_OBJECT: 1, "b": 2}, "an equal one": {EqualKey(): 1, "b": 2}},
    {"another": {EqualKey(False): 1, "b": 2}, "raising": {EqualKey(ValueError()): 1, "b": 2}},
)
EMPTYING = EmptyingKey()
own(
    "a key that empties the dict",
    [guard(Test.KEYS, (X,), ((EMPTYING, "b"),))],
    {"the same": EMPTYING.within},
    {"an equal one": EmptyingKey().within},
)

DEEP = [1, (True, 2.0, -0.0), {"a": 1j, 2: [None]}, {"b", 3}, frozenset({0.0}), slice(1, None, 2), torch.Size([1])]
RECURSIVE: list[Any] = []
RECURSIVE.append(RECURSIVE)
OTHER_RECURSIVE: list[Any] = []
OTHER_RECURSIVE.append(OTHER_RECURSIVE)


def deep(at: int, value: Any) -> list[Any]:
    """The value above with another part."""
    return [value if position == at else copy.deepcopy(part) for position, part in enumerate(DEEP)]


own(
    "deep equality",
    [guard(Test.DEEP_EQUALS, (X,), (DEEP,))],
    {
        "the same": DEEP,
        "equal": copy.deepcopy(DEEP),
        "a set made otherwise": deep(3, {3, "b"}),
        "a text that is not interned": deep(2, {not_interned("a"): 1j, 2: [None]}),
    },
    {
        "True for 1": deep(0, True),
        "1.0 for 1": deep(0, 1.0),
        "a subclass for 1": deep(0, IntSubclass(1)),
        "1 for True": deep(1, (1, 2.0, -0.0)),
        "2 for 2.0": deep(1, (True, 2, -0.0)),
        "0.0 for -0.0": deep(1, (True, 2.0, 0.0)),
        "shorter": deep(1, (True, 2.0)),
        "longer": deep(1, (True, 2.0, -0.0, 1)),
        "a list for a tuple": deep(1, [True, 2.0, -0.0]),
        "a value in a dict": deep(2, {"a": complex(0, 1.5), 2: [None]}),
        "the sign of a part": deep(2, {"a": complex(-0.0, 1), 2: [None]}),
        "a key in a dict": deep(2, {"a": 1j, 2.0: [None]}),
        "order of a dict": deep(2, {2: [None], "a": 1j}),
        "a list in a dict": deep(2, {"a": 1j, 2: [0]}),
        "an OrderedDict": deep(2, collections.OrderedDict({"a": 1j, 2: [None]})),
        "fewer in a dict": deep(2, {"a": 1j}),
        "a member of a set": deep(3, {"b", 4}),
        "the type of a member": deep(3, {"b", 3.0}),
        "fewer in a set": deep(3, {"b"}),
        "the sign of a member": deep(4, frozenset({-0.0})),
        "a set for a frozenset": deep(4, {0.0}),
        "the start of a slice": deep(5, slice(True, None, 2)),
        "the stop of a slice": deep(5, slice(1, 0, 2)),
        "a tuple for a size": deep(6, (1,)),
        "fewer": DEEP[:-1],
        "more": [*DEEP, 1],
        "a subclass": type("Sub", (list,), {})(DEEP),
        "no list": 3,
        "lying": LyingClass(list),
        "raising": Raises(),
        "raising within": deep(0, Raises()),
        "raising in a set": deep(3, {"b", RaisingEq()}),
    },
)
own(
    "deep equality of a NaN",
    [guard(Test.DEEP_EQUALS, (X,), ([float("nan"), {NAN}],))],
    {"another": [float("nan"), {NAN}]},
    {"its sign": [-float("nan"), {NAN}], "another in a set": [float("nan"), {float("nan")}]},
)
own(
    "deep equality of what has an equality of its own",
    [guard(Test.DEEP_EQUALS, (X,), ([KEY_OBJECT, Number.ONE],))],
    {"the same": [KEY_OBJECT, Number.ONE], "an equal one": [EqualKey(), Number.ONE]},
    {
        "another": [EqualKey(False), Number.ONE],
        "raising": [EqualKey(ValueError()), Number.ONE],
        "1 for an enum": [KEY_OBJECT, 1],
    },
)
own(
    "deep equality of a list that is in itself",
    [guard(Test.DEEP_EQUALS, (X,), (RECURSIVE,))],
    {"the same": RECURSIVE},
    {"another": OTHER_RECURSIVE, "none": []},
)

TARGET, DEAD = Bag(), weakref.ref(Bag())
own(
    "the target of a weak reference",
    [guard(Test.IS_TARGET, (X,), (weakref.ref(TARGET), "that Bag"))],
    {"passes": TARGET},
    {"another": Bag(), "None": None, "the reference": weakref.ref(TARGET), "raising": Raises()},
)
own(
    "the target of a dead reference",
    [guard(Test.IS_TARGET, (X,), (DEAD, "that Bag"))],
    {},
    {"another": Bag(), "None": None},
)
own(
    "a function by a weak reference",
    [guard(Test.IS_TARGET, (X,), (weakref.ref(not_interned), "tests.kinds.test_own_kinds.not_interned"))],
    {"passes": not_interned},
    {"another": filled_backwards, "None": None},
)

own(
    "an expression",
    [shape("v0 < 2*v1", X, Y)],
    {
        "passes": (3, 2),
        "floats": (2.5, 1.5),
        "beyond 64 bits": (2**70, 2**70),
        "minus infinity": (float("-inf"), 0),
    },
    {
        "fails": (4, 2),
        "beyond 64 bits": (2**71, 2**70),
        "bool": (True, 2),
        "int subclass": (IntSubclass(1), 2),
        "float subclass": (FloatSubclass(1.0), 2),
        "an enum": (Number.ONE, 2),
        "nan": (NAN, 2),
        "no number": ("a", 2),
        "None": (None, 2),
        "a tensor": (torch.tensor(3), 2),
        "raising": (Raises(), 2),
        "half is missing": (3,),
    },
)
own(
    "an expression that divides",
    [shape("v0 % v1 == 0 and v0 // v1 > 2", X, Y)],
    {"passes": (9, 3), "big": (2**100, 2**50)},
    {"fails": (9, 2), "by zero": (9, 0), "by a float zero": (9, 0.0)},
)
own(
    "an expression whose truth is a number",
    [shape("v0 - 1", X)],
    {"passes": 2, "nan": NAN},
    {"fails": 1, "a float": 1.0, "bool": False},
)
own(
    "an expression over a tensor",
    [
        shape(
            "v0 > 2 and v1 == 1 and v2 == 0",
            X.child(Access.TENSOR_SIZE, 0),
            X.child(Access.TENSOR_STRIDE, 0),
            X.child(Access.TENSOR_OFFSET),
        )
    ],
    {"passes": torch.ones(3)},
    {"size": torch.ones(2), "stride": torch.ones(6)[::2], "offset": torch.ones(4)[1:], "no dimension": torch.ones(())},
)
own(
    "several expressions and another relation",
    [
        shape("v0 < v1", Z, Y),
        guard(Test.SAME, (X, X)),
        shape("v0 == v2 and v0 > v1", X, Y, X),
        guard(Test.TYPE_IS, (Y,), (id(int), "int")),
    ],
    {"passes": (3, 2, 1)},
    {"first": (3, 2, 2), "second": (2, 2, 1), "type": (3, 2.0, 1), "bool in the last": (3, 2, False)},
)

MEMORY, OTHER_MEMORY = torch.arange(12.0), torch.arange(12.0)
SPARSE = torch.eye(3).to_sparse()
own(
    "unique storage",
    [guard(Test.UNIQUE_STORAGE, (X, Y, Z))],
    {
        "passes": (MEMORY, OTHER_MEMORY, torch.ones(2)),
        "views of others": (MEMORY[2:], OTHER_MEMORY.view(3, 4), torch.ones(2).t()),
        "sparse": (SPARSE, SPARSE, MEMORY),
        "compressed": (torch.eye(3).to_sparse_csr(), SPARSE, MEMORY),
        "on no device": (torch.ones(2, device="meta"), torch.ones(2, device="meta"), MEMORY),
        "a parameter": (torch.nn.Parameter(torch.ones(2)), MEMORY, OTHER_MEMORY),
        "empty": (torch.empty(0), torch.empty(0), MEMORY),
    },
    {
        "the same": (MEMORY, OTHER_MEMORY, MEMORY),
        "a view": (MEMORY, MEMORY[3:], OTHER_MEMORY),
        "apart in one storage": (MEMORY[:3], OTHER_MEMORY, MEMORY[6:]),
        "detached": (MEMORY, MEMORY.detach(), OTHER_MEMORY),
        "a subclass": (MEMORY, MEMORY.as_subclass(Subclass), OTHER_MEMORY),
        "no tensor": (MEMORY, 3, OTHER_MEMORY),
        "None": (MEMORY, None, OTHER_MEMORY),
        "lying": (MEMORY, LyingClass(torch.Tensor), OTHER_MEMORY),
        "half is missing": (MEMORY, OTHER_MEMORY),
    },
)
own(
    "unique storage within groups only",
    [
        guard(Test.UNIQUE_STORAGE, (X, Y)),
        guard(Test.UNIQUE_STORAGE, (Y, Z)),
        guard(Test.UNIQUE, (X, Y, Z)),
    ],
    {"passes": (MEMORY, OTHER_MEMORY, MEMORY[1:])},
    {
        "first": (MEMORY, MEMORY[1:], OTHER_MEMORY),
        "second": (MEMORY, OTHER_MEMORY, OTHER_MEMORY[1:]),
        "objects": (MEMORY, OTHER_MEMORY, MEMORY),
    },
)
own(
    "shared storage",
    [guard(Test.SHARES_STORAGE, (X, Y)), guard(Test.EXISTS, (Z,))],
    {"the same": (MEMORY, MEMORY, 1), "a view": (MEMORY[1:], MEMORY.view(3, 4), 1)},
    {
        "other": (MEMORY, OTHER_MEMORY, 1),
        "sparse": (SPARSE, SPARSE, 1),
        "the first is no tensor": (3, MEMORY, 1),
        "the second is no tensor": (MEMORY, None, 1),
        "no tensors": (3, 3, 1),
        "missing": (MEMORY,),
    },
)


def own_set(name: str) -> GuardSet:
    return GuardSet((item, Provenance("aot")) for item in OWN[name][0])


@pytest.mark.parametrize(
    ("name", "label"),
    [pytest.param(name, label, id=f"{name}-{label}".replace(" ", "_")) for name in OWN for label in OWN[name][1]],
)
def test_native_and_reference_agree(name: str, label: str) -> None:
    guard_set = own_set(name)
    f_locals, holds = OWN[name][1][label]
    loaded = loads(dumps(guard_set))
    verdicts = {
        "native": make_checker(lower(guard_set)).check(f_locals),
        "reference": semantics.evaluate(guard_set, f_locals),
    }
    if all(item.test is not Test.OPAQUE for item in loaded):
        verdicts["from JSON"] = make_checker(lower(loaded)).check(f_locals)
    assert verdicts == dict.fromkeys(verdicts, holds)


@pytest.mark.parametrize("name", OWN)
def test_one_checker_of_our_own_kinds_asked_in_turn(name: str) -> None:
    table = OWN[name][1]
    checker = make_checker(lower(own_set(name)))
    for f_locals, holds in [*table.values(), *reversed(table.values())]:
        assert checker.check(f_locals) is holds


def test_an_expression_over_exact_numbers_calls_no_python() -> None:
    checker = make_checker(lower(own_set("several expressions and another relation")))
    assert checker.check({"x": 3, "y": 2, "z": 1})
    assert checker.counts == (1, 1, 0, 0)


def test_an_expression_over_other_numbers_is_one_python_callback() -> None:
    checker = make_checker(lower(own_set("an expression")))
    assert checker.check({"x": 2**70, "y": 2**70})
    assert checker.counts == (1, 1, 0, 1)
