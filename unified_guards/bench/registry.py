"""What a workload is, and the table of all of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Workload:
    """One program to measure. Both callables return a tensor or a pytree of tensors, to be compared."""

    step: Callable[[], Any]
    """One compiled step: all that a user would repeat."""
    eager: Callable[[], Any]
    """The same step without torch.compile, on its own copy of whatever the step changes."""
    grad: bool = False
    """Whether steps run with gradients enabled."""
    stateful: bool = False
    """Whether a step depends on the steps before it: the eager copy then has to catch up before a comparison."""


WORKLOADS: dict[str, Callable[[], Workload]] = {}
#: name of a workload -> the package that it needs beside torch
NEEDS: dict[str, str] = {}


def lacks(name: str) -> str | None:
    """The package that a workload needs and that is not installed; None if it can run."""
    needed = NEEDS.get(name)
    return None if needed is None or importlib.util.find_spec(needed) is not None else needed


def workload(name: str, *, needs: str | None = None) -> Callable[[Callable[[], Workload]], Callable[[], Workload]]:
    """Registers a function that builds a workload; this is all that adding one takes.

    Args:
        name: what the command line calls it.
        needs: a package beside torch, without which it cannot run.
    """

    def register(build: Callable[[], Workload]) -> Callable[[], Workload]:
        if name in WORKLOADS:
            raise ValueError(f"two workloads are called {name!r}")
        WORKLOADS[name] = build
        if needs is not None:
            NEEDS[name] = needs
        return build

    return register
