"""Threads that call one function: an entry that fits is always found."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo

import unified_guards

from ..harness import Watched, ones, static
from .subclass import Logged, on_guard
from .watching import THREADS, Model, in_threads, longs, short, shorts


@pytest.fixture(autouse=True)
def _switches_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    with unified_guards.config.patch(verify=0):  # a check that is compared runs Python code: see the last test
        yield
    sys.setswitchinterval(before)


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + y


@pytest.mark.parametrize("entries", [2, 3, 8])
def test_hits_alone_compile_nothing(entries: int) -> None:
    made = static(add)
    given = [(ones(size), ones(size)) for size in range(2, 2 + entries)]
    for pair in given:
        made(*pair)
    for pair in given:
        made(*pair)
    before, reasons = shorts(made.compiled), longs(made.compiled)

    def work(at: int) -> None:
        for each in range(40):
            x, y = given[(at + each) % entries]
            assert made.compiled(x, y).shape == x.shape

    in_threads(work)
    assert made.graphs == entries
    assert shorts(made.compiled) == before + THREADS * 40
    assert longs(made.compiled) == reasons


def test_entries_that_all_fit_are_found_by_all() -> None:
    """Two entries for one call: of a common region and of nothing that differs but a value nobody reads."""
    flag = [1]

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + flag[0]

    made = static(function)
    for flag[0] in (1, 2):
        made(ones())

    def work(at: int) -> None:
        for _ in range(40):
            made.compiled(ones())

    in_threads(work)
    assert made.graphs == 2


def test_modules_in_threads() -> None:
    module = Model()
    made = torch.compile(module, backend="eager", dynamic=False)
    given = [ones(size, 3) for size in (2, 3)]
    for x in given * 2:
        made(x)
    want = [module(x) for x in given]

    def work(at: int) -> None:
        for each in range(30):
            which = (at + each) % 2
            assert torch.equal(made(given[which]), want[which])

    before = longs(made)
    in_threads(work)
    assert longs(made) == before


def test_hits_while_others_compile() -> None:
    made = static(add)
    made(ones(), ones())

    def work(at: int) -> None:
        if at == 0:
            for size in range(4, 8):
                made.compiled(ones(size), ones(size))
        for _ in range(30):
            made.compiled(ones(), ones())

    in_threads(work, 4)
    assert made.graphs == 5
    for size in range(3, 8):
        with short(made.compiled):
            made.compiled(ones(size), ones(size))


def test_a_function_with_a_graph_break_in_threads() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        return x * 2

    made = Watched(function)
    for _ in range(2):
        made(ones())

    def work(at: int) -> None:
        for _ in range(30):
            assert torch.equal(made.compiled(ones()), function(ones()))

    in_threads(work)
    assert made.graphs == 2


def test_a_free_variable_per_thread() -> None:
    made: list[Any] = []

    def make(factor: float) -> Callable[..., Any]:
        return lambda x: x * factor

    backend = Watched(add)
    made = [torch.compile(make(float(at)), backend=backend.backend) for at in range(4)]
    for at, each in enumerate(made):
        assert torch.equal(each(ones()), ones() * at)

    def work(at: int) -> None:
        for _ in range(30):
            assert torch.equal(made[at](ones()), ones() * at)

    graphs = backend.graphs
    in_threads(work, 4)
    assert backend.graphs == graphs


def test_an_entry_is_found_though_a_guard_moves_entries() -> None:
    """As where another thread hits in the middle of a guard that runs Python code."""
    compiled = torch.compile(add, backend="eager", dynamic=False)
    one = Logged(ones())

    def move() -> None:
        with torch._C._EnableTorchFunction():  # guards are asked without
            compiled(ones(), ones())

    for _ in range(3):
        compiled(ones(), ones())
        compiled(one, 2)
    on_guard.append(move)
    with short(compiled, calls=2):
        compiled(one, 2)


class Marked(Logged):
    """Its guard runs Python code, and says no to what has another mark."""

    mark: int

    def __tensor_flatten__(self) -> tuple[list[str], dict[str, Any]]:
        return ["inner"], {"mark": self.mark}


def marked(mark: int) -> Marked:
    made = Marked(ones())
    made.mark = mark
    return made


def test_an_entry_is_found_though_hits_move_it_past_the_one_that_is_asked() -> None:
    compiled = torch.compile(add, backend="eager", dynamic=False)
    plain, one, two = ones(), marked(1), marked(2)

    def move() -> None:
        with torch._C._EnableTorchFunction():  # guards are asked without
            compiled(one, 1)
            compiled(two, 1)

    for x in (two, one, plain) * 2:
        compiled(x, 1)
    on_guard.append(move)  # the entries of `plain`, `one` and `two` become those of `two`, `one` and `plain`
    with short(compiled, calls=3):
        compiled(two, 1)
