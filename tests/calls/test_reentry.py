"""Calls in the middle of a call of the same function."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch
import torch._dynamo

import unified_guards

from ..harness import Watched, assert_same, ones, static
from .subclass import Logged, on_dispatch, on_guard
from .watching import longs, short, shorts, watched


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + y


class Again:
    """A backend whose compiled code calls the compiled function again, so deep."""

    def __init__(self, depth: int) -> None:
        self.depth, self.level = depth, 0
        self.compiled: Callable[..., Any]
        self.seen: list[torch.Tensor] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            if self.level < self.depth:
                self.level += 1
                self.seen.append(self.compiled(ones() * self.level, ones() * self.level))
                self.level -= 1
            return graph.forward(*args)

        return run


@pytest.mark.parametrize("depth", [1, 30])
def test_the_graph_calls_the_function_again(depth: int) -> None:
    again = Again(depth)
    again.compiled = torch.compile(add, backend=again)
    for _ in range(3):
        assert_same(again.compiled(ones(), ones() * 5), ones() * 6)
    again.seen.clear()
    with short(again.compiled, calls=depth + 1):
        assert_same(again.compiled(ones(), ones() * 5), ones() * 6)
    assert_same(again.seen, [ones() * 2 * at for at in range(depth, 0, -1)])


def test_a_destructor_calls_the_function_again() -> None:
    made = watched(add, ones(), ones())
    seen: list[torch.Tensor] = []

    class Dying:
        def __del__(self) -> None:
            seen.append(made.compiled(ones() * 3, ones() * 4))

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            Dying()
            return graph.forward(*args)

        return run

    compiled = torch.compile(lambda x, y: x - y, backend=backend)
    for _ in range(3):
        assert_same(compiled(ones() * 9, ones()), ones() * 8)
    assert_same(seen, [ones() * 7] * 3)


def test_a_destructor_of_an_argument_calls_the_function_again() -> None:
    seen: list[torch.Tensor] = []

    class Dying:
        def __init__(self) -> None:
            self.factor = 2

        def __del__(self) -> None:
            seen.append(compiled(ones() * 3, Kept()))

    class Kept(Dying):
        def __del__(self) -> None:
            pass

    def function(x: torch.Tensor, owner: Dying) -> torch.Tensor:
        return x * owner.factor

    compiled = torch.compile(function, backend="eager")
    for _ in range(4):
        assert_same(compiled(ones(), Dying()), ones() * 2)
    assert_same(seen, [ones() * 6] * 4)


def test_a_default_that_dies_meanwhile() -> None:
    def function(x: torch.Tensor, y: torch.Tensor = torch.full((3,), 5.0)) -> tuple[Any, ...]:  # noqa: B008
        return x + 1, y

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            function.__defaults__ = (torch.full((3,), 5.0),)
            return graph.forward(*args)

        return run

    compiled = torch.compile(function, backend=backend)
    for _ in range(4):
        assert_same(compiled(ones()), (ones() * 2, ones() * 5))


@unified_guards.config.patch(verify=0)  # torch's tree waits for itself where a signal comes in the middle of it
def test_a_signal_handler_calls_the_function_again() -> None:
    made = watched(add, ones(), ones())
    seen: list[torch.Tensor] = []

    def handle(number: int, frame: FrameType | None) -> None:
        seen.append(made.compiled(ones() * 3, ones() * 4))
        signal.setitimer(signal.ITIMER_REAL, 1e-3)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 1e-3)
    try:
        while len(seen) < 20:
            assert torch.equal(made.compiled(ones(), ones()), ones() * 2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert_same(seen, [ones() * 7] * len(seen))
    assert made.graphs == 1


def test_a_guard_calls_the_function_again() -> None:
    seen: list[torch.Tensor] = []

    def again() -> None:
        with torch._C._EnableTorchFunction():  # guards are asked without
            seen.append(made.compiled(Logged(ones() * 3), Logged(ones() * 4)).inner)

    made = static(add)
    for _ in range(3):
        made.compiled(Logged(ones()), Logged(ones()))
    on_guard.append(again)
    with short(made.compiled, calls=2):
        assert_same(made.compiled(Logged(ones()), Logged(ones())).inner, ones() * 2)
    assert_same(seen, [ones() * 7])
    assert made.graphs == 1


def test_a_guard_that_resets_everything() -> None:
    made = static(add)
    for _ in range(3):
        made.compiled(Logged(ones()), Logged(ones()))
    on_guard.append(torch._dynamo.reset)
    assert_same(made.compiled(Logged(ones()), Logged(ones())).inner, ones() * 2)
    assert made.graphs == 2


def test_a_dispatch_of_a_subclass_calls_the_function_again() -> None:
    made = Watched(add)
    seen: list[torch.Tensor] = []
    for _ in range(3):
        made.compiled(ones(), ones())
        made.compiled(Logged(ones()), Logged(ones()))
    on_dispatch.append(lambda: seen.append(made.compiled(ones() * 3, ones() * 4)))
    before = shorts(made.compiled)
    for _ in range(3):
        assert_same(made.compiled(Logged(ones()), Logged(ones())).inner, ones() * 2)
    assert_same(seen, [ones() * 7])
    assert shorts(made.compiled) >= before + 3


def test_an_operator_calls_the_function_again() -> None:
    made = Watched(add)
    seen: list[torch.Tensor] = []

    @torch.library.custom_op("unified_guards_calls::again", mutates_args=())
    def again(x: torch.Tensor) -> torch.Tensor:
        seen.append(made.compiled(x, x))
        return x.clone()

    @again.register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    outer = torch.compile(lambda x: again(x) * 2, backend="eager")
    for _ in range(4):
        assert_same(outer(ones()), ones() * 2)
    assert_same(seen, [ones() * 2] * len(seen))
    with short(outer), short(made.compiled):
        outer(ones())


def test_a_compilation_in_the_middle_of_a_call() -> None:
    inner = static(lambda x: x * 3)
    size = 3

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            nonlocal size
            size += 1
            inner(ones(size))
            return graph.forward(*args)

        return run

    outer = torch.compile(add, backend=backend)
    for _ in range(3):
        assert_same(outer(ones(), ones()), ones() * 2)
    assert inner.graphs == 3
    with short(outer):
        outer(ones(), ones())


def test_torch_compile_in_a_compiled_function() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        return torch.compile(lambda y: y * 2, backend="eager")(x) + 1

    compiled = torch.compile(function, backend="eager")
    for _ in range(4):
        assert_same(compiled(ones()), ones() * 3)


def test_a_reset_in_the_middle_of_a_call() -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            torch._dynamo.reset()
            return graph.forward(*args)

        return run

    compiled = torch.compile(lambda x: (x + 1, {"x": x}), backend=backend)
    for _ in range(4):
        x = ones()
        assert_same(compiled(x), (ones() * 2, {"x": x}))


def test_a_compiled_function_yields_in_the_middle() -> None:
    made = watched(add, ones(), ones())

    def numbers() -> Iterator[torch.Tensor]:
        for at in range(3):
            yield made.compiled(ones() * at, ones())

    assert_same(list(numbers()), [ones(), ones() * 2, ones() * 3])


def test_a_generator_that_is_closed_in_the_middle() -> None:
    made = watched(add, ones(), ones())
    ended: list[torch.Tensor] = []

    def numbers() -> Iterator[torch.Tensor]:
        try:
            while True:
                yield made.compiled(ones(), ones())
        finally:
            ended.append(made.compiled(ones() * 2, ones()))

    running = numbers()
    assert_same(next(running), ones() * 2)
    with short(made.compiled):
        running.close()
    assert_same(ended, [ones() * 3])


def test_a_generator_function_keeps_torchs_wrapper() -> None:
    def numbers(x: torch.Tensor) -> Iterator[torch.Tensor]:
        for at in range(3):
            yield x + at

    compiled = torch.compile(numbers, backend="eager")
    assert "_unified_guards_dispatcher" not in vars(compiled)
    for _ in range(3):
        assert_same(list(compiled(ones())), [ones(), ones() * 2, ones() * 3])


def test_a_stance_that_is_set_in_the_middle() -> None:
    made = watched(add, ones(), ones())

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            with torch.compiler.set_stance("force_eager"):
                made.compiled(ones(), ones())
            return graph.forward(*args)

        return run

    outer = torch.compile(lambda x: x * 2, backend=backend)
    for _ in range(3):
        outer(ones())
    assert longs(made.compiled)["torch.compiler.set_stance() is in effect"] == 3
    with short(made.compiled):
        made(ones(), ones())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_goes_on() -> None:
    made = watched(add, ones(), ones())
    child = os.fork()
    if child == 0:
        status = 1
        try:
            before = shorts(made.compiled)
            good = torch.equal(made.compiled(ones(), ones()), ones() * 2)
            for _ in range(2):  # compiled by the child
                good = good and torch.equal(made.compiled(ones(4), ones(4)), ones(4) * 2)
            status = 0 if good and shorts(made.compiled) == before + 2 else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with short(made.compiled):
        made(ones(), ones())
