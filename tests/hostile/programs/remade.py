"""Objects that are freed while their addresses are remembered, and others made in their place."""

from __future__ import annotations

import ctypes
import gc
import types
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from unified_guards.guards.ir import Access, Test, guard

from ...guards import checker, item
from ..protocol import Holder, Run, direct, program, recorded


def _fresh(source: str = "def function(self):\n    return 1") -> Any:
    space: dict[str, Any] = {}
    exec(source, space)
    return space.pop("function")


def _function_like() -> tuple[Any, Callable[[Any], Any]]:
    """A class whose instances are as large as functions, with the code where a function has its own."""
    function = _fresh()
    at = next(
        offset
        for offset in range(0, 200, 8)
        if ctypes.c_void_p.from_address(id(function) + offset).value == id(function.__code__)
    )
    names = [f"s{index:02}" for index in range((types.FunctionType.__basicsize__ - 16) // 8)]
    kind = type("Fake", (), {"__slots__": tuple(names), "__call__": lambda self, *a: 2})

    def made(code: Any) -> Any:
        fake = kind()
        setattr(fake, names[(at - 16) // 8], code)
        return fake

    return kind, made


@direct
def method_over_no_function(run: Run) -> None:
    """A bound method and its function are freed; a method over something that is no function takes their places."""
    owner, shown = Holder(), Holder()
    _, fake = _function_like()
    function = _fresh()
    code = function.__code__
    shown.fs = [types.MethodType(function, owner)]
    source = item("fs").child(Access.LIST_ITEM, 0).child(Access.FUNC_CODE)
    made = recorded(checker(guard(Test.IS, (source,), (id(code), "that code"))), {"x": shown})
    run.expect(made, {"x": shown}, True, "its own")
    gc.disable()
    at_function, at_method = id(function), id(shown.fs[0])
    shown.fs[0] = None
    del function
    fakes = [fake(code)]
    while id(fakes[-1]) != at_function and len(fakes) < 200:
        fakes.append(fake(code))
    methods = [types.MethodType(fakes[-1], owner)]
    while id(methods[-1]) != at_method and len(methods) < 200:
        methods.append(types.MethodType(fakes[-1], owner))
    shown.fs[0] = methods[-1]
    run.expect(made, {"x": shown}, False, "no function under the method")


def _at(address: int, make: Callable[[], Any], tries: int = 300) -> Any:
    """Something made at an address, if the allocator gives it; else at another."""
    kept = [make()]
    while id(kept[-1]) != address and len(kept) < tries:
        kept.append(make())
    return kept[-1]


class First:
    scale = 3

    def call(self) -> int:
        return 3


class Second:
    scale = 4

    def call(self) -> int:
        return 4


def _scaled(x: Any, holder: Any) -> Any:
    return x * holder.value.scale


def _called(x: Any, holder: Any) -> Any:
    return x * holder.value.call()


def _applied(x: Any, holder: Any) -> Any:
    return holder.value(x)


def _sized(x: Any, holder: Any) -> Any:
    return x + holder.value.shape[0] * 10


def _number(x: Any, holder: Any) -> Any:
    return x * holder.value


def _entry(x: Any, holder: Any) -> Any:
    return x * holder.value["k"]


def _element(x: Any, holder: Any) -> Any:
    return x * holder.value[0]


def _lambda(number: int) -> Any:
    return _fresh(f"def function(x):\n    return x * {number}")


def _bound(number: int) -> Any:
    return types.MethodType(_fresh(f"def function(self, x):\n    return x * {number}"), nn.ReLU())


def _of(kind: Any) -> Any:
    return types.MethodType(kind.call, kind())


def _classes(number: int) -> Any:
    return type("Made", (), {"scale": number, "call": lambda self: number})()


PAIRS: dict[str, tuple[Any, Callable[[], Any], Callable[[], Any]]] = {
    "instances": (_scaled, First, Second),
    "methods_of_instances": (_called, First, Second),
    "functions": (_applied, lambda: _lambda(3), lambda: _lambda(4)),
    "bound_methods": (_applied, lambda: _bound(3), lambda: _bound(4)),
    "classes": (_scaled, lambda: _classes(3), lambda: _classes(4)),
    "tensors": (_sized, lambda: torch.ones(3), lambda: torch.ones(4)),
    "parameters": (_sized, lambda: nn.Parameter(torch.ones(3)), lambda: torch.ones(3, requires_grad=True)),
    "ints": (_number, lambda: 10**6 + len("a"), lambda: 10**6 + len("ab")),
    "floats": (_number, lambda: float("3.5"), lambda: float("4.5")),
    "strings": (
        lambda x, holder: x * (2 if holder.value == "a1" else 3),
        lambda: "".join(("a", "1")),
        lambda: "".join(("a", "2")),
    ),
    "dicts": (_entry, lambda: {"k": 3}, lambda: {"k": 4}),
    "lists": (_element, lambda: [3], lambda: [4]),
    "tuples": (_element, lambda: (3,), lambda: (4,)),
    "dtypes_of_tensors": (lambda x, holder: x + holder.value, lambda: torch.ones(2), lambda: torch.ones(2).double()),
    "modules": (_applied, lambda: nn.Linear(2, 2).apply(_filled), lambda: nn.Identity()),
    "partials": (
        lambda x, holder: holder.value(x),
        lambda: __import__("functools").partial(torch.mul, other=3),
        lambda: __import__("functools").partial(torch.mul, other=4),
    ),
}


def _filled(module: Any) -> None:
    for parameter in module.parameters():
        nn.init.ones_(parameter.data)


@program(pair=tuple(PAIRS))
def freed_and_remade(run: Run, pair: str) -> None:
    function, first, second = PAIRS[pair]
    holder, x = Holder(), torch.ones(2)
    holder.value = first()
    compiled = run.compile(function)
    run.warm(lambda: compiled(x, holder))
    gc.disable()
    for index in range(12):
        address = id(holder.value)
        holder.value = None
        holder.value = _at(address, second if index % 2 == 0 else first, 40)
        for _ in range(3 if index < 4 else 1):
            run.step(lambda: compiled(x, holder), lambda: function(x, holder), f"{index}")


@program()
def function_of_a_method_remade(run: Run) -> None:
    class Net:
        pass

    def function(x: Any, holder: Any) -> Any:
        return holder.method(x)

    holder, owner, x = Holder(), nn.ReLU(), torch.ones(2)
    compiled = run.compile(function)
    kept = []
    for index in range(6):
        made = _fresh(f"def function(self, x):\n    return x * {index % 2 + 2}")
        holder.method = types.MethodType(made, owner)
        del made
        for _ in range(4):
            run.step(lambda: compiled(x, holder), lambda: function(x, holder), f"{index}")
        holder.method = None
        kept.append(index)


@program()
def code_in_place(run: Run) -> None:
    """The function stays where it is and gets another code, defaults, closure contents."""
    number = 3

    def inner(x: Any, factor: int = 1) -> Any:
        return x * factor * number

    def other(x: Any, factor: int = 1) -> Any:
        return x * factor * number + 100

    def function(x: Any) -> Any:
        return inner(x)

    x = torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x))
    inner.__defaults__ = (2,)
    run.step(lambda: compiled(x), lambda: function(x), "defaults")
    number = 4
    run.step(lambda: compiled(x), lambda: function(x), "cell")
    inner.__code__ = other.__code__
    run.step(lambda: compiled(x), lambda: function(x), "code")
    inner.__kwdefaults__ = {"y": 1}
    run.step(lambda: compiled(x), lambda: function(x), "keyword defaults")


@program()
def weak_references(run: Run) -> None:
    class Owner:
        pass

    def function(x: Any, holder: Any) -> Any:
        return x * 3 if holder.reference() is None else x * 2

    holder, owner, x = Holder(), Owner(), torch.ones(2)
    holder.reference = weakref.ref(owner)
    compiled = run.compile(function)
    run.warm(lambda: run.step(lambda: compiled(x, holder), lambda: function(x, holder), "alive"))
    del owner
    run.step(lambda: compiled(x, holder), lambda: function(x, holder), "dead")


@program()
def inputs_freed_each_time(run: Run) -> None:
    """Ordinary use: each call has fresh objects, some where those of the last call were."""

    def function(x: Any, cfg: Any, values: Any) -> Any:
        return x * cfg["scale"] + values[0].shape[0]

    compiled = run.compile(function)
    for index in range(30):
        scale, size = 2 + index % 3, 3 + index % 2
        run.step(
            lambda: compiled(torch.ones(2), {"scale": scale}, [torch.ones(size)]),
            lambda: function(torch.ones(2), {"scale": scale}, [torch.ones(size)]),
            str(index),
        )
