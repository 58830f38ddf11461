"""A tensor whose operators, and whose guard, run code of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.utils._pytree as pytree

#: What is called by the next operator, or by the next guard.
on_dispatch: list[Callable[[], Any]] = []
on_guard: list[Callable[[], Any]] = []


class Logged(torch.Tensor):
    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Logged:
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    def __tensor_flatten__(self) -> tuple[list[str], dict[str, Any]]:
        return ["inner"], {}

    @classmethod
    def __metadata_guard__(cls, saved: Any, current: Any) -> bool:
        if on_guard:
            on_guard.pop()()
        return saved == current

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Any], context: Any, size: Any, stride: Any) -> Logged:
        return Logged(inner["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if on_dispatch:
            on_dispatch.pop()()
        args = pytree.tree_map_only(Logged, lambda each: each.inner, args)
        return pytree.tree_map_only(torch.Tensor, Logged, func(*args, **(kwargs or {})))
