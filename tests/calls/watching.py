"""Compiled functions whose calls are counted: how many took the short way, how many the long one and why."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..harness import Watched, run_threads

NOTHING_COMPILED = "nothing is compiled for this function yet"
MISS = "no entry fits"
ARGUMENTS = "the arguments do not fit the signature"
CHANGED = "the compiled function has another code, closure or class than it had"
HOOKS = "the module has hooks, or a forward of its own"


THREADS = 8


class Model(torch.nn.Module):
    """A module with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def wrapper_of(compiled: Any) -> Any:
    """The function that torch put around what was compiled."""
    if isinstance(compiled, torch.nn.Module):
        return vars(compiled)["forward"] if "_orig_mod" in compiled._modules else compiled._compiled_call_impl
    return compiled


def dispatcher_of(compiled: Any) -> Any:
    return vars(wrapper_of(compiled))["_unified_guards_dispatcher"]


def shorts(compiled: Any) -> int:
    return dispatcher_of(compiled).counts[0]


def longs(compiled: Any) -> dict[str, int]:
    return dispatcher_of(compiled).counts[1]


@contextlib.contextmanager
def short(compiled: Any, calls: int = 1) -> Iterator[None]:
    """Inside, so many calls take the short way and none the long one."""
    before, reasons = dispatcher_of(compiled).counts
    yield
    assert dispatcher_of(compiled).counts == (before + calls, reasons)


@contextlib.contextmanager
def long(compiled: Any, why: str, calls: int = 1) -> Iterator[None]:
    """Inside, so many calls take the long way, for that reason, and none the short one."""
    before, reasons = dispatcher_of(compiled).counts
    yield
    want = {**reasons, why: reasons.get(why, 0) + calls}
    assert dispatcher_of(compiled).counts == (before, want)


def watched(function: Callable[..., Any], *args: Any, **options: Any) -> Watched:
    """Compiled, and called with these arguments until it takes the short way."""
    made = Watched(function, **options)
    for _ in range(2):
        made(*args)
    with short(made.compiled):
        made(*args)
    return made


def in_threads(work: Callable[[int], None], count: int = THREADS) -> None:
    """Each thread begins when all are there. What one raises is raised."""
    start = threading.Barrier(count)
    errors: list[BaseException] = []

    def run(at: int) -> None:
        try:
            start.wait(60)
            work(at)
        except BaseException as error:
            errors.append(error)

    run_threads([lambda at=at: run(at) for at in range(count)])  # type: ignore[misc]
    if errors:
        raise errors[0]
