"""Rows of ``nn.Module``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo
from torch import nn

from ..rows import PYTHON, python
from .objects import put

# Modules


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.more = nn.ModuleList([nn.Linear(2, 2), nn.ReLU()])
        self.named = nn.ModuleDict({"a": nn.ReLU(), "b": nn.Tanh()})
        self.drop = nn.Dropout(0.0)
        self.register_buffer("buffer", torch.ones(2))
        self.scale = 1
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters()):
                parameter.fill_(0.1 * (number + 1))

    def forward(self, x: Any) -> Any:
        x = self.drop(self.first(x)) * self.scale + self.buffer
        for each in self.more:
            x = each(x)
        for each in self.named.values():
            x = each(x)
        return x * 2 if self.training else x


def full(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.full(shape, 0.5))


def net_row(name: str, change: Callable[[Net], Any], undo: Callable[[Net, Any], Any]) -> None:
    def row() -> Iterator[Any]:
        net = Net()
        yield net, [torch.ones(2)]
        before = change(net)
        yield
        undo(net, before)
        yield

    PYTHON[f"module_{name}"] = row


def set_on(path: str, name: str, value: Callable[[], Any]) -> tuple[Callable[[Net], Any], Callable[[Net, Any], Any]]:
    def change(net: Net) -> Any:
        owner = net.get_submodule(path)
        before = getattr(owner, name)
        setattr(owner, name, value())
        return before

    return change, lambda net, before: setattr(net.get_submodule(path), name, before)


def swap_item(net: Net, index: int, value: Any) -> Any:
    before = net.more[index]
    net.more[index] = value
    return before


def swap_named(net: Net, value: Any) -> Any:
    before = net.named["a"]
    net.named["a"] = value
    return before


def hook(kind: str, function: Any, path: str = "first") -> tuple[Callable[[Net], Any], Callable[[Net, Any], Any]]:
    return (
        lambda net: getattr(net.get_submodule(path), kind)(function),
        lambda net, handle: handle.remove(),
    )


net_row("submodule", *set_on("", "first", nn.Identity))
net_row("parameter", *set_on("first", "weight", lambda: full(2, 2)))
net_row(
    "parameter_frozen", lambda n: n.first.weight.requires_grad_(False), lambda n, _: n.first.weight.requires_grad_()
)
net_row("all_frozen", lambda n: n.requires_grad_(False), lambda n, _: n.requires_grad_())
net_row("bias_none", *set_on("first", "bias", lambda: None))
net_row("buffer", *set_on("", "buffer", lambda: torch.ones(1, 2)))
net_row("buffer_dtype", *set_on("", "buffer", lambda: torch.ones(2, dtype=torch.float64)))
net_row("training", lambda n: n.eval(), lambda n, _: n.train())
net_row("training_of_one", lambda n: n.drop.eval(), lambda n, _: n.drop.train())
net_row("int_attribute", *set_on("", "scale", lambda: 3))
net_row("attribute_to_tensor", *set_on("", "scale", lambda: torch.ones(2)))
net_row("list_item", lambda n: swap_item(n, 1, nn.Tanh()), lambda n, before: swap_item(n, 1, before))
net_row("list_append", lambda n: n.more.append(nn.Tanh()), lambda n, _: n.more.__delitem__(2))
net_row("dict_item", lambda n: swap_named(n, nn.Sigmoid()), lambda n, before: swap_named(n, before))
net_row("dict_added", lambda n: n.named.update({"c": nn.Tanh()}), lambda n, _: n.named.pop("c"))
net_row(
    "forward_on_instance", lambda n: put(n.first, forward=lambda x: x * 3), lambda n, _: delattr(n.first, "forward")
)
net_row("class_of_one", *set_on("more.1", "__class__", lambda: nn.Tanh))
net_row("hook", *hook("register_forward_hook", lambda module, given, result: result * 3))
net_row("hook_before", *hook("register_forward_pre_hook", lambda module, given: (given[0] * 3,)))
net_row("hook_on_itself", *hook("register_forward_hook", lambda module, given, result: result * 3, ""))
net_row("dtype", lambda n: n.double(), lambda n, _: n.float())
net_row(
    "inner_parameters_dict",
    lambda n: n.first._parameters.update(bias=None),
    lambda n, _: n.first._parameters.update(bias=full(2)),
)


@python
def module_copied() -> Iterator[Any]:
    arguments = [torch.ones(2), Net()]
    first = arguments[1]
    yield lambda x, net: net(x), arguments
    arguments[1] = copy.deepcopy(first)
    arguments[1].scale = 2
    yield
    arguments[1] = first
    yield
