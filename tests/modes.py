"""Dispatch modes of the same keys: under one, guards see the keys of Python code; under the other they do not."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Visible(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Hidden(Visible):
    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True
