"""C++ tensors whose sizes come from a policy of their own, and every kind of tensor changed in place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from unified_guards import _C
from unified_guards.guards.ir import Guard, TensorFacts, Test, guard

from ...guards import checker, item
from ..protocol import Holder, Run, direct, program


def _like(value: Any) -> Guard:
    keys, dtype, index, requires_grad = _C.tensor_facts(value, None)
    facts = TensorFacts(
        id(type(value)),
        keys,
        dtype,
        index,
        requires_grad,
        _size(value),
        _stride(value),
        False,
        "Tensor",
        str(value.dtype),
    )
    return guard(Test.TENSOR, (item("w"),), (facts,))


def _size(value: Any) -> tuple[int, ...]:
    return tuple(value.size())


def _stride(value: Any) -> tuple[int, ...]:
    return tuple(value.stride())


def _told(value: Any) -> Any:
    try:
        return (
            _size(value),
            _stride(value),
            value.dtype,
            value.device,
            value.requires_grad,
            value.is_conj(),
            value.is_neg(),
        )
    except RuntimeError as error:
        return type(error), str(error)


def _probe(run: Run, make: Callable[[], Any], *changes: Callable[[Any], Any]) -> None:
    for index, change in enumerate(changes):
        tensor = make()
        holder = Holder()
        holder.w = tensor
        before = _told(tensor)
        made = checker(_like(tensor))
        for _ in range(4):
            run.expect(made, {"x": holder}, True, "before")
        with contextlib.suppress(RuntimeError, AssertionError):
            change(tensor)
        run.expect(made, {"x": holder}, _told(tensor) == before, f"change {index}")
        for again, later in enumerate(changes):
            with contextlib.suppress(RuntimeError, AssertionError):
                later(tensor)
            run.expect(made, {"x": holder}, _told(tensor) == before, f"change {index} then {again}")


def _functional(*shape: int) -> Any:
    return torch._to_functional_tensor(torch.ones(*shape))


CHANGES: tuple[Callable[[Any], Any], ...] = (
    lambda w: w.t_(),
    lambda w: torch._sync(w),
    lambda w: w.unsqueeze_(0),
    lambda w: w.squeeze_(),
    lambda w: w.resize_(24),
    lambda w: w.as_strided_((2, 2), (1, 2)),
    lambda w: w.set_(_functional(5, 5)),
    lambda w: torch._functionalize_replace(w, torch.ones(7, 7)),
    lambda w: torch._functionalize_commit_update(w),
    lambda w: setattr(w, "data", _functional(2, 2)),
    lambda w: w.swapaxes_(0, 1),
)


@direct
def functional(run: Run) -> None:
    _probe(run, lambda: _functional(3, 4), *CHANGES)


@direct
def functional_view(run: Run) -> None:
    _probe(run, lambda: _functional(4, 4)[:3], *CHANGES)


def _enabled(change: Callable[[], Any]) -> None:
    torch._enable_functionalization(reapply_views=True)
    try:
        change()
    finally:
        torch._disable_functionalization()


@direct
def functional_while_enabled(run: Run) -> None:
    changes = [lambda w, change=change: _enabled(lambda: change(w)) for change in CHANGES if change is not CHANGES[6]]
    _probe(run, lambda: _functional(4, 4), *changes)


@direct
def batched(run: Run) -> None:
    from torch._C._functorch import _add_batch_dim, _vmap_decrement_nesting, _vmap_increment_nesting

    level = _vmap_increment_nesting(3, "error")
    try:
        for dimension in range(3):
            _probe(
                run,
                lambda d=dimension: _add_batch_dim(torch.ones(3, 3, 3), d, level),
                lambda w: w.t_(),
                lambda w: w.unsqueeze_(0),
                lambda w: w.squeeze_(0),
                lambda w: w.requires_grad_(),
                lambda w: setattr(w, "data", torch.ones(2)),
            )
    finally:
        _vmap_decrement_nesting()


@direct
def dense_with_flags(run: Run) -> None:

    def complex_ones() -> Any:
        return torch.ones(3, 4, dtype=torch.complex64)

    changes = (
        lambda w: w.t_(),
        lambda w: torch._C._set_conj(w, not w.is_conj()),
        lambda w: torch._C._set_neg(w, not w.is_neg()),
        lambda w: w.unsqueeze_(0),
        lambda w: w.requires_grad_(),
        lambda w: w.as_strided_((2, 2), (1, 2)),
        lambda w: w.untyped_storage().resize_(0),
        lambda w: setattr(w, "data", torch.ones(2)),
    )
    _probe(run, complex_ones, *changes)
    _probe(run, lambda: complex_ones().conj(), *changes)
    _probe(run, lambda: complex_ones().conj().imag, *changes)
    _probe(run, lambda: torch._neg_view(torch.ones(3, 4)), *changes)
    _probe(run, lambda: torch._efficientzerotensor((3, 4)), *changes)
    _probe(run, lambda: torch.ones(3, 4, device="meta"), *changes)
    _probe(run, lambda: torch.quantize_per_tensor(torch.ones(3, 4), 1.0, 0, torch.qint8), *changes)
    _probe(run, lambda: torch.ones(0, 4), *changes)
    _probe(run, lambda: torch.ones(3, 4)[::2, 1:], *changes)
    _probe(run, lambda: torch.ones(3, 4).unbind()[0], *changes)
    _probe(run, lambda: nn.Parameter(torch.ones(3, 4)).detach(), *changes)


@direct
def in_inference_mode(run: Run) -> None:
    def made() -> Any:
        with torch.inference_mode():
            return torch.ones(3, 4)

    _probe(run, made, lambda w: w.t_(), lambda w: setattr(w, "data", torch.ones(2)))


@program()
def functional_attribute(run: Run) -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = _functional(3, 4)

        def forward(self, x: Any) -> Any:
            return x + self.w.shape[0]

    x = torch.zeros(1)
    for change in CHANGES:
        torch._dynamo.reset()
        module = Held()
        compiled = run.compile(module)
        run.warm(lambda: compiled(x))
        with contextlib.suppress(RuntimeError):
            change(module.w)
        for _ in range(2):
            run.step(lambda: compiled(x), lambda: module(x))


@program(
    kind=("coo", "csr", "csc", "bsr", "mkldnn", "quantised", "nested", "jagged", "fake", "wrapper", "efficient_zero")
)
def other_kinds(run: Run, kind: str) -> None:
    """The guards of a tensor of each kind that is swapped for, or becomes, one of another size."""
    from torch.testing._internal.two_tensor import TwoTensor

    dense = torch.ones(4, 4)
    makes: dict[str, Callable[[Any], Any]] = {
        "coo": lambda t: t.to_sparse(),
        "csr": lambda t: t.to_sparse_csr(),
        "csc": lambda t: t.to_sparse_csc(),
        "bsr": lambda t: t.to_sparse_bsr((2, 2)),
        "mkldnn": lambda t: t.to_mkldnn(),
        "quantised": lambda t: torch.quantize_per_tensor(t, 1.0, 0, torch.qint8),
        "nested": lambda t: torch.nested.nested_tensor([t, t[:2]]),
        "jagged": lambda t: torch.nested.nested_tensor([t, t[:2]], layout=torch.jagged),
        "fake": lambda t: torch._subclasses.FakeTensorMode().from_tensor(t),
        "wrapper": lambda t: TwoTensor(t, t),
        "efficient_zero": lambda t: torch._efficientzerotensor(tuple(t.shape)),
    }
    make = makes[kind]
    value = make(dense)

    def use(x: Any, v: Any) -> Any:
        return x + v.dim() * 100 + (10 if v.requires_grad else 20)

    for place in ("argument", "module"):
        torch._dynamo.reset()
        spot = run.spot(place, use, value)
        for name, change in (
            ("sparse_resize_", lambda w: w.sparse_resize_((5, 5), 2, 0)),
            ("requires_grad_", lambda w: w.requires_grad_()),
            ("unsqueeze_", lambda w: w.unsqueeze_(0)),
            ("data", lambda w: setattr(w, "data", make(torch.ones(6, 6)))),
            ("detach_", lambda w: w.detach_().requires_grad_(False)),
        ):
            with contextlib.suppress(Exception):
                change(value)
            spot.step(name)
