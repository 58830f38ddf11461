"""Tensors: metadata, data, gradients, attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..world import World
from .parts import attribute, in_place, number, put, refill, setter
from .table import Change, Do, row


def scratch(w: World) -> Iterator[tuple[torch.Tensor, Do]]:
    """Tensors that are changed in place, each with what makes it as it was."""
    for tensor in w.space.scratch:

        def back(tensor: Any = tensor) -> None:
            if type(tensor) is not torch.Tensor:
                tensor.__class__ = torch.Tensor
            tensor.requires_grad_(False)
            tensor.data = torch.ones(2, 3)
            tensor.grad = None

        yield tensor, back


@row(3, anywhere=False)
def tensor_data(w: World) -> Iterator[Change]:
    for tensor, back in scratch(w):
        yield Change(setter(tensor, "data", lambda: torch.zeros(2, 3)), back)
        yield Change(setter(tensor, "data", lambda: torch.ones(3, 3)), back)
        yield Change(setter(tensor, "data", lambda: torch.ones(2, 3, dtype=torch.float64)), back)
        yield Change(setter(tensor, "data", lambda: torch.ones(3, 2).t()), back)
        yield Change(setter(tensor, "data", lambda: torch.ones(1, 2, 3)), back)
        yield Change(setter(tensor, "data", lambda: torch.ones(12)[6:].view(2, 3)), back)


@row(3, anywhere=False)
def tensor_metadata_in_place(w: World) -> Iterator[Change]:
    for tensor, back in scratch(w):
        yield Change(lambda tensor=tensor: tensor.detach().resize_(4, 3) is tensor.resize_(4, 3), back)
        yield Change(lambda tensor=tensor: tensor.t_() if tensor.dim() <= 2 else None, back)
        yield Change(lambda tensor=tensor: tensor.unsqueeze_(0), back)
        yield Change(lambda tensor=tensor: tensor.set_(torch.ones(2, 3)), back)
        yield Change(lambda tensor=tensor: tensor.set_(torch.ones(3)), back)
        yield Change(lambda tensor=tensor: tensor.set_(torch.ones(12).untyped_storage(), 2, (2, 3), (3, 1)), back)
        yield Change(lambda tensor=tensor: tensor.as_strided_((2, 2), (1, 1)), back)
        yield Change(lambda tensor=tensor: tensor.untyped_storage().resize_(0), back)
        yield Change(lambda tensor=tensor: tensor.requires_grad_(not tensor.requires_grad), back)
        yield Change(lambda tensor=tensor: tensor.swapaxes_(0, 1) if tensor.dim() > 1 else None, back)


@row(2, anywhere=False, neutral=True)
def tensor_values(w: World) -> Iterator[Change]:
    """Only the numbers in it: no guard reads them."""
    for tensor in w.space.scratch:
        # Another row may have taken its memory away.
        yield Change(lambda tensor=tensor: tensor.untyped_storage().nbytes() > 0 and tensor.detach().add_(1))
        yield Change(lambda tensor=tensor: tensor.untyped_storage().nbytes() > 0 and tensor.detach().zero_())


@row(anywhere=False)
def tensor_class(w: World) -> Iterator[Change]:
    for tensor, back in scratch(w):
        yield Change(put(tensor, "__class__", w.classes.Subclass), back)
    param = w.space.param
    yield Change(put(param, "__class__", torch.nn.Buffer), put(param, "__class__", nn.Parameter))


@row(anywhere=False)
def tensors_swapped(w: World) -> Iterator[Change]:
    """``swap_tensors``: two objects exchange what they stand for."""
    one, two = w.space.scratch[:2]
    other = torch.ones(3, 4, dtype=torch.float64)
    same = torch.ones(2, 3)
    backs = {id(tensor): back for tensor, back in scratch(w)}

    def swap(first: Any, second: Any) -> None:
        try:
            torch.utils.swap_tensors(first, second)
        except RuntimeError:
            pass  # somebody holds a weak reference, or autograd its accumulator

    def back() -> None:
        for tensor in (other, same):
            if tensor.requires_grad:
                tensor.requires_grad_(False)
            tensor.__class__ = torch.Tensor
        other.data, same.data = torch.ones(3, 4, dtype=torch.float64), torch.ones(2, 3)
        backs[id(one)]()
        backs[id(two)]()

    yield Change(lambda: swap(one, other), back)
    yield Change(lambda: swap(one, same), back)
    yield Change(lambda: swap(one, two), back)


@row(anywhere=False)
def tensor_grad(w: World) -> Iterator[Change]:
    graded = w.space.graded
    before = graded.grad
    back = lambda: (graded.requires_grad_(True), setattr(graded, "grad", before))  # noqa: E731
    yield Change(put(graded, "grad", None), back)
    yield Change(setter(graded, "grad", lambda: torch.zeros(2)), back)
    yield Change(lambda: graded.sum().backward(), back)
    for one in w.space.groups[0]["params"]:
        kept = one.grad
        yield Change(put(one, "grad", None), put(one, "grad", kept))
        yield Change(setter(one, "grad", lambda: torch.ones(3)), put(one, "grad", kept))
        yield Change(lambda one=one: one.requires_grad_(False), lambda one=one: one.requires_grad_(True))


@row(anywhere=False)
def gradient_swapped(w: World) -> Iterator[Change]:
    """The gradient is the same to C++, and another object to Python."""
    for one in w.space.groups[0]["params"]:
        kept, other = one.grad, torch.ones(3)

        def swap(one: Any = one, kept: Any = kept, other: Any = other) -> None:
            if one.grad is kept:
                torch._C._swap_tensor_impl(kept, other)  # swap_tensors() refuses what autograd holds

        yield Change(swap, put(one, "grad", kept))


@row(anywhere=False)
def tensor_attributes(w: World) -> Iterator[Change]:
    noted, marked = w.space.noted, w.space.marked
    before = dict(vars(marked))
    refills = [refill(value) for value in before.values() if isinstance(value, (set, dict))]

    def unmarked() -> None:
        vars(marked).clear()
        vars(marked).update(before)
        for fill in refills:
            fill()

    plain = w.space.scratch[3]
    yield from attribute(noted, "note", lambda: {"k": 1}, number)
    yield from in_place(noted.note, lambda: noted.note.update(k=number()))
    yield Change(setter(noted, "extra", number), lambda: vars(noted).pop("extra", None))
    yield Change(lambda: torch._dynamo.mark_dynamic(marked, 1), unmarked)
    yield Change(lambda: torch._dynamo.mark_static(marked, 1), unmarked)
    yield Change(lambda: torch._dynamo.maybe_mark_dynamic(marked, 1), unmarked)
    yield Change(lambda: vars(marked).pop("_has_dynamo_dim_marking", None), unmarked)
    yield Change(lambda: vars(marked).clear(), unmarked)
    yield Change(lambda: torch._dynamo.mark_dynamic(plain, 0), lambda: vars(plain).clear())
    yield Change(lambda: torch._dynamo.mark_static(plain, 0), lambda: vars(plain).clear())


@row()
def tensors_replaced(w: World) -> Iterator[Change]:
    space = w.space
    yield from attribute(space, "view", lambda: torch.ones(2, 3), lambda: space.base[:6].view(2, 3), lambda: space.base)
    yield from attribute(space, "same_again", lambda: torch.arange(12.0), lambda: space.base.view(12))
    yield from attribute(space, "conj", lambda: space.conj.conj(), lambda: torch.ones(2, dtype=torch.complex128))
    yield from attribute(space, "meta", lambda: torch.ones(2, 3), lambda: torch.ones(2, 3, device="meta"))
    yield from attribute(space, "sparse", lambda: torch.eye(3), lambda: torch.eye(3).to_sparse())
    yield from attribute(
        space, "subclass", lambda: torch.ones(2, 3), lambda: torch.ones(2, 3).as_subclass(w.classes.Subclass)
    )
    yield from attribute(space, "param", lambda: torch.ones(2, 3), lambda: nn.Parameter(torch.ones(2, 3), False))
    yield from in_place(
        space.ranks,
        lambda: space.ranks.__setitem__(3, torch.ones(2, 3, 4)),
        lambda: space.ranks.__setitem__(3, torch.ones(2, 3, 5)),
        lambda: space.ranks.__setitem__(0, torch.tensor(2.0)),
        lambda: space.ranks.__setitem__(6, torch.ones(2, 3, 4, 5, 6, 7).transpose(0, 1)),
        lambda: space.ranks.__setitem__(5, torch.ones(2, 3, 4, 5, 6)),
        lambda: space.ranks.reverse(),
    )


@row()
def optimizer_state(w: World) -> Iterator[Change]:
    groups, state = w.space.groups, w.space.state
    one = groups[0]["params"][0]
    yield from in_place(
        groups[0],
        lambda: groups[0].update(lr=0.2),
        lambda: groups[0].update(lr=torch.tensor(0.1)),
        lambda: groups[0].update(betas=(0.9, 0.98)),
        lambda: groups[0].update(maximize=True),
        lambda: groups[0].update(params=list(groups[0]["params"])),
    )
    yield from in_place(groups[0]["params"], lambda: groups[0]["params"].reverse())
    yield from in_place(
        state[one],
        lambda: state[one].update(step=torch.zeros(())),
        lambda: state[one].update(step=torch.zeros(1)),
        lambda: state[one].update(step=1.0),
        lambda: state[one].pop("exp_avg", None),
        lambda: state[one].update(extra=1),
    )
    yield Change(lambda: state.pop(one, None), refill(state))


@row(2)
def a_tensor_for_every_call(w: World) -> Iterator[Change]:
    yield from in_place(w.inputs, lambda: w.inputs.update(x=torch.ones(2, 3)))
    yield from in_place(w.kwargs, lambda: w.kwargs.update(mask=torch.zeros(3)))
