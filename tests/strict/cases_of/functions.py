"""Fields of functions: code, defaults, and the contents of cells."""

from __future__ import annotations

import torch
from torch import nn

from ...harness import TORCH
from ..cases import Case, calling, case, with_x


def made_class() -> type:
    class Made:
        def method(self, x: torch.Tensor, k: int = 1, *, by: float = 1.0) -> torch.Tensor:
            return (x + k) * by

    return Made


@case
def code_of_a_method() -> Case:
    kind = made_class()

    def change() -> None:
        kind.method.__code__ = (lambda self, x, k=1, *, by=1.0: x + 5).__code__  # type: ignore[attr-defined]

    value = kind()
    return Case(lambda x: value.method(x), with_x, change, "__code__ is the code of")


@case
def code_of_forward() -> Case:
    class Layer(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    def change() -> None:
        Layer.forward.__code__ = (lambda self, x: x + 5).__code__

    return Case(calling(Layer()), with_x, change, "__code__ is the code of")


@case
def defaults_of_a_method() -> Case:
    kind = made_class()

    def change() -> None:
        kind.method.__defaults__ = (5,)  # type: ignore[attr-defined]

    value = kind()
    return Case(lambda x: value.method(x), with_x, change, "__defaults__", stale=TORCH < (2, 13))


@case
def defaults_of_a_function() -> Case:
    def inner(x: torch.Tensor, k: int = 1) -> torch.Tensor:
        return x + k

    def change() -> None:
        inner.__defaults__ = (5,)

    return Case(lambda x: inner(x), with_x, change, "__defaults__", stale=TORCH < (2, 13))


@case
def defaults_by_keyword() -> Case:
    kind = made_class()

    def change() -> None:
        kind.method.__kwdefaults__["by"] = 5.0  # type: ignore[attr-defined]

    value = kind()
    return Case(lambda x: value.method(x), with_x, change, "__kwdefaults__", stale=False)


@case
def content_of_a_closure() -> Case:
    k = 1

    class Closing:
        def method(self, x: torch.Tensor) -> torch.Tensor:
            return x + k

    def change() -> None:
        nonlocal k
        k = 5

    value = Closing()
    return Case(lambda x: value.method(x), with_x, change, "__closure__[0].cell_contents", stale=False)
