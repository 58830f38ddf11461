"""``aot_function``: what a function reads beside its arguments is guarded; what it writes to is left as by eager."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import functools
import random
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from functorch.compile import nop
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import unified_guards

from .aot import assert_like_eager


def ones(*sizes: int, **options: Any) -> torch.Tensor:
    return torch.ones(*sizes, **options)


def follows(function: Callable[..., Any], *changes: Callable[[], Any], args: tuple[Any, ...] = ()) -> Any:
    """Compiled and eager agree before and after each change, twice; every change is seen once, nothing runs eagerly."""
    args = args or (ones(2),)
    compiled = unified_guards.aot_function(function, nop)
    for change in (lambda: None, *changes):
        change()
        for _ in range(2):
            torch.testing.assert_close(compiled(*args), function(*args), rtol=0, atol=0)
    info = compiled.cache_info()
    assert info.eager == {}
    assert info.recompiles == len(changes), compiled.explain().summary()
    return compiled


def setter(target: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(target, name, value)


def item_setter(target: Any, key: Any, value: Any) -> Callable[[], None]:
    return lambda: target.__setitem__(key, value)


# -- closures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [(2, 3), (2, 2.0), (1, True), (None, 2), ("a", "b"), (0.0, -0.0)])
def test_a_closure_value_that_changes(values: tuple[Any, Any]) -> None:
    value, other = values

    def function(x: torch.Tensor) -> Any:
        return x * (3 if value is None or isinstance(value, str) else value), repr(value) == repr(other)

    def change() -> None:
        nonlocal value
        value = other

    compiled = unified_guards.aot_function(function, nop)
    assert_like_eager(function, compiled, ones(2))
    change()
    assert_like_eager(function, compiled, ones(2))
    assert compiled.cache_info().recompiles == 1


def test_a_closure_tensor_that_is_rebound_or_written_to_needs_no_new_version() -> None:
    weight = ones(2)

    def rebind() -> None:
        nonlocal weight
        weight = ones(2) * 5

    compiled = unified_guards.aot_function(lambda x: x * weight, nop)
    torch.testing.assert_close(compiled(ones(2)), ones(2))
    weight.mul_(3)
    torch.testing.assert_close(compiled(ones(2)), ones(2) * 3)
    rebind()
    torch.testing.assert_close(compiled(ones(2)), ones(2) * 5)
    assert compiled.cache_info().entries == 1


def test_a_closure_tensor_of_another_shape_is_another_version() -> None:
    weight = ones(2)

    def change() -> None:
        nonlocal weight
        weight = ones(3, 1)

    follows(lambda x: x * weight, change)


def test_a_nested_function_whose_closure_changes() -> None:
    scale = 2

    def inner(x: torch.Tensor) -> torch.Tensor:
        return x * scale

    def change() -> None:
        nonlocal scale
        scale = 3

    follows(lambda x: inner(x) + 1, change)


def test_a_function_that_is_defined_in_the_function_and_reads_around_it() -> None:
    scale = [2]

    def function(x: torch.Tensor) -> torch.Tensor:
        def inner(y: torch.Tensor) -> torch.Tensor:
            return y * scale[0]

        return inner(x)

    follows(function, item_setter(scale, 0, 3))


CONTAINERS = {
    "list": (lambda: [2], 0),
    "dict": (lambda: {"a": 2}, "a"),
    "OrderedDict": (lambda: collections.OrderedDict(a=2), "a"),
    "defaultdict": (lambda: collections.defaultdict(int, a=2), "a"),
    "Counter": (lambda: collections.Counter(a=2), "a"),
    "deque": (lambda: collections.deque([2]), 0),
    "UserDict": (lambda: collections.UserDict(a=2), "a"),
    "subclass of dict": (lambda: type("Mapping", (dict,), {})(a=2), "a"),
    "subclass of list": (lambda: type("Sequence", (list,), {})([2]), 0),
    "nested": (lambda: [[2]][0], 0),
}


def agrees(function: Callable[..., Any], *changes: Callable[[], Any]) -> None:
    """As :func:`follows`; running eagerly is allowed, being wrong is not."""
    compiled = unified_guards.aot_function(function, nop)
    for change in (lambda: None, *changes):
        change()
        for _ in range(2):
            torch.testing.assert_close(compiled(ones(2)), function(ones(2)), rtol=0, atol=0)


@pytest.mark.parametrize("kind", CONTAINERS)
def test_a_captured_container_whose_contents_change(kind: str) -> None:
    make, key = CONTAINERS[kind]
    container = make()
    agrees(lambda x: x * container[key], item_setter(container, key, 3))


def test_a_captured_set_that_grows() -> None:
    values = {2}
    agrees(lambda x: x * sum(values), lambda: values.add(5))


def test_a_read_only_view_of_a_dict_that_changes() -> None:
    below = {"a": 2}
    view = types.MappingProxyType(below)
    agrees(lambda x: x * view["a"], item_setter(below, "a", 3))


def test_a_captured_list_that_grows() -> None:
    values = [1]
    follows(lambda x: x * len(values), lambda: values.append(2))


def test_the_order_of_a_captured_dict() -> None:
    scales = {"a": 2, "b": 3}

    def reorder() -> None:
        scales["a"] = scales.pop("a")

    follows(lambda x: x + next(iter(scales.values())), reorder)


def test_a_list_that_holds_itself() -> None:
    values: list[Any] = [2]
    values.append(values)
    follows(lambda x: x * values[1][0], item_setter(values, 0, 3))


# -- globals -----------------------------------------------------------------------------------------------------------

SCALE: Any = 2
WEIGHT: Any = torch.ones(2)
OPTION: Any = None
settings = types.ModuleType("settings_of_a_test")
settings.FLAG = 2  # type: ignore[attr-defined]
settings.inner = types.SimpleNamespace(flag=2)  # type: ignore[attr-defined]


class Config:
    flag: Any = 2
    unset: Any = None


class Child(Config):
    pass


class Plain:
    shared = 2

    def __init__(self, value: Any) -> None:
        self.value = value

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.value

    @classmethod
    def of_class(cls, x: torch.Tensor) -> torch.Tensor:
        return x * cls.shared

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclasses.dataclass
class Record:
    value: Any


HOLDERS = {"plain": Plain(2), "slots": Slotted(2), "dataclass": Record(2)}
PLAIN, SLOTTED, RECORD = HOLDERS.values()


def helper(x: torch.Tensor, scale: Any = 2, *, shift: Any = 1) -> torch.Tensor:
    return x * scale * SCALE + shift


def rebinding(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> Callable[[], None]:
    return lambda: monkeypatch.setitem(globals(), name, value)


@pytest.mark.parametrize("value", [3, 2.0, True])
def test_a_global_that_changes(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    follows(lambda x: x * SCALE, rebinding(monkeypatch, "SCALE", value))


def test_a_global_none_that_becomes_something(monkeypatch: pytest.MonkeyPatch) -> None:
    follows(lambda x: x if OPTION is None else x * OPTION, rebinding(monkeypatch, "OPTION", 3))


def test_a_global_tensor_that_is_rebound(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = unified_guards.aot_function(lambda x: x * WEIGHT, nop)
    compiled(ones(2))
    monkeypatch.setitem(globals(), "WEIGHT", ones(2) * 4)
    torch.testing.assert_close(compiled(ones(2)), ones(2) * 4)
    assert compiled.cache_info().entries == 1


def test_a_global_function_that_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    follows(lambda x: helper(x), rebinding(monkeypatch, "helper", lambda x: x * 7))


def test_a_global_that_a_helper_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    follows(lambda x: helper(x), rebinding(monkeypatch, "SCALE", 7))


def test_defaults_of_a_helper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper, "__defaults__", (2,))
    monkeypatch.setattr(helper, "__kwdefaults__", {"shift": 1})
    follows(
        lambda x: helper(x),
        setter(helper, "__defaults__", (5,)),
        item_setter(helper.__kwdefaults__, "shift", 3),
        setter(helper, "__kwdefaults__", {"shift": 9}),
    )


def test_a_builtin_that_is_shadowed_later(monkeypatch: pytest.MonkeyPatch) -> None:
    agrees(lambda x: x * max(1, 2), lambda: monkeypatch.setitem(globals(), "max", lambda *_: 5))


def test_an_attribute_of_a_module_that_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "FLAG", 2)
    follows(lambda x: x * settings.FLAG, setter(settings, "FLAG", 3))


def test_an_attribute_of_an_attribute_of_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "inner", types.SimpleNamespace(flag=2))
    follows(lambda x: x * settings.inner.flag, setter(settings.inner, "flag", 3))


def test_a_module_under_a_local_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "FLAG", 2)

    def function(x: torch.Tensor) -> torch.Tensor:
        short = settings
        return x * short.FLAG

    agrees(function, setter(settings, "FLAG", 3))


def test_a_module_that_is_imported_in_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "FLAG", 2)
    monkeypatch.setitem(__import__("sys").modules, "settings_of_a_test", settings)

    def function(x: torch.Tensor) -> torch.Tensor:
        import settings_of_a_test  # type: ignore[import-not-found]

        return x * settings_of_a_test.FLAG

    def other(x: torch.Tensor) -> torch.Tensor:
        from settings_of_a_test import FLAG  # type: ignore[import-not-found]

        return x * FLAG

    agrees(function, setter(settings, "FLAG", 3))
    agrees(other, setter(settings, "FLAG", 4))


def test_a_module_in_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "FLAG", 2)
    modules = [settings]
    agrees(lambda x: x * modules[0].FLAG, setter(settings, "FLAG", 3))


def test_an_attribute_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "flag", 2)
    follows(lambda x: x * Config.flag, setter(Config, "flag", 3))


def test_an_inherited_attribute_of_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "flag", 2)
    follows(lambda x: x * Child.flag, setter(Config, "flag", 3))


def test_an_attribute_of_a_class_that_is_none_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "unset", None)
    follows(lambda x: x if Config.unset is None else x * 2, setter(Config, "unset", 3))


def test_an_attribute_of_a_class_read_through_an_instance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "shared", 2)
    agrees(lambda x: x * PLAIN.shared, setter(Plain, "shared", 3))


def test_an_attribute_of_a_class_read_by_its_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "shared", 2)
    agrees(lambda x: Plain.of_class(x), setter(Plain, "shared", 3))


def test_a_class_under_a_local_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "flag", 2)

    def function(x: torch.Tensor) -> torch.Tensor:
        short = Config
        return x * short.flag

    agrees(function, setter(Config, "flag", 3))


@pytest.mark.parametrize("kind", HOLDERS)
def test_an_attribute_of_an_object(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    holder = HOLDERS[kind]
    monkeypatch.setattr(holder, "value", 2)
    follows(lambda x: x * holder.value, setter(holder, "value", 3), setter(holder, "value", 3.0))


@pytest.mark.parametrize("kind", [types.SimpleNamespace, argparse.Namespace])
def test_an_attribute_of_a_namespace(kind: Any) -> None:
    options = kind(scale=2)
    agrees(lambda x: x * options.scale, setter(options, "scale", 3))


def test_an_attribute_of_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    def scaled(x: torch.Tensor) -> torch.Tensor:
        return x * scaled.scale  # type: ignore[attr-defined]

    scaled.scale = 2  # type: ignore[attr-defined]
    agrees(lambda x: scaled(x), setter(scaled, "scale", 3))


# -- callables ---------------------------------------------------------------------------------------------------------


def test_a_cached_helper_gives_what_it_gives() -> None:
    @functools.lru_cache
    def cached(size: int) -> int:
        return size * 2

    agrees(lambda x: x * cached(x.shape[0]))


def test_a_cached_helper_is_not_filled_with_traced_tensors() -> None:
    @functools.lru_cache
    def mask(size: int) -> torch.Tensor:
        return ones(size) * 2

    compiled = unified_guards.aot_function(lambda x: x * mask(2), nop)
    for _ in range(2):
        torch.testing.assert_close(compiled(ones(2)), ones(2) * 2)
    assert type(mask(2)) is torch.Tensor
    torch.testing.assert_close(mask(2), ones(2) * 2)


def test_a_partial_whose_keywords_change() -> None:
    partial = functools.partial(helper, scale=3)
    follows(partial, item_setter(partial.keywords, "scale", 4))


def test_a_bound_method_and_what_it_is_bound_to(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Plain(2)
    follows(holder.scaled, setter(holder, "value", 3))


def test_a_callable_object() -> None:
    holder = Plain(2)
    follows(holder, setter(holder, "value", 3))


def test_the_defaults_of_the_function() -> None:
    def function(x: torch.Tensor, scale: Any = 2, *, shift: Any = 1) -> torch.Tensor:
        return x * scale + shift

    follows(function, setter(function, "__defaults__", (3,)), setter(function, "__kwdefaults__", {"shift": 5}))


def test_other_code_in_the_function() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    def other(x: torch.Tensor) -> torch.Tensor:
        return x * 3

    follows(function, lambda: setattr(function, "__code__", other.__code__))


# -- objects among the arguments ---------------------------------------------------------------------------------------


def argument_follows(function: Callable[..., Any], argument: Any, change: Callable[[], Any]) -> None:
    """As :func:`agrees`, for a function of a tensor and ``argument``."""
    compiled = unified_guards.aot_function(function, nop)
    for step in (lambda: None, change):
        step()
        for _ in range(2):
            torch.testing.assert_close(compiled(ones(2), argument), function(ones(2), argument), rtol=0, atol=0)


def test_an_attribute_of_an_object_among_the_arguments() -> None:
    holder = Plain(2)
    argument_follows(lambda x, given: x * given.value, holder, setter(holder, "value", 3))


def test_a_closure_of_a_function_among_the_arguments() -> None:
    scale = [2]
    argument_follows(lambda x, given: given(x), lambda x: x * scale[0], item_setter(scale, 0, 3))


def test_an_attribute_of_a_class_among_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Config, "flag", 2)
    argument_follows(lambda x, given: x * given.flag, Config, setter(Config, "flag", 3))


def test_the_context_of_a_registered_class_is_compared_exactly() -> None:
    class Scaled:
        def __init__(self, content: torch.Tensor, scale: Any) -> None:
            self.content, self.scale = content, scale

    pytree.register_pytree_node(Scaled, lambda s: ([s.content], (s.scale,)), lambda parts, c: Scaled(parts[0], *c))
    compiled = unified_guards.aot_function(lambda scaled: scaled.content * scaled.scale, nop)
    whole = ones(2, dtype=torch.int64)
    assert compiled(Scaled(whole, 2)).dtype is torch.int64
    assert compiled(Scaled(whole, 2.0)).dtype is torch.float32


@pytest.mark.parametrize("kind", [dict, collections.OrderedDict])
@pytest.mark.parametrize("keys", [(1, True), (0.0, -0.0), ((1,), (True,))], ids=repr)
def test_keys_are_compared_exactly(kind: Any, keys: tuple[Any, Any]) -> None:
    compiled = unified_guards.aot_function(lambda tree: [(key, value * 2) for key, value in tree.items()], nop)
    for key in keys:
        ((found, _),) = compiled(kind({key: ones(2)}))
        assert repr(found) == repr(key)


# -- captured tensors --------------------------------------------------------------------------------------------------

GRADIENT_HOLDERS: dict[str, Callable[[torch.Tensor], Callable[..., Any]]] = {
    "closure": lambda weight: lambda x: x * weight,
    "list": lambda weight: functools.partial(lambda xs, x: x * xs[0], [weight]),
    "dict": lambda weight: functools.partial(lambda xs, x: x * xs["w"], {"w": weight}),
    "tuple": lambda weight: functools.partial(lambda xs, x: torch.stack(xs).sum(0) * x, (weight, weight)),
    "namedtuple": lambda weight: functools.partial(
        lambda xs, x: torch.cat(xs) * torch.cat([x, x]), collections.namedtuple("Two", "a b")(weight, weight)
    ),
    "object": lambda weight: Plain(weight).scaled,
    "default": lambda weight: lambda x, w=weight: x * w,
}


@pytest.mark.parametrize("where", GRADIENT_HOLDERS)
def test_gradients_reach_captured_tensors(where: str) -> None:
    weight = ones(2, requires_grad=True)
    function = GRADIENT_HOLDERS[where](weight)
    compiled = unified_guards.aot_function(function, nop)
    for scale in (2, 3):
        found = []
        for call in (compiled, function):
            weight.grad = None
            call(ones(2) * scale).sum().backward()
            found.append(weight.grad)
        torch.testing.assert_close(*found)
    assert compiled.cache_info().eager == {}


def test_a_captured_tensor_that_is_also_an_argument() -> None:
    weight = ones(2, requires_grad=True)
    compiled = unified_guards.aot_function(lambda x: x * weight, nop)
    for _ in range(2):
        weight.grad = None
        compiled(weight).sum().backward()
        torch.testing.assert_close(weight.grad, ones(2) * 2)
        torch.testing.assert_close(compiled(ones(2) * 3), ones(2) * 3)


def test_whether_an_argument_is_the_captured_tensor() -> None:
    weight = ones(2)
    compiled = unified_guards.aot_function(lambda x: x * 2 if x is weight else x * 3, nop)
    for _ in range(2):
        torch.testing.assert_close(compiled(weight), ones(2) * 2)
        torch.testing.assert_close(compiled(ones(2)), ones(2) * 3)


def test_a_captured_tensor_that_is_returned_is_that_tensor() -> None:
    weight = ones(2)
    compiled = unified_guards.aot_function(lambda x: (weight, x + 1, [weight]), nop)
    for _ in range(2):
        first, _, (second,) = compiled(ones(2))
        assert first is weight
        assert second is weight


def test_a_captured_tensor_that_is_written_to() -> None:
    total = torch.zeros(2)
    compiled = unified_guards.aot_function(lambda x: total.add_(x) * 2, nop)
    for at in range(1, 4):
        torch.testing.assert_close(compiled(ones(2)), ones(2) * at * 2)
        torch.testing.assert_close(total, ones(2) * at)
    assert compiled.cache_info().eager == {}


def test_a_captured_tensor_that_nothing_sees_is_still_used() -> None:
    hidden = collections.deque([ones(2) * 3])
    agrees(lambda x: x * hidden[0])


READ_OF_A_TENSOR: dict[str, tuple[Callable[[torch.Tensor], Any], Callable[[torch.Tensor], Any]]] = {
    "grad": (lambda x: x * 2 if x.grad is None else x * 3, lambda x: setattr(x, "grad", ones(2))),
    "_version": (lambda x: x * x._version, lambda x: x.data.add_(0)),
}


@pytest.mark.parametrize("what", READ_OF_A_TENSOR)
def test_what_python_reads_of_a_tensor_beside_its_metadata(what: str) -> None:
    function, change = READ_OF_A_TENSOR[what]
    for prepare in (lambda x: None, change):
        compiled = unified_guards.aot_function(function, nop)
        x = ones(2, requires_grad=True)
        prepare(x)
        torch.testing.assert_close(compiled(x), function(x))
        change(x)
        torch.testing.assert_close(compiled(x), function(x))


def test_whether_a_tensor_is_a_view() -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2 if x._base is None else x * 3, nop)
    x = ones(2)
    torch.testing.assert_close(compiled(x), x * 2)
    torch.testing.assert_close(compiled(x[:]), x * 3)


def test_whether_a_tensor_is_a_leaf() -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2 if x.is_leaf else x * 3, nop)
    x = ones(2, requires_grad=True)
    torch.testing.assert_close(compiled(x), x * 2)
    torch.testing.assert_close(compiled(x * 1), x * 3)


# -- side effects ------------------------------------------------------------------------------------------------------

COUNT: Any = 0
LATEST: Any = None


def _nonlocal_counter() -> tuple[Callable[..., Any], Callable[[], Any]]:
    count = 0

    def function(x: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return x * 2

    return function, lambda: count


def _global_counter() -> tuple[Callable[..., Any], Callable[[], Any]]:
    def function(x: torch.Tensor) -> torch.Tensor:
        global COUNT
        COUNT += 1
        return x * 2

    globals()["COUNT"] = 0
    return function, lambda: COUNT


def _container(make: Callable[[], Any], write: Callable[[Any], Any]) -> Callable[[], Any]:
    def prepare() -> tuple[Callable[..., Any], Callable[[], Any]]:
        target = make()

        def function(x: torch.Tensor) -> torch.Tensor:
            write(target)
            return x * 2

        return function, lambda: len(target)

    return prepare


def _count_item(target: Any) -> None:
    target["n"] = target.get("n", 0) + 1


def _attribute(make: Callable[[], Any]) -> Callable[[], Any]:
    def prepare() -> tuple[Callable[..., Any], Callable[[], Any]]:
        target = make()
        target.n = 0

        def function(x: torch.Tensor) -> torch.Tensor:
            target.n += 1
            return x * 2

        return function, lambda: target.n

    return prepare


def _own_attribute() -> tuple[Callable[..., Any], Callable[[], Any]]:
    def function(x: torch.Tensor) -> torch.Tensor:
        function.n += 1  # type: ignore[attr-defined]
        return x * 2

    function.n = 0  # type: ignore[attr-defined]
    return function, lambda: function.n  # type: ignore[attr-defined]


class WithSlot:
    __slots__ = ("n",)


EFFECTS = {
    "nonlocal": _nonlocal_counter,
    "global": _global_counter,
    "list": _container(list, lambda target: target.append(1)),
    "dict": _container(dict, lambda target: target.update({len(target): 1})),
    "deque": _container(collections.deque, lambda target: target.append(1)),
    "set": _container(lambda: set(range(100)), lambda target: target.pop()),
    "defaultdict": _container(lambda: collections.defaultdict(int), lambda target: target[len(target)]),
    "attribute": _attribute(lambda: Plain(1)),
    "attribute of a class": _attribute(lambda: type("Fresh", (), {})),
    "attribute of a module": _attribute(lambda: types.ModuleType("fresh")),
    "attribute of a namespace": _attribute(types.SimpleNamespace),
    "slot": _attribute(WithSlot),
    "attribute of the function": _own_attribute,
}


@pytest.mark.parametrize("kind", EFFECTS)
def test_an_effect_happens_once_for_each_call(kind: str) -> None:
    function, state = EFFECTS[kind]()
    reference, expected = EFFECTS[kind]()
    compiled = unified_guards.aot_function(function, nop)
    for _ in range(3):
        torch.testing.assert_close(compiled(ones(2)), reference(ones(2)))
    assert state() == expected()
    assert sum(compiled.cache_info().eager.values()) == 3
    assert compiled.cache_info().entries == 0


def test_a_global_that_is_only_written_is_written_by_every_call() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        global LATEST
        LATEST = x * 3
        return x * 2

    compiled = unified_guards.aot_function(function, nop)
    for scale in (1, 5):
        compiled(ones(2) * scale)
        assert type(LATEST) is torch.Tensor
        torch.testing.assert_close(LATEST, ones(2) * 3 * scale)


def test_an_object_among_the_arguments_is_written_to_once_for_each_call() -> None:
    def function(x: torch.Tensor, given: Any) -> torch.Tensor:
        given.value += 1
        return x * 2

    compiled = unified_guards.aot_function(function, nop)
    holder = Plain(0)
    for at in range(1, 4):
        torch.testing.assert_close(compiled(ones(2), holder), ones(2) * 2)
        assert holder.value == at


def test_a_set_among_the_arguments_is_written_to_once() -> None:
    def function(x: torch.Tensor, given: set[int]) -> torch.Tensor:
        given.pop()
        return x * 2

    given = set(range(10))
    unified_guards.aot_function(function, nop)(ones(2), given)
    assert len(given) == 9


def test_running_eagerly_is_no_recompile_and_never_an_error() -> None:
    seen: list[int] = []

    def function(x: torch.Tensor) -> torch.Tensor:
        seen.append(1)
        return x * 2

    compiled = unified_guards.aot_function(function, nop, recompile_limit=2, on_recompile_limit="error")
    for _ in range(5):
        compiled(ones(2))
    assert len(seen) == 5
    assert compiled.cache_info().recompiles == 0


def test_an_error_while_tracing_leaves_the_state_of_one_call() -> None:
    seen: list[int] = []
    holder = Plain(0)

    def function(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape[0])
        holder.value += 1
        raise ValueError("mine")

    compiled = unified_guards.aot_function(function, nop)
    for at in range(1, 3):
        with pytest.raises(ValueError, match="mine"):
            compiled(ones(2))
        assert (seen, holder.value) == ([2] * at, at)


WRITES_TO_A_TENSOR: dict[str, Callable[[torch.Tensor], Any]] = {
    "data": lambda x: setattr(x, "data", x.detach() * 2),
    "requires_grad_": lambda x: x.requires_grad_(),
    "grad": lambda x: setattr(x, "grad", torch.ones_like(x)),
    "an attribute": lambda x: setattr(x, "mine", 1),
    "detach_": lambda x: x.detach_(),
    "resize_": lambda x: x.resize_(1),
    "set_": lambda x: x.set_(torch.zeros(3)),
    "in place through data": lambda x: x.data.mul_(2),
}


@pytest.mark.parametrize("what", WRITES_TO_A_TENSOR)
def test_what_python_writes_to_a_tensor(what: str) -> None:
    write = WRITES_TO_A_TENSOR[what]

    def function(x: torch.Tensor) -> torch.Tensor:
        write(x)
        return x * 2

    compiled = unified_guards.aot_function(function, nop)
    for _ in range(2):
        mine, theirs = ones(2), ones(2)
        torch.testing.assert_close(compiled(mine), function(theirs))
        torch.testing.assert_close(mine, theirs)
        torch.testing.assert_close(mine.grad, theirs.grad)
        assert (mine.requires_grad, vars(mine)) == (theirs.requires_grad, vars(theirs))


def test_a_backward_in_the_function_gives_gradients() -> None:
    weight = ones(2, requires_grad=True)

    def function(x: torch.Tensor) -> torch.Tensor:
        loss = (weight * x).sum()
        loss.backward()
        return loss.detach()

    compiled = unified_guards.aot_function(function, nop)
    for at in range(1, 3):
        torch.testing.assert_close(compiled(ones(2)), torch.tensor(2.0))
        torch.testing.assert_close(weight.grad, ones(2) * at)


def test_an_optimizer_in_the_function_steps() -> None:
    weight = torch.nn.Parameter(ones(2))
    optimizer = torch.optim.SGD([weight], lr=0.5)

    def function(x: torch.Tensor) -> torch.Tensor:
        optimizer.zero_grad()
        loss = (weight * x).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    compiled = unified_guards.aot_function(function, nop)
    assert [compiled(ones(2)).item() for _ in range(3)] == [2.0, 1.0, 0.0]


def test_the_random_numbers_of_python_are_drawn_on_every_call() -> None:
    compiled = unified_guards.aot_function(lambda x: x * random.random(), nop)
    random.seed(0)
    found = [compiled(ones(1, dtype=torch.float64)).item() for _ in range(3)]
    random.seed(0)
    assert found == [random.random() for _ in range(3)]


def test_the_random_numbers_of_torch_are_those_of_eager() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(x, 0.5) + torch.rand(8)

    compiled = unified_guards.aot_function(function, nop)
    found = []
    for call in (compiled, function):
        torch.manual_seed(0)
        found.append([call(ones(8)) for _ in range(3)])
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_seed_that_the_function_sets_is_set_on_every_call() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return x * torch.rand(2)

    compiled = unified_guards.aot_function(function, nop)
    expected = function(ones(2))
    for _ in range(3):
        torch.testing.assert_close(compiled(ones(2)), expected, rtol=0, atol=0)


def test_a_default_dtype_that_the_function_sets_is_set_on_every_call() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        torch.set_default_dtype(torch.float64 if torch.get_default_dtype() is torch.float32 else torch.float32)
        return x * 2

    compiled = unified_guards.aot_function(function, nop)
    seen = []
    try:
        for _ in range(4):
            compiled(ones(2))
            seen.append(torch.get_default_dtype())
    finally:
        torch.set_default_dtype(torch.float32)
    assert seen == [torch.float64, torch.float32] * 2


def test_grad_mode_that_the_function_leaves_behind() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        torch.set_grad_enabled(False)
        return x * 2

    compiled = unified_guards.aot_function(function, nop)
    for _ in range(3):
        with torch.enable_grad():
            assert not compiled(ones(2, requires_grad=True)).requires_grad
            assert not torch.is_grad_enabled()


class Scaling(TorchFunctionMode):
    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return result * self.scale if func is torch.Tensor.mul else result


def test_a_mode_of_the_user_is_not_remembered() -> None:
    compiled = unified_guards.aot_function(lambda x: x.mul(2), nop)
    for scale in (2, 3, 2, 3):
        x = ones(2)
        with Scaling(scale):
            result = compiled(x)
        torch.testing.assert_close(result, x * 2 * scale)


class Logging(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def test_a_dispatch_mode_of_the_user_sees_one_call() -> None:
    compiled = unified_guards.aot_function(lambda x: x.mul(2), nop)
    x = ones(2)
    for _ in range(2):
        with Logging() as mode:
            compiled(x)
        assert mode.seen == [torch.ops.aten.mul.Tensor]


def test_inference_mode_is_told_from_no_grad() -> None:
    compiled = unified_guards.aot_function(
        lambda: torch.zeros(1) + (2 if torch.is_inference_mode_enabled() else 3), nop
    )
    with torch.no_grad():
        assert compiled().item() == 3
    with torch.inference_mode():
        assert compiled().item() == 2


# -- results -----------------------------------------------------------------------------------------------------------


def test_a_tensor_made_to_require_grad_comes_out_so() -> None:
    compiled = unified_guards.aot_function(lambda: torch.zeros(2, requires_grad=True), nop)
    for _ in range(2):
        result = compiled()
        assert result.requires_grad
        assert result.is_leaf


def test_a_parameter_comes_out_as_one() -> None:
    compiled = unified_guards.aot_function(lambda x: torch.nn.Parameter(x * 2), nop)
    for _ in range(2):
        assert type(compiled(ones(2))) is torch.nn.Parameter


SYMBOLIC = {
    "key": lambda x: x * {3: 2, 4: 5, 6: 7}[x.shape[0]],
    "slice": lambda x: (x * 2, slice(0, x.shape[0])),
    "shape": lambda x: (x * 2, x.shape),
    "range": lambda x: [x * at for at in range(x.shape[0])],
    "half": lambda x: (x * 2, x.shape[0] / 2),
}


@pytest.mark.parametrize("use", SYMBOLIC)
def test_a_symbolic_size_is_an_int_to_python(use: str) -> None:
    function = SYMBOLIC[use]
    compiled = unified_guards.aot_function(function, nop, dynamic=True)
    for size in (3, 4, 6, 3):
        result, expected = compiled(ones(size)), function(ones(size))
        assert repr(result) == repr(expected)


UNTRACEABLE = {
    "numpy": lambda x: torch.from_numpy(x.numpy() * 2),
    "address": lambda x: x * (x.data_ptr() != 0),
    "branch on data": lambda x: x * 2 if x.sum() > 0 else x * 3,
    "item": lambda x: x * x[0].item(),
    "nonzero": lambda x: x.nonzero(),
    "list": lambda x: x.tolist(),
}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("what", UNTRACEABLE)
def test_what_cannot_be_traced_runs_eagerly_without_an_error(what: str, dynamic: bool) -> None:
    function = UNTRACEABLE[what]
    compiled = unified_guards.aot_function(function, nop, dynamic=dynamic)
    for value in (1.0, -1.0):
        torch.testing.assert_close(compiled(ones(3) * value), function(ones(3) * value))
    traceable = dynamic and what in ("item", "nonzero", "list")  # with sizes and numbers that are not known
    assert sum(compiled.cache_info().eager.values()) == (0 if traceable else 2)


@pytest.mark.parametrize("part", [(0, 4, 6, 9), (0, 8, 6, 9), (0, 8, 6, 12), (0, 6, 6, 9)], ids=str)
def test_memory_that_overlaps_when_dynamic(part: tuple[int, int, int, int]) -> None:
    def function(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a.mul_(2)
        return a + b.sum()

    compiled = unified_guards.aot_function(function, nop, dynamic=True)
    for start, stop, other, end in ((0, 5, 6, 9), part, (0, 5, 6, 9)):
        mine, theirs = torch.arange(20.0), torch.arange(20.0)
        result = compiled(mine[start:stop], mine[other:end])
        torch.testing.assert_close(result, function(theirs[start:stop], theirs[other:end]))
        torch.testing.assert_close(mine, theirs)


# -- what must not matter ----------------------------------------------------------------------------------------------

UNRELATED: Any = 1


def test_other_globals_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = unified_guards.aot_function(lambda x: helper(x), nop)
    compiled(ones(2))
    monkeypatch.setitem(globals(), "UNRELATED", 2)
    monkeypatch.setitem(globals(), "NEW", 2)
    compiled(ones(2))
    assert compiled.cache_info().misses == 1


def test_other_attributes_of_modules_and_classes_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = unified_guards.aot_function(lambda x: torch.sin(x) * settings.FLAG * Config.flag, nop)
    compiled(ones(2))
    monkeypatch.setattr(torch, "of_a_test", 1, raising=False)
    monkeypatch.setattr(settings, "OTHER", 1, raising=False)
    monkeypatch.setattr(Config, "unset", 1)
    compiled(ones(2))
    assert compiled.cache_info().misses == 1


def test_equal_constants_are_as_good_as_identical_ones() -> None:
    compiled = unified_guards.aot_function(lambda x, *_: x * 2, nop)
    for _ in range(2):
        text, number = "".join(["te", "xt"]), int("12345678")
        compiled(ones(2), text, number, float("2.5"), (number, text), slice(0, number), frozenset([number]))
    assert compiled.cache_info().misses == 1
