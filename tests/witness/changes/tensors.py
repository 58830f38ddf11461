"""Changes of tensors and their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from unified_guards.guards.ir import Access, Test, guard

from ...guards import item, same, tensor_like
from ..building import Thing
from .table import CHANGES, Change, Step, change


@change
def a_gradient_is_another() -> Iterator[Step]:
    weight = torch.ones(2, requires_grad=True)
    weight.grad = torch.ones(2)
    yield {"x": Thing(weight=weight)}, [same(item("weight").child(Access.GRAD), weight.grad)]
    weight.grad = torch.zeros(2)


@change
def a_gradient_is_gone() -> Iterator[Step]:
    weight = torch.ones(2, requires_grad=True)
    weight.grad = torch.ones(2)
    yield {"x": Thing(weight=weight)}, [tensor_like(item("weight").child(Access.GRAD), weight.grad)]
    weight.grad = None


@change
def a_gradient_is_there() -> Iterator[Step]:
    weight = torch.ones(2, requires_grad=True)
    yield {"x": Thing(weight=weight)}, [same(item("weight").child(Access.GRAD), None)]
    weight.grad = torch.ones(2)
    yield None
    weight.grad = None


def _tensor_is_changed(by: Callable[[torch.Tensor], object]) -> Change:
    def changes() -> Iterator[Step]:
        weight = torch.ones(2)
        yield {"x": Thing(weight=weight)}, [tensor_like(item("weight"), weight)]
        by(weight)

    return changes


TENSOR_CHANGES: dict[str, Callable[[torch.Tensor], object]] = {
    "data of another size": lambda weight: setattr(weight, "data", torch.ones(3)),
    "data of another dtype": lambda weight: setattr(weight, "data", torch.ones(2, dtype=torch.float64)),
    "resize_": lambda weight: weight.resize_(5),
    "set_": lambda weight: weight.set_(torch.ones(4).untyped_storage(), 1, (1,), (2,)),
    "requires_grad_": lambda weight: weight.requires_grad_(),
    "swap_tensors": lambda weight: torch.utils.swap_tensors(weight, torch.ones(3)),
    "swap_tensors with a parameter": lambda weight: torch.utils.swap_tensors(weight, torch.nn.Parameter(torch.ones(2))),
    "unsqueeze_": lambda weight: weight.unsqueeze_(0),
}
CHANGES |= {f"a tensor is changed by {name}": _tensor_is_changed(by) for name, by in TENSOR_CHANGES.items()}


@change
def a_tensor_is_another() -> Iterator[Step]:
    thing: Any = Thing(weight=torch.ones(2))
    yield {"x": thing}, [tensor_like(item("weight"), torch.ones(2))]
    thing.weight = torch.ones(3)
    yield None
    thing.weight = torch.ones(2)


@change
def a_tensor_is_marked_dynamic() -> Iterator[Step]:
    weight = torch.ones(2)
    yield (
        {"x": Thing(weight=weight)},
        [
            tensor_like(item("weight"), weight),
            guard(Test.DYNAMIC_INDICES, (item("weight"),), ("_dynamo_dynamic_indices", set())),
        ],
    )
    torch._dynamo.mark_dynamic(weight, 0)


@change
def a_tensor_is_marked_further_than_expected() -> Iterator[Step]:
    weight = torch.ones(2)
    names = ["_dynamo_dynamic_indices", "_dynamo_unbacked_indices", "_dynamo_static_indices"]
    yield (
        {"x": Thing(weight=weight)},
        [
            tensor_like(item("weight"), weight),
            guard(Test.DIM_MARKING, (item("weight"),), ({}, names, {})),
        ],
    )
    torch._dynamo.mark_dynamic(weight, 0)
    weight._has_dynamo_dim_marking = True  # torch 2.11 does not say so, and has no such guard
