"""Cases of accessors: how the value of one source leads to another's."""

from __future__ import annotations

import collections
import contextlib
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..building import Case, accessor, add, below, kind, local, values
from ..objects import Bag, Fallback, LyingClass, OverridingDict, Raises, RaisingEq, Slotted, WithProperty, made_function
from .leaf_guards import ONE_OBJECT, UNHASHABLE, Predicate, advanced
from .tensors import Subclass, add_tensor_guard
from .thread_state import pack

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
