"""Descriptors asked about an object that is not of their class, and attributes that change what they are."""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable
from typing import Any

import torch

from ..protocol import Run, program


def _scaled(x: Any, s: Any) -> Any:
    return x * s.scale


class Small:
    __slots__ = ("scale",)


class Parent:
    __slots__ = ("first", "scale", "third")


class Child(Parent):
    __slots__ = ("fourth",)


class Sibling(Parent):
    __slots__ = ("other",)


def _wide(count: int) -> Any:
    return type("Wide", (), {"__slots__": (*(f"s{i:04}" for i in range(count)), "scale")}).__dict__["scale"]


class Getter:
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return 5


class DataGetter(Getter):
    def __set__(self, instance: Any, value: Any) -> None:
        raise AttributeError


DESCRIPTORS: dict[str, Callable[[], Any]] = {
    "wide_6": lambda: _wide(6),
    "wide_100": lambda: _wide(100),
    "wide_5000": lambda: _wide(5000),
    "parent_slot": lambda: Parent.__dict__["scale"],
    "child_slot": lambda: Child.__dict__["fourth"],
    "sibling_slot": lambda: Sibling.__dict__["other"],
    "partial_func": lambda: functools.partial.__dict__["func"],
    "code_name": lambda: types.CodeType.__dict__["co_name"],
    "function_code": lambda: types.FunctionType.__dict__["__code__"],
    "function_globals": lambda: types.FunctionType.__dict__["__globals__"],
    "type_dict": lambda: type.__dict__["__dict__"],
    "type_flags": lambda: type.__dict__["__flags__"],
    "slice_start": lambda: slice.__dict__["start"],
    "complex_real": lambda: complex.__dict__["real"],
    "int_real": lambda: int.__dict__["real"],
    "property_fget": lambda: property.__dict__["fget"],
    "method_func": lambda: types.MethodType.__dict__["__func__"],
    "module_dict": lambda: types.ModuleType.__dict__["__dict__"],
    "object_class": lambda: object.__dict__["__class__"],
    "tensor_shape": lambda: torch._C.TensorBase.__dict__["shape"],
    "list_append": lambda: list.__dict__["append"],
    "int_add": lambda: int.__dict__["__add__"],
    "classmethod": lambda: classmethod(lambda cls: 3),
    "staticmethod": lambda: staticmethod(lambda: 3),
    "static_number": lambda: staticmethod(4),
    "getter": Getter,
    "data_getter": DataGetter,
    "property_none": lambda: property(),
    "cached": lambda: functools.cached_property(lambda self: 4),
    "number": lambda: 7,
    "instance": lambda: Small(),
    "type": lambda: int,
}


@program(descriptor=tuple(DESCRIPTORS))
def slot_replaced(run: Run, descriptor: str) -> None:
    class Slotted:
        __slots__ = ("scale",)

    around = []
    for _ in range(64):
        one = Slotted()
        one.scale = 3
        around.append(one)
    s, x = around[20], torch.ones(2)
    own = Slotted.__dict__["scale"]
    compiled = run.compile(_scaled)
    run.warm(lambda: compiled(x, s))
    Slotted.scale = DESCRIPTORS[descriptor]()
    for _ in range(2):
        run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "replaced")
    Slotted.scale = own
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "its own again")
    s.scale = 4
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "another value")


@program(descriptor=tuple(DESCRIPTORS)[:27])
def instance_attribute_hidden(run: Run, descriptor: str) -> None:
    class Plain:
        pass

    s, x = Plain(), torch.ones(2)
    s.scale = 3
    compiled = run.compile(_scaled)
    run.warm(lambda: compiled(x, s))
    Plain.scale = DESCRIPTORS[descriptor]()
    for _ in range(2):
        run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "hidden or not")
    del Plain.scale
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "as before")


def _parent_of_slots(count: int) -> tuple[Any, Any]:
    parent = type("P", (), {"__slots__": ("scale", *(f"s{i}" for i in range(count)))})
    return parent, type("C", (parent,), {"__slots__": ("mine",)})


@program()
def slot_of_a_parent(run: Run) -> None:
    """A slot descriptor of a parent is right for the child, and stays so where it is put into the child itself."""
    parent, child = _parent_of_slots(3)
    s, x = child(), torch.ones(2)
    s.scale, s.s0, s.mine = 3, 4, 5
    compiled = run.compile(_scaled)
    run.warm(lambda: compiled(x, s))
    for name in ("s0", "scale"):
        child.scale = parent.__dict__[name]
        run.step(lambda: compiled(x, s), lambda: _scaled(x, s), f"parent's {name} in the child")
    child.scale = child.__dict__["mine"]
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "mine")
    del child.scale
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "as before")
    parent.scale = child.__dict__["mine"]
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "the child's in the parent")
    base = parent()
    run.step(lambda: compiled(x, base), lambda: _scaled(x, base), "and asked of a parent")


@program()
def class_assigned(run: Run) -> None:
    """Objects move to a class of the same layout, whose slots have other names."""

    class First:
        __slots__ = ("other", "scale")

    class Second:
        __slots__ = ("other", "scale")

    class Third:
        __slots__ = ("other", "scale")

    Third.scale = Third.__dict__["other"]
    s, x = First(), torch.ones(2)
    s.scale, s.other = 3, 5
    compiled = run.compile(_scaled)
    run.warm(lambda: compiled(x, s))
    for other in (Second, Third, First):
        s.__class__ = other
        for _ in range(4):
            run.step(lambda: compiled(x, s), lambda: _scaled(x, s), other.__name__)
    First.scale = Second.__dict__["scale"]
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "a descriptor of the class with the same layout")


@program()
def deleted_and_unset(run: Run) -> None:
    class Slotted:
        __slots__ = ("__dict__", "scale")

    def function(x: Any, s: Any) -> Any:
        return x * (s.scale if hasattr(s, "scale") else 9)

    s, x = Slotted(), torch.ones(2)
    s.scale = 3
    compiled = run.compile(function)
    run.warm(lambda: compiled(x, s))
    del s.scale
    run.step(lambda: compiled(x, s), lambda: function(x, s), "unset")
    s.__dict__["scale"] = 4
    run.step(lambda: compiled(x, s), lambda: function(x, s), "in the dict, behind the slot")
    own = Slotted.scale
    del Slotted.scale
    run.step(lambda: compiled(x, s), lambda: function(x, s), "no slot before the dict")
    Slotted.scale = own
    s.scale = 3
    run.step(lambda: compiled(x, s), lambda: function(x, s), "as before")


@program()
def descriptor_type_changes(run: Run) -> None:
    """The descriptor stays; what its type makes of it changes."""

    class Kind:
        pass

    class Holding:
        scale = Kind()

    holder, x = Holding(), torch.ones(2)
    holder.scale = 3
    compiled = run.compile(_scaled)
    run.warm(lambda: compiled(x, holder))
    Kind.__get__ = lambda self, instance, owner: 4
    run.step(lambda: compiled(x, holder), lambda: _scaled(x, holder), "a descriptor, not of data")
    Kind.__set__ = lambda self, instance, value: None
    run.step(lambda: compiled(x, holder), lambda: _scaled(x, holder), "of data: hides the instance's")
    Kind.__get__ = lambda self, instance, owner: 5
    run.step(lambda: compiled(x, holder), lambda: _scaled(x, holder), "gives another value")
    del Kind.__set__
    run.step(lambda: compiled(x, holder), lambda: _scaled(x, holder), "not of data again")


@program()
def property_changes(run: Run) -> None:
    class Cfg:
        @property
        def scale(self) -> int:
            return 3

    prop, cfg, x = Cfg.__dict__["scale"], Cfg(), torch.ones(2)
    compiled = run.compile(_scaled)
    run.warm(lambda: compiled(x, cfg))
    prop.__init__(lambda self: 4)
    run.step(lambda: compiled(x, cfg), lambda: _scaled(x, cfg), "initialised again")
    prop.__init__(operator.attrgetter("kept"))
    cfg.kept = 5
    run.step(lambda: compiled(x, cfg), lambda: _scaled(x, cfg), "a getter that is no function")
    cfg.kept = 6
    run.step(lambda: compiled(x, cfg), lambda: _scaled(x, cfg), "which gives another value")
    prop.__init__(functools.partial(lambda number, self: number, 7))
    run.step(lambda: compiled(x, cfg), lambda: _scaled(x, cfg), "a partial")
    prop.__init__(cfg.__class__.__eq__.__call__)
    run.step(lambda: compiled(x, cfg), lambda: _scaled(x, cfg), "a wrapper")
