"""Objects that functions read: a class's, an instance's, a slot's attributes."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import torch

settings = types.ModuleType("settings_of_a_test")
settings.FLAG = 2  # type: ignore[attr-defined]
settings.inner = types.SimpleNamespace(flag=2)  # type: ignore[attr-defined]


class Config:
    flag: Any = 2
    unset: Any = None


class Child(Config):
    pass


class Plain:
    shared = 2

    def __init__(self, value: Any) -> None:
        self.value = value

    def scaled(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.value

    @classmethod
    def of_class(cls, x: torch.Tensor) -> torch.Tensor:
        return x * cls.shared

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclasses.dataclass
class Record:
    value: Any


HOLDERS = {"plain": Plain(2), "slots": Slotted(2), "dataclass": Record(2)}
PLAIN, SLOTTED, RECORD = HOLDERS.values()
