"""Changes of tensors, each tried in every place where it can be, and undone: every verdict is compared with torch's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..protocol import VERIFIED, Run, program


def _told(x: Any, v: Any) -> Any:
    x = x + v.dim() * 1000 + (500 if v.requires_grad else 0) + (250 if v.dtype == torch.float32 else 0)
    for size, stride in zip(v.shape, v.stride()):  # noqa: B905
        x = x * 3 + size * 7 + stride
    return x + (0.5 if isinstance(v, nn.Parameter) else 0.25)


class Sub(torch.Tensor):
    pass


class Other(torch.Tensor):
    pass


def _dense() -> Any:
    return torch.ones(4, 3)


def _complex() -> Any:
    return torch.ones(4, 3, dtype=torch.complex64)


def _square() -> Any:
    return torch.ones(3, 3)


def _parameter() -> Any:
    return nn.Parameter(torch.ones(4, 3))


def _view() -> Any:
    return torch.ones(8, 3)[:4]


def _put(tensor: Any, other: Any) -> None:
    tensor.data = other


def _inference() -> Any:
    with torch.inference_mode():
        return torch.ones(4, 3)


def _base_of(tensor: Any) -> Any:
    return tensor._base


def _history(tensor: Any) -> None:
    tensor.mul_(torch.ones(tensor.shape, requires_grad=True))


Change = tuple[Callable[[], Any], Callable[[Any], Any]]

CHANGES: dict[str, Change] = {
    "t_": (_dense, lambda t: t.t_()),
    "t_ of a square": (_square, lambda t: t.t_()),
    "transpose_": (_dense, lambda t: t.transpose_(0, 1)),
    "swapaxes_": (_dense, lambda t: t.swapaxes_(0, 1)),
    "unsqueeze_": (_dense, lambda t: t.unsqueeze_(0)),
    "squeeze_": (lambda: torch.ones(1, 3), lambda t: t.squeeze_()),
    "as_strided_ sizes": (_dense, lambda t: t.as_strided_((2, 3), (3, 1))),
    "as_strided_ strides": (_dense, lambda t: t.as_strided_((4, 3), (1, 4))),
    "as_strided_ offset": (lambda: torch.ones(20)[:4], lambda t: t.as_strided_((4,), (1,), 3)),
    "resize_": (_dense, lambda t: t.resize_(5, 3)),
    "resize_ to nothing": (_dense, lambda t: t.resize_(0)),
    "resize_ of rank": (_dense, lambda t: t.resize_(12)),
    "resize_as_": (_dense, lambda t: t.resize_as_(torch.ones(2, 2))),
    "set_": (_dense, lambda t: t.set_(torch.ones(6, 2))),
    "set_ to nothing": (_dense, lambda t: t.set_()),
    "set_ of a storage": (_dense, lambda t: t.set_(torch.ones(50).untyped_storage(), 0, (5, 5))),
    "data of sizes": (_dense, lambda t: _put(t, torch.ones(5, 3))),
    "data of strides": (_dense, lambda t: _put(t, torch.ones(3, 4).t())),
    "data of dtype": (_dense, lambda t: _put(t, torch.ones(4, 3, dtype=torch.float64))),
    "data of rank": (_dense, lambda t: _put(t, torch.ones(4, 3, 1))),
    "data of meta": (_dense, lambda t: _put(t, torch.ones(4, 3, device="meta"))),
    "data of a parameter": (_parameter, lambda t: _put(t, torch.ones(6, 3))),
    "dtype of a parameter": (_parameter, lambda t: _put(t, t.data.double())),
    "requires_grad_": (_dense, lambda t: t.requires_grad_()),
    "requires_grad off": (_parameter, lambda t: t.requires_grad_(False)),
    "requires_grad set": (_dense, lambda t: setattr(t, "requires_grad", True)),
    "history": (_dense, _history),
    "history of a view": (_view, _history),
    "detach_": (lambda: torch.ones(4, 3, requires_grad=True) * 2, lambda t: t.detach_()),
    "base asked": (_view, lambda t: _base_of(t).requires_grad_()),
    "base multiplied": (_view, lambda t: _history(_base_of(t))),
    "base filled": (_view, lambda t: _base_of(t).fill_(3)),
    "base resized": (_view, lambda t: _base_of(t).resize_(2, 2)),
    "base of data": (_view, lambda t: _put(_base_of(t), torch.ones(2))),
    "swap of sizes": (_dense, lambda t: torch.utils.swap_tensors(t, torch.ones(5, 3))),
    "swap of grad": (_dense, lambda t: torch.utils.swap_tensors(t, torch.ones(4, 3, requires_grad=True))),
    "swap of class": (_dense, lambda t: torch.utils.swap_tensors(t, _parameter())),
    "class to subclass": (_dense, lambda t: setattr(t, "__class__", Sub)),
    "class to parameter": (_dense, lambda t: setattr(t, "__class__", nn.Parameter)),
    "class of a subclass": (lambda: _dense().as_subclass(Sub), lambda t: setattr(t, "__class__", Other)),
    "class of a parameter": (_parameter, lambda t: setattr(t, "__class__", torch.Tensor)),
    "conj": (_complex, lambda t: torch._C._set_conj(t, True)),
    "neg": (_dense, lambda t: torch._C._set_neg(t, True)),
    "conj of a conj": (lambda: _complex().conj(), lambda t: torch._C._set_conj(t, False)),
    "storage to nothing": (_dense, lambda t: t.untyped_storage().resize_(0)),
    "storage larger": (_dense, lambda t: t.untyped_storage().resize_(400)),
    "values": (_dense, lambda t: t.fill_(7)),
    "grad": (_parameter, lambda t: setattr(t, "grad", torch.ones(4, 3))),
    "attribute": (_dense, lambda t: setattr(t, "note", 3)),
    "marked dynamic": (_dense, lambda t: torch._dynamo.mark_dynamic(t, 0)),
    "marked static": (_dense, lambda t: torch._dynamo.mark_static(t, 0)),
    "inference transposed": (_inference, lambda t: t.t_()),
    "inference resized": (_inference, lambda t: t.resize_(2, 3)),
    "share_memory_": (_dense, lambda t: t.share_memory_()),
    "retain_grad": (lambda: torch.ones(4, 3, requires_grad=True) * 2, lambda t: t.retain_grad()),
    "hook": (lambda: torch.ones(4, 3, requires_grad=True), lambda t: t.register_hook(lambda grad: grad)),
    "unsafe dtype view": (_dense, lambda t: _put(t, t.data.view(torch.int32))),
    "zero-size": (lambda: torch.ones(0, 3), lambda t: t.resize_(0, 4)),
    "expanded": (lambda: torch.ones(1, 3).expand(4, 3), lambda t: t.as_strided_((4, 3), (3, 0))),
    "multi-output": (lambda: torch.ones(4, 3).unbind()[0], lambda t: t.unsqueeze_(0)),
    "subclass requires grad": (lambda: _dense().as_subclass(Sub), lambda t: t.requires_grad_()),
    "subclass resized": (lambda: _dense().as_subclass(Sub), lambda t: t.resize_(5, 3)),
}
UNDO: tuple[Callable[[Any], Any], ...] = (
    lambda t: torch.utils.swap_tensors(t, torch.ones(4, 3)),
    lambda t: t.data.set_(torch.ones(4, 3)),
)
PLACES = ("argument", "module", "dict", "cell")


@program(variants=VERIFIED, change=tuple(CHANGES))
def changed_and_undone(run: Run, change: str) -> None:
    make, apply = CHANGES[change]
    for place in PLACES:
        torch._dynamo.reset()
        tensor = make()
        spot = run.spot(place, _told, tensor)
        with contextlib.suppress(RuntimeError, TypeError):
            apply(tensor)
        for _ in range(2):
            spot.step(f"{place}: changed")
        for index, undo in enumerate(UNDO):
            with contextlib.suppress(RuntimeError, TypeError):
                undo(tensor)
            spot.step(f"{place}: undone {index}")
        with contextlib.suppress(RuntimeError, TypeError):
            apply(tensor)
        spot.step(f"{place}: changed again")
