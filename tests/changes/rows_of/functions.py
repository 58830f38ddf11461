"""Rows of functions, of globals and modules that they read, and of objects made again where one has died."""

from __future__ import annotations

import gc
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo

from ..rows import PYTHON, TENSORS, Row, python
from .objects import one, plain, total


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
global_row("tensor_global", lambda x: x + HELD, {"HELD": torch.ones(1, 2)}, TENSORS)

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
