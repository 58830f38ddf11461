"""Inputs that come to share memory, or to share none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..cases import Case, case


def add_in_place(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    a.add_(1)
    return a + b


def views(first: int, second: int, length: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    base = torch.arange(float(length))
    return base[first : first + 2], base[second : second + 2]


def written(
    before: Callable[[], Any], after: Callable[[], Any], named: str, function: Callable[..., Any] = add_in_place
) -> Case:
    given = [before]

    def change() -> None:
        given[0] = after

    return Case(function, lambda call: call(*given[0]()), change, named, backend="aot_eager")


def separate() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(2.0), torch.arange(2.0)


@case
def inputs_that_come_to_share_memory() -> Case:
    return written(separate, lambda: views(0, 1), "no two of (L['a'], L['b']) share memory")


@case
def inputs_that_come_to_be_apart() -> Case:
    return written(lambda: views(0, 1), separate, "L['a']._base is torch.Tensor float32[8]")


@case
def views_that_come_to_overlap() -> Case:
    return written(lambda: views(0, 4), lambda: views(0, 1), ".storage_offset() == 4")


@case
def storage_offset_of_overlapping_views() -> Case:
    return written(lambda: views(0, 1), lambda: views(2, 3), ".storage_offset() == 0")


@case
def storage_offset_of_a_view_of_another_input() -> Case:
    def function(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a.add_(1)
        return b * 2

    def given(at: int) -> tuple[torch.Tensor, torch.Tensor]:
        base = torch.arange(8.0)
        return base, base[at : at + 2]

    return written(lambda: given(2), lambda: given(4), ".storage_offset() == 2", function)


@case
def parameters_that_come_to_be_one() -> Case:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                self.a.add_(1)
            return self.a + self.b + x

    model = Model()

    def use(call: Callable[..., Any]) -> Any:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
        return call(torch.zeros(2)).detach()

    def change() -> None:
        model.b = model.a

    return Case(lambda x: model(x), use, change, "share memory", backend="aot_eager")
