"""Functions of classes: forward, call and methods."""

from __future__ import annotations

import torch

from ...harness import TORCH
from ..cases import Add, Case, calling, case, fresh, with_x


@case
def forward_of_a_class() -> Case:
    kind = fresh(Add)

    def change() -> None:
        kind.forward = lambda self, x: x + 5  # type: ignore[attr-defined]

    return Case(calling(kind()), with_x, change, "__dict__['forward'] is")


@case
def forward_of_a_class_that_has_inherited_it() -> Case:
    kind = type("Inherits", (Add,), {})

    def change() -> None:
        kind.forward = lambda self, x: x + 5  # type: ignore[attr-defined]

    return Case(calling(kind()), with_x, change, "('forward' in type(", stale=TORCH < (2, 15))


@case
def call_of_a_class() -> Case:
    kind = fresh(Add)

    def change() -> None:
        kind.__call__ = lambda self, x: x + 5  # type: ignore[method-assign]

    return Case(calling(kind()), with_x, change, "('__call__' in type(")


class Plain:
    def method(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1

    @classmethod
    def of_class(cls, x: torch.Tensor) -> torch.Tensor:
        return x + 1


@case
def method_of_a_class() -> Case:
    value = fresh(Plain)()

    def change() -> None:
        type(value).method = lambda self, x: x + 5

    return Case(lambda x: value.method(x), with_x, change, "__dict__['method'] is")


@case
def class_method() -> Case:
    value = fresh(Plain)()

    def change() -> None:
        type(value).of_class = classmethod(lambda cls, x: x + 5)

    return Case(lambda x: value.of_class(x), with_x, change, "__dict__['of_class'].__func__ is", stale=TORCH < (2, 15))
