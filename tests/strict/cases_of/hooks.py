"""Hooks of modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..cases import Add, Case, calling, case, ones, with_x


@case
def forward_hook() -> Case:
    module = nn.Linear(3, 3)
    handles: list[Any] = []

    def change() -> None:
        handles.append(module.register_forward_hook(lambda module, args, output: output * 10))

    return Case(calling(module), with_x, change, "['_forward_hooks']) == 0")


@case
def forward_hook_in_a_model() -> Case:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), Add()))

    def change() -> None:
        model[1][1].register_forward_hook(lambda module, args, output: output * 10)

    return Case(calling(model), with_x, change, "['_forward_hooks']) == 0")


@case
def forward_pre_hook() -> Case:
    module = nn.Linear(3, 3)

    def change() -> None:
        module.register_forward_pre_hook(lambda module, args: (args[0] * 10,))

    return Case(calling(module), with_x, change, "['_forward_pre_hooks']) == 0")


@case
def hook_of_all_modules() -> Case:
    handles: list[Any] = []

    def change() -> None:
        hook = nn.modules.module.register_module_forward_hook(lambda module, args, output: output * 10)
        handles.append(hook)

    function = calling(nn.Linear(3, 3))
    return Case(function, with_x, change, "['_global_forward_hooks']) == 0", undo=lambda: handles.pop().remove())


@case
def full_backward_hook() -> Case:
    module = nn.Linear(3, 3)

    def gradient(call: Callable[..., Any]) -> torch.Tensor:
        x = ones().requires_grad_()
        call(x).sum().backward()
        assert x.grad is not None
        return x.grad

    def change() -> None:
        module.register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * 10,))

    return Case(calling(module), gradient, change, "['_backward_hooks']) == 0")
