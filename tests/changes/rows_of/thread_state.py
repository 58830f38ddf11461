"""Rows of torch's own state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch._dynamo
from torch.overrides import TorchFunctionMode

from ..rows import PYTHON

# Torch's own state


class Counting(TorchFunctionMode):
    def __torch_function__(self, function: Any, kinds: Any, given: Any = (), named: Any = None) -> Any:
        return function(*given, **(named or {}))


def context_row(name: str, context: Callable[[], Any], function: Any = lambda x, w: x @ w + 1) -> None:
    def row() -> Iterator[Any]:
        yield function, [torch.ones(2, 2), torch.ones(2, 2, requires_grad=True)]
        with context():
            yield
        yield

    PYTHON[f"state_{name}"] = row


def switch_row(name: str, get: Callable[[], Any], put_back: Callable[[Any], Any], value: Any) -> None:
    def row() -> Iterator[Any]:
        before = get()
        put_back(before)  # what was never set is not the same to torch as what was set to the default
        try:
            yield lambda x: (x + 1, torch.ones(2)), [torch.ones(2)]
            put_back(value)
            yield
        finally:
            put_back(before)
        yield

    PYTHON[f"state_{name}"] = row


context_row("no_grad", torch.no_grad)
context_row("inference_mode", torch.inference_mode)
context_row("autocast", lambda: torch.autocast("cpu", dtype=torch.bfloat16))
context_row("torch_function_mode", Counting)
context_row("torch_function_off", torch._C.DisableTorchFunction)
context_row("default_device", lambda: torch.device("meta"), lambda x, w: (x + 1, torch.ones(2)))
switch_row("default_dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float64)
switch_row("num_threads", torch.get_num_threads, torch.set_num_threads, 2 if torch.get_num_threads() != 2 else 1)
switch_row("deterministic", torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True)
switch_row("matmul_precision", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium")
