"""Cases of leaf guards on plain objects."""

from __future__ import annotations

import collections
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch

from unified_guards.dynamo import compat

from ..building import EXERCISED, KINDS, Case, add, kind, leaf, local, values
from ..objects import (
    AmbiguousEq,
    Bag,
    Fallback,
    LyingClass,
    LyingLength,
    OverridingDict,
    Raises,
    RaisingEq,
    Slotted,
    Unbool,
    WithProperty,
)


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
