"""A matrix of changes: what plain torch makes of each is what ours makes of it, with no compilation fewer.

A row is a generator. It yields the function and its arguments, makes its change, yields, undoes it, and yields again.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import functools
import gc
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import nn
from torch.overrides import TorchFunctionMode

import unified_guards
from unified_guards.guards.ir import Test
from unified_guards.simplify import driver

Row = Callable[[], Iterator[Any]]
PYTHON: dict[str, Row] = {}
TENSORS: dict[str, Row] = {}
WARM_UP = 6
SWITCHES = {
    "as users run it": {},
    "verified": {"UNIFIED_GUARDS_VERIFY": "1"},
    "verified, nothing remembered": {"UNIFIED_GUARDS_VERIFY": "1", "UNIFIED_GUARDS_WITNESS": "0"},
}


def python(row: Row) -> Row:
    PYTHON[row.__name__] = row
    return row


def tensors(row: Row) -> Row:
    TENSORS[row.__name__] = row
    return row


# Running a row


@dataclasses.dataclass
class Step:
    results: list[Any]
    ran: list[int]
    compilations: int


def described(value: Any) -> Any:
    """A value that compares by what can be seen of it: nan equals nan, and -0.0 does not equal 0.0."""
    if isinstance(value, (tuple, list)):
        return [described(each) for each in value]
    if not isinstance(value, torch.Tensor):
        return repr(value)
    seen = (type(value), value.dtype, value.layout, value.requires_grad, value.is_inference(), str(value.device))
    if value.is_nested:
        return (*seen, [described(each) for each in value.detach().unbind()])
    if value.device.type == "meta":
        return (*seen, value.shape, value.stride())
    plain = value.detach()
    if value.is_quantized:
        plain = plain.dequantize()
    if plain.layout is not torch.strided:
        plain = plain.to_dense()
    return (*seen, plain.shape, repr(plain.tolist()))


def steps_of(row: Row) -> list[Step]:
    """What the row's calls give: while it is as made, after its change, and after the change is undone."""
    torch._dynamo.reset()
    compiled_graphs = 0
    ran: list[int] = []

    def backend(module: Any, _: Any) -> Any:
        nonlocal compiled_graphs
        number = compiled_graphs = compiled_graphs + 1

        def run(*arguments: Any) -> Any:
            ran.append(number)
            return module(*arguments)

        return run

    play = row()
    function, arguments = next(play)
    compiled = torch.compile(function, backend=backend, dynamic=False)

    def step(calls: int) -> Step:
        ran.clear()
        results = []
        for _ in range(calls):
            try:
                results.append(described(compiled(*arguments)))
            except unified_guards.GuardDisagreement:
                raise
            except Exception as error:
                results.append(type(error).__name__)
        return Step(results, list(ran), compiled_graphs)

    try:
        steps = [step(WARM_UP)]
        for _ in range(2):
            next(play)
            steps.append(step(2))
        return steps
    finally:
        play.close()
        torch._dynamo.reset()


def compare(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not unified_guards.is_installed()
    expected = steps_of(row)
    # Torch's tree would be compared with itself.
    monkeypatch.setenv("UNIFIED_GUARDS_NO_FALLBACK", "1")
    for name, switches in SWITCHES.items():
        for switch in ("UNIFIED_GUARDS_VERIFY", "UNIFIED_GUARDS_WITNESS"):
            monkeypatch.delenv(switch, raising=False)
        for switch, value in switches.items():
            monkeypatch.setenv(switch, value)
        with unified_guards.installed():
            compare_steps(steps_of(row), expected, name)


def compare_steps(found: list[Step], expected: list[Step], name: str) -> None:
    assert [step.results for step in found] == [step.results for step in expected], name
    pairs = list(zip(found, expected, strict=True))
    assert all(ours.compilations >= theirs.compilations for ours, theirs in pairs), f"{name}: a false hit: {pairs}"
    # A miss that torch does not have gives another graph the next number.
    if all(ours.compilations == theirs.compilations for ours, theirs in pairs):
        assert [step.ran for step in found] == [step.ran for step in expected], name


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


def class_row(name: str, change: Callable[[Any], Any], undo: Callable[[Any], Any], function: Any = one) -> None:
    """Classes of the row's own: a metaclass, a base, a class, and an object of it."""

    def row() -> Iterator[Any]:
        class Meta(type):
            pass

        class Base(metaclass=Meta):
            value = 1

            def method(self) -> int:
                return 1

        class Derived(Base):
            pass

        class Other(Base):
            value = 7

            def method(self) -> int:
                return 7

        made = Derived()
        kinds = types.SimpleNamespace(Meta=Meta, Base=Base, Derived=Derived, Other=Other, made=made)
        yield function, [torch.ones(2), made]
        change(kinds)
        yield
        undo(kinds)
        yield

    PYTHON[name] = row


def called(x: Any, made: Any) -> Any:
    return x + made.method()


def of_type(x: Any, made: Any) -> Any:
    return x + type(made).value


def clear(kind: Any, name: str) -> None:
    delattr(kind, name)


class_row("class_attribute_of_base", lambda k: put(k.Base, value=2), lambda k: put(k.Base, value=1))
class_row("class_attribute_shadowed", lambda k: put(k.Derived, value=2), lambda k: clear(k.Derived, "value"))
class_row("class_attribute_by_type", lambda k: put(k.Derived, value=2), lambda k: clear(k.Derived, "value"), of_type)
class_row("class_attribute_by_instance", lambda k: put(k.made, value=2), lambda k: clear(k.made, "value"))
class_row("class_attribute_deleted", lambda k: clear(k.Base, "value"), lambda k: put(k.Base, value=1))
class_row(
    "metaclass_property",
    lambda k: put(k.Meta, value=property(lambda cls: 3)),
    lambda k: clear(k.Meta, "value"),
    of_type,
)
class_row(
    "metaclass_attribute",
    lambda k: put(k.Meta, extra=1),
    lambda k: clear(k.Meta, "extra"),
    lambda x, o: extra(x, type(o)),
)
class_row(
    "class_gains_property", lambda k: put(k.Derived, value=property(lambda o: 4)), lambda k: clear(k.Derived, "value")
)
class_row("class_gains_absent_name", lambda k: put(k.Base, extra=1), lambda k: clear(k.Base, "extra"), extra)
class_row(
    "class_gains_getattr",
    lambda k: put(k.Base, __getattr__=lambda o, n: 1),
    lambda k: clear(k.Base, "__getattr__"),
    extra,
)
class_row("class_assigned", lambda k: put(k.made, __class__=k.Other), lambda k: put(k.made, __class__=k.Derived))
class_row(
    "bases_assigned", lambda k: put(k.Derived, __bases__=(k.Other,)), lambda k: put(k.Derived, __bases__=(k.Base,))
)
class_row("method_patched", lambda k: put(k.Derived, method=lambda o: 3), lambda k: clear(k.Derived, "method"), called)
class_row("method_on_instance", lambda k: put(k.made, method=lambda: 3), lambda k: clear(k.made, "method"), called)
class_row(
    "method_by_class", lambda k: put(k.made, __class__=k.Other), lambda k: put(k.made, __class__=k.Derived), called
)


@python
def property_replaced() -> Iterator[Any]:
    class Has:
        value = property(lambda self: self.hidden)

    made = Has()
    made.hidden = 1
    first = Has.value
    yield one, [torch.ones(2), made]
    Has.value = property(lambda self: self.hidden + 1)
    yield
    Has.value = first
    yield


@python
def config_with_getattr() -> Iterator[Any]:
    class Config:
        def __init__(self) -> None:
            self.store = {"value": 1}

        def __getattr__(self, name: str) -> Any:
            try:
                return self.__dict__["store"][name]
            except KeyError:
                raise AttributeError(name) from None

    made = Config()
    yield one, [torch.ones(2), made]
    made.store["value"] = 2
    yield
    made.store["value"] = 1
    yield


def helper_row(name: str, change: Callable[[Any], Any], undo: Callable[[Any, Any], Any]) -> None:
    """A function that the compiled one calls."""

    def row() -> Iterator[Any]:
        captured = 1

        def helper(x: Any, by: int = 1, *, and_by: int = 1) -> Any:
            return x * by + and_by + captured

        def function(x: Any, helper: Any) -> Any:
            return helper(x)

        yield function, [torch.ones(2), helper]
        before = change(helper)
        yield
        undo(helper, before)
        yield

    PYTHON[name] = row


def swapped(name: str, value: Any) -> tuple[Callable[[Any], Any], Callable[[Any, Any], Any]]:
    def change(helper: Any) -> Any:
        before = getattr(helper, name)
        setattr(helper, name, value)
        return before

    return change, lambda helper, before: setattr(helper, name, before)


def _with_a_cell(captured: Any) -> Any:
    return (lambda x, by=1, *, and_by=1: x - by - and_by - captured).__code__


def set_cell(helper: Any, value: Any = 5) -> int:
    helper.__closure__[0].cell_contents = value
    return 1


helper_row("function_code", *swapped("__code__", _with_a_cell(1)))
helper_row("function_defaults", *swapped("__defaults__", (3,)))
helper_row("function_defaults_gone", *swapped("__defaults__", None))
helper_row("function_keyword_defaults", *swapped("__kwdefaults__", {"and_by": 4}))
helper_row("function_cell", set_cell, set_cell)
helper_row("function_cell_type", lambda h: set_cell(h, 1.5), set_cell)
helper_row(
    "function_keyword_default_in_place",
    lambda h: h.__kwdefaults__.update(and_by=4),
    lambda h, _: h.__kwdefaults__.update(and_by=1),
)

SCALE = 1
LISTED = [1, 2]
HELD = torch.ones(2)


def global_row(name: str, function: Callable[..., Any], names: dict[str, Any], table: dict[str, Row] = PYTHON) -> None:
    def row() -> Iterator[Any]:
        here = globals()
        before = {each: here[each] for each in names if each in here}
        try:
            yield function, [torch.ones(2)]
            here.update(names)
            yield
        finally:
            for each in names:
                here.pop(each, None)
            here.update(before)
        yield

    table[name] = row


global_row("global_rebound", lambda x: x + SCALE, {"SCALE": 2})
global_row("global_type", lambda x: x + SCALE, {"SCALE": 1.5})
global_row("global_list_rebound", lambda x: total(x, LISTED), {"LISTED": [1, 3]})
global_row("global_function_rebound", lambda x: total(x, [1]), {"total": lambda x, values: x - 1})
global_row("builtin_shadowed", lambda x: x + len([1, 2]), {"len": lambda values: 7})
global_row("module_rebound", lambda x: x + HOLDER.value, {"HOLDER": types.SimpleNamespace(value=5)})

HOLDER = types.ModuleType("holder")
HOLDER.value = 1  # type: ignore[attr-defined]


@python
def module_attribute() -> Iterator[Any]:
    yield lambda x: x + HOLDER.value, [torch.ones(2)]
    HOLDER.value = 2
    yield
    HOLDER.value = 1
    yield


@python
def function_of_torch_patched() -> Iterator[Any]:
    first = torch.sin
    try:
        yield lambda x: torch.sin(x), [torch.ones(2)]
        torch.sin = torch.cos
        yield
    finally:
        torch.sin = first
    yield


@python
def freed_and_remade() -> Iterator[Any]:
    arguments: list[Any] = [torch.ones(2), plain(value=[1])]

    def remake(value: int) -> None:
        for _ in range(5):
            arguments[1] = None
            gc.collect()
            arguments[1] = plain(value=[value])

    yield lambda x, o: total(x, o.value), arguments
    remake(2)
    yield
    remake(1)
    yield


@python
def freed_and_remade_class() -> Iterator[Any]:
    arguments: list[Any] = [torch.ones(2), None]

    def remake(value: int) -> None:
        for _ in range(3):
            arguments[1] = None
            gc.collect()
            arguments[1] = type("Made", (), {"value": value})()

    remake(1)
    yield one, arguments
    remake(2)
    yield
    remake(1)
    yield


# Modules


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.more = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])
        self.named = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()})
        self.drop = nn.Dropout(0.0)
        self.register_buffer("buffer", torch.ones(2))
        self.scale = 1
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.fill_(0.1 * (number + 1))

    def forward(self, x: Any) -> Any:
        x = self.drop(self.first(x)) * self.scale + self.buffer
        for each in self.more:
            x = each(x)
        for each in self.named.values():
            x = each(x)
        return x * 2 if self.training else x


def full(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.full(shape, 0.5))


def net_row(name: str, change: Callable[[Net], Any], undo: Callable[[Net, Any], Any]) -> None:
    def row() -> Iterator[Any]:
        net = Net()
        yield net, [torch.ones(2)]
        before = change(net)
        yield
        undo(net, before)
        yield

    PYTHON[f"module_{name}"] = row


def set_on(path: str, name: str, value: Callable[[], Any]) -> tuple[Callable[[Net], Any], Callable[[Net, Any], Any]]:
    def change(net: Net) -> Any:
        owner = net.get_submodule(path)
        before = getattr(owner, name)
        setattr(owner, name, value())
        return before

    return change, lambda net, before: setattr(net.get_submodule(path), name, before)


def swap_item(net: Net, index: int, value: Any) -> Any:
    before = net.more[index]
    net.more[index] = value
    return before


def swap_named(net: Net, value: Any) -> Any:
    before = net.named["a"]
    net.named["a"] = value
    return before


def hook(kind: str, function: Any, path: str = "first") -> tuple[Callable[[Net], Any], Callable[[Net, Any], Any]]:
    return (
        lambda net: getattr(net.get_submodule(path), kind)(function),
        lambda net, handle: handle.remove(),
    )


net_row("submodule", *set_on("", "first", nn.Identity))
net_row("parameter", *set_on("first", "weight", lambda: full(2, 2)))
net_row(
    "parameter_frozen", lambda n: n.first.weight.requires_grad_(False), lambda n, _: n.first.weight.requires_grad_()
)
net_row("all_frozen", lambda n: n.requires_grad_(False), lambda n, _: n.requires_grad_())
net_row("bias_none", *set_on("first", "bias", lambda: None))
net_row("buffer", *set_on("", "buffer", lambda: torch.ones(1, 2)))
net_row("buffer_dtype", *set_on("", "buffer", lambda: torch.ones(2, dtype=torch.float64)))
net_row("training", lambda n: n.eval(), lambda n, _: n.train())
net_row("training_of_one", lambda n: n.drop.eval(), lambda n, _: n.drop.train())
net_row("int_attribute", *set_on("", "scale", lambda: 3))
net_row("attribute_to_tensor", *set_on("", "scale", lambda: torch.ones(2)))
net_row("list_item", lambda n: swap_item(n, 1, nn.Tanh()), lambda n, before: swap_item(n, 1, before))
net_row("list_append", lambda n: n.more.append(nn.Tanh()), lambda n, _: n.more.__delitem__(2))
net_row("dict_item", lambda n: swap_named(n, nn.Sigmoid()), lambda n, before: swap_named(n, before))
net_row("dict_added", lambda n: n.named.update({"c": nn.Tanh()}), lambda n, _: n.named.pop("c"))
net_row(
    "forward_on_instance", lambda n: put(n.first, forward=lambda x: x * 3), lambda n, _: delattr(n.first, "forward")
)
net_row("class_of_one", *set_on("more.1", "__class__", lambda: nn.Tanh))
net_row("hook", *hook("register_forward_hook", lambda module, given, result: result * 3))
net_row("hook_before", *hook("register_forward_pre_hook", lambda module, given: (given[0] * 3,)))
net_row("hook_on_itself", *hook("register_forward_hook", lambda module, given, result: result * 3, ""))
net_row("dtype", lambda n: n.double(), lambda n, _: n.float())
net_row(
    "inner_parameters_dict",
    lambda n: n.first._parameters.update(bias=None),
    lambda n, _: n.first._parameters.update(bias=full(2)),
)


@python
def module_copied() -> Iterator[Any]:
    arguments = [torch.ones(2), Net()]
    first = arguments[1]
    yield lambda x, net: net(x), arguments
    arguments[1] = copy.deepcopy(first)
    arguments[1].scale = 2
    yield
    arguments[1] = first
    yield


# Torch's own state


class Counting(TorchFunctionMode):
    def __torch_function__(self, function: Any, kinds: Any, given: Any = (), named: Any = None) -> Any:
        return function(*given, **(named or {}))


def context_row(name: str, context: Callable[[], Any], function: Any = lambda x, w: x @ w + 1) -> None:
    def row() -> Iterator[Any]:
        yield function, [torch.ones(2, 2), torch.ones(2, 2, requires_grad=True)]
        with context():
            yield
        yield

    PYTHON[f"state_{name}"] = row


def switch_row(name: str, get: Callable[[], Any], put_back: Callable[[Any], Any], value: Any) -> None:
    def row() -> Iterator[Any]:
        before = get()
        put_back(before)  # what was never set is not the same to torch as what was set to the default
        try:
            yield lambda x: (x + 1, torch.ones(2)), [torch.ones(2)]
            put_back(value)
            yield
        finally:
            put_back(before)
        yield

    PYTHON[f"state_{name}"] = row


context_row("no_grad", torch.no_grad)
context_row("inference_mode", torch.inference_mode)
context_row("autocast", lambda: torch.autocast("cpu", dtype=torch.bfloat16))
context_row("torch_function_mode", Counting)
context_row("torch_function_off", torch._C.DisableTorchFunction)
context_row("default_device", lambda: torch.device("meta"), lambda x, w: (x + 1, torch.ones(2)))
switch_row("default_dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float64)
switch_row("num_threads", torch.get_num_threads, torch.set_num_threads, 2 if torch.get_num_threads() != 2 else 1)
switch_row("deterministic", torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True)
switch_row("matmul_precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium")


# Tensors


class Sub(torch.Tensor):
    scale = 1


class OtherSub(torch.Tensor):
    scale = 2


def double(x: Any, *_: Any) -> Any:
    return x * 2


def tensor_row(
    name: str,
    make: Callable[[], tuple[Any, ...]],
    change: Callable[..., Any],
    undo: Callable[..., Any],
    function: Callable[..., Any] = double,
    given: int = 1,
) -> None:
    """Tensors changed where they are: ``make`` gives them all, of which the first ``given`` are the arguments."""

    def row() -> Iterator[Any]:
        made = make()
        yield function, list(made[:given])
        change(*made)
        yield
        undo(*made)
        yield

    assert name not in TENSORS
    TENSORS[name] = row


def with_data(value: Callable[[], torch.Tensor]) -> Callable[..., None]:
    def change(tensor: torch.Tensor, *_: Any) -> None:
        tensor.data = value()

    return change


def matrix() -> tuple[torch.Tensor]:
    return (torch.arange(6.0).reshape(2, 3),)


def viewed() -> tuple[torch.Tensor, torch.Tensor]:
    base = torch.ones(4)
    return base[:2], base


def view_of_view() -> tuple[torch.Tensor, torch.Tensor]:
    base = torch.ones(4)
    return base[:3][:2], base


def parts() -> tuple[Any, ...]:
    base = torch.ones(4)
    return (*base.split(2), base)


def requires(*made: Any) -> None:
    made[-1].requires_grad_()


def requires_not(*made: Any) -> None:
    made[-1].requires_grad_(False)


def guarded(t: Any) -> Any:
    return t if t.is_leaf else t * 1


def graph_on_base(view: Any, base: Any) -> None:
    base.mul_(torch.ones(4, requires_grad=True))


tensor_row(
    "data_dtype", matrix, with_data(lambda: torch.ones(2, 3, dtype=torch.float64)), with_data(lambda: torch.ones(2, 3))
)
tensor_row("data_shape", matrix, with_data(lambda: torch.ones(3, 2)), with_data(lambda: torch.ones(2, 3)))
tensor_row("data_strides", matrix, with_data(lambda: torch.ones(3, 2).t()), with_data(lambda: torch.ones(2, 3)))
tensor_row("data_rank", matrix, with_data(lambda: torch.ones(6)), with_data(lambda: torch.ones(2, 3)))
tensor_row("data_zero_size", matrix, with_data(lambda: torch.ones(0, 3)), with_data(lambda: torch.ones(2, 3)))
tensor_row("data_size_one", matrix, with_data(lambda: torch.ones(1, 3)), with_data(lambda: torch.ones(2, 3)))
tensor_row("data_offset", matrix, with_data(lambda: torch.ones(7)[1:].view(2, 3)), with_data(lambda: torch.ones(2, 3)))
tensor_row(
    "data_complex",
    matrix,
    with_data(lambda: torch.ones(2, 3, dtype=torch.complex64)),
    with_data(lambda: torch.ones(2, 3)),
)
tensor_row("resize", matrix, lambda t: t.resize_(3, 2), lambda t: t.resize_(2, 3))
tensor_row("resize_smaller", matrix, lambda t: t.resize_(1, 2), lambda t: t.resize_(2, 3))
tensor_row("unsqueeze", matrix, lambda t: t.unsqueeze_(0), lambda t: t.squeeze_(0))
tensor_row("squeeze", lambda: (torch.ones(1, 2),), lambda t: t.squeeze_(0), lambda t: t.unsqueeze_(0))
tensor_row("transpose", matrix, lambda t: t.t_(), lambda t: t.t_())
tensor_row("transpose_square", lambda: (torch.ones(2, 2),), lambda t: t.t_(), lambda t: t.t_())
tensor_row("swap_dimensions", lambda: (torch.ones(2, 3, 4),), lambda t: t.swapdims_(0, 2), lambda t: t.swapdims_(0, 2))
tensor_row("set_to_other_storage", matrix, lambda t: t.set_(torch.ones(3, 3)), lambda t: t.set_(torch.ones(2, 3)))
tensor_row(
    "set_offset",
    lambda: (torch.ones(2), torch.arange(8.0)),
    lambda t, o: t.set_(o.untyped_storage(), 3, (2,), (1,)),
    lambda t, _: t.set_(torch.ones(2)),
)
tensor_row("as_strided", matrix, lambda t: t.as_strided_((2, 3), (1, 2)), lambda t: t.as_strided_((2, 3), (3, 1)))
tensor_row(
    "as_strided_overlap", matrix, lambda t: t.as_strided_((2, 3), (1, 1)), lambda t: t.as_strided_((2, 3), (3, 1))
)
tensor_row(
    "as_strided_expanded", matrix, lambda t: t.as_strided_((2, 3), (0, 1)), lambda t: t.as_strided_((2, 3), (3, 1))
)
tensor_row(
    "storage_emptied",
    matrix,
    lambda t: t.untyped_storage().resize_(0),
    lambda t: (t.untyped_storage().resize_(24), t.fill_(1)),
    lambda x: torch.ones(2) * x.shape[0],
)
tensor_row("requires_grad_on_leaf", matrix, requires, requires_not)
tensor_row("requires_grad_on_base", viewed, requires, requires_not)
tensor_row("requires_grad_on_base_of_view_of_view", view_of_view, requires, requires_not)
tensor_row("requires_grad_on_base_of_parts", parts, requires, requires_not, lambda x, y: x * y, 2)
tensor_row("base_gets_a_graph", viewed, graph_on_base, lambda v, b: b.detach_())
tensor_row("view_of_view_gets_a_graph", view_of_view, graph_on_base, lambda v, b: None)
tensor_row(
    "view_written_under_grad",
    lambda: viewed()[::-1],
    lambda b, v: v.mul_(torch.ones(2, requires_grad=True)),
    lambda b, v: b.detach_(),
)
tensor_row(
    "graph_in_place",
    lambda: (torch.ones(2, 3),),
    lambda t: t.mul_(torch.ones(3, requires_grad=True)),
    lambda t: t.detach_(),
)
tensor_row(
    "detach", lambda: (torch.ones(2, requires_grad=True) * 1,), lambda t: t.detach_(), lambda t: t.requires_grad_()
)
tensor_row(
    "leaf",
    lambda: (torch.ones(2),),
    lambda t: t.mul_(torch.ones(2, requires_grad=True)),
    lambda t: t.detach_(),
    guarded,
)
tensor_row(
    "grad_set",
    lambda: (torch.ones(2, requires_grad=True),),
    lambda t: put(t, grad=torch.ones(2)),
    lambda t: put(t, grad=None),
    lambda x: x * 2 if x.grad is None else x * x.grad,
)
tensor_row(
    "grad_replaced",
    lambda: (torch.ones(2, requires_grad=True),),
    lambda t: put(t, grad=torch.ones(2).double().float()),
    lambda t: put(t, grad=torch.zeros(2)),
    lambda x: x if x.grad is None else x + x.grad,
)
tensor_row(
    "retain_grad",
    lambda: (torch.ones(2, requires_grad=True) * 1,),
    lambda t: t.retain_grad(),
    lambda t: None,
    lambda x: x * 2 if x.retains_grad else x * 3,
)
tensor_row(
    "tensor_hook",
    lambda: (torch.ones(2, requires_grad=True), []),
    lambda t, h: h.append(t.register_hook(lambda g: g * 2)),
    lambda t, h: h.pop().remove(),
)
tensor_row("python_attribute", matrix, lambda t: put(t, extra=1), lambda t: delattr(t, "extra"), lambda x: extra(x, x))
tensor_row(
    "marked_dynamic",
    matrix,
    lambda t: torch._dynamo.mark_dynamic(t, 0),
    lambda t: delattr(t, "_dynamo_dynamic_indices"),
)
tensor_row(
    "marked_static", matrix, lambda t: torch._dynamo.mark_static(t, 0), lambda t: delattr(t, "_dynamo_static_indices")
)
tensor_row(
    "sparse_resized",
    lambda: (torch.eye(2).to_sparse(),),
    lambda t: t.sparse_resize_((3, 3), 2, 0),
    lambda t: t.sparse_resize_and_clear_((2, 2), 2, 0),
)
tensor_row(
    "sparse_coalesced",
    lambda: (torch.eye(2).to_sparse(),),
    lambda t: t._coalesced_(False),
    lambda t: t._coalesced_(True),
)
tensor_row(
    "class_assigned_to_subclass",
    lambda: (torch.ones(2).as_subclass(Sub),),
    lambda t: put(t, __class__=OtherSub),
    lambda t: put(t, __class__=Sub),
)
tensor_row(
    "class_assigned_to_parameter",
    lambda: (torch.ones(2).as_subclass(Sub),),
    lambda t: put(t, __class__=nn.Parameter),
    lambda t: put(t, __class__=Sub),
)


def other_tensor(
    name: str, after: Callable[[], Any], before: Callable[[], Any] = lambda: torch.ones(2, 3), function: Any = double
) -> None:
    """The argument is another tensor after the change."""
    argument_row(name, before, after, lambda x, t: function(t), TENSORS)


other_tensor("to_dtype", lambda: torch.ones(2, 3).to(torch.float64))
other_tensor("to_meta", lambda: torch.ones(2, 3).to("meta"))
other_tensor("to_parameter", lambda: nn.Parameter(torch.ones(2, 3)))
other_tensor(
    "parameter_to_tensor", lambda: torch.ones(2, 3, requires_grad=True), lambda: nn.Parameter(torch.ones(2, 3))
)
other_tensor("to_buffer", lambda: nn.Buffer(torch.ones(2, 3)))
other_tensor("to_subclass", lambda: torch.ones(2, 3).as_subclass(Sub))
other_tensor(
    "to_conjugate", lambda: torch.ones(2, dtype=torch.complex64).conj(), lambda: torch.ones(2, dtype=torch.complex64)
)
other_tensor("to_negative", lambda: torch.ones(2, dtype=torch.complex64).conj().imag, lambda: torch.ones(4)[::2])
other_tensor("to_sparse", lambda: torch.ones(2, 3).to_sparse())
other_tensor("to_sparse_rows", lambda: torch.ones(2, 3).to_sparse_csr())
other_tensor("rows_to_columns", lambda: torch.eye(3).to_sparse_csc(), lambda: torch.eye(3).to_sparse_csr())
other_tensor("to_mkldnn", lambda: torch.ones(2, 3).to_mkldnn())
other_tensor("to_quantised", lambda: torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8))
other_tensor("to_inference", lambda: inference(torch.ones, 2, 3))
other_tensor("from_inference", lambda: torch.ones(2, 3), lambda: inference(torch.ones, 2, 3))
other_tensor("to_jagged", lambda: torch.nested.nested_tensor([torch.ones(3), torch.ones(2)], layout=torch.jagged))
other_tensor("to_view", lambda: torch.ones(4, 3)[:2])
other_tensor("to_view_without_grad", lambda: no_grad_view(torch.ones(4, 3, requires_grad=True)))
other_tensor(
    "to_channels_last",
    lambda: torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last),
    lambda: torch.ones(1, 2, 3, 4),
)
other_tensor("to_expanded", lambda: torch.ones(1, 3).expand(2, 3))
other_tensor("to_scalar", lambda: torch.tensor(1.0))
other_tensor(
    "to_non_leaf",
    lambda: torch.ones(2, 3, requires_grad=True) * 1,
    lambda: torch.ones(2, 3, requires_grad=True),
    guarded,
)
other_tensor("to_not_a_tensor", lambda: 3)
other_tensor("to_numpy", lambda: torch.ones(2, 3).numpy())
other_tensor("tensors_in_list", lambda: [torch.ones(3)], lambda: [torch.ones(2)], lambda t: t[0] * 2)
other_tensor(
    "tensors_in_dict", lambda: {"a": torch.ones(2).double()}, lambda: {"a": torch.ones(2)}, lambda t: t["a"] * 2
)
global_row("tensor_global", lambda x: x + HELD, {"HELD": torch.ones(1, 2)}, TENSORS)


def inference(make: Any, *arguments: Any) -> Any:
    with torch.inference_mode():
        return make(*arguments)


def no_grad_view(base: Any) -> Any:
    with torch.no_grad():
        return base[:2]


def held_row(
    name: str, hold: Callable[[Any], Any], function: Callable[..., Any], swap: Callable[[Any, Any], Any]
) -> None:
    """A tensor inside something else, replaced there by one of another shape."""

    def row() -> Iterator[Any]:
        holder = hold(torch.ones(2))
        yield function, [torch.ones(2), holder]
        swap(holder, torch.ones(1, 2))
        yield
        swap(holder, torch.ones(2))
        yield

    TENSORS[name] = row


held_row("list_element", lambda t: [t], lambda x, o: x + o[0], lambda o, t: o.__setitem__(0, t))
held_row("dict_element", lambda t: {"a": t}, lambda x, o: x + o["a"], lambda o, t: o.update(a=t))
held_row("held_by_attribute", lambda t: plain(value=t), one, lambda o, t: put(o, value=t))
held_row("held_by_slot", slots, one, lambda o, t: put(o, value=t))


@tensors
def held_by_cell() -> Iterator[Any]:
    held = torch.ones(2)
    yield lambda x: x + held, [torch.ones(2)]
    held = torch.ones(1, 2)
    yield
    held = torch.ones(2)
    yield


@tensors
def same_tensor_twice() -> Iterator[Any]:
    tensor, other = torch.ones(2), torch.ones(2)
    arguments = [tensor, tensor]
    yield lambda x, y: x + y if x is y else x - y, arguments
    arguments[1] = other
    yield
    arguments[1] = tensor
    yield


@tensors
def different_then_same() -> Iterator[Any]:
    tensor, other = torch.ones(2), torch.ones(2)
    arguments = [tensor, other]
    yield lambda x, y: x.mul(2) + y, arguments
    arguments[1] = tensor
    yield
    arguments[1] = other
    yield


@tensors
def different_then_aliasing() -> Iterator[Any]:
    tensor = torch.ones(4)
    arguments = [tensor[:2], torch.ones(2)]
    yield lambda x, y: x.mul(2) + y, arguments
    arguments[1] = tensor[1:3]
    yield
    arguments[1] = torch.ones(2)
    yield


@tensors
def same_in_list() -> Iterator[Any]:
    tensor, other = torch.ones(2), torch.ones(2)
    arguments = [tensor, [tensor]]
    yield lambda x, y: x + y[0], arguments
    arguments[1][0] = other
    yield
    arguments[1][0] = tensor
    yield


@tensors
def same_as_a_global() -> Iterator[Any]:
    arguments = [HELD]
    yield lambda x: x + HELD, arguments
    arguments[0] = torch.ones(2)
    yield
    arguments[0] = HELD
    yield


@tensors
def functional() -> Iterator[Any]:
    arguments = [torch.ones(2)]
    yield double, arguments
    arguments[0] = torch._to_functional_tensor(torch.ones(2))
    yield
    arguments[0] = torch.ones(2)
    yield


@tensors
def batched() -> Iterator[Any]:
    from torch._C._functorch import _add_batch_dim, _vmap_decrement_nesting, _vmap_increment_nesting

    arguments = [torch.ones(2)]
    yield double, arguments
    level = _vmap_increment_nesting(3, "error")
    try:
        arguments[0] = _add_batch_dim(torch.ones(2, 3), 1, level)
        yield
    finally:
        _vmap_decrement_nesting()
    arguments[0] = torch.ones(2)
    yield


@tensors
def freed_and_remade_tensor() -> Iterator[Any]:
    arguments: list[Any] = [torch.ones(2)]

    def remake(*shape: int) -> None:
        for _ in range(5):
            arguments[0] = None
            arguments[0] = torch.ones(*shape)

    yield double, arguments
    remake(3)
    yield
    remake(2)
    yield


# The tests


@pytest.mark.parametrize("name", [*PYTHON, *TENSORS])
def test_a_change_is_what_it_is_to_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compare(PYTHON.get(name) or TENSORS[name], monkeypatch)


def test_the_matrix_is_as_wide_as_was_agreed() -> None:
    assert not PYTHON.keys() & TENSORS.keys()
    assert len(PYTHON) >= 58
    assert len(TENSORS) >= 46


def test_the_matrix_sees_a_false_hit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(driver.RULES, "wrong on purpose", lambda work: ((g, None) for g in work.all(Test.EQUALS)))
    with pytest.raises(AssertionError, match="as users run it"):
        compare(PYTHON["attribute_int"], monkeypatch)
