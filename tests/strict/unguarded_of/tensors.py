"""What Dynamo's guard on a tensor does not look at, and numbers that are symbols."""

from __future__ import annotations

from typing import Any

import torch

from ..unguarded import Unguarded, takes, unguarded


def _ones(size: int = 2) -> torch.Tensor:
    return torch.ones(size)


def _leaf() -> torch.Tensor:
    return _ones().requires_grad_()


def _views(size: int) -> tuple[torch.Tensor]:
    return (_ones(size)[:2],)


def _written() -> tuple[torch.Tensor]:
    return (_ones().add_(1).sub_(1),)


def _hooked() -> tuple[torch.Tensor]:
    made = _leaf()
    made.register_hook(lambda gradient: gradient)
    return (made,)


def _retaining() -> tuple[torch.Tensor]:
    made = _leaf() * 1
    made.retain_grad()
    return (made,)


def _bytes(x: torch.Tensor) -> torch.Tensor:
    return x * x.untyped_storage().size()


MEMORY, HISTORY = "the memory of a tensor is read", "of a tensor is read"

takes("is_leaf", lambda x: x * (2 if x.is_leaf else 3), lambda: (_leaf(),), lambda: (_leaf() * 1,))
takes("grad_fn", lambda x: x * (2 if x.grad_fn is None else 3), lambda: (_leaf(),), lambda: (_leaf() * 1,))
takes("size_of_memory", _bytes, lambda: _views(8), lambda: _views(80))
takes("size_of_memory_of_symbols", _bytes, lambda: _views(8), lambda: _views(80), ends=MEMORY, dynamic=True)
takes(
    "size_of_memory_of_a_view",
    lambda x: x * x[:1].untyped_storage().size(),
    lambda: _views(8),
    lambda: _views(80),
    ends=MEMORY,
)
takes("base", lambda x: x * (2 if x._base is None else 3), lambda: (_ones(),), lambda: _views(4), ends=HISTORY)
takes("base_of_a_view", lambda x: x * (2 if x[:1]._base is x else 3), lambda: (_ones(),), lambda: _views(4), HISTORY)
takes("version", lambda x: x + x._version, lambda: (_ones(),), _written, ends=HISTORY)
takes("output_nr", lambda x: x * (x.output_nr + 1), lambda: _split(0), lambda: _split(1), ends=HISTORY)
takes("retains_grad", lambda x: x * (2 if x.retains_grad else 3), lambda: (_leaf() * 1,), _retaining, ends=HISTORY)
takes("hooks", lambda x: x * (2 if x._backward_hooks is None else 3), lambda: (_leaf(),), _hooked, ends=HISTORY)


def _split(at: int) -> tuple[torch.Tensor]:
    return (_leaf().repeat(2).split(2)[at],)


@unguarded
def is_leaf_of_one_tensor() -> Unguarded:
    held = _leaf()

    def change() -> None:
        held.detach_().requires_grad_(False).mul_(_leaf())

    return Unguarded(lambda x: x * (2 if held.is_leaf else 3), change)


@unguarded
def memory_of_one_tensor() -> Unguarded:
    held = _ones()
    return Unguarded(lambda x: x * held.untyped_storage().size(), lambda: held.untyped_storage().resize_(80))


def _class_of(x: torch.Tensor, number: Any) -> torch.Tensor:
    return x + (number if number.__class__ is int else 9)


takes("class_of_a_number", _class_of, lambda: (_ones(), 5), lambda: (_ones(), 6), dynamic=True)
takes(
    "class_of_a_size",
    lambda x: x + (1 if x.shape[0].__class__ is int else 9),
    lambda: (_ones(3),),
    lambda: (_ones(4),),
    dynamic=True,
)
takes(
    "constant_among_symbols",
    lambda x, number: x + (5 in [1, number]),
    lambda: (_ones(), 5),
    lambda: (_ones(), 6),
    dynamic=True,
)


@unguarded
def method_of_all_tensors() -> Unguarded:
    def change() -> None:
        torch.Tensor.relu = lambda x: x * 9  # type: ignore[method-assign, assignment]

    def undo() -> None:
        if "relu" in vars(torch.Tensor):
            del torch.Tensor.relu

    return Unguarded(lambda x: x.relu(), change, undo)


@unguarded
def operator_of_all_tensors() -> Unguarded:
    def change() -> None:
        torch.Tensor.__add__ = lambda x, _: x * 9  # type: ignore[method-assign]

    def undo() -> None:
        torch.Tensor.__add__ = before  # type: ignore[method-assign]

    before = torch.Tensor.__add__
    return Unguarded(lambda x: x + 1, change, undo)


def _array(*sizes: int) -> Any:
    return _ones().numpy().reshape(sizes)


takes("array", lambda x, a: x * a, lambda: (_ones(), _array(1, 2)), lambda: (_ones(), _array(2, 1)), "array of numpy")
