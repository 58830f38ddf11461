"""One small program per kind of guard, whose guards are nearly all of that kind."""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

N = 50
Locals = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A function and its arguments, and a change that its guards must notice."""

    function: Callable[..., torch.Tensor]
    arguments: tuple[Any, ...]
    change: Callable[[Locals], Callable[[], object] | None]
    """Changes the captured locals, or what they lead to; returns what undoes a change to the process's own state."""
    part: str | tuple[str, ...]
    """How the class of the leaf guard or accessor that the kind is about is called in torch's tree: its beginning."""
    count: int = N
    """How many of those there are at least."""
    dynamic: bool | None = False


KINDS: dict[str, Callable[[], Kind]] = {}


def kind(build: Callable[[], Kind]) -> Callable[[], Kind]:
    KINDS[build.__name__] = build
    return build


class Thing:
    """An object with whatever attributes a kind needs."""

    shared = 3

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class OtherThing(Thing):
    pass


def _x() -> torch.Tensor:
    """Every kind's first argument: without a tensor operation Dynamo keeps no guards."""
    return torch.ones(2)


def _set_item(key: Any, value: Any) -> Callable[[Locals], None]:
    """Replaces one of the items that the second argument holds."""

    def change(f_locals: Locals) -> None:
        f_locals["items"][key] = value

    return change


def _delete_item(key: Any) -> Callable[[Locals], None]:
    def change(f_locals: Locals) -> None:
        del f_locals["items"][key]

    return change


def _set_attribute(name: str, value: Any, index: int = N // 2) -> Callable[[Locals], None]:
    def change(f_locals: Locals) -> None:
        setattr(f_locals["items"][index], name, value)

    return change


def _read_all(x: torch.Tensor, items: Any) -> torch.Tensor:
    for item in items:
        x = x + 1 if item else x
    return x + 1


def _sum_all(x: torch.Tensor, items: Any) -> torch.Tensor:
    for item in items:
        x = x + item
    return x


def _call_all(x: torch.Tensor, items: Any) -> torch.Tensor:
    for item in items:
        x = item(x)
    return x + 1


def _constants(part: str, make: Callable[[int], Any], other: Any) -> Kind:
    def function(x: torch.Tensor, items: list[Any]) -> torch.Tensor:
        return x + sum(1 for item in items if item == other)

    return Kind(function, (_x(), [make(i) for i in range(N)]), _set_item(N // 2, other), part)


@kind
def type_match() -> Kind:
    def function(x: torch.Tensor, items: list[Any]) -> torch.Tensor:
        return x + sum(isinstance(item, OtherThing) for item in items)

    return Kind(function, (_x(), [Thing() for _ in range(N)]), _set_item(7, OtherThing()), "TYPE_MATCH")


@kind
def id_match() -> Kind:
    def function(x: torch.Tensor, items: list[Any]) -> torch.Tensor:
        return x + sum(item is Thing for item in items)

    classes = [type(f"Class{i}", (), {}) for i in range(N)]
    return Kind(function, (_x(), classes), _set_item(7, Thing), "ID_MATCH")


@kind
def equals_int() -> Kind:
    return _constants("EQUALS_MATCH", lambda i: i + 2, 1)


@kind
def equals_float() -> Kind:
    return _constants("EQUALS_MATCH", lambda i: i + 0.5, 1.25)


@kind
def equals_str() -> Kind:
    return _constants("EQUALS_MATCH", lambda i: f"name {i}", "another")


@kind
def enum_members() -> Kind:
    colours = list(enum.Enum("Colour", [f"C{i}" for i in range(N + 1)]))
    return _constants("ID_MATCH", lambda i: colours[i], colours[N])


@kind
def equals_dtype() -> Kind:
    return _constants("EQUALS_MATCH", lambda i: torch.float32, torch.float64)


@kind
def none() -> Kind:
    return _constants("NONE_MATCH", lambda i: None, 1)


@kind
def boolean_true() -> Kind:
    return Kind(_read_all, (_x(), [True] * N), _set_item(7, False), "TRUE_MATCH")


@kind
def boolean_false() -> Kind:
    return Kind(_read_all, (_x(), [False] * N), _set_item(7, True), "FALSE_MATCH")


@kind
def float_nan() -> Kind:
    def function(x: torch.Tensor, items: list[float]) -> torch.Tensor:
        return x + sum(math.isnan(item) for item in items)

    return Kind(function, (_x(), [math.nan] * N), _set_item(7, 1.0), "FLOAT_IS_NAN")


@kind
def length() -> Kind:
    def function(x: torch.Tensor, items: list[list[int]]) -> torch.Tensor:
        return x + sum(len(item) for item in items)

    return Kind(function, (_x(), [[1, 2] for _ in range(N)]), lambda f: f["items"][7].append(3), "LENGTH_CHECK")


@kind
def dict_length() -> Kind:
    def function(x: torch.Tensor, items: list[dict[str, int]]) -> torch.Tensor:
        return x + sum(len(item) for item in items)

    return Kind(function, (_x(), [{"a": 1} for _ in range(N)]), lambda f: f["items"][7].update(b=2), "DICT_LENGTH")


@kind
def dict_contains() -> Kind:
    def function(x: torch.Tensor, items: dict[str, int]) -> torch.Tensor:
        return x + sum(f"key {i}" in items for i in range(N))

    keys = {f"key {i}": i for i in range(N)}
    return Kind(function, (_x(), keys), _delete_item("key 7"), "DICT_CONTAINS")


@kind
def dict_not_contains() -> Kind:
    def function(x: torch.Tensor, items: dict[str, int]) -> torch.Tensor:
        return x + sum(f"absent {i}" in items for i in range(N))

    return Kind(function, (_x(), {"key": 1}), _set_item("absent 7", 1), "DICT_CONTAINS")


@kind
def dict_getitem_chain() -> Kind:
    def function(x: torch.Tensor, items: dict[str, Any]) -> torch.Tensor:
        for _ in range(N):
            items = items["next"]
        return x + items["last"]

    tree: dict[str, Any] = {"last": 1}
    inner = tree
    for _ in range(N):
        tree = {"next": tree}

    def change(_: Locals) -> None:
        inner["last"] = 2

    return Kind(function, (_x(), tree), change, "DictGetItemGuardAccessor")


@kind
def dict_keys_order() -> Kind:
    def function(x: torch.Tensor, items: dict[str, int]) -> torch.Tensor:
        for position, (_, value) in enumerate(items.items()):
            x = x + position * value
        return x

    def change(f_locals: Locals) -> None:
        f_locals["items"]["key 7"] = f_locals["items"].pop("key 7")

    return Kind(function, (_x(), {f"key {i}": i for i in range(N)}), change, "EQUALS_MATCH", 2 * N)


@kind
def set_contains() -> Kind:
    def function(x: torch.Tensor, items: set[str]) -> torch.Tensor:
        return x + sum(f"key {i}" in items for i in range(N))

    return Kind(function, (_x(), {f"key {i}" for i in range(N)}), lambda f: f["items"].remove("key 7"), "SET_CONTAINS")


@kind
def attribute_chain() -> Kind:
    def function(x: torch.Tensor, items: Any) -> torch.Tensor:
        for _ in range(N):
            items = items.next
        return x + items.last

    tree = inner = Thing(last=1)
    for _ in range(N):
        tree = Thing(next=tree)

    def change(_: Locals) -> None:
        inner.last = 2

    return Kind(function, (_x(), tree), change, "TYPE_MATCH")


@kind
def property_of_slots() -> Kind:
    class Slotted:
        __slots__ = ("value",)

        def __init__(self) -> None:
            self.value = 1

    def function(x: torch.Tensor, items: list[Slotted]) -> torch.Tensor:
        return x + sum(item.value for item in items)

    return Kind(function, (_x(), [Slotted() for _ in range(N)]), _set_attribute("value", 2), "EQUALS_MATCH")


@kind
def class_attribute() -> Kind:
    classes = [type(f"Class{i}", (Thing,), {"shared": i}) for i in range(N)]

    def function(x: torch.Tensor, items: list[Any]) -> torch.Tensor:
        return x + sum(item.shared for item in items)

    return Kind(
        function,
        (_x(), [cls() for cls in classes]),
        lambda f: setattr(type(f["items"][7]), "shared", -1),
        "TypeDictGuardAccessor",
    )


@kind
def no_hasattr() -> Kind:
    def function(x: torch.Tensor, items: list[Any]) -> torch.Tensor:
        return x + sum(hasattr(item, "nothing") for item in items)

    return Kind(function, (_x(), [Thing() for _ in range(N)]), _set_attribute("nothing", 1), "NO_HASATTR")


@kind
def list_items() -> Kind:
    def function(x: torch.Tensor, items: list[list[int]]) -> torch.Tensor:
        return x + sum(item[0] for item in items)

    items = [[i] for i in range(N)]
    return Kind(function, (_x(), items), lambda f: f["items"][7].__setitem__(0, -1), "ListGetItem", 2 * N)


@kind
def tuple_items() -> Kind:
    def change(f_locals: Locals) -> None:
        items = f_locals["items"]
        f_locals["items"] = (*items[:-1], -1)

    return Kind(_sum_all, (_x(), tuple(range(N))), change, "TupleGetItemGuardAccessor")


@kind
def closure() -> Kind:
    def adder(number: int) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda x: x + number

    def change(f_locals: Locals) -> None:
        f_locals["items"][7].__closure__[0].cell_contents = -1

    return Kind(_call_all, (_x(), [adder(i) for i in range(N)]), change, "ClosureGuardAccessor")


def _with_default(number: int) -> Callable[..., torch.Tensor]:
    def add(x: torch.Tensor, y: int = number) -> torch.Tensor:
        return x + y

    return add


@kind
def defaults() -> Kind:
    items = [_with_default(i) for i in range(N)]
    return Kind(_call_all, (_x(), items), _set_attribute("__defaults__", (-1,)), "FuncDefaultsGuardAccessor")


@kind
def keyword_defaults() -> Kind:
    def adder(number: int) -> Callable[..., torch.Tensor]:
        def add(x: torch.Tensor, *, y: int = number) -> torch.Tensor:
            return x + y

        return add

    items = [adder(i) for i in range(N)]
    return Kind(_call_all, (_x(), items), _set_attribute("__kwdefaults__", {"y": -1}), "FuncKwDefaultsGuardAccessor")


@kind
def code() -> Kind:
    def double(x: torch.Tensor) -> torch.Tensor:
        return x + x

    def triple(x: torch.Tensor) -> torch.Tensor:
        return x * 3

    items = [FunctionType(double.__code__, globals()) for _ in range(N)]
    return Kind(_call_all, (_x(), items), _set_attribute("__code__", triple.__code__), "CodeGuardAccessor")


@kind
def partial_functions() -> Kind:
    items = [functools.partial(_with_default(0), y=i) for i in range(N)]
    return Kind(_call_all, (_x(), items), lambda f: f["items"][7].keywords.update(y=-1), "ID_MATCH")


@kind
def modules() -> Kind:
    model = torch.nn.Sequential(*(torch.nn.Dropout(0.5) for _ in range(N))).eval()
    return Kind(
        lambda x, items: items(x) + 1, (_x(), model), _set_attribute("training", True), "GetGenericDictGuardAccessor"
    )


def _tensors(*shape: int) -> list[torch.Tensor]:
    return [torch.ones(*shape) for _ in range(N)]


@kind
def tensor_static() -> Kind:
    return Kind(_sum_all, (_x(), _tensors(2)), _set_item(7, torch.ones(1)), "TENSOR_MATCH")


@kind
def tensor_dynamic() -> Kind:
    def function(x: torch.Tensor, items: list[torch.Tensor]) -> torch.Tensor:
        return x + sum(item.sum() for item in items)

    items = [torch.ones(i + 3, 2) for i in range(N)]
    return Kind(function, (_x(), items), _set_item(7, torch.ones(9, 2).t()), "TENSOR_MATCH", dynamic=True)


@kind
def tensor_in_place() -> Kind:
    def change(f_locals: Locals) -> None:
        f_locals["items"][7].requires_grad_()

    return Kind(_sum_all, (_x(), _tensors(2)), change, "TENSOR_MATCH")


@kind
def dimension_marking() -> Kind:
    def function(x: torch.Tensor, items: list[torch.Tensor]) -> torch.Tensor:
        return x + sum(item.sum() for item in items)

    items = [torch.ones(i + 3, 2) for i in range(N)]
    for item in items:
        torch._dynamo.mark_dynamic(item, 0)
    # Another tensor: torch's guard shares the set of marked dimensions with the tensor it was built from, and so would
    # not notice one added there.
    other = torch.ones(10, 2)
    torch._dynamo.mark_dynamic(other, 1)
    return Kind(function, (_x(), items), _set_item(7, other), ("DIMENSION", "DYNAMIC_INDICES"), dynamic=None)


@kind
def shape_relations() -> Kind:
    def function(x: torch.Tensor, items: list[torch.Tensor]) -> torch.Tensor:
        for left, right in zip(items[::2], items[1::2], strict=True):
            x = x + (left + right).sum()
        return x

    items = [torch.ones(i // 2 + 3) for i in range(N)]
    return Kind(function, (_x(), items), _set_item(7, torch.ones(9)), "LAMBDA_GUARD", 1, dynamic=True)


@kind
def no_tensor_aliasing() -> Kind:
    def change(f_locals: Locals) -> None:
        f_locals["items"][7] = f_locals["items"][8]

    return Kind(_sum_all, (_x(), _tensors(2)), change, "NO_TENSOR_ALIASING")


@kind
def object_aliasing() -> Kind:
    shared = torch.ones(2)
    return Kind(_sum_all, (_x(), [shared] * N), _set_item(7, torch.ones(2)), "TENSOR_MATCH", 1)


def _only_ambient(x: torch.Tensor, items: None) -> torch.Tensor:
    return x + 1


@kind
def global_state() -> Kind:
    def change(_: Locals) -> Callable[[], object]:
        torch.set_grad_enabled(False)
        return lambda: torch.set_grad_enabled(True)

    return Kind(_only_ambient, (_x(), None), change, "GLOBAL_STATE", 1)


@kind
def default_device() -> Kind:
    def change(_: Locals) -> Callable[[], object]:
        torch.set_default_device("meta")
        return lambda: torch.set_default_device(None)

    return Kind(_only_ambient, (_x(), None), change, "DEFAULT_DEVICE", 1)


@kind
def torch_function_modes() -> Kind:
    class Mode(TorchFunctionMode):
        pass

    def change(_: Locals) -> Callable[[], object]:
        mode = Mode()
        mode.__enter__()
        return lambda: mode.__exit__(None, None, None)

    return Kind(_only_ambient, (_x(), None), change, "TORCH_FUNCTION_MODE_STACK", 1)


@kind
def dispatch_keys() -> Kind:
    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    def change(_: Locals) -> Callable[[], object]:
        mode = Mode()
        mode.__enter__()
        return lambda: mode.__exit__(None, None, None)

    return Kind(_sum_all, (_x(), _tensors(2)), change, "TENSOR_MATCH")
