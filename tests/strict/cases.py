"""What a case is: a function, and a change after which what was compiled of it is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


@dataclasses.dataclass
class Case:
    """A function, and a change after which what was compiled of it is wrong.

    ``use`` calls a function with arguments that it makes anew and gives what is to be compared; ``named`` is in the
    text of the guard that notices.
    """

    function: Callable[..., Any]
    use: Callable[[Callable[..., Any]], Any]
    change: Callable[[], Any]
    named: str
    backend: str = "eager"
    stale: bool = True  # with this torch
    undo: Callable[[], Any] = lambda: None


CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


def ones() -> torch.Tensor:
    return torch.ones(2, 3)


def with_x(call: Callable[..., Any]) -> Any:
    return call(ones())


class Add(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def fresh(kind: type) -> type:
    """A copy of a class, to be changed without harm to other tests. Its functions are the original's."""
    own = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    return type(kind.__name__, kind.__bases__, own)


def calling(module: nn.Module) -> Callable[..., Any]:
    return lambda x: module(x) * 2
