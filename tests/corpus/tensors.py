"""Tensors as arguments: metadata, aliases, subclasses, gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.testing._internal.two_tensor import TwoTensor

from .example import Example, Locals, entry


class Subclass(torch.Tensor):
    """A tensor that differs by nothing but its class."""


@entry
def static_tensors() -> Example:
    x, y = torch.ones(2, 3), torch.ones(2, 3)
    example = Example(lambda x, y: x + y, x, y)
    example.rebind(
        "x",
        same=lambda: torch.zeros(2, 3),
        dtype=lambda: torch.ones(2, 3, dtype=torch.float64),
        size=lambda: torch.ones(2, 4),
        rank=lambda: torch.ones(1, 2, 3),
        strides=lambda: torch.ones(3, 2).t(),
        offset=lambda: torch.ones(12)[6:].view(2, 3),
        requires_grad=lambda: torch.ones(2, 3, requires_grad=True),
        parameter=lambda: nn.Parameter(torch.ones(2, 3)),
        subclass=lambda: torch.ones(2, 3).as_subclass(Subclass),
        meta=lambda: torch.ones(2, 3, device="meta"),
        sparse=lambda: torch.ones(2, 3).to_sparse(),
        conjugate=lambda: torch.ones(2, 3, dtype=torch.complex64).conj(),
        number=lambda: 3.0,
        none=lambda: None,
    )
    example.mutations["alias"] = lambda f_locals: f_locals.__setitem__("x", f_locals["y"])
    return example.change(
        resize_in_place=lambda: y.resize_(3, 3),
        resize_back=lambda: y.resize_(2, 3),
        requires_grad_in_place=lambda: y.requires_grad_(not y.requires_grad),
        other_data=lambda: setattr(y, "data", torch.ones(2, 3, dtype=torch.float64)),
        same_data=lambda: setattr(y, "data", torch.ones(2, 3)),
        transposed_in_place=lambda: y.t_(),
        mark_dynamic=lambda: torch._dynamo.mark_dynamic(y, 0),
        mark_static=lambda: torch._dynamo.mark_static(y),
    )


@entry
def dynamic_tensors() -> Example:
    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.size(0) > 3 and x.size(0) % 2 == 0 and y.size(0) == 4 else x * 3

    x = torch.ones(8, 3)
    torch._dynamo.mark_dynamic(x, 0)
    example = Example(function, x, torch.ones(4), dynamic=None)
    for size in (0, 1, 2, 3, 4, 5, 6, 10):
        example.rebind("x", **{f"size_{size}": lambda size=size: torch.ones(size, 3)})
    example.rebind("x", other_static=lambda: torch.ones(8, 4), strides=lambda: torch.ones(3, 8).t())
    example.rebind("y", other_y=lambda: torch.ones(5), same_y=lambda: torch.zeros(4))

    @example.mutation
    def marked_further(f_locals: Locals) -> None:
        torch._dynamo.mark_dynamic(f_locals["x"], 1)

    return example


@entry
def all_dynamic() -> Example:
    def function(x: torch.Tensor, y: torch.Tensor, n: int) -> torch.Tensor:
        return (x.reshape(-1) + y.reshape(-1)) * n if x.numel() > 2 * n else x - n

    example = Example(function, torch.ones(4, 6), torch.ones(6, 4), 5, dynamic=True)
    example.rebind("n", small=lambda: 2, large=lambda: 20, zero=lambda: 0, one=lambda: 1, true=lambda: True)
    example.rebind("n", real=lambda: 5.0, huge=lambda: 2**70)
    example.rebind(
        "x", bigger=lambda: torch.ones(5, 6), square=lambda: torch.ones(5, 5), empty=lambda: torch.ones(0, 6)
    )
    example.rebind(
        "y", same=lambda: torch.zeros(6, 4), longer=lambda: torch.ones(6, 5), transposed=lambda: torch.ones(5, 5).t()
    )
    return example


@entry
def aliased_tensors() -> Example:
    x = torch.ones(2)

    def function(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        return x + y * z

    example = Example(function, x, x, torch.ones(2))

    def bind(*names: str) -> Callable[[Locals], None]:
        def change(f_locals: Locals) -> None:
            made = torch.ones(2)
            f_locals.update(dict.fromkeys(names, made))

        return change

    for names in ("x", "y", "z", "xy", "yz", "xyz"):
        example.mutations[f"same_{names}"] = bind(*names)
    return example.rebind("z", view=lambda: x.view(2), none=lambda: None)


@entry
def tensor_subclasses() -> Example:
    def two(first: torch.Tensor, second: torch.Tensor) -> TwoTensor:
        return TwoTensor(first, second)

    example = Example(
        lambda x, y: (x + 1, y * 2), two(torch.ones(2), torch.ones(2)), torch.ones(2).as_subclass(Subclass)
    )
    return example.rebind(
        "x",
        same=lambda: two(torch.zeros(2), torch.zeros(2)),
        longer=lambda: two(torch.zeros(3), torch.zeros(3)),
        dtype=lambda: two(torch.ones(2).double(), torch.ones(2).double()),
        inner_is_plain=lambda: torch.ones(2),
        inner_is_parameter=lambda: two(nn.Parameter(torch.ones(2)), torch.ones(2)),
        inner_requires_grad=lambda: two(torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)),
    ).rebind("y", plain=lambda: torch.ones(2), same_class=lambda: torch.zeros(2).as_subclass(Subclass))


@entry
def gradients() -> Example:
    weight = torch.ones(2, requires_grad=True)

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if weight.grad is None else x + weight.grad

    return Example(function, torch.ones(2)).change(
        backward=lambda: weight.sum().backward(),
        zero=lambda: setattr(weight, "grad", None),
        frozen=lambda: weight.requires_grad_(not weight.requires_grad),
    )
