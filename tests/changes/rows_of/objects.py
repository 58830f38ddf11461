"""Rows of plain values, of objects and containers, and of what is passed in their place."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo

from ..rows import PYTHON, Row, python

# Python objects


class Plain:
    pass


class Slots:
    __slots__ = ("value",)


def value_row(name: str, before: Any, after: Any) -> None:
    """The value of an attribute, of an element and of a global are three ways to the same change."""

    def row() -> Iterator[Any]:
        holder = Plain()
        holder.value = before

        def function(x: Any, holder: Any) -> Any:
            value = holder.value
            if value is None:
                return x - 1
            if isinstance(value, str):
                return x + len(value)
            return x * value

        yield function, [torch.ones(2), holder]
        holder.value = after
        yield
        holder.value = before
        yield

    PYTHON[f"attribute_{name}"] = row


value_row("int", 1, 2)
value_row("float", 1.5, 2.5)
value_row("str", "a", "bcd")
value_row("none_to_value", None, 3)
value_row("int_to_str", 1, "abc")
value_row("int_to_float", 2, 2.0)
value_row("bool_to_int", True, 1)
value_row("int_to_bool", 0, False)
value_row("nan", float("nan"), 1.0)
value_row("nan_to_other_nan", float("nan"), float("-nan"))
value_row("minus_zero", 0.0, -0.0)
value_row("large_int", 2**40, 2**40 + 1)
value_row("larger_than_a_word", 2**70, 2**70 + 1)
value_row("small_to_huge_int", 1, 2**64 + 1)
value_row("equal_string_of_other_identity", "abcdef", "".join(["abc", "def"]))
value_row("complex", 1 + 2j, 1 + 3j)
value_row("range", 1, 2**31)


def object_row(
    name: str,
    make: Callable[[], Any],
    function: Callable[..., Any],
    change: Callable[[Any], Any],
    undo: Callable[[Any], Any],
    table: dict[str, Row] = PYTHON,
) -> None:
    """An object that is an argument, and changed where it is."""

    def row() -> Iterator[Any]:
        made = make()
        yield function, [torch.ones(2), made]
        change(made)
        yield
        undo(made)
        yield

    assert name not in table
    table[name] = row


def plain(**attributes: Any) -> Any:
    made = Plain()
    made.__dict__.update(attributes)
    return made


def slots(value: Any) -> Any:
    made = Slots()
    made.value = value
    return made


def total(x: Any, values: Any) -> Any:
    for value in values:
        x = x * 2 + value
    return x


def items(x: Any, values: Any) -> Any:
    for key, value in values.items():
        x = x * 2 + value + len(str(key))
    return x


def one(x: Any, made: Any) -> Any:
    return x + made.value


def extra(x: Any, made: Any) -> Any:
    return x * 3 if hasattr(made, "extra") else x * 2


def put(made: Any, **attributes: Any) -> None:
    for name, value in attributes.items():
        setattr(made, name, value)


def replace_dict(made: Any, **attributes: Any) -> None:
    made.__dict__ = attributes


def reorder(made: dict[Any, Any]) -> None:
    for key in reversed(list(made)):
        made[key] = made.pop(key)


object_row("attribute_deleted", lambda: plain(value=1), one, lambda o: delattr(o, "value"), lambda o: put(o, value=1))
object_row("attribute_added", plain, extra, lambda o: put(o, extra=1), lambda o: delattr(o, "extra"))
object_row(
    "dict_replaced", lambda: plain(value=1), one, lambda o: replace_dict(o, value=2), lambda o: replace_dict(o, value=1)
)
object_row(
    "dict_updated",
    lambda: plain(value=1),
    one,
    lambda o: o.__dict__.update(value=2),
    lambda o: o.__dict__.update(value=1),
)
object_row("dict_cleared", lambda: plain(value=1), one, lambda o: o.__dict__.clear(), lambda o: put(o, value=1))
object_row("dict_gains_an_absent_name", plain, extra, lambda o: replace_dict(o, extra=1), lambda o: replace_dict(o))
object_row("slot_set", lambda: slots(1), one, lambda o: put(o, value=2), lambda o: put(o, value=1))
object_row("slot_deleted", lambda: slots(1), one, lambda o: delattr(o, "value"), lambda o: put(o, value=1))
object_row("list_set", lambda: [1, 2], total, lambda o: o.__setitem__(0, 5), lambda o: o.__setitem__(0, 1))
object_row("list_append", lambda: [1, 2], total, lambda o: o.append(3), lambda o: o.pop())
object_row("list_pop", lambda: [1, 2], total, lambda o: o.pop(), lambda o: o.append(2))
object_row("list_sort", lambda: [2, 1], total, lambda o: o.sort(), lambda o: o.reverse())
object_row("list_clear", lambda: [1, 2], total, lambda o: o.clear(), lambda o: o.extend([1, 2]))
object_row(
    "list_all_others",
    lambda: [1, 2],
    total,
    lambda o: o.__setitem__(slice(None), [3, 4]),
    lambda o: o.__setitem__(slice(None), [1, 2]),
)
object_row("list_element_type", lambda: [1, 2], total, lambda o: o.__setitem__(0, True), lambda o: o.__setitem__(0, 1))
object_row("list_in_list", lambda: [[1]], lambda x, o: total(x, o[0]), lambda o: o[0].append(2), lambda o: o[0].pop())
object_row(
    "list_in_tuple",
    lambda: ([1], 2),
    lambda x, o: total(x, o[0]) + o[1],
    lambda o: o[0].append(2),
    lambda o: o[0].pop(),
)
object_row("deque_append", lambda: collections.deque([1, 2]), total, lambda o: o.append(3), lambda o: o.pop())
object_row("dict_value", lambda: {"a": 1, "b": 2}, items, lambda o: o.update(a=3), lambda o: o.update(a=1))
object_row("dict_order", lambda: {"a": 1, "bcd": 2}, items, reorder, reorder)
object_row("dict_key_added", lambda: {"a": 1}, items, lambda o: o.update(b=2), lambda o: o.pop("b"))
object_row("dict_key_removed", lambda: {"a": 1, "b": 2}, items, lambda o: o.pop("b"), lambda o: o.update(b=2))
object_row(
    "dict_absent_key", lambda: {"a": 1}, lambda x, o: x + o.get("b", 5), lambda o: o.update(b=2), lambda o: o.pop("b")
)
object_row(
    "dict_in",
    lambda: {"a": 1},
    lambda x, o: x + 1 if "b" in o else x - 1,
    lambda o: o.update(b=2),
    lambda o: o.pop("b"),
)
object_row(
    "dict_key_type",
    lambda: {1: 1},
    items,
    lambda o: (o.clear(), o.update({True: 1})),
    lambda o: (o.clear(), o.update({1: 1})),
)
object_row(
    "ordered_dict_order",
    lambda: collections.OrderedDict(a=1, bcd=2),
    items,
    lambda o: o.move_to_end("a"),
    lambda o: o.move_to_end("bcd"),
)
object_row(
    "ordered_dict_value", lambda: collections.OrderedDict(a=1), items, lambda o: o.update(a=2), lambda o: o.update(a=1)
)
object_row(
    "default_dict_value",
    lambda: collections.defaultdict(int, a=1),
    items,
    lambda o: o.update(a=2),
    lambda o: o.update(a=1),
)
object_row("default_dict_key", lambda: collections.defaultdict(int, a=1), items, lambda o: o["b"], lambda o: o.pop("b"))
object_row("set_added", lambda: {1}, lambda x, o: x + 1 if 2 in o else x - 1, lambda o: o.add(2), lambda o: o.remove(2))
object_row(
    "set_other_member",
    lambda: {1, 2},
    lambda x, o: x + 1 if 2 in o else x - 1,
    lambda o: (o.remove(2), o.add(3)),
    lambda o: (o.remove(3), o.add(2)),
)
object_row(
    "namespace", lambda: types.SimpleNamespace(value=1), one, lambda o: put(o, value=2), lambda o: put(o, value=1)
)


def argument_row(
    name: str, before: Any, after: Any, function: Callable[..., Any], table: dict[str, Row] = PYTHON
) -> None:
    """An argument that is another one after the change. Both are made when the row starts."""

    def row() -> Iterator[Any]:
        first, second = before(), after()
        arguments = [torch.ones(2), first]
        yield function, arguments
        arguments[1] = second
        yield
        arguments[1] = first
        yield

    assert name not in table
    table[name] = row


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


Point = collections.namedtuple("Point", "a b")


@dataclasses.dataclass
class Settings:
    value: int = 1


@dataclasses.dataclass(frozen=True)
class Frozen:
    value: int = 1


class Integer(int):
    pass


argument_row("enum_member", lambda: Colour.RED, lambda: Colour.BLUE, lambda x, o: x + o.value if o is Colour.RED else x)
argument_row(
    "enum_as_attribute",
    lambda: plain(value=Colour.RED),
    lambda: plain(value=Colour.BLUE),
    lambda x, o: x + 1 if o.value is Colour.RED else x,
)
argument_row("named_tuple", lambda: Point(1, 2), lambda: Point(1, 3), lambda x, o: x + o.a * o.b)
argument_row(
    "named_tuple_to_tuple",
    lambda: Point(1, 2),
    lambda: (1, 2),
    lambda x, o: x + o[0] * o[1] + (5 if hasattr(o, "a") else 0),
)
argument_row("tuple_to_list", lambda: (1, 2), lambda: [1, 2], lambda x, o: x + 1 if isinstance(o, tuple) else x)
argument_row("tuple_value", lambda: (1, 2), lambda: (1, 3), total)
argument_row("tuple_length", lambda: (1, 2), lambda: (1, 2, 3), total)
argument_row("range_stop", lambda: range(3), lambda: range(4), total)
argument_row("range_step", lambda: range(0, 4, 2), lambda: range(0, 4, 3), total)
argument_row("slice_stop", lambda: slice(0, 1), lambda: slice(0, 2), lambda x, o: x[o] + 1)
argument_row("frozen_set", lambda: frozenset([1]), lambda: frozenset([2]), lambda x, o: x + 1 if 1 in o else x)
argument_row("frozen_dataclass", Frozen, lambda: Frozen(2), one)
argument_row("int_subclass", lambda: 3, lambda: Integer(3), lambda x, o: x + 1 if type(o) is int else x)
argument_row("dtype", lambda: torch.float32, lambda: torch.float64, lambda x, o: x.to(o))
argument_row("device", lambda: torch.device("cpu"), lambda: torch.device("meta"), lambda x, o: x.to(o))
argument_row("size", lambda: torch.Size([2]), lambda: torch.Size([1, 2]), lambda x, o: x.reshape(o) + 1)
argument_row("bytes", lambda: b"a", lambda: b"bc", lambda x, o: x + len(o))
argument_row(
    "partial",
    lambda: functools.partial(torch.add, other=1),
    lambda: functools.partial(torch.add, other=2),
    lambda x, o: o(x),
)
argument_row(
    "bound_method_of_another",
    lambda: Settings(1).__eq__,
    lambda: Settings(2).__eq__,
    lambda x, o: x + 1 if o.__self__.value == 1 else x,
)
argument_row("class_itself", lambda: Plain, lambda: Slots, lambda x, o: x + 1 if o is Plain else x)
argument_row("none_to_tensor", lambda: None, lambda: torch.ones(2), lambda x, o: x if o is None else x + o)
object_row("dataclass_field", Settings, one, lambda o: put(o, value=2), lambda o: put(o, value=1))


@python
def iterator_partly_used() -> Iterator[Any]:
    arguments = [torch.ones(2), iter([1, 2, 3])]
    yield total, arguments
    arguments[1] = iter([1, 2, 3])
    yield
    arguments[1] = iter([4])
    yield
