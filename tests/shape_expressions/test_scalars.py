"""Scalars that change and that shape guards read: attributes of modules, items of dicts and lists, globals, cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import unified_guards

pytestmark = pytest.mark.usefixtures("installed")

#: A compiled function, and what sets the scalar that it reads.
Made = tuple[Callable[[], torch.Tensor], Callable[[Any], None]]


class Attribute(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class InDict(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scaling: dict[str, Any] = {"other": 1, "default": 2.0}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scaling["default"]


class InList(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scales: list[Any] = [1, 2.0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scales[1]


class InInstanceDict(InDict):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.__dict__["scaling"]["default"]


class Nested(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Attribute()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + 1


def of(function: Any) -> Callable[[], torch.Tensor]:
    compiled = torch.compile(function, backend="eager")
    return lambda: compiled(torch.ones(2))


def attribute() -> Made:
    module = Attribute()
    return of(module), lambda value: setattr(module, "scale", value)


def nested() -> Made:
    module = Nested()
    call = of(module)
    return lambda: call() - 1, lambda value: setattr(module.inner, "scale", value)


def in_dict() -> Made:
    module = InDict()
    return of(module), lambda value: module.scaling.__setitem__("default", value)


def in_instance_dict() -> Made:
    module = InInstanceDict()
    return of(module), lambda value: module.scaling.__setitem__("default", value)


def in_list() -> Made:
    module = InList()
    return of(module), lambda value: module.scales.__setitem__(1, value)


SCALE: Any = 2.0
SCALES: dict[str, Any] = {"scale": 2.0}


def in_global() -> Made:
    return of(lambda x: x * SCALE), lambda value: globals().__setitem__("SCALE", value)


def in_global_dict() -> Made:
    return of(lambda x: x * SCALES["scale"]), lambda value: SCALES.__setitem__("scale", value)


def in_cell() -> Made:
    scale = 2.0

    def put(value: Any) -> None:
        nonlocal scale
        scale = value

    return of(lambda x: x * scale), put


def in_cell_of_a_helper() -> Made:
    scale = 2.0

    def helper(x: torch.Tensor) -> torch.Tensor:
        return x * scale

    def put(value: Any) -> None:
        nonlocal scale
        scale = value

    return of(lambda x: helper(x)), put


def group() -> Made:
    compiled = torch.compile(lambda x, groups: x * groups[0]["lr"], backend="eager")
    groups: list[dict[str, Any]] = [{"lr": 2.0}]
    return lambda: compiled(torch.ones(2), groups), lambda value: groups[0].__setitem__("lr", value)


EVERYWHERE = [
    attribute, nested, in_dict, in_instance_dict, in_list, in_global, in_global_dict, in_cell, in_cell_of_a_helper,
    group,
]  # fmt: skip


def changing(made: Made, values: list[Any]) -> None:
    call, put = made
    for value in values:
        put(value)
        assert torch.equal(call(), torch.ones(2) * value)


@pytest.mark.parametrize("where", EVERYWHERE)
@pytest.mark.parametrize("values", [[2.5, 3.5, 4.5], [3, 4, 5]], ids=["float", "int"])
def test_a_scalar_that_changes_is_read_natively(where: Callable[[], Made], values: list[Any]) -> None:
    made = where()
    before = unified_guards.stats()
    changing(made, values * 3)
    after = unified_guards.stats()
    assert after.shapes_left_to_torch == before.shapes_left_to_torch
    assert after.frames_left_to_torch == before.frames_left_to_torch
    assert after.python_callbacks == before.python_callbacks


@pytest.mark.parametrize("where", EVERYWHERE)
def test_a_scalar_that_becomes_something_else_is_seen(where: Callable[[], Made]) -> None:
    made = where()
    changing(made, [2.5, 3.5, 4.5, 3, 5.5, True, 6.5, 0.0])
    call, put = made
    put(float("nan"))
    assert torch.isnan(call()).all()
    put(7.5)
    assert torch.equal(call(), torch.ones(2) * 7.5)
