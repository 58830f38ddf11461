"""Tensors of every kind that torch has."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..world import World
from .parts import born_again
from .table import Change, Do, row


def _graded() -> torch.Tensor:
    return torch.ones((), requires_grad=True)


def _data(tensor: Any, other: Any) -> None:
    tensor.data = other


#: What may happen to a tensor; `make` makes another of its kind.
_OF_TENSORS: dict[str, Callable[[Any, Any], object]] = {
    "t_": lambda tensor, make: tensor.t_(),
    "unsqueeze_": lambda tensor, make: tensor.unsqueeze_(0),
    "resize_": lambda tensor, make: tensor.resize_(3, 4),
    "requires_grad_": lambda tensor, make: tensor.requires_grad_(not tensor.requires_grad),
    "detach_": lambda tensor, make: tensor.detach_(),
    "times_graded": lambda tensor, make: tensor.mul_(_graded()),
    "base_times_graded": lambda tensor, make: tensor._base.mul_(_graded()),
    "data": lambda tensor, make: _data(tensor, make(1)),
    "set_": lambda tensor, make: tensor.set_(make(1)),
    "as_strided_": lambda tensor, make: tensor.as_strided_((2, 2), (1, 2)),
    "no_storage": lambda tensor, make: tensor.untyped_storage().resize_(0),
    "marked": lambda tensor, make: torch._dynamo.mark_dynamic(tensor, 0),
    "renamed": lambda tensor, make: tensor.rename_(None),
    "sparse_resize_": lambda tensor, make: tensor.sparse_resize_((5, 5), 2, 0),
}
#: Where torch crashes: the level of a batched one is over, others have no memory or, now and then, no mode.
_NEVER = {
    "batched": tuple(_OF_TENSORS),
    "zero": ("resize_",),
    "emptied": ("times_graded",),
    "functional": ("times_graded",),
}


def _may(change: Do) -> bool:
    try:
        change()
    except Exception:  # torch refuses many changes of many kinds, each with an exception of its own choice
        return False
    return True


class _Kinds:
    """The tensors of every kind, each changed once at most before it is put back: torch crashes where one change meets
    what another left."""

    def __init__(self, w: World) -> None:
        self.held, self.makers = w.space.kinds, w.kinds()
        self.changed: dict[str, None] = w.changed_kinds

    def change(self, names: tuple[str, ...], do: Callable[..., object]) -> Change:
        return Change(functools.partial(self._do, names, do), functools.partial(self._back, names))

    def _do(self, names: tuple[str, ...], do: Callable[..., object]) -> None:
        if not any(name in self.changed for name in names):
            self.changed.update(dict.fromkeys(names))
            with torch.inference_mode(False):
                do(*(getattr(self.held, name) for name in names))

    def _back(self, names: tuple[str, ...]) -> None:
        for name in names:
            with torch.inference_mode(False):
                born_again(self.held, name, self.makers[name], 0, most=2)
            self.changed.pop(name, None)

    def born_again(self, name: str, make: Callable[[int], Any], variant: int) -> Change:
        # The object is not handed on: it is to die.
        return Change(functools.partial(self._reborn, name, make, variant), functools.partial(self._back, (name,)))

    def _reborn(self, name: str, make: Callable[[int], Any], variant: int) -> None:
        self.changed[name] = None
        with torch.inference_mode(False):
            born_again(self.held, name, make, variant, most=2)


@row(3, anywhere=False)
def tensor_kinds_in_place(w: World) -> Iterator[Change]:
    """Whatever a tensor of that kind takes."""
    kinds = _Kinds(w)
    for name, make in kinds.makers.items():
        for what, change in _OF_TENSORS.items():
            if "base" in what or what in _NEVER.get(name, ()):
                continue
            if _may(lambda make=make, change=change: change(make(0), make)):
                yield kinds.change((name,), lambda tensor, make=make, change=change: change(tensor, make))


@row(2, anywhere=False)
def base_comes_to_require_grad(w: World) -> Iterator[Change]:
    """A view's own fields stay as they are."""
    kinds, change = _Kinds(w), _OF_TENSORS["base_times_graded"]
    for name, make in kinds.makers.items():
        if name != "batched" and _may(lambda make=make: change(make(0), make)):
            yield kinds.change((name,), lambda tensor, make=make: change(tensor, make))


@row(anywhere=False)
def tensor_kinds_swapped(w: World) -> Iterator[Change]:
    """A tensor comes to stand for one of another kind, at its own address."""
    kinds = _Kinds(w)
    names = list(kinds.makers)
    for pair in [*((name, "plain") for name in names if name != "plain"), *zip(names, names[7:], strict=False)]:
        first, second = (kinds.makers[name](0) for name in pair)
        if _may(lambda first=first, second=second: torch.utils.swap_tensors(first, second)):
            yield kinds.change(pair, torch.utils.swap_tensors)


@row(2)
def tensor_kinds_replaced(w: World) -> Iterator[Change]:
    """Another of the same kind, of which something may differ, where the first was; one of another kind."""
    kinds = _Kinds(w)
    names = list(kinds.makers)
    for at, (name, make) in enumerate(kinds.makers.items()):
        yield kinds.born_again(name, make, 1)
        yield kinds.born_again(name, kinds.makers[names[(at + 5) % len(names)]], 0)
