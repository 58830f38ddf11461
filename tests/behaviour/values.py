"""Values that the functions of the suites are given, and globals that they read."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Pair(typing.NamedTuple):
    first: Any
    second: Any


class MyInt(int):
    pass


class MyStr(str):
    pass


def negate(x: torch.Tensor) -> torch.Tensor:
    return -x


def twice(x: torch.Tensor) -> torch.Tensor:
    return x + x


@dataclasses.dataclass
class Options:
    scale: Any = 2
    name: str = "a"
    nested: Any = None


@dataclasses.dataclass(frozen=True)
class FrozenOptions:
    scale: Any = 2


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale: Any) -> None:
        self.scale = scale


class Config:
    """Like many configuration objects: attributes through ``__getattr__``, from a dict."""

    def __init__(self, **values: Any) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(name) from None


class Plain:
    kind = "plain"

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    @property
    def doubled(self) -> Any:
        return self.scale * 2

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class OtherPlain(Plain):
    kind = "other"


class Tagged(torch.Tensor):
    """A subclass without overrides."""


GLOBAL_NUMBER = 2
GLOBAL_FUNCTION: Callable = negate
GLOBAL_TENSOR = torch.ones(3)
GLOBAL_DICT: dict[str, Any] = {"scale": 2}
GLOBAL_MODULE = types.ModuleType("behaviour_settings")
GLOBAL_MODULE.SCALE = 2  # type: ignore[attr-defined]
GLOBAL_HOLDER = Plain(scale=2)
