"""Changes of attribute hooks of known forms, and of what they look up. Each class is made anew: the tests change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from unified_guards.dynamo import attribute_getters

from ...guards import X, attr, equals, without
from ..building import Thing
from .table import CHANGES, Change, Step, change

# Attribute hooks of known forms. Each class is made anew, because the tests change it.


def config_class() -> type:
    class Config:
        attribute_map = {"hidden": "width"}

        def __init__(self) -> None:
            self.width, self.hidden_too, self.depth = 1, 2, 3
            vars(self)["hidden"] = 4  # never found: the name goes to `width`

        def __getattribute__(self, key: str) -> Any:
            if key != "attribute_map" and key in super().__getattribute__("attribute_map"):
                key = super().__getattribute__("attribute_map")[key]
            return super().__getattribute__(key)

    return Config


def config() -> Any:
    made = config_class()()
    vars(made)
    attribute_getters.learn([made])
    return made


@change
def what_a_name_is_mapped_to_is_another() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("hidden"), 1)]
    made.width = 5
    yield None
    made.width = 1


@change
def a_map_of_names_is_another() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("hidden"), 1)]
    type(made).attribute_map = {"hidden": "depth"}


@change
def a_map_of_names_has_another_entry() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("hidden"), 1)]
    type(made).attribute_map["hidden"] = "depth"
    yield None
    type(made).attribute_map["hidden"] = "width"


@change
def a_map_of_names_is_hidden_by_one_of_the_instance() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("hidden"), 1)]
    vars(made)["attribute_map"] = {"hidden": "depth"}


@change
def the_code_of_a_hook_is_another() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("depth"), 3)]

    hook = type(made).__getattribute__

    def outer(__class__: Any) -> Any:
        def another(self: Any, key: str) -> Any:
            return (7, __class__)[0]  # as many free variables as the hook has

        return another

    hook.__code__ = outer(None).__code__


@change
def the_cell_of_a_hook_holds_another_class() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("depth"), 3)]
    type(made).__getattribute__.__closure__[0].cell_contents = int


@change
def super_is_hidden_by_a_global() -> Iterator[Step]:
    made = config()
    yield {"x": made}, [equals(attr("depth"), 3)]

    class Pretends:
        def __init__(self, *_: Any) -> None: ...

        def __getattribute__(self, name: str) -> Any:
            return lambda key: {} if key == "attribute_map" else 9

    globals()["super"] = Pretends
    yield None
    del globals()["super"]


def unless_class() -> type:
    class Deferred:
        def __init__(self) -> None:
            self.flag = True
            self.delegate = None

        def __getattribute__(self, key: str) -> Any:
            delegate = super().__getattribute__("__dict__").get("delegate")
            if delegate is not None:
                return getattr(delegate, key)
            return super().__getattribute__(key)

    return Deferred


@change
def an_instance_gets_somebody_who_answers_for_it() -> Iterator[Step]:
    made = unless_class()()
    vars(made)
    attribute_getters.learn([made])
    yield {"x": made}, [equals(attr("flag"), True)]
    made.delegate = Thing(flag=False)


def property_class() -> type:
    class Wrapped:
        def __init__(self) -> None:
            self._flag, self._other = True, False

        @property
        def flag(self) -> bool:
            return self._flag

    return Wrapped


def wrapped() -> Any:
    made = property_class()()
    vars(made)
    attribute_getters.learn([made], ["flag"])
    return made


@change
def what_a_property_returns_is_another() -> Iterator[Step]:
    made = wrapped()
    yield {"x": made}, [equals(attr("flag"), True)]
    made._flag = False
    yield None
    made._flag = True


@change
def a_property_is_another() -> Iterator[Step]:
    made = wrapped()
    yield {"x": made}, [equals(attr("flag"), True)]
    type(made).flag = property(lambda self: self._other)


@change
def the_code_of_a_property_is_another() -> Iterator[Step]:
    made = wrapped()
    yield {"x": made}, [equals(attr("flag"), True)]
    vars(type(made))["flag"].fget.__code__ = (lambda self: self._other).__code__


@change
def what_a_property_returns_becomes_a_property_itself() -> Iterator[Step]:
    made = wrapped()
    yield {"x": made}, [equals(attr("flag"), True)]
    type(made)._flag = property(lambda self: False)


def _module_gets(by: Callable[[Any], object]) -> Change:
    def changes() -> Iterator[Step]:
        net = type("Net", (torch.nn.Linear,), {})(2, 2)
        attribute_getters.learn([net])
        yield {"x": net}, [without(X, "extra")]
        by(net)

    return changes


CHANGES |= {
    f"a module that lacked an attribute gets {name}": _module_gets(by)
    for name, by in {
        "a parameter": lambda net: net.register_parameter("extra", torch.nn.Parameter(torch.ones(1))),
        "a buffer": lambda net: net.register_buffer("extra", torch.ones(1)),
        "a submodule": lambda net: net.add_module("extra", torch.nn.ReLU()),
        "an attribute": lambda net: setattr(net, "extra", 1),
        "one of its class": lambda net: setattr(type(net), "extra", 1),
        "other parameters": lambda net: setattr(net, "_parameters", {"extra": torch.nn.Parameter(torch.ones(1))}),
        "a getattr": lambda net: setattr(type(net), "__getattr__", lambda self, name: 1),
    }.items()
}


@change
def an_object_that_lacked_an_attribute_gets_it() -> Iterator[Step]:
    thing: Any = Thing()
    yield {"x": thing}, [without(X, "extra")]
    thing.extra = 1
    yield None
    del thing.extra
