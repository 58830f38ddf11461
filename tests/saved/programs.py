"""What is compiled, saved and loaded: functions and modules at the top level of a module, as torch wants them."""

from __future__ import annotations

import torch

FACTOR = 3
LENGTH = 5


def opposite(x: torch.Tensor) -> torch.Tensor:
    return -x


def scaled(x: torch.Tensor, number: int = 2) -> torch.Tensor:
    return opposite(x) * number * FACTOR


def branching(x: torch.Tensor, y: torch.Tensor, number: int) -> torch.Tensor:
    total = x + y
    return total * number if x.shape[0] > 3 else total - number


def of_global(x: torch.Tensor) -> torch.Tensor:
    return x * 2 if x.shape[0] == LENGTH else x * 3


def every_kind(x: torch.Tensor, /, y: torch.Tensor, *more: torch.Tensor, factor: int = 2, **rest: int) -> torch.Tensor:
    return (x + y + sum(more)) * factor + rest.get("offset", 0)


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)
        self.negate = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        return -y if self.negate else y


def breaking(x: torch.Tensor, number: int) -> torch.Tensor:
    y = x * FACTOR
    torch._dynamo.graph_break()
    return y + number
