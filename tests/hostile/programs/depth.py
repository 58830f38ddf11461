"""Structures that are deep, or seem small and are huge: no native recursion without a bound, no exponential walk."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...guards import checker, equals, item, same
from ..protocol import Holder, Run, direct, program, recorded


def _nested(make: Callable[[int, Any], Any], start: Any, count: int) -> Any:
    value = start
    for index in range(count):
        value = make(index, value)
    return value


def _object(index: int, inner: Any) -> Any:
    made = Holder()
    made.inner = inner
    return made


def _ring() -> Any:
    ring: list[Any] = []
    ring.append(ring)
    return ring


def _dict_ring() -> Any:
    ring: dict[str, Any] = {}
    ring["k"] = ring
    return ring


DEEP: dict[str, Callable[[], Any]] = {
    "tuple": lambda: _nested(lambda index, value: (index, value), (), 300_000),
    "tuple_first": lambda: _nested(lambda index, value: (value, index), (), 300_000),
    "list": lambda: _nested(lambda index, value: [value], [], 100_000),
    "dict": lambda: _nested(lambda index, value: {"k": value}, {}, 100_000),
    "mixed": lambda: _nested(lambda index, value: ({"k": [value]}, 1), (), 60_000),
    "objects": lambda: _nested(_object, None, 60_000),
    "frozenset": lambda: _nested(lambda index, value: frozenset((value,)), frozenset(), 1_000),
    # Of a strange object: Dynamo itself walks every path through shared tuples of constants.
    "shared_tuples": lambda: _nested(lambda index, value: (value, value), Holder(), 64),
    "shared_lists": lambda: _nested(lambda index, value: [value, value], [], 64),
    "shared_dicts": lambda: _nested(lambda index, value: {"a": value, "b": value}, {}, 64),
    "ring": _ring,
    "dict_ring": _dict_ring,
    "wide": lambda: tuple(range(200_000)),
}


@program(value=tuple(DEEP))
def none_becomes_deep(run: Run, value: str) -> None:
    class History(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.history = None

        def forward(self, x: Any) -> Any:
            return x + 1 if self.history is None else x + 2

    module, x = History(), torch.zeros(2)
    compiled = run.compile(module)
    run.warm(lambda: compiled(x))
    deep = DEEP[value]()
    module.history = deep
    for _ in range(3):
        run.step(lambda: compiled(x), lambda: module(x), "deep")
    module.history = None
    run.step(lambda: compiled(x), lambda: module(x), "none")


@program(value=("shared_tuples", "tuple", "list", "ring", "dict_ring"))
def shallow_becomes_deep(run: Run, value: str) -> None:
    """The value is compared with what it was, a small one of the same type."""
    small: dict[str, Any] = {
        "shared_tuples": ((), ()),
        "tuple": (0, ()),
        "list": [[]],
        "ring": [[]],
        "dict_ring": {"k": {}},
    }

    def function(x: Any, holder: Any) -> Any:
        return x + len(holder.history)

    holder, x = Holder(), torch.zeros(2)
    holder.history = small[value]
    compiled = run.compile(function)
    run.warm(lambda: compiled(x, holder))
    holder.history = DEEP[value]()
    for _ in range(3):
        run.step(lambda: compiled(x, holder), lambda: function(x, holder), "deep")
    holder.history = small[value]
    run.step(lambda: compiled(x, holder), lambda: function(x, holder), "small")


@direct
def without_dynamo(run: Run) -> None:
    """Values that Dynamo cannot take at all: the checker says no, and soon."""
    shared = _nested(lambda index, value: (value, value), (), 64)
    for value in (shared, [shared], {"k": shared}, *(make() for make in DEEP.values())):
        for start, one in ((None, same(item("history"), None)), (((), ()), equals(item("history"), ((), ())))):
            holder = Holder()
            holder.history = start
            made = recorded(checker(one), {"x": holder})
            holder.history = value
            for _ in range(3):
                run.expect(made, {"x": holder}, False, "deep")
            holder.history = start
            run.expect(made, {"x": holder}, True, "as before")


@program()
def deep_from_the_start(run: Run) -> None:
    """A key path that is really read, as deep as Dynamo follows it."""

    def function(x: Any, holder: Any) -> Any:
        return x + holder.inner.inner.inner.inner.inner.inner.inner.inner.value

    last = Holder()
    last.value = 3
    holder, x = _nested(_object, last, 8), torch.zeros(2)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x, holder))
    last.value = 4
    run.step(lambda: compiled(x, holder), lambda: function(x, holder), "the last")
    holder.inner.inner.inner = _nested(_object, last, 5)
    last.value = 5
    run.step(lambda: compiled(x, holder), lambda: function(x, holder), "another middle")
    holder.inner.inner = holder
    run.step(lambda: compiled(x, holder), lambda: function(x, holder), "a ring")


@program()
def little_stack_left(run: Run) -> None:
    """The call comes from far down the interpreter's own stack."""

    def function(x: Any, holder: Any) -> Any:
        return x + holder.scale

    holder, x = Holder(), torch.zeros(2)
    holder.scale = 3
    compiled = run.compile(function)
    run.warm(lambda: compiled(x, holder))
    sys.setrecursionlimit(3_000)

    def down(count: int, call: Callable[[], Any]) -> Any:
        return down(count - 1, call) if count else call()

    for change in (3, 4):
        holder.scale = change
        run.step(lambda: down(900, lambda: compiled(x, holder)), lambda: function(x, holder), f"far down {change}")


@program()
def many_classes(run: Run) -> None:
    """An mro of 400 classes, found anew after each change."""
    kind = type("Base", (), {"scale": 3})
    base = kind
    for index in range(400):
        kind = type(f"K{index}", (kind,), {})

    def function(x: Any, s: Any) -> Any:
        return x * s.scale

    s, x = kind(), torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x, s))
    for value in (4, 5):
        base.scale = value
        run.step(lambda: compiled(x, s), lambda: function(x, s), str(value))
