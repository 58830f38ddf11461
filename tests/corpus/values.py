"""Plain values: numbers, constants of torch, members of enumerations."""

from __future__ import annotations

import enum
import math
from typing import Any

import torch

from .example import Example, entry


class IntSubclass(int):
    pass


@entry
def plain_arguments() -> Example:
    def function(x: torch.Tensor, i: Any, s: Any, b: Any, n: Any) -> torch.Tensor:
        x = x + i
        if s == "mode":
            x = x * 2
        if b:
            x = x - 1
        return x if n is None else x + n

    example = Example(function, torch.ones(2), 3, "mode", True, None)
    example.rebind("i", same_i=lambda: 3, other_i=lambda: 4, real_i=lambda: 3.0, true_i=lambda: True)
    example.rebind("i", big_i=lambda: 2**70, own_i=lambda: IntSubclass(3), no_i=lambda: None)
    example.rebind("s", same_s=lambda: "".join(["mo", "de"]), other_s=lambda: "other", bytes_s=lambda: b"mode")
    example.rebind("b", false_b=lambda: False, one_b=lambda: 1, same_b=lambda: True)
    return example.rebind("n", number_n=lambda: 1, tensor_n=lambda: torch.ones(2), same_n=lambda: None)


@entry
def special_floats() -> Example:
    def function(x: torch.Tensor, f: Any, g: Any, c: Any) -> torch.Tensor:
        x = x + 1 if math.isnan(f) else x - 1
        x = x * 2 if g == 0.0 else x
        return x + c.real

    example = Example(function, torch.ones(2), float("nan"), 0.0, 1 + 2j)
    example.rebind(
        "f", same_f=lambda: float("nan"), one_f=lambda: 1.0, infinite_f=lambda: float("inf"), int_f=lambda: 1
    )
    example.rebind("g", same_g=lambda: 0.0, minus_g=lambda: -0.0, tiny_g=lambda: 5e-324, int_g=lambda: 0)
    return example.rebind(
        "c",
        same_c=lambda: complex(1, 2),
        other_c=lambda: complex(1, 3),
        nan_c=lambda: complex(math.nan, 2),
        real_c=lambda: 1.0,
    )


@entry
def torch_constants() -> Example:
    def function(x: torch.Tensor, dtype: Any, device: Any, size: Any, layout: Any) -> torch.Tensor:
        return x + torch.zeros(size, dtype=dtype, device=device) + (layout is torch.strided)

    example = Example(function, torch.ones(2), torch.float32, torch.device("cpu"), torch.Size([2]), torch.strided)
    example.rebind("dtype", same_dtype=lambda: torch.float32, other_dtype=lambda: torch.float64, no_dtype=lambda: None)
    example.rebind("device", same_device=lambda: torch.device("cpu"), text_device=lambda: "cpu")
    example.rebind(
        "size", same_size=lambda: torch.Size([2]), other_size=lambda: torch.Size([1]), plain_size=lambda: (2,)
    )
    return example.rebind("layout", other_layout=lambda: torch.sparse_coo, same_layout=lambda: torch.strided)


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@entry
def enums() -> Example:
    def function(x: torch.Tensor, color: Any, level: Any) -> torch.Tensor:
        return (x + 1 if color is Color.RED else x - 1) * level

    example = Example(function, torch.ones(2), Color.RED, Level.LOW)
    example.rebind("color", blue=lambda: Color.BLUE, red=lambda: Color.RED, number=lambda: 1)
    return example.rebind("level", high=lambda: Level.HIGH, low=lambda: Level.LOW, one=lambda: 1)
