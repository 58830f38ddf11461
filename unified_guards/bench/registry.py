"""What a workload is, and the table of all of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace
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

    def waiting_for(self, device: str) -> Workload:
        """The same workload, each step of which ends when the device is done; on a CPU, this one."""
        if device == "cpu":
            return self
        return replace(self, step=_then_wait(self.step), eager=_then_wait(self.eager))


def _then_wait(step: Callable[[], Any]) -> Callable[[], Any]:
    import torch

    def waiting() -> Any:
        result = step()
        torch.accelerator.synchronize()
        return result

    return waiting


WORKLOADS: dict[str, Callable[[], Workload]] = {}
#: name of a workload -> the package that it needs beside torch
NEEDS: dict[str, str] = {}
#: name of a workload -> the kind of device without which it is pointless
ONLY_ON: dict[str, str] = {}


def lacks(name: str) -> str | None:
    """The package that a workload needs and that is not installed; None if it can run."""
    needed = NEEDS.get(name)
    return None if needed is None or importlib.util.find_spec(needed) is not None else needed


def names_for(device: str) -> list[str]:
    """The workloads for a device such as ``"cpu"`` or ``"cuda:1"``: its tensors are made there."""
    return [name for name in WORKLOADS if ONLY_ON.get(name) in (None, device.split(":", maxsplit=1)[0])]


def workload(
    name: str, *, needs: str | None = None, only_on: str | None = None
) -> Callable[[Callable[[], Workload]], Callable[[], Workload]]:
    """Registers a function that builds a workload; this is all that adding one takes.

    Args:
        name: what the command line calls it.
        needs: a package beside torch, without which it cannot run.
        only_on: the kind of device that it is for, such as ``"cuda"``; any if None.
    """

    def register(build: Callable[[], Workload]) -> Callable[[], Workload]:
        if name in WORKLOADS:
            raise ValueError(f"two workloads are called {name!r}")
        WORKLOADS[name] = build
        if needs is not None:
            NEEDS[name] = needs
        if only_on is not None:
            ONLY_ON[name] = only_on
        return build

    return register
