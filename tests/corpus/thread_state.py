"""The state of the thread: grad mode, autocast, modes."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from .example import Example, entry


class FunctionMode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@entry
def thread_state() -> Example:
    example = Example(lambda x: x * 2, torch.ones(2))
    modes: list[FunctionMode] = []

    def push() -> None:
        modes.append(FunctionMode())
        modes[-1].__enter__()

    def pop() -> None:
        if modes:
            modes.pop().__exit__(None, None, None)

    example.cleanups += [lambda: torch.set_grad_enabled(True), lambda: torch.set_default_dtype(torch.float32)]
    example.cleanups += [lambda: torch.use_deterministic_algorithms(False), lambda: [pop() for _ in list(modes)]]
    example.cleanups.append(lambda: torch.set_autocast_enabled("cpu", False))
    return example.change(
        no_grad=lambda: torch.set_grad_enabled(False),
        grad=lambda: torch.set_grad_enabled(True),
        default_dtype=lambda: torch.set_default_dtype(torch.float64),
        default_dtype_back=lambda: torch.set_default_dtype(torch.float32),
        deterministic=lambda: torch.use_deterministic_algorithms(True),
        not_deterministic=lambda: torch.use_deterministic_algorithms(False),
        autocast=lambda: torch.set_autocast_enabled("cpu", True),
        no_autocast=lambda: torch.set_autocast_enabled("cpu", False),
        mode=push,
        no_mode=pop,
    )
