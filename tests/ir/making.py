"""Sources and sets that the tests of guard sets are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import unified_guards
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source

from ..guards import local

ROOT = __file__.rpartition("tests")[0]
DYNAMO = Provenance("dynamo", "a part of code")


def item(key: object, base: Source | None = None) -> Source:
    return (base or local()).child(Access.DICT_ITEM, key)


def set_of(*guards: Guard) -> GuardSet:
    return GuardSet((item, DYNAMO) for item in guards)


def lifted(function: Callable[..., Any], *args: Any, **options: Any) -> GuardSet:
    """The guards of a function's only cache entry."""
    torch._dynamo.reset()
    with unified_guards.installed():
        torch.compile(function, backend="eager", **options)(*args)
    (report,) = unified_guards.explain(function).frames
    assert report.guard_set is not None
    return report.guard_set


X, Y = local("x"), local("y")
ROWS = X.child(Access.TENSOR_SIZE, 0)


def golden(x: torch.Tensor, flag: bool, d: dict[str, Any]) -> torch.Tensor:
    return x * d["a"] if flag and d["b"][0] == "text" else x
