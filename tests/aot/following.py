"""Comparing a compiled function with eager while something that it reads changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from functorch.compile import nop

import unified_guards

from .helpers import ones


def follows(function: Callable[..., Any], *changes: Callable[[], Any], args: tuple[Any, ...] = ()) -> Any:
    """Compiled and eager agree before and after each change, twice; every change is seen once, nothing runs eagerly."""
    args = args or (ones(2),)
    compiled = unified_guards.aot_function(function, nop)
    for change in (lambda: None, *changes):
        change()
        for _ in range(2):
            torch.testing.assert_close(compiled(*args), function(*args), rtol=0, atol=0)
    info = compiled.cache_info()
    assert info.eager == {}
    assert info.recompiles == len(changes), compiled.explain().summary()
    return compiled


def setter(target: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(target, name, value)


def item_setter(target: Any, key: Any, value: Any) -> Callable[[], None]:
    return lambda: target.__setitem__(key, value)


def agrees(function: Callable[..., Any], *changes: Callable[[], Any]) -> None:
    """As :func:`follows`; running eagerly is allowed, being wrong is not."""
    compiled = unified_guards.aot_function(function, nop)
    for change in (lambda: None, *changes):
        change()
        for _ in range(2):
            torch.testing.assert_close(compiled(ones(2)), function(ones(2)), rtol=0, atol=0)
