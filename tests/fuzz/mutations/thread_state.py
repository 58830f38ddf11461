"""The state of the thread: grad mode, autocast, defaults, modes and hooks."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils import _device

from ...modes import Function, Hidden, Visible
from ..world import World
from .parts import then
from .table import Change, Do, row


def _here(do: Do) -> Do:
    """Only in the thread that the world was made in: the state belongs to a thread, and the restore runs there."""
    thread = threading.get_ident()
    return lambda: do() if threading.get_ident() == thread else None


def _enter(w: World, make: Callable[[], Any]) -> Change:
    """Each of these puts back what it came into, so that all are left, in order, when one is to be."""

    def enter() -> None:
        made = make()
        made.__enter__()
        w.entered.append(made)

    return Change(_here(enter), _here(functools.partial(_leave, w)))


def _leave(w: World) -> None:
    while w.entered:
        w.entered.pop().__exit__(None, None, None)


@row(anywhere=False)
def state_of_the_thread(w: World) -> Iterator[Change]:
    def pair(change: Do, back: Do) -> Change:
        return Change(_here(change), _here(back))

    leave = functools.partial(_leave, w)
    yield pair(lambda: torch.set_grad_enabled(False), then(leave, lambda: torch.set_grad_enabled(True)))
    yield pair(lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32))
    yield pair(lambda: torch.use_deterministic_algorithms(True), lambda: torch.use_deterministic_algorithms(False))
    yield pair(lambda: torch.set_autocast_enabled("cpu", True), lambda: torch.set_autocast_enabled("cpu", False))
    yield _enter(w, lambda: torch._C._InferenceMode(True))
    yield pair(lambda: setattr(forward_ad, "_current_level", 0), lambda: setattr(forward_ad, "_current_level", -1))
    yield pair(
        lambda: setattr(_device, "CURRENT_DEVICE", torch.device("cpu")),
        lambda: setattr(_device, "CURRENT_DEVICE", None),
    )


@row(anywhere=False)
def modes_and_hooks(w: World) -> Iterator[Change]:
    for make in (Function, Hidden, Visible, torch._C.DisableTorchFunctionSubclass):
        yield _enter(w, make)
    yield _enter(w, lambda: torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x))
