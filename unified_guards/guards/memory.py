"""Which memory a tensor is in. Read where guards are made, of real and of fake tensors alike."""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def storage_of(tensor: Any) -> int | None:
    """Which memory a tensor is in; None where it has none, or keeps it to itself (sparse ones, some subclasses)."""
    if isinstance(tensor, torch.Tensor) and torch._C._has_storage(tensor):
        with contextlib.suppress(RuntimeError, NotImplementedError):
            return int(torch.Tensor.untyped_storage(tensor)._cdata)
    return None


def bytes_of_storage(tensor: torch.Tensor) -> int:
    """How large that memory is."""
    return int(torch.Tensor.untyped_storage(tensor).nbytes())
