"""Every kind of guard and accessor that torch has, built by hand on its guard-manager classes.

Each kind is shown objects that pass, fail, are missing, have a wrong type, or raise; the native checker, the reference
evaluator and torch's own tree must agree. Where torch would throw, crash or leave an error pending (``unsafe`` below),
torch is not asked, and the other two must say no.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import ctypes
import dataclasses
import enum
import itertools
import subprocess
import sys
import textwrap
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo.guards as torch_guards
from torch._C._dynamo import guards as native
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

import unified_guards
from unified_guards import _C
from unified_guards.dynamo import compat, tap
from unified_guards.dynamo import lift as lifting
from unified_guards.guards import semantics
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.guards.serialize import dumps, loads
from unified_guards.lower.rows import lower, make_checker
from unified_guards.simplify.driver import simplify

from .modes import Function, Hidden, Visible
from .shapes import shape

PLAIN = torch_guards.GuardManagerType.GUARD_MANAGER
DICT = torch_guards.GuardManagerType.DICT_GUARD_MANAGER
NOTHING = object()

#: (class, method) pairs that some test below calls: filled while the tables are written down.
EXERCISED: set[tuple[str, str]] = set()


# -- building ----------------------------------------------------------------------------------------------------------


def below(manager: Any, method: str, **given: Any) -> Any:
    """The child that an accessor makes. Without an example, torch takes no shortcuts through dict tags."""
    given = {"source": f"{method}{given}", "example_value": None, "guard_manager_enum": PLAIN, **given}
    return getattr(manager, method)(**given)


def local(root: Any, name: str = "x", **given: Any) -> Any:
    return below(root, "framelocals_manager", key=(name, 0), **given)


def add(manager: Any, method: str, *args: Any) -> None:
    getattr(manager, method)(*args, [method], None)


class Built:
    """A tree of torch's and what was made of it."""

    def __init__(self, build: Callable[[Any], object]) -> None:
        with unified_guards.installed(), tap.recording() as records:
            self.root = native.RootGuardManager()
            self.held = build(self.root)
        self.guard_set: GuardSet = lifting.lift(records, self.root)
        self.checkers = [make_checker(lower(guards)) for guards in (self.guard_set, simplify(self.guard_set)[0])]

    def verdicts(self, f_locals: dict[str, Any], *, ask_torch: bool) -> dict[str, bool]:
        found = {
            "native": self.checkers[0].check(f_locals),
            "native, simplified": self.checkers[1].check(f_locals),
            "native, once more": self.checkers[0].check(f_locals),
            "reference": semantics.evaluate(self.guard_set, f_locals),
        }
        if ask_torch:
            found["torch"] = self.root.check(f_locals)
            found["torch, verbose"] = self.root.check_verbose(f_locals).result
        return found


@dataclasses.dataclass
class Shown:
    """A set of locals, and what is to be said of it."""

    f_locals: dict[str, Any]
    holds: bool
    safe: bool = True
    under: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext


@dataclasses.dataclass
class Case:
    """What to build, and what to show it, by label."""

    build: Callable[[Any], object]
    shown: dict[str, Shown] = dataclasses.field(default_factory=dict)
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext  # where it is built

    def built(self) -> Built:
        with self.around():
            return Built(self.build)

    def show(self, label: str, f_locals: dict[str, Any], holds: bool, **more: Any) -> Case:
        self.shown[label] = Shown(f_locals, holds, **more)
        return self


Values = dict[str, Any]


def values(
    build: Callable[[Any], object], passes: Values, fails: Values, unsafe: Values | None = None, name: str = "x"
) -> Case:
    """A case about one local. That it is missing is always among what is shown."""
    case = Case(build)
    for label, value in passes.items():
        case.show(label, {name: value}, True)
    for label, value in fails.items():
        case.show(label, {name: value}, False)
    for label, value in (unsafe or {}).items():
        case.show(f"unsafe: {label}", {name: value}, False, safe=False)
    return case.show("missing", {}, False)


def leaf(method: str, *args: Any, passes: Values, fails: Values, unsafe: Values | None = None) -> Case:
    return values(lambda root: add(local(root), method, *args), passes, fails, unsafe)


def accessor(
    method: str, leaf_args: tuple[Any, ...], passes: Values, fails: Values, unsafe: Values | None = None, **given: Any
) -> Case:
    """An accessor on a local, with one leaf guard (method and arguments) on what it reaches."""

    def build(root: Any) -> None:
        add(below(local(root), method, **given), *leaf_args)

    return values(build, passes, fails, unsafe)


KINDS: dict[str, Callable[[], Case]] = {}


def kind(
    *methods: str, cls: str = "GuardManager", since: str | None = None
) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    """Registers a case, which uses the given methods of a class; skipped where this torch lacks one of them."""

    def register(make: Callable[[], Case]) -> Callable[[], Case]:
        if all(hasattr(getattr(native, cls), method) for method in methods):
            EXERCISED.update((cls, method) for method in methods)
            KINDS[make.__name__] = make
        return make

    return register


# -- objects to show ---------------------------------------------------------------------------------------------------


class LyingClass:
    """Says that it is something else."""

    def __init__(self, claimed: type) -> None:
        self.claimed = claimed

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return self.claimed


class RaisingEq:
    def __init__(self, raising: type[BaseException] = ValueError) -> None:
        self.raising = raising

    def __eq__(self, other: object) -> bool:
        raise self.raising("compared")

    def __hash__(self) -> int:
        return hash("a")


class Unbool:
    def __bool__(self) -> bool:
        raise ValueError("no truth")


class AmbiguousEq:
    """Equality, as of arrays, is not a truth value."""

    def __eq__(self, other: object) -> Any:
        return Unbool()

    __hash__ = None  # type: ignore[assignment]


class Raises:
    """Every attribute, item, call, iteration and length raises."""

    def __init__(self, raising: type[BaseException] = ValueError) -> None:
        object.__setattr__(self, "_raising", raising)

    def __getattribute__(self, name: str) -> Any:
        raise object.__getattribute__(self, "_raising")(name)

    def _raise(self, *args: Any) -> Any:
        raise object.__getattribute__(self, "_raising")("asked")

    __getitem__ = __call__ = __len__ = __iter__ = __hash__ = __eq__ = _raise  # type: ignore[assignment]


class Bag:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Slotted:
    __slots__ = ("a",)


class WithProperty:
    @property
    def a(self) -> int:
        return 3

    @property
    def raising(self) -> int:
        raise ValueError("asked")

    @property
    def interrupting(self) -> int:
        raise KeyboardInterrupt


class Fallback:
    """Attributes that only ``__getattr__`` has."""

    def __getattr__(self, name: str) -> int:
        if name.startswith("__"):
            raise AttributeError(name)
        return 3


class LyingLength(dict):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 77


class OverridingDict(dict):  # type: ignore[type-arg]
    def __getitem__(self, key: object) -> int:
        return 3

    def __missing__(self, key: object) -> int:
        return 3

    def __contains__(self, key: object) -> bool:
        return True


def made_function() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Two functions with the same code: one has defaults and a closure that say 3, the other ones that say 4."""

    def make(value: int) -> Callable[..., Any]:
        def function(a: int = value, *, b: int = value) -> int:
            return a + b + value

        return function

    return make(3), make(4)


# -- leaf guards -------------------------------------------------------------------------------------------------------


@kind("add_type_match_guard")
def type_match() -> Case:
    wrong = {"subclass": True, "wrong type": "x", "a __class__ that lies": LyingClass(int), "raising": Raises()}
    return leaf("add_type_match_guard", id(int), passes={"passes": 3}, fails=wrong)


@kind("add_type_match_guard")
def type_match_added_twice() -> Case:
    def build(root: Any) -> None:
        manager = local(root)
        add(manager, "add_type_match_guard", id(int))
        add(manager, "add_type_match_guard", id(str))

    return values(build, {"the first counts": 3}, {"the second is ignored": "x"})


class FakeScriptObject:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class RaisingFake(FakeScriptObject):
    @property
    def real_obj(self) -> Any:
        raise ValueError("asked")


@kind("add_fake_script_type_match_guard")
def fake_script_type_match() -> Case:
    return leaf(
        "add_fake_script_type_match_guard",
        FakeScriptObject,
        id(Bag),
        passes={"plain": Bag(), "wrapped": FakeScriptObject(real_obj=Bag())},
        fails={"wrong type": 3, "wraps another": FakeScriptObject(real_obj=3), "wraps nothing": FakeScriptObject()},
        unsafe={"raising": RaisingFake()},
    )


ONE_OBJECT = Bag()


@kind("add_id_match_guard")
def id_match() -> Case:
    return leaf(
        "add_id_match_guard",
        id(ONE_OBJECT),
        passes={"passes": ONE_OBJECT},
        fails={"fails": Bag(), "wrong type": 3, "raising": Raises()},
    )


@kind("add_none_match_guard")
def none_match() -> Case:
    return leaf("add_none_match_guard", passes={"passes": None}, fails={"false": False, "raising": AmbiguousEq()})


@kind("add_true_match_guard")
def true_match() -> Case:
    return leaf("add_true_match_guard", passes={"passes": True}, fails={"fails": False, "one": 1, "raising": Unbool()})


@kind("add_false_match_guard")
def false_match() -> Case:
    return leaf(
        "add_false_match_guard", passes={"passes": False}, fails={"fails": True, "zero": 0, "raising": Unbool()}
    )


@kind("add_not_none_guard")
def not_none() -> Case:
    return leaf("add_not_none_guard", passes={"passes": 0, "raising": Raises()}, fails={"fails": None})


NAN = float("nan")
EQUAL_VALUES: list[tuple[Any, Any, Any]] = [
    (3, 3, 4),
    (3, 3, 3.0),
    (1, 1, True),
    (10**30, 10**30, 10**30 + 1),
    ("a", "".join(["a"]), "b"),
    (b"a", bytes([97]), "a"),
    (2.5, 5 / 2, 2.25),
    (1 + 2j, complex(1, 2), 1 + 0j),
    (NAN, NAN, 1.0),
    ((1, "a"), tuple(iter([1, "a"])), (1, "b")),
    ((1,), (True,), [1]),  # nested types are not compared
    ((1, (2, 3)), (1, (2, 3)), (1, (2, 4))),
    (frozenset({1, 2}), frozenset({2, 1}), frozenset({1})),
    (slice(1, 2, None), slice(1, 2), slice(1, 3)),
    (range(3), range(0, 3, 1), range(4)),
    ([1, 2], [1, 2], [2, 1]),
    ({1, 2}, {2, 1}, {3}),
    ({"a": 1}, {"a": 1}, {"a": 2}),
    ({"a": 1}.keys(), {"a": 2}.keys(), {"b": 1}.keys()),
    (int, int, str),
    (torch.Size([2, 3]), torch.Size([2, 3]), (2, 3)),
    (torch.float32, torch.float32, torch.float64),
    (torch.device("cpu"), torch.device("cpu"), torch.device("meta")),
    (Ellipsis, Ellipsis, None),
]


def equals_match(expected: Any, same: Any, other: Any) -> Case:
    return leaf(
        "add_equals_match_guard",
        expected,
        passes={"passes": same},
        fails={"fails": other, "wrong type": Bag(), "raising": RaisingEq(), "ambiguous": AmbiguousEq()},
    )


EXERCISED.add(("GuardManager", "add_equals_match_guard"))
for index, row in enumerate(EQUAL_VALUES):
    KINDS[f"equals_match_{type(row[0]).__name__}_{index}"] = lambda row=row: equals_match(*row)  # type: ignore[misc]


@kind("add_equals_match_guard")
def equals_match_of_nan() -> Case:
    other = {"another nan": float("nan")}
    passes = {"itself": NAN} | (other if compat.compares_float_bits() else {})
    return leaf("add_equals_match_guard", NAN, passes=passes, fails={} if compat.compares_float_bits() else other)


@kind("add_equals_match_guard")
def equals_match_of_zero() -> Case:
    minus = {"minus zero": -0.0}
    passes = {"zero": 0.0} | ({} if compat.compares_float_bits() else minus)
    return leaf("add_equals_match_guard", 0.0, passes=passes, fails=minus if compat.compares_float_bits() else {})


@kind("add_equals_match_guard")
def equals_match_that_raises() -> Case:
    expected = RaisingEq()
    return leaf(
        "add_equals_match_guard",
        expected,
        passes={"itself": expected},
        fails={"raising": RaisingEq(), "interrupting": RaisingEq(KeyboardInterrupt)},
    )


@kind("add_equals_match_guard")
def equals_match_without_truth() -> Case:
    expected = AmbiguousEq()
    return leaf("add_equals_match_guard", expected, passes={"itself": expected}, fails={"ambiguous": AmbiguousEq()})


class NegativeLength:
    def __len__(self) -> int:
        return -1  # noqa: PLE0303


@kind("add_length_check_guard")
def length_check() -> Case:
    return leaf(
        "add_length_check_guard",
        2,
        passes={
            "list": [1, 2],
            "tuple": (1, 2),
            "set": {1, 2},
            "text": "ab",
            "deque": collections.deque([1, 2]),
            "subclass of dict with a length": type("Two", (dict,), {"__len__": lambda self: 2})(),
        },
        fails={"longer": [1, 2, 3], "empty": ()},
        unsafe={"no length": 3, "dict": {1: 1, 2: 2}, "raising": Raises(), "negative": NegativeLength()},
    )


class LyingSet(set):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 2


@kind("add_length_check_guard")
def length_check_of_a_set_that_lies() -> Case:
    lying, telling = {"lies": LyingSet()}, {"has two": LyingSet([1, 2])}
    passes, fails = (telling, lying) if compat.measures_sets() else ({**telling, **lying}, {"fails": {1}})
    return leaf("add_length_check_guard", 2, passes=passes, fails=fails)


@kind("add_dict_length_check_guard")
def dict_length_check() -> Case:
    return leaf(
        "add_dict_length_check_guard",
        1,
        passes={"dict": {1: 1}, "OrderedDict": collections.OrderedDict(a=1), "lying length": LyingLength(a=1)},
        fails={"longer": {1: 1, 2: 2}, "wrong type": [1], "lying class": LyingClass(dict), "raising": Raises()},
    )


def advanced(iterator: Iterator[Any], steps: int) -> Iterator[Any]:
    for _ in range(steps):
        next(iterator, None)
    return iterator


@kind("add_tuple_iterator_length_guard")
def tuple_iterator_length() -> Case:
    return leaf(
        "add_tuple_iterator_length_guard",
        2,
        id(type(iter(()))),
        passes={"fresh": iter((1, 2)), "advanced": advanced(iter((0, 1, 2)), 1)},
        fails={"longer": iter((1, 2, 3)), "used up": advanced(iter((1, 2)), 3), "wrong type": iter([1, 2])},
    )


@kind("add_tuple_iterator_length_guard")
def tuple_iterator_length_zero() -> Case:
    return leaf(
        "add_tuple_iterator_length_guard",
        0,
        id(type(iter(()))),
        passes={"empty": iter(()), "used up": advanced(iter((1, 2)), 3), "at its end": advanced(iter((1, 2)), 2)},
        fails={"one left": iter((1,)), "raising": Raises()},
    )


@kind("add_range_iterator_match_guard")
def range_iterator_match() -> Case:
    return leaf(
        "add_range_iterator_match_guard",
        2,
        8,
        2,
        id(type(iter(range(0)))),
        passes={"fresh": iter(range(2, 8, 2)), "advanced": advanced(iter(range(0, 8, 2)), 1)},
        fails={
            "other start": iter(range(0, 8, 2)),
            "other stop": iter(range(2, 10, 2)),
            "other step": iter(range(2, 8, 3)),
            "used up": advanced(iter(range(2, 8, 2)), 4),
            "huge": iter(range(2, 10**30, 2)),
            "wrong type": range(2, 8, 2),
            "raising": Raises(),
        },
    )


class OwnMapping:
    """The least that counts as a mapping."""

    def __init__(self, *names: Any) -> None:
        self.names = names

    def keys(self) -> Any:
        return list(self.names)

    def __getitem__(self, key: object) -> object:
        return key


class RaisingMapping(OwnMapping):
    def keys(self) -> Any:
        raise ValueError("asked")


@kind("add_mapping_keys_guard")
def mapping_keys() -> Case:
    return leaf(
        "add_mapping_keys_guard",
        types.MappingProxyType({"a": 1, "b": 2}),
        passes={
            "proxy": types.MappingProxyType({"a": 3, "b": 4}),
            "dict": {"a": 1, "b": 2},
            "OrderedDict": collections.OrderedDict(a=1, b=2),
            "own": OwnMapping("a", "b"),
        },
        fails={"other order": {"b": 1, "a": 2}, "fewer": {"a": 1}, "other": {"a": 1, "c": 2}, "own": OwnMapping("a")},
        unsafe={"no mapping": 3, "raising": RaisingMapping(), "raising ==": {RaisingEq(): 1, "b": 2}},
    )


class Moved(collections.OrderedDict):  # type: ignore[type-arg]
    pass


def moved_to_end() -> Moved:
    made = Moved(a=1, b=2)
    made.move_to_end("a")
    return made


@kind("add_mapping_keys_guard")
def mapping_keys_of_a_moved_dict() -> Case:
    return leaf(
        "add_mapping_keys_guard", {"b": 1, "a": 1}, passes={"moved": moved_to_end()}, fails={"unmoved": Moved(a=1, b=2)}
    )


UNHASHABLE: list[Any] = []


def contains(method: str, make: Callable[[list[Any]], Any], expected: bool) -> Case:
    there, absent = {"there": make(["a"])}, {"absent": make(["b"]), "empty": make([])}
    foreign = {"no container": 3, "raising": Raises(), "lying class": LyingClass(dict)}
    passes, fails = (there, {**absent, **foreign}) if expected else ({**absent, **foreign}, there)
    return leaf(method, expected, "a", passes=passes, fails=fails, unsafe={"raising ==": make([RaisingEq()])})


@kind("add_dict_contains_guard")
def dict_contains() -> Case:
    return contains("add_dict_contains_guard", dict.fromkeys, True)


@kind("add_dict_contains_guard")
def dict_does_not_contain() -> Case:
    return contains("add_dict_contains_guard", dict.fromkeys, False)


@kind("add_dict_contains_guard")
def dict_contains_without_overrides() -> Case:
    return leaf("add_dict_contains_guard", False, "a", passes={"override": OverridingDict()}, fails={"there": {"a": 1}})


@kind("add_dict_contains_guard")
def dict_contains_something_unhashable() -> Case:
    return leaf(
        "add_dict_contains_guard", True, UNHASHABLE, passes={}, fails={"wrong type": 3}, unsafe={"dict": {1: 2}}
    )


@kind("add_set_contains_guard")
def set_contains() -> Case:
    return contains("add_set_contains_guard", set, True)


@kind("add_set_contains_guard")
def set_does_not_contain() -> Case:
    return contains("add_set_contains_guard", frozenset, False)


@kind("add_set_contains_guard")
def set_contains_something_unhashable() -> Case:
    return leaf("add_set_contains_guard", True, UNHASHABLE, passes={}, fails={"wrong type": 3}, unsafe={"set": {1}})


@kind("add_set_contains_guard")
def set_contains_a_set() -> Case:
    return leaf("add_set_contains_guard", True, {1}, passes={}, fails={}, unsafe={"frozen": {frozenset({1})}})


@kind("add_no_hasattr_guard")
def no_hasattr() -> Case:
    return leaf(
        "add_no_hasattr_guard",
        "a",
        passes={"nothing": Bag(), "int": 3, "raising": Raises(), "interrupting": Raises(KeyboardInterrupt)},
        fails={
            "in the dict": Bag(a=1),
            "property": WithProperty(),
            "__getattr__": Fallback(),
            "of the class": type("Has", (), {"a": None})(),
            "a class": type("Has", (), {"a": None}),
        },
    )


@kind("add_no_hasattr_guard")
def no_hasattr_of_a_property() -> Case:
    return leaf(
        "add_no_hasattr_guard", "raising", passes={"raises": WithProperty()}, fails={"attribute": Bag(raising=1)}
    )


@kind("add_no_hasattr_guard")
def no_hasattr_of_a_slot() -> Case:
    filled = Slotted()
    filled.a = 1
    return leaf("add_no_hasattr_guard", "a", passes={"empty slot": Slotted()}, fails={"filled slot": filled})


class FloatSubclass(float):
    pass


def nan_args(value: Any) -> tuple[Any, ...]:
    return (value,) if compat.TORCH >= (2, 15) else ()


@kind("add_float_is_nan_guard")
def float_is_nan() -> Case:
    return leaf(
        "add_float_is_nan_guard",
        *nan_args(NAN),
        passes={"nan": float("nan")},
        fails={"one": 1.0, "wrong type": 3, "subclass": FloatSubclass("nan"), "raising": Raises()},
    )


@kind("add_complex_is_nan_guard")
def complex_is_nan() -> Case:
    expected = complex(NAN, 0)
    imaginary = {"imaginary nan": complex(0, NAN)}
    by_bits = compat.TORCH >= (2, 15)
    return leaf(
        "add_complex_is_nan_guard",
        *nan_args(expected),
        passes={"real nan": complex(float("nan"), 0)} | ({} if by_bits else imaginary),
        fails={"one": 1j, "float": NAN, "raising": Raises()} | (imaginary if by_bits else {}),
    )


@kind("add_dict_version_guard")
def dict_version() -> Case:
    guarded = {"a": 1}
    return leaf(
        "add_dict_version_guard",
        guarded,
        passes={"same": guarded},
        fails={"equal": {"a": 1}, "wrong type": 3, "lying class": LyingClass(dict)},
    )


@kind("add_dispatch_key_set_guard")
def dispatch_key_set() -> Case:
    expected = torch._C._dispatch_keys(torch.ones(2))
    return leaf(
        "add_dispatch_key_set_guard",
        expected,
        passes={"same": torch._C._dispatch_keys(torch.ones(3, dtype=torch.int64))},
        fails={"meta": torch._C._dispatch_keys(torch.ones(2, device="meta"))},
        unsafe={"no key set": 3, "raising": Raises()},
    )


class Predicate:
    """A Python guard: truth of ``x > 0``, or whatever else the value asks for."""

    def __call__(self, value: Any) -> Any:
        if isinstance(value, type) and issubclass(value, BaseException):
            raise value("asked")
        return Unbool() if value == "no truth" else value > 0


@kind("add_lambda_guard")
def lambda_guard() -> Case:
    return leaf(
        "add_lambda_guard",
        Predicate(),
        passes={"passes": 3},
        fails={"fails": -3, "wrong type": "x", "raising": ValueError, "exiting": SystemExit},
        unsafe={"no truth": "no truth"},
    )


@kind("add_lambda_guard")
def lambda_guard_on_the_frame() -> Case:
    return values(
        lambda root: add(root, "add_lambda_guard", lambda f_locals: f_locals["x"] > 0),
        {"passes": 3},
        {"fails": -3, "wrong type": "x"},
    )


@kind("add_lambda_guard")
def lambda_guards_added_twice() -> Case:
    def build(root: Any) -> None:
        manager = local(root)
        add(manager, "add_lambda_guard", lambda x: x > 0)
        add(manager, "add_lambda_guard", lambda x: x < 9)

    return values(build, {"both": 3}, {"only the first": 10, "only the second": -1})


@kind("add_dynamic_indices_guard")
def dynamic_indices() -> Case:
    name = "_dynamo_dynamic_indices"
    return leaf(
        "add_dynamic_indices_guard",
        {0, 1},
        passes={"unmarked": Bag(), "less": Bag(**{name: {0}}), "wrong type": 3},
        fails={"more": Bag(**{name: {2}})},
        unsafe={"no set": Bag(**{name: 3})},
    )


def marked(**attributes: Any) -> Bag:
    return Bag(_has_dynamo_dim_marking=False, **{f"_dynamo_{name}": value for name, value in attributes.items()})


@kind("add_dimension_marking_guard")
def dimension_marking() -> Case:
    return leaf(
        "add_dimension_marking_guard",
        {"_dynamo_dynamic_indices": {0, 1}},
        ["_dynamo_static_indices"],
        {"_dynamo_shape_ids": ({0: "a"}, "_dynamo_unbacked_indices")},
        passes={
            "unmarked": Bag(_dynamo_static_indices={0}),
            "marked with nothing": marked(),
            "less": marked(dynamic_indices={0}),
            "the same": marked(dynamic_indices={1, 0}),
            "dependent": marked(unbacked_indices={0}, shape_ids={0: "a"}),
            "dependent without its gate": marked(shape_ids={0: "b"}),
            "wrong type": 3,
            "raising": Raises(),
        },
        fails={
            "more": marked(dynamic_indices={2}),
            "present though it should be absent": marked(static_indices=set()),
            "another dependent": marked(unbacked_indices={0}, shape_ids={0: "b"}),
            "no dependent": marked(unbacked_indices={0}),
        },
        unsafe={
            "no set": marked(dynamic_indices=3),
            "raising ==": marked(unbacked_indices={0}, shape_ids=RaisingEq()),
        },
    )


@kind("add_dimension_marking_guard")
def dimension_marking_of_nothing() -> Case:
    return leaf(
        "add_dimension_marking_guard", {}, [], {}, passes={"unmarked": torch.ones(1)}, fails={"marked": marked()}
    )


@kind("add_dimension_marking_guard")
def dimension_marking_without_dependent() -> Case:
    return leaf(
        "add_dimension_marking_guard",
        {},
        [],
        {"_dynamo_unbacked_bounds": (None, "_dynamo_unbacked_indices")},
        passes={
            "no gate": marked(unbacked_bounds=3),
            "absent": marked(unbacked_indices={0}),
            "None": marked(unbacked_indices={0}, unbacked_bounds=None),
        },
        fails={"present": marked(unbacked_indices={0}, unbacked_bounds=3)},
    )


# -- tensors -----------------------------------------------------------------------------------------------------------


def add_tensor_guard(
    manager: Any, value: torch.Tensor, sizes: list[Any] | None = None, strides: list[Any] | None = None, **more: Any
) -> None:
    manager.add_tensor_match_guard(
        value,
        sizes or [],
        strides or [],
        "x",
        ["check_tensor"],
        None,
        type(value),
        torch._C._dispatch_keys(value),
        **more,
    )


def tensor_case(
    example: torch.Tensor, passes: Values, fails: Values, unsafe: Values | None = None, **given: Any
) -> Case:
    return values(lambda root: add_tensor_guard(local(root), example, **given), passes, fails, unsafe)


class Subclass(torch.Tensor):
    pass


def conjugated() -> torch.Tensor:
    return torch.ones(2, 3, dtype=torch.complex64).conj()


@kind("add_tensor_match_guard")
def tensor_match() -> Case:
    same = torch.ones(2, 3)
    with torch.inference_mode():
        inference = torch.ones(2, 3)
    return tensor_case(
        torch.ones(2, 3),
        {
            "same": same,
            "a view": torch.ones(3, 3)[1:],
            "another offset": torch.ones(12)[6:].view(2, 3),
            "detached": torch.ones(2, 3, requires_grad=True).detach(),
        },
        {
            "dtype": same.double(),
            "size": torch.ones(2, 4),
            "rank": torch.ones(2, 3, 1),
            "strides": torch.ones(3, 2).t(),
            "requires_grad": torch.ones(2, 3, requires_grad=True),
            "device": same.to("meta"),
            "sparse": same.to_sparse(),
            "Parameter": torch.nn.Parameter(same, requires_grad=False),
            "subclass": same.as_subclass(Subclass),
            "inference tensor": inference,
            "negative bit": torch._neg_view(same),
            "wrong type": 3,
            "raising": Raises(),
            "lying class": LyingClass(torch.Tensor),
        },
        {"strided nested tensor": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])},
    )


@kind("add_tensor_match_guard")
def tensor_match_with_dynamic_dims() -> Case:
    return tensor_case(
        torch.ones(2, 3),
        {"as before": torch.ones(2, 3), "any first size": torch.ones(7, 3)},
        {"static size": torch.ones(2, 4), "static stride": torch.ones(3, 2).t(), "rank": torch.ones(3)},
        sizes=[None, 3],
        strides=[3, 1],
    )


@kind("add_tensor_match_guard")
def tensor_match_with_all_dims_dynamic() -> Case:
    return tensor_case(
        torch.ones(2, 3),
        {"any size": torch.ones(5, 6), "any stride": torch.ones(3, 2).t(), "empty": torch.ones(0, 9)},
        {"rank": torch.ones(3), "dtype": torch.ones(2, 3).int()},
        sizes=[None, None],
        strides=[None, None],
    )


@kind("add_tensor_match_guard")
def tensor_match_of_a_scalar() -> Case:
    return tensor_case(torch.tensor(1.0), {"scalar": torch.tensor(2.0)}, {"vector": torch.ones(1)})


@kind("add_tensor_match_guard")
def tensor_match_of_a_parameter() -> Case:
    parameter = torch.nn.Parameter(torch.ones(2))
    return tensor_case(
        parameter,
        {"another": torch.nn.Parameter(torch.zeros(2))},
        {
            "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
            "tensor": torch.ones(2, requires_grad=True),
            "Buffer": torch.nn.Buffer(torch.ones(2)),
        },
    )


@kind("add_tensor_match_guard")
def tensor_match_of_a_subclass() -> Case:
    return tensor_case(
        torch.ones(2).as_subclass(Subclass), {"same": torch.zeros(2).as_subclass(Subclass)}, {"plain": torch.ones(2)}
    )


@kind("add_tensor_match_guard")
def tensor_match_of_a_conjugate() -> Case:
    return tensor_case(conjugated(), {"conjugate": conjugated()}, {"resolved": conjugated().resolve_conj()})


@kind("add_tensor_match_guard")
def tensor_match_of_a_meta_tensor() -> Case:
    return tensor_case(torch.ones(2, device="meta"), {"same": torch.zeros(2, device="meta")}, {"cpu": torch.ones(2)})


@kind("add_tensor_match_guard")
def tensor_match_of_a_sparse_tensor() -> Case:
    sparse = torch.eye(2).to_sparse()
    return tensor_case(
        sparse,
        {"same": torch.ones(2, 2).to_sparse()},
        {"dense": torch.eye(2), "size": torch.eye(3).to_sparse()},
        sizes=[2, 2],
        strides=[0, 0],
    )


@kind("add_tensor_match_guard")
def tensor_match_of_a_compressed_tensor() -> Case:
    example = torch.eye(2).to_sparse_csr()
    return tensor_case(
        example,
        {"same": torch.ones(2, 2).to_sparse_csr(), "layouts are not compared": torch.eye(2).to_sparse_csc()},
        {"dense": torch.eye(2), "size": torch.eye(3).to_sparse_csr()},
        sizes=[2, 2],
        strides=[None, None],
    )


@kind("add_tensor_match_guard")
def tensor_match_of_a_jagged_tensor() -> Case:
    def jagged(*lengths: int) -> torch.Tensor:
        return torch.nested.nested_tensor([torch.ones(n, 3) for n in lengths], layout=torch.jagged)

    return tensor_case(
        jagged(2, 3),
        {"same": jagged(2, 3)},
        {"dense": torch.ones(2, 3)},
        sizes=[2, None, 3],
        strides=[None, None, None],
    )


@kind("add_tensor_match_guard")
def tensor_match_on_another_state_of_the_thread() -> Case:
    case = tensor_case(torch.ones(2, 3), {"as before": torch.ones(2, 3)}, {})
    f_locals = {"x": torch.ones(2, 3)}
    case.show("autocast", f_locals, False, under=lambda: torch.autocast("cpu"))
    case.show("inference mode", f_locals, False, under=torch.inference_mode)
    case.show("below autograd", f_locals, False, under=torch._C._AutoDispatchBelowAutograd)
    case.show("no grad", f_locals, True, under=torch.no_grad)
    case.show("dispatch mode", f_locals, False, under=Visible)
    case.show("dispatch mode of the compiler", f_locals, True, under=Hidden)
    case.show("torch function mode", f_locals, True, under=Function)
    return case.show("forward mode", f_locals, True, under=forward_ad.dual_level)


class ForbiddingFunctionMode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"a guard ran the torch function of a mode on {func}")


class ForbiddingSubclass(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"a guard ran the torch function of a tensor on {func}")


@kind("add_tensor_match_guard")
def tensor_match_runs_no_torch_function() -> Case:
    with torch._C.DisableTorchFunctionSubclass():
        example, same = (torch.ones(2).as_subclass(ForbiddingSubclass) for _ in range(2))

        def build(root: Any) -> None:
            with torch._C.DisableTorchFunctionSubclass():  # as Dynamo does
                add_tensor_guard(local(root), example, [2], [1])

    case = Case(build)
    case.show("subclass", {"x": same}, True)
    return case.show("mode", {"x": same}, True, under=ForbiddingFunctionMode)


# -- the state of the thread -------------------------------------------------------------------------------------------


@kind("add_global_state_guard")
def global_state() -> Case:
    case = Case(lambda root: add(root, "add_global_state_guard", native.GlobalStateGuard()))
    case.show("passes", {}, True)
    for label, state in {
        "no grad": torch.no_grad,
        "autocast": lambda: torch.autocast("cpu"),
        "deterministic": lambda: deterministic(),
        "default dtype": lambda: default_dtype(),
        "torch function disabled": torch._C.DisableTorchFunctionSubclass,
        "all torch functions disabled": torch._C.DisableTorchFunction,
    }.items():
        case.show(label, {}, False, under=state)
    case.show("anomaly mode is not covered", {}, True, under=lambda: torch.autograd.set_detect_anomaly(True))
    return case


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def default_dtype() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@kind("add_dual_level_match_guard")
def dual_level() -> Case:
    case = Case(lambda root: add(root, "add_dual_level_match_guard", forward_ad._current_level))
    return case.show("passes", {}, True).show("fails", {}, False, under=forward_ad.dual_level)


@kind("add_dual_level_match_guard")
def dual_level_of_a_wrong_type() -> Case:
    case = Case(lambda root: add(root, "add_dual_level_match_guard", 1))
    case.show("bool", {}, False, under=lambda: current_level(True))
    case.show("int", {}, True, under=lambda: current_level(1))
    return case.show("missing", {}, False, under=lambda: current_level(NOTHING))


@contextlib.contextmanager
def current_level(value: Any) -> Iterator[None]:
    before = forward_ad._current_level
    if value is NOTHING:
        del forward_ad._current_level
    else:
        forward_ad._current_level = value
    try:
        yield
    finally:
        forward_ad._current_level = before


@contextlib.contextmanager
def default_device(device: Any) -> Iterator[None]:
    from torch.utils import _device

    before, _device.CURRENT_DEVICE = _device.CURRENT_DEVICE, device
    try:
        yield
    finally:
        _device.CURRENT_DEVICE = before


@kind("add_default_device_guard")
def no_default_device() -> Case:
    case = Case(lambda root: add(root, "add_default_device_guard")).show("passes", {}, True)
    case.show("a device", {}, False, under=lambda: default_device(torch.device("meta")))
    case.show("raising", {}, False, under=lambda: default_device(RaisingEq()))
    return case


@kind("add_default_device_guard")
def some_default_device() -> Case:
    case = Case(lambda root: add(root, "add_default_device_guard"))
    case.around = lambda: default_device(torch.device("meta"))
    case.show("none", {}, False)
    case.show("equal", {}, True, under=lambda: default_device(torch.device("meta")))
    case.show("another", {}, False, under=lambda: default_device(torch.device("cpu")))
    case.show("text", {}, False, under=lambda: default_device("meta"))
    return case.show("raising", {}, False, under=lambda: default_device(RaisingEq()))


@kind("add_torch_function_mode_stack_guard")
def empty_mode_stack() -> Case:
    case = Case(lambda root: add(root, "add_torch_function_mode_stack_guard", [])).show("passes", {}, True)
    return case.show("a mode", {}, False, under=Function)


@kind("add_torch_function_mode_stack_guard")
def mode_stack_of_one() -> Case:
    case = Case(lambda root: add(root, "add_torch_function_mode_stack_guard", [Function()]))
    case.show("none", {}, False).show("same type", {}, True, under=Function)
    case.show("subclass", {}, False, under=type("Derived", (Function,), {}))
    return case.show("two", {}, False, under=two_modes)


@contextlib.contextmanager
def two_modes() -> Iterator[None]:
    with Function(), Function():
        yield


def hooks_guard(expected: tuple[int, int] | None) -> Callable[[Any], bool]:
    """A guard as Dynamo makes it: known by its qualified name, it holds the ids that it expects."""

    class GuardBuilder:
        def AUTOGRAD_SAVED_TENSORS_HOOKS(self) -> Callable[[Any], bool]:
            guard_hooks_ids = expected

            def fn(x: Any) -> bool:
                hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
                return guard_hooks_ids == (tuple(map(id, hooks)) if hooks else None)

            return fn

    return GuardBuilder().AUTOGRAD_SAVED_TENSORS_HOOKS()


def pack(value: Any) -> Any:
    return value


@kind("add_lambda_guard")
def no_saved_tensors_hooks() -> Case:
    case = Case(lambda root: add(root, "add_lambda_guard", hooks_guard(None))).show("passes", {}, True)
    return case.show("hooks", {}, False, under=lambda: torch.autograd.graph.saved_tensors_hooks(pack, pack))


@kind("add_lambda_guard")
def some_saved_tensors_hooks() -> Case:
    case = Case(lambda root: add(root, "add_lambda_guard", hooks_guard((id(pack), id(pack))))).show("none", {}, False)
    case.show("same", {}, True, under=lambda: torch.autograd.graph.saved_tensors_hooks(pack, pack))
    return case.show("others", {}, False, under=lambda: torch.autograd.graph.saved_tensors_hooks(pack, repr))


# -- accessors ---------------------------------------------------------------------------------------------------------

IS_3: tuple[Any, ...] = ("add_equals_match_guard", 3)


@kind("framelocals_manager")
def frame_local() -> Case:
    return values(lambda root: add(local(root), *IS_3), {"passes": 3}, {"fails": 4, "wrong type": "x", "None": None})


@kind("framelocals_manager")
def frame_local_without_guards() -> Case:
    return values(lambda root: local(root), {"any": 3, "None": None}, {})


@kind("framelocals_manager")
def frame_local_asked_for_twice() -> Case:
    def build(root: Any) -> None:
        add(local(root), "add_type_match_guard", id(int))
        add(local(root), *IS_3)

    return values(build, {"passes": 3}, {"type": 3.0, "value": 4})


@kind("globals_dict_manager", "dict_getitem_manager")
def a_global() -> Case:
    scope: dict[str, Any] = {"g": 3, "other": 4}

    def build(root: Any) -> None:
        add(below(below(root, "globals_dict_manager", f_globals=scope), "dict_getitem_manager", key="g"), *IS_3)

    @contextlib.contextmanager
    def changed(**names: Any) -> Iterator[None]:
        before = dict(scope)
        scope.clear()
        scope.update(names)
        try:
            yield
        finally:
            scope.clear()
            scope.update(before)

    case = Case(build).show("passes", {}, True).show("locals do not matter", {"g": 4}, True)
    case.show("changed", {}, False, under=lambda: changed(g=4))
    return case.show("missing", {}, False, under=lambda: changed(other=3))


@kind("globals_dict_manager", "global_weakref_manager")
def a_global_weakref() -> Case:
    scope: dict[str, Any] = {}
    target = Bag(a=3)

    def build(root: Any) -> Any:
        manager = below(below(root, "globals_dict_manager", f_globals=scope), "global_weakref_manager", global_name="g")
        add(manager, "add_id_match_guard", id(target))
        return target

    @contextlib.contextmanager
    def naming(value: Any) -> Iterator[None]:
        scope["g"] = value
        try:
            yield
        finally:
            scope.clear()

    case = Case(build).show("missing", {}, False)
    case.show("passes", {}, True, under=lambda: naming(weakref.ref(target)))
    case.show("another", {}, False, under=lambda: naming(weakref.ref(ONE_OBJECT)))
    case.show("dead", {}, False, under=lambda: naming(weakref.ref(Bag())))
    return case.show("no weakref", {}, False, under=lambda: naming(target))


@kind("global_weakref_manager")
def a_dead_global_weakref_is_none() -> Case:
    scope = {"g": weakref.ref(Bag())}

    def build(root: Any) -> None:
        manager = below(below(root, "globals_dict_manager", f_globals=scope), "global_weakref_manager", global_name="g")
        add(manager, "add_none_match_guard")

    return Case(build).show("dead", {}, True)


@kind("weakref_call_manager")
def weakref_call() -> Case:
    return accessor(
        "weakref_call_manager",
        ("add_id_match_guard", id(ONE_OBJECT)),
        {"weakref": weakref.ref(ONE_OBJECT), "proxy": weakref.proxy(ONE_OBJECT)},
        {
            "another": weakref.ref(pack),
            "dead": weakref.ref(Bag()),
            "wrong type": lambda: ONE_OBJECT,
            "raising": Raises(),
        },
    )


@kind("weakref_call_manager")
def weakref_call_of_the_dead() -> Case:
    return accessor(
        "weakref_call_manager",
        ("add_none_match_guard",),
        {"weakref": weakref.ref(Bag()), "proxy": weakref.proxy(Bag())},
        {"alive": weakref.ref(ONE_OBJECT), "wrong type": None},
    )


@kind("dict_getitem_manager")
def dict_getitem() -> Case:
    return accessor(
        "dict_getitem_manager",
        IS_3,
        {
            "dict": {"a": 3},
            "raw despite overrides": OverridingDict(a=3),
            "OrderedDict": collections.OrderedDict(a=3),
            "after deletions": deleted({"z": 1, "y": 2, "a": 3}, "z"),
        },
        {
            "other": {"a": 4},
            "absent": {},
            "__missing__ is not asked": OverridingDict(),
            "defaultdict is not asked": collections.defaultdict(lambda: 3),
            "wrong type": [3],
            "raising": Raises(),
            "raising ==": {RaisingEq(): 3},
            "lying class": LyingClass(dict),
        },
        key="a",
    )


def deleted(value: dict[Any, Any], key: Any) -> dict[Any, Any]:
    del value[key]
    return value


@kind("dict_getitem_manager")
def dict_getitem_of_an_int() -> Case:
    return accessor("dict_getitem_manager", IS_3, {"int": {1: 3}, "equal key": {True: 3}}, {"text": {"1": 3}}, key=1)


@kind("dict_getitem_manager")
def dict_getitem_of_something_unhashable() -> Case:
    return accessor("dict_getitem_manager", IS_3, {}, {"dict": {1: 3}, "empty": {}}, key=UNHASHABLE)


class OwnItems:
    def __getitem__(self, key: Any) -> int:
        if key == "a":
            return 3
        raise KeyError(key)


@kind("getitem_manager")
def getitem() -> Case:
    return accessor(
        "getitem_manager",
        IS_3,
        {
            "dict": {"a": 3},
            "override": OwnItems(),
            "overriding dict": OverridingDict(),
            "defaultdict": collections.defaultdict(lambda: 3),
        },
        {"absent": {}, "other": {"a": 4}, "wrong type": 3, "raising": Raises(), "sequence": [3]},
        key="a",
    )


@kind("getitem_manager")
def getitem_of_a_slice() -> Case:
    return accessor(
        "getitem_manager",
        ("add_equals_match_guard", (2, 3)),
        {"tuple": (1, 2, 3)},
        {"other": (1, 2, 4), "list": [1, 2, 3], "dict": {1: 2}},
        key=slice(1, None),
    )


@kind("getitem_manager")
def getitem_of_a_negative_index() -> Case:
    return accessor("getitem_manager", IS_3, {"list": [1, 3], "deque": collections.deque([3])}, {"empty": []}, key=-1)


@kind("list_getitem_manager")
def list_getitem() -> Case:
    return accessor(
        "list_getitem_manager",
        IS_3,
        {"list": [1, 3], "subclass": type("Own", (list,), {"__getitem__": lambda self, at: 4})([1, 3])},
        {"other": [3, 1], "short": [1], "wrong type": (1, 3), "raising": Raises(), "lying class": LyingClass(list)},
        key=1,
    )


@kind("list_getitem_manager")
def list_getitem_of_a_negative_index() -> Case:
    return accessor("list_getitem_manager", IS_3, {}, {"list": [3, 3]}, key=-1)


@kind("tuple_getitem_manager")
def tuple_getitem() -> Case:
    point = collections.namedtuple("point", "a b")
    return accessor(
        "tuple_getitem_manager",
        IS_3,
        {"tuple": (1, 3), "namedtuple": point(1, 3), "Size": torch.Size([1, 3])},
        {"other": (3, 1), "short": (1,), "wrong type": [1, 3], "raising": Raises(), "lying class": LyingClass(tuple)},
        key=1,
    )


@kind("tuple_getitem_manager")
def tuple_getitem_of_a_negative_index() -> Case:
    return accessor("tuple_getitem_manager", IS_3, {}, {"tuple": (3, 3)}, key=-1)


@kind("set_getitem_manager")
def set_getitem() -> Case:
    return accessor(
        "set_getitem_manager",
        IS_3,
        {"set": {3}, "frozenset": frozenset([3]), "any iterable": [3, 4], "dict": {3: 4}},
        {"other": {4}, "empty": set()},
        {"not iterable": 3, "raising": Raises()},
        index=0,
    )


@kind("set_getitem_manager")
def set_getitem_further_on() -> Case:
    return accessor("set_getitem_manager", IS_3, {"second": [1, 3]}, {"first": [3, 1], "short": [3]}, index=1)


@kind("getattr_manager")
def getattr_() -> Case:
    return accessor(
        "getattr_manager",
        IS_3,
        {
            "in the dict": Bag(a=3),
            "property": WithProperty(),
            "__getattr__": Fallback(),
            "of the class": type("Has", (), {"a": 3})(),
            "a class": type("Has", (), {"a": 3}),
            "of a base class": type("Derived", (type("Base", (), {"a": 3}),), {})(),
            "module": module_with(a=3),
        },
        {
            "other": Bag(a=4),
            "absent": Bag(),
            "empty slot": Slotted(),
            "wrong type": 3,
            "raising": Raises(),
            "interrupting": Raises(KeyboardInterrupt),
        },
        attr="a",
    )


def module_with(**attributes: Any) -> types.ModuleType:
    module = types.ModuleType("made")
    vars(module).update(attributes)
    return module


@kind("getattr_manager")
def getattr_of_a_data_descriptor() -> Case:
    shadowed = WithProperty()
    shadowed.__dict__["a"] = 4
    return accessor("getattr_manager", IS_3, {"the property wins": shadowed}, {"no property": Bag(a=4)}, attr="a")


@kind("generic_getattr_manager")
def generic_getattr() -> Case:
    return accessor(
        "generic_getattr_manager",
        IS_3,
        {"in the dict": Bag(a=3), "property": WithProperty(), "of the class": type("Has", (), {"a": 3})()},
        {
            "other": Bag(a=4),
            "__getattr__ is not asked": Fallback(),
            "wrong type": 3,
            "raising": Raises(),
            "of a base, on a class": type("Derived", (type("Base", (), {"a": 3}),), {}),
        },
        attr="a",
    )


@kind("get_generic_dict_manager")
def generic_dict() -> Case:
    def build(root: Any) -> None:
        add(below(below(local(root), "get_generic_dict_manager"), "dict_getitem_manager", key="a"), *IS_3)

    return values(
        build,
        {"object": Bag(a=3), "module": module_with(a=3), "class": type("Has", (), {"a": 3})},
        {"other": Bag(a=4), "absent": Bag(), "property": WithProperty(), "wrong type": 3, "slots": Slotted()},
    )


class NeverShown:
    """Has had no ``__dict__`` made before it is looked at."""

    def __init__(self, a: int) -> None:
        self.a = a


@kind("get_generic_dict_manager")
def generic_dict_that_is_not_made_yet() -> Case:
    def build(root: Any) -> None:
        add(below(below(local(root), "get_generic_dict_manager"), "dict_getitem_manager", key="a"), *IS_3)

    return values(build, {"object": NeverShown(3)}, {"other": NeverShown(4)})


@kind("type_manager")
def type_() -> Case:
    return accessor(
        "type_manager",
        ("add_id_match_guard", id(Bag)),
        {"instance": Bag()},
        {"class": Bag, "subclass": type("Derived", (Bag,), {})(), "lying class": LyingClass(Bag), "raising": Raises()},
    )


class Base:
    a = 3


class Derived(Base):
    b = 3


@kind("type_dict_manager")
def type_dict() -> Case:
    def build(root: Any) -> None:
        add(below(below(local(root), "type_dict_manager"), "dict_getitem_manager", key="a"), *IS_3)

    return values(
        build,
        {"own": Base},
        {"inherited": Derived, "other": type("Other", (), {"a": 4})},
        {"no class": Bag(a=3), "int": 3},
    )


@kind("type_mro_manager")
def type_mro() -> Case:
    def build(root: Any) -> None:
        manager = below(below(local(root), "type_mro_manager"), "tuple_getitem_manager", key=1)
        add(manager, "add_id_match_guard", id(Base))

    return values(build, {"derived": Derived}, {"itself": Base, "short": object}, {"no class": Bag(), "int": 3})


def function_field(method: str, key: Any) -> Case:
    """A field of a function that holds 3 at ``key``."""
    with_3, with_4 = made_function()
    item = "dict_getitem_manager" if method == "func_kwdefaults_manager" else "tuple_getitem_manager"

    def build(root: Any) -> None:
        add(below(below(local(root), method), item, key=key), *IS_3)

    return values(
        build,
        {"function": with_3, "method": types.MethodType(with_3, 1)},
        {
            "other": with_4,
            "other method": types.MethodType(with_4, 1),
            "empty field": pack,
            "builtin": len,
            "callable": Predicate(),
            "method of no function": types.MethodType(Predicate(), 1),
            "wrong type": 3,
            "raising": Raises(),
        },
    )


@kind("func_defaults_manager")
def func_defaults() -> Case:
    return function_field("func_defaults_manager", 0)


@kind("func_kwdefaults_manager")
def func_kwdefaults() -> Case:
    return function_field("func_kwdefaults_manager", "b")


@kind("closure_manager")
def closure() -> Case:
    with_3, with_4 = made_function()

    def build(root: Any) -> None:
        cell = below(below(local(root), "closure_manager"), "tuple_getitem_manager", key=0)
        add(below(cell, "getattr_manager", attr="cell_contents"), *IS_3)

    return values(
        build,
        {"function": with_3, "method": types.MethodType(with_3, 1)},
        {
            "other": with_4,
            "no closure": pack,
            "builtin": len,
            "wrong type": 3,
            "empty cell": function_of_an_empty_cell(),
        },
    )


def function_of_an_empty_cell() -> Callable[..., Any]:
    def function() -> Any:
        return value

    if False:
        value = 3
    return function


@kind("code_manager")
def code() -> Case:
    with_3, with_4 = made_function()
    return accessor(
        "code_manager",
        ("add_id_match_guard", id(with_3.__code__)),
        {"function": with_3, "same code": with_4, "method": types.MethodType(with_3, 1)},
        {"other": pack, "builtin": len, "code itself": with_3.__code__, "wrong type": 3, "raising": Raises()},
    )


@kind("tuple_iterator_getitem_manager")
def tuple_iterator_getitem() -> Case:
    def build(root: Any) -> None:
        manager = local(root)
        add(manager, "add_tuple_iterator_length_guard", 2, id(type(iter(()))))
        add(below(manager, "tuple_iterator_getitem_manager", index=1), *IS_3)

    return values(
        build,
        {"fresh": iter((1, 3)), "advanced": advanced(iter((0, 1, 3)), 1)},
        {"other": iter((3, 1)), "short": iter((3,)), "used up": advanced(iter((1, 3)), 3), "wrong type": iter([1, 3])},
    )


@kind("tuple_iterator_getitem_manager")
def tuple_iterator_getitem_that_nothing_vouches_for() -> Case:
    return accessor(
        "tuple_iterator_getitem_manager",
        IS_3,
        {"fresh": iter((1, 3))},
        {"other": iter((3, 1))},
        {"short": iter((3,)), "used up": advanced(iter((1, 3)), 3), "wrong type": [1, 3], "raising": Raises()},
        index=1,
    )


def with_grad() -> torch.Tensor:
    tensor = torch.ones(2, requires_grad=True)
    tensor.sum().backward()
    return tensor


@kind("grad_manager")
def grad() -> Case:
    return accessor(
        "grad_manager",
        ("add_none_match_guard",),
        {"no grad": torch.ones(2), "Parameter": torch.nn.Parameter(torch.ones(2))},
        {"a grad": with_grad(), "wrong type": 3, "attribute": Bag(grad=None)},
        {"raising": Raises()},
    )


@kind("grad_manager")
def grad_that_is_there() -> Case:
    def build(root: Any) -> None:
        add_tensor_guard(below(local(root), "grad_manager"), torch.ones(2))

    return values(build, {"a grad": with_grad()}, {"none": torch.ones(2), "wrong type": 3})


@kind("tensor_property_size_manager")
def tensor_size() -> Case:
    return accessor(
        "tensor_property_size_manager",
        IS_3,
        {"tensor": torch.ones(2, 3), "subclass": torch.ones(2, 3).as_subclass(Subclass)},
        {"other": torch.ones(3, 2), "rank": torch.ones(3), "wrong type": 3},
        {"raising": Raises()},
        idx=1,
    )


@kind("tensor_property_stride_manager")
def tensor_stride() -> Case:
    return accessor(
        "tensor_property_stride_manager",
        IS_3,
        {"tensor": torch.ones(2, 3)},
        {"other": torch.ones(3, 2), "rank": torch.tensor(1.0), "wrong type": [3]},
        {"raising": Raises()},
        idx=0,
    )


@kind("tensor_property_storage_offset_manager")
def tensor_storage_offset() -> Case:
    return accessor(
        "tensor_property_storage_offset_manager",
        IS_3,
        {"view": torch.ones(9)[3:]},
        {"other": torch.ones(9), "wrong type": 3},
        {"raising": Raises()},
        idx=None,
    )


@kind("call_function_no_args_manager")
def call_no_args() -> Case:
    return accessor(
        "call_function_no_args_manager",
        IS_3,
        {
            "function": lambda: 3,
            "bound method": Bag(f=lambda: 3).f,
            "weakref": type("Callable", (), {"__call__": lambda s: 3})(),
        },
        {"other": lambda: 4, "wrong type": 3, "raising": Raises(), "exiting": Raises(SystemExit), "an argument": pack},
    )


@kind("lambda_manager")
def lambda_child() -> Case:
    return accessor(
        "lambda_manager",
        IS_3,
        {"passes": (1, 3)},
        {"other": (1, 4), "wrong type": 3, "raising": Raises(), "interrupting": Raises(KeyboardInterrupt)},
        python_lambda=lambda x: x[1],
    )


@kind("lambda_manager")
def an_imported_module() -> Case:
    """Dynamo binds a module that a frame imported as the only default of such a lambda."""
    module = module_with(a=3)

    def build(root: Any) -> None:
        manager = below(root, "lambda_manager", python_lambda=lambda _, m=module: m)
        add(below(manager, "getattr_manager", attr="a"), *IS_3)

    @contextlib.contextmanager
    def saying(value: int) -> Iterator[None]:
        module.a = value
        try:
            yield
        finally:
            module.a = 3

    return Case(build).show("passes", {}, True).show("changed", {}, False, under=lambda: saying(4))


# -- dicts whose keys are guarded --------------------------------------------------------------------------------------


def dict_manager(root: Any, example: dict[Any, Any]) -> Any:
    return local(root, example_value=example, guard_manager_enum=DICT)


def ordered_keys(root: Any) -> None:
    manager = dict_manager(root, {"a": 3, "b": 4})
    for index, key in enumerate("ab"):
        manager_of_key = manager.get_key_manager(
            index=index, source=f"key {index}", example_value=None, guard_manager_enum=PLAIN
        )
        add(manager_of_key, "add_equals_match_guard", key)
    value = manager.get_value_manager(index=0, source="value 0", example_value=None, guard_manager_enum=PLAIN)
    add(value, *IS_3)


@kind("get_key_manager", "get_value_manager", cls="DictGuardManager")
def keys_and_values_in_order() -> Case:
    return values(
        ordered_keys,
        {
            "same": {"a": 3, "b": 4},
            "other value": {"a": 3, "b": 9},
            "after deletions": deleted({0: 0, "a": 3, "b": 4}, 0),
        },
        {
            "order": {"b": 4, "a": 3},
            "guarded value": {"a": 4, "b": 4},
            "longer": {"a": 3, "b": 4, "c": 5},
            "shorter": {"a": 3},
            "keys": {"a": 3, "c": 4},
            "subclass": collections.OrderedDict(a=3, b=4),
            "wrong type": [("a", 3)],
            "raising": {RaisingEq(): 3, "b": 4},
        },
    )


@kind("get_key_manager", "get_value_manager", cls="DictGuardManager")
def values_before_keys_were_asked_for() -> Case:
    def build(root: Any) -> None:
        manager = dict_manager(root, {"a": 3, "b": 4})
        for index, expected in ((1, 4), (0, 3)):
            value = manager.get_value_manager(
                index=index, source=f"value {index}", example_value=None, guard_manager_enum=PLAIN
            )
            add(value, "add_equals_match_guard", expected)
        key = manager.get_key_manager(index=1, source="key 1", example_value=None, guard_manager_enum=PLAIN)
        add(key, "add_equals_match_guard", "b")

    return values(build, {"same": {"a": 3, "b": 4}, "free key": {"z": 3, "b": 4}}, {"key": {"a": 3, "z": 4}})


@kind("get_key_manager", cls="DictGuardManager")
def keys_of_an_ordered_dict_that_was_moved() -> Case:
    def build(root: Any) -> None:
        manager = dict_manager(root, Moved(a=1, b=2))
        key = manager.get_key_manager(index=0, source="key 0", example_value=None, guard_manager_enum=PLAIN)
        add(key, "add_equals_match_guard", "a")

    return values(
        build, {"unmoved": Moved(a=1, b=2), "moving goes unnoticed": moved_to_end()}, {"order": Moved(b=1, a=2)}
    )


@kind("add_dict_contains_guard", "add_no_hasattr_guard", cls="DictGuardManager")
def an_empty_dict_is_not_looked_into() -> Case:
    def build(root: Any) -> None:
        manager = dict_manager(root, {})
        add(manager, "add_dict_contains_guard", True, "a")
        add(manager, "add_no_hasattr_guard", "keys")

    return values(build, {"empty": {}}, {"filled": {"a": 1}, "wrong type": []})


@kind("add_type_match_guard", "add_dict_length_check_guard", cls="DictGuardManager")
def a_dict_manager_checks_type_and_length_itself() -> Case:
    def build(root: Any) -> None:
        manager = dict_manager(root, {"a": 1})
        add(manager, "add_type_match_guard", id(list))
        add(manager, "add_dict_length_check_guard", 7)

    return values(build, {"same": {"a": 1}, "other": {"b": 2}}, {"length": {}, "subclass": LyingLength(a=1)})


@kind("add_dict_contains_guard", cls="DictGuardManager")
def a_dict_manager_with_contains() -> Case:
    def build(root: Any) -> None:
        add(dict_manager(root, {"a": 1}), "add_dict_contains_guard", True, "a")
        return None

    return values(build, {"there": {"a": 1}}, {"absent": {"b": 1}})


@kind("add_no_hasattr_guard", cls="DictGuardManager")
def a_dict_manager_with_no_hasattr() -> Case:
    def build(root: Any) -> None:
        add(dict_manager(root, Moved(a=1)), "add_no_hasattr_guard", "extra")

    extra = Moved(a=1)
    extra.extra = 3  # type: ignore[attr-defined]
    return values(build, {"absent": Moved(a=1)}, {"there": extra})


@kind("add_dict_version_guard", cls="DictGuardManager")
def a_dict_manager_with_a_version() -> Case:
    guarded = {"a": 1}

    def build(root: Any) -> None:
        add(dict_manager(root, guarded), "add_dict_version_guard", guarded)

    return values(build, {"same": guarded}, {"equal": {"a": 1}})


@kind("getattr_manager", cls="DictGuardManager")
def an_attribute_of_a_guarded_dict() -> Case:
    def build(root: Any) -> None:
        add(below(dict_manager(root, Moved(a=1)), "getattr_manager", attr="extra"), *IS_3)

    def with_extra(value: int) -> Moved:
        made = Moved(a=1)
        made.extra = value  # type: ignore[attr-defined]
        return made

    return values(build, {"passes": with_extra(3)}, {"other": with_extra(4), "absent": Moved(a=1)})


# -- relations and epilogues -------------------------------------------------------------------------------------------


def two_locals(shown: dict[str, tuple[Any, Any, bool]], build: Callable[[Any, Any, Any], object]) -> Case:
    case = Case(lambda root: build(root, local(root, "x"), local(root, "y")))
    for label, (x, y, holds) in shown.items():
        case.show(label, {"x": x, "y": y}, holds)
    return case.show("missing", {"x": 1}, False).show("all missing", {}, False)


@kind()
def object_aliasing() -> Case:
    def build(root: Any, x: Any, y: Any) -> None:
        torch_guards.install_object_aliasing_guard(x, y, ["x is y"], None)

    shown = {"same": (ONE_OBJECT, ONE_OBJECT, True), "other": (Bag(), Bag(), False), "equal": ([1], [1], False)}
    return two_locals(shown | {"raising": (Raises(), Raises(), False)}, build)


@kind()
def no_tensor_aliasing() -> Case:
    tensor = torch.ones(2)

    def build(root: Any, x: Any, y: Any) -> None:
        torch_guards.install_no_tensor_aliasing_guard([x, y], ["x", "y"], ["x is not y"], None)

    return two_locals(
        {
            "different": (tensor, torch.ones(2), True),
            "same": (tensor, tensor, False),
            "a view": (tensor, tensor.view(2), True),
            "no tensors": (1, "a", True),
            "both None": (None, None, False),
        },
        build,
    )


@kind()
def no_tensor_aliasing_of_many() -> Case:
    names = [f"t{i}" for i in range(20)]

    def build(root: Any) -> None:
        managers = [local(root, name) for name in names]
        torch_guards.install_no_tensor_aliasing_guard(managers, names, ["no aliases"], None)

    different = {name: Bag() for name in names}
    case = Case(build).show("different", different, True)
    for name in names[1:]:
        case.show(f"{name} aliases the first", {**different, name: different["t0"]}, False)
    return case.show("missing", dict(itertools.islice(different.items(), 19)), False)


@kind()
def two_groups_without_aliasing() -> Case:
    """One object may be in both groups: only within each group must there be no other."""

    def build(root: Any) -> None:
        x, y, z = (local(root, name) for name in "xyz")
        torch_guards.install_no_tensor_aliasing_guard([x, y], ["x", "y"], ["x is not y"], None)
        torch_guards.install_no_tensor_aliasing_guard([y, z], ["y", "z"], ["y is not z"], None)

    one, two = Bag(), Bag()
    case = Case(build).show("the outer ones are the same", {"x": one, "y": two, "z": one}, True)
    case.show("first group", {"x": one, "y": one, "z": two}, False)
    return case.show("second group", {"x": one, "y": two, "z": two}, False)


@kind()
def relations_after_other_guards() -> Case:
    def build(root: Any, x: Any, y: Any) -> None:
        add(x, "add_type_match_guard", id(torch.Tensor))
        torch_guards.install_no_tensor_aliasing_guard([x, y], ["x", "y"], ["x is not y"], None)
        torch_guards.install_object_aliasing_guard(x, below(y, "getattr_manager", attr="a"), ["x is y.a"], None)

    tensor = torch.ones(2)
    return two_locals(
        {
            "passes": (tensor, Bag(a=tensor), True),
            "other": (tensor, Bag(a=torch.ones(2)), False),
            "type": (1, Bag(a=1), False),
        },
        build,
    )


@kind()
def storage_overlapping() -> Case:
    base = torch.arange(12.0)

    def build(root: Any) -> None:
        x, y, z = (local(root, name) for name in "xyz")
        torch_guards.install_storage_overlapping_guard([x, y], [z], ["x, y overlap; z does not"], None)

    def shown(x: Any, y: Any, z: Any) -> dict[str, Any]:
        return {"x": x, "y": y, "z": z}

    case = Case(build).show("as compiled", shown(base[0:5], base[3:8], base[8:12]), True)
    case.show("none overlap", shown(base[0:3], base[3:8], base[8:12]), False)
    case.show("all overlap", shown(base[0:5], base[3:9], base[8:12]), False)
    case.show("another overlaps", shown(base[0:3], base[3:8], base[7:12]), False)
    case.show("empty never overlaps", shown(base[0:0], base[0:5], base[8:12]), False)
    case.show("missing", {"x": base, "y": base}, False)
    return case.show("unsafe: no tensor", shown(base, base, 3), False, safe=False)


ShapeFunction = ctypes.CFUNCTYPE(ctypes.c_int8, ctypes.POINTER(ctypes.c_int64), ctypes.POINTER(ctypes.c_double))


def symbolic_shapes(root: Any) -> Any:
    """One int and one float, in compiled code: ``x > 2 and y < 0.5``."""
    function = ShapeFunction(lambda ints, floats: int(ints[0] > 2 and floats[0] < 0.5))
    indexed = [below(local(root, name), "indexed_manager", idx=i) for i, name in enumerate("xy")]
    address = ctypes.cast(function, ctypes.c_void_p).value
    torch_guards.install_symbolic_shape_guard(indexed, 1, 1, address, function, ["x > 2 and y < 0.5"], None)
    return function


@kind("indexed_manager")
def symbolic_shape() -> Case:
    case = Case(symbolic_shapes).show("passes", {"x": 3, "y": 0.25}, True)
    case.show("int fails", {"x": 2, "y": 0.25}, False).show("float fails", {"x": 3, "y": 0.75}, False)
    case.show("int for a float", {"x": 3, "y": 0}, False).show("float for an int", {"x": 3.0, "y": 0.25}, False)
    case.show("missing", {"x": 3}, False).show("raising", {"x": Raises(), "y": 0.25}, False)
    return case.show("unsafe: too big", {"x": 2**70, "y": 0.25}, False, safe=False)


@kind("add_epilogue_lambda_guard", cls="RootGuardManager")
def epilogue_lambda() -> Case:
    def build(root: Any) -> None:
        add(local(root), "add_type_match_guard", id(int))
        add(root, "add_epilogue_lambda_guard", lambda f_locals: f_locals["x"] > 0)

    return values(build, {"passes": 3}, {"fails": -3, "wrong type": 3.0})


@kind("add_epilogue_lambda_guard", cls="RootGuardManager")
def epilogue_lambda_that_raises() -> Case:
    def build(root: Any) -> None:
        add(root, "add_epilogue_lambda_guard", lambda f_locals: f_locals["x"](1))

    return values(
        build,
        {"passes": lambda x: x},
        {"raising": Raises(), "exiting": Raises(SystemExit), "wrong type": 3},
        {"no truth": lambda x: Unbool()},
    )


@kind("add_epilogue_lambda_guard", cls="RootGuardManager")
def epilogue_of_a_throwing_tree() -> Case:
    """The epilogue must not run before the guards that vouch for what it reads."""
    asked: list[Any] = []

    def build(root: Any) -> None:
        add(local(root), "add_none_match_guard")
        add(root, "add_epilogue_lambda_guard", lambda f_locals: asked.append(f_locals["x"]) or len(asked) > 0)

    return values(build, {"passes": None}, {"fails": 3})


# -- kinds that torch does not have ------------------------------------------------------------------------------------

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


class StrSubclass(str):
    __slots__ = ()


class IntSubclass(int):
    pass


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
    [guard(Test.IS_TARGET, (X,), (weakref.ref(not_interned), "tests.test_kinds.not_interned"))],
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


# -- the tests ---------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def torch_function_state_is_put_back() -> Iterator[None]:
    """Torch's own tree leaves torch functions switched off when it throws."""
    before = _C.torch_function_state()
    yield
    _C.set_torch_function_state(before)


def shown_cases() -> list[Any]:
    return [
        pytest.param(make, label, id=f"{name}-{label.replace(' ', '_')}")
        for name, make in KINDS.items()
        for label in make().shown
    ]


@pytest.mark.parametrize(("make", "label"), shown_cases())
def test_native_reference_and_torch_agree(make: Callable[[], Case], label: str) -> None:
    case = make()
    built, shown = case.built(), case.shown[label]
    with shown.under():
        verdicts = built.verdicts(shown.f_locals, ask_torch=shown.safe)
    assert verdicts == dict.fromkeys(verdicts, shown.holds)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in KINDS.items()])
def test_one_checker_asked_in_turn_forgets_what_it_saw(make: Callable[[], Case]) -> None:
    case = make()
    built = case.built()
    for shown in [*case.shown.values(), *reversed(case.shown.values())]:
        with shown.under():
            assert built.checkers[0].check(shown.f_locals) is shown.holds


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in KINDS.items()])
def test_a_set_from_json_never_accepts_what_the_set_rejects(make: Callable[[], Case]) -> None:
    case = make()
    built = case.built()
    loaded = loads(dumps(built.guard_set))
    for shown in case.shown.values():
        with shown.under():
            assert shown.holds or not semantics.evaluate(loaded, shown.f_locals)


def test_every_guard_and_accessor_of_this_torch_is_exercised() -> None:
    classes = (native.GuardManager, native.RootGuardManager, native.DictGuardManager)
    known = {(cls.__name__, method) for cls in classes for method in tap.recorded_methods(cls)}
    refused = {("DictGuardManager", method) for method in REFUSED}
    assert known - EXERCISED - refused == set()


def test_every_case_uses_only_what_it_says() -> None:
    used = set()
    with unified_guards.installed():
        for make in KINDS.values():
            with tap.recording() as records:
                root = native.RootGuardManager()
                held = make().build(root)
            used |= {record[0] for record in records}
            del held
    called = {method for _, method in EXERCISED} - {"add_tensor_match_guard"}
    assert used == called | {tap.TENSOR_FACTS} | set(tap._FUNCTIONS)


#: What torch refuses to put on the manager of a dict whose keys are guarded.
REFUSED: dict[str, dict[str, Any]] = {
    "lambda_manager": {"python_lambda": pack},
    "getitem_manager": {"key": "a"},
    "dict_getitem_manager": {"key": "a"},
    "globals_dict_manager": {"f_globals": {}},
    "tuple_iterator_getitem_manager": {"index": 0},
    "global_weakref_manager": {"global_name": "a"},
}


@pytest.mark.parametrize("method", REFUSED)
def test_what_torch_refuses_on_a_dict_manager_is_not_recorded(method: str) -> None:
    def build(root: Any) -> None:
        manager = dict_manager(root, {"a": 1})
        with pytest.raises((RuntimeError, TypeError)):
            below(manager, method, **REFUSED[method])

    built = Built(build)
    assert [item.test for item in built.guard_set] == [Test.TYPE_IS, Test.DICT_LENGTH]


def test_a_leaf_guard_that_is_not_known_asks_torchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(lifting._LEAVES, "add_not_none_guard")
    built = Built(lambda root: add(local(root), "add_not_none_guard"))
    assert [item.test for item in built.guard_set] == [Test.TORCH_LEAF]
    for value, holds in ((3, True), (None, False)):
        verdicts = built.verdicts({"x": value}, ask_torch=True)
        assert verdicts == dict.fromkeys(verdicts, holds)


def test_an_accessor_that_is_not_known_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(lifting._CHILD, "grad_manager")
    with pytest.raises(lifting.CannotLift, match="grad_manager"):
        Built(lambda root: below(local(root), "grad_manager"))


def test_no_recording_outside_of_install() -> None:
    with tap.recording() as records:
        root = native.RootGuardManager()
        add(local(root), "add_none_match_guard")
    assert records == []


def test_none_is_a_key_and_a_value_like_any_other() -> None:
    """In a process of its own: the checker must not take None for nothing and read through it."""
    script = """
        from tests.test_kinds import Built, add, below, local

        for build, value in (
            (lambda root: below(local(root), "dict_getitem_manager", key=None), {None: 3}),
            (lambda root: below(local(root), "getitem_manager", key=None), {None: 3}),
            (lambda root: add(local(root), "add_equals_match_guard", None), None),
            (lambda root: add(local(root), "add_dict_contains_guard", True, None), {None: 3}),
            (lambda root: add(local(root), "add_set_contains_guard", True, None), {None}),
        ):
            built = Built(build)
            for shown, holds in ((value, True), (3, False)):
                verdicts = built.verdicts({"x": shown}, ask_torch=True)
                assert verdicts == dict.fromkeys(verdicts, holds), (built.guard_set, verdicts)
    """
    root = __file__.rpartition("tests")[0]
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-3000:]}"


def test_an_exception_of_torchs_leaves_no_torch_function_state_behind() -> None:
    built = Built(lambda root: add_tensor_guard(local(root), torch.ones(2)))
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    assert not built.checkers[0].check({"x": nested})
    assert torch._C._is_torch_function_enabled()


def test_a_python_guard_below_the_frame_runs_without_torch_functions() -> None:
    seen: list[bool] = []

    def build(root: Any) -> None:
        add(root, "add_lambda_guard", lambda f_locals: seen.append(torch._C._is_torch_function_enabled()) or True)
        add(local(root), "add_lambda_guard", lambda x: seen.append(torch._C._is_torch_function_enabled()) or True)

    built = Built(build)
    for ask in (built.root.check, built.checkers[0].check, lambda f: semantics.evaluate(built.guard_set, f)):
        seen.clear()
        assert ask({"x": 1})
        assert seen == [True, False]


def test_the_first_guard_that_fails_is_explained() -> None:
    def build(root: Any) -> None:
        add(local(root, "x"), "add_type_match_guard", id(int))
        add(local(root, "y"), *IS_3)

    built = Built(build)
    first, second = built.guard_set
    assert semantics.explain_failure(built.guard_set, {"x": 1.0, "y": 4}) is first
    assert semantics.explain_failure(built.guard_set, {"x": 1, "y": 4}) is second
    assert semantics.explain_failure(built.guard_set, {"x": 1, "y": 3}) is None


def test_given_globals_replace_the_captured_ones() -> None:
    built = a_global().built()
    assert semantics.evaluate(built.guard_set, {})
    assert not semantics.evaluate(built.guard_set, {}, {"g": 4})
    assert semantics.evaluate(built.guard_set, {}, {"g": 3})
