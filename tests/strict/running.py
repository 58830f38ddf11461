"""How cases are compiled and asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

import unified_guards
from unified_guards.dynamo import entry as dynamo_entry
from unified_guards.dynamo.guard_manager import entries_of
from unified_guards.guards.ir import GuardSet

from ..harness import guards_without_shortcuts
from .cases import Case


def compiled(made: Case) -> Callable[..., Any]:
    return torch.compile(made.function, backend=made.backend, dynamic=False)


def is_right(made: Case, call: Callable[..., Any]) -> bool:
    try:
        got = made.use(call)
    except (RuntimeError, AssertionError):  # torch tries to make views of memory that is not there
        return False
    return torch.equal(got, made.use(made.function))


def entries(made: Case) -> list[dynamo_entry.DynamoEntry]:
    """Of the function itself, not of what is left of it after a graph break."""
    return entries_of(made.function.__code__)


def settings(made: Case) -> contextlib.AbstractContextManager[Any]:
    """Torch's defaults for what it does not notice; where it does, without 2.11's shortcuts through dict tags."""
    return contextlib.nullcontext() if made.stale else guards_without_shortcuts()


def extras(function: Callable[..., Any]) -> GuardSet:
    """The strict guards of the newest entry."""
    found = unified_guards.explain(function).frames[0].guard_set
    assert found is not None
    return GuardSet(entry for entry in found.entries() if entry[1].maker == "strict")
