"""Threads that miss together: one of them compiles, the others use what it has compiled. Nobody waits for more."""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch
import torch._dynamo
from torch._dynamo import convert_frame

from unified_guards.dynamo import compat, dispatch, single_flight

from ..harness import assert_same, ones, run_threads
from .watching import MISS, NOTHING_COMPILED, THREADS, Model, in_threads, longs, short

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason="all that miss compile: see docs/calls.md")


@pytest.fixture(autouse=True)
def _switches_often_and_afresh() -> Iterator[None]:
    torch._dynamo.reset()  # the tests compile the same functions
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def add(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x + y


class Slow:
    """A backend that lets the others miss meanwhile, and counts."""

    def __init__(self, *hooks: Callable[[], Any]) -> None:
        self.graphs = 0
        self.hooks = list(hooks)  # what the next compilations do first

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        if self.hooks:
            self.hooks.pop(0)()
        time.sleep(0.02)
        return graph.forward


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "never"
        time.sleep(1e-3)


def missed(compiled: Any, calls: int) -> Callable[[], None]:
    """Waits until so many calls have gone to torch's lock."""

    def wait() -> None:
        until(lambda: sum(longs(compiled).get(why, 0) for why in (MISS, NOTHING_COMPILED)) >= calls)
        time.sleep(0.05)  # from the gate to the lock

    return wait


class Method:
    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Sum(Model):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


def compiled_module(**options: Any) -> Any:
    module = Sum()
    module.compile(**options)
    return module


MADE: dict[str, Callable[..., Any]] = {
    "a function": lambda **options: torch.compile(add, **options),
    "fullgraph": lambda **options: torch.compile(add, fullgraph=True, **options),
    "a method": lambda **options: torch.compile(Method().add, **options),
    "a module": lambda **options: torch.compile(Sum(), **options),
    "module.compile()": compiled_module,
}


@pytest.mark.parametrize("kind", MADE)
def test_threads_that_miss_together_compile_once(kind: str) -> None:
    backend = Slow()
    compiled = MADE[kind](backend=backend, dynamic=False)
    sizes = range(2, 6)
    for size in sizes:
        in_threads(lambda at, size=size: assert_same(compiled(ones(size), ones(size)), ones(size) * 2))  # type: ignore[misc]
    assert backend.graphs == len(sizes)
    for size in sizes:
        with short(compiled):
            compiled(ones(size), ones(size))


def test_new_shapes_in_all_threads() -> None:
    """Each is waited for by some, while others compile another one."""
    backend = Slow()
    compiled = torch.compile(add, backend=backend, dynamic=False)

    def work(at: int) -> None:
        for each in range(6):
            size = 2 + (at + each) % 6
            assert_same(compiled(ones(size), ones(size)), ones(size) * 2)

    in_threads(work)
    assert backend.graphs == 6


def test_an_entry_that_torch_is_about_to_add_is_waited_for() -> None:
    """Torch adds it to its list after it has let go of the lock."""
    backend = Slow()
    compiled = torch.compile(add, backend=backend, dynamic=False)
    first = threading.Event()
    backend.hooks.append(lambda: (first.set(), missed(compiled, 1)()))
    adding = convert_frame.CatchErrorsWrapper.__call__.__code__

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if frame.f_code is adding and event == "return":
            sys.setprofile(None)
            time.sleep(0.3)

    def one() -> None:
        sys.setprofile(profile)
        compiled(ones(), ones())

    def other() -> None:
        first.wait(60)
        compiled(ones(), ones())

    run_threads([one, other])
    assert backend.graphs == 1


def test_what_failed_is_compiled_by_the_next() -> None:
    class Refuses(Exception):
        pass

    def refuse() -> None:
        missed(compiled, THREADS)()
        raise Refuses

    backend = Slow(refuse)
    compiled = torch.compile(add, backend=backend, dynamic=False)
    raised: list[str] = []

    def work(at: int) -> None:
        try:
            compiled(ones(), ones())
        except Exception as error:
            raised.append(str(error))

    in_threads(work)
    assert len(raised) == 1
    assert "Refuses" in raised[0]
    assert backend.graphs == 2


def test_a_thread_that_dies() -> None:
    def die() -> None:
        missed(compiled, THREADS)()
        raise SystemExit

    backend = Slow(die)
    compiled = torch.compile(add, backend=backend, dynamic=False)

    def work(at: int) -> None:
        with contextlib.suppress(SystemExit):
            compiled(ones(), ones())

    in_threads(work)
    assert backend.graphs == 2
    with short(compiled):
        compiled(ones(), ones())


def test_all_that_torch_refuses() -> None:
    def refuse() -> None:
        raise ZeroDivisionError("refused")

    backend = Slow(*[refuse] * THREADS)
    compiled = torch.compile(add, backend=backend, dynamic=False)
    raised: list[BaseException] = []

    def work(at: int) -> None:
        try:
            compiled(ones(), ones())
        except Exception as error:
            raised.append(error)

    in_threads(work)
    assert ["refused" in str(error) for error in raised] == [True] * THREADS
    assert not any("AskAgain" in repr(error) for error in raised)


def test_nobody_waits_for_a_function_that_dynamo_skips() -> None:
    meeting = threading.Barrier(4)

    def function(number: int) -> int:
        meeting.wait(30)
        return number + 1

    compiled = torch.compile(function, backend="eager")
    for _ in range(3):
        in_threads(lambda at: assert_same(compiled(at), at + 1), 4)


def test_nobody_waits_for_a_function_that_runs() -> None:
    meeting = threading.Barrier(4)

    @torch.compiler.disable
    def meet() -> None:
        meeting.wait(30)

    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        meet()
        return x * 2

    compiled = torch.compile(function, backend="eager", dynamic=False)
    for size in (2, 3, 3):
        in_threads(lambda at, size=size: assert_same(compiled(ones(size)), ones(size) * 4), 4)  # type: ignore[misc]


def test_nobody_waits_for_a_graph_that_runs() -> None:
    meeting = threading.Barrier(4)

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            meeting.wait(30)
            return graph.forward(*args)

        return run

    compiled = torch.compile(add, backend=backend, dynamic=False)
    for size in (2, 3):
        in_threads(lambda at, size=size: compiled(ones(size), ones(size)), 4)  # type: ignore[misc]


def test_two_functions_that_compile_each_other() -> None:
    """Each is called by the other's backend, in two threads at once."""
    slow = [Slow(), Slow()]
    made = [torch.compile(lambda x, k=k: x + k, backend=slow[k], dynamic=False) for k in range(2)]
    for k in range(2):
        slow[k].hooks = [lambda other=made[1 - k]: other(ones(4))] * 2  # type: ignore[misc]

    def work(at: int) -> None:
        assert_same(made[at % 2](ones(4)), ones(4) + at % 2)

    in_threads(work)
    for each in made:
        each(ones(4))
        with short(each):
            each(ones(4))


def test_a_backend_that_calls_the_function() -> None:
    backend = Slow()
    compiled = torch.compile(add, backend=backend, dynamic=False)
    seen: list[Any] = []
    backend.hooks.append(lambda: seen.append(compiled(ones(4), ones(4))))
    in_threads(lambda at: assert_same(compiled(ones(), ones()), ones() * 2))
    assert_same(seen, [ones(4) * 2])


def test_a_recompile_limit() -> None:
    backend = Slow()
    compiled = torch.compile(add, backend=backend, dynamic=False)

    def work(at: int) -> None:
        with torch._dynamo.config.patch(recompile_limit=2):  # of this thread
            for size in range(2, 7):
                assert_same(compiled(ones(size), ones(size)), ones(size) * 2)

    in_threads(work)
    assert backend.graphs == 2


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers")
def test_a_signal_comes_through() -> None:
    goes_on, begun = threading.Event(), threading.Event()
    backend = Slow(lambda: (begun.set(), goes_on.wait(60)))
    compiled = torch.compile(add, backend=backend, dynamic=False)

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    other = threading.Thread(target=lambda: compiled(ones(), ones()), daemon=True)
    other.start()
    assert begun.wait(60)
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            compiled(ones(), ones())
        assert not goes_on.is_set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        goes_on.set()
        other.join(60)
    with short(compiled):
        compiled(ones(), ones())
    assert backend.graphs == 1


def test_arguments_of_a_call_that_asked_again_are_freed() -> None:
    backend = Slow()
    compiled = torch.compile(add, backend=backend, dynamic=False)
    backend.hooks.append(missed(compiled, 4))
    given: list[weakref.ref[Any]] = []

    def work(at: int) -> None:
        x = ones()
        given.append(weakref.ref(x))
        compiled(x, x)

    in_threads(work, 4)
    gc.collect()
    assert backend.graphs == 1
    assert [each() for each in given] == [None] * 4


def test_a_call_of_the_code_in_the_middle_of_a_call() -> None:
    """What has run something of a function never begins anew: its code is compiled where the function calls itself."""
    seen: list[int] = []

    @torch.compiler.disable(recursive=False)
    def note(x: torch.Tensor) -> None:
        seen.append(len(x))
        if len(x) < 6:
            function(torch.ones(len(x) + 1))

    def function(x: torch.Tensor) -> torch.Tensor:
        note(x)
        return x + 1

    compiled = torch.compile(function, backend="eager", dynamic=False)
    in_threads(lambda at: compiled(ones(3)), 4)
    assert sorted(seen) == sorted([3, 4, 5, 6] * 4)


def test_the_traceback_of_a_call_that_asked_again() -> None:
    """No frame is in it twice."""
    backend = Slow()

    def function(x: torch.Tensor, fails: list[bool]) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        if fails[0]:
            raise ZeroDivisionError
        return x

    compiled = torch.compile(function, backend=backend, dynamic=False)
    backend.hooks.append(missed(compiled, 4))
    names: list[list[str]] = []

    def work(at: int) -> None:
        try:
            compiled(ones(), [True])
        except ZeroDivisionError as error:
            found, entry = [], error.__traceback__
            while entry is not None:
                found.append(entry.tb_frame.f_code.co_name)
                entry = entry.tb_next
            names.append(found)
            assert error.__context__ is None

    in_threads(work, 4)
    assert [each.count("compile_wrapper") for each in names] == [1] * 4


def looks_again() -> bool:
    """Whether torch's conversion of frames looks for entries first."""
    return any(
        constant is single_flight.look_again for constant in convert_frame.ConvertFrame.__call__.__code__.co_consts
    )


def test_a_lock_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looks_again()
    dispatch.close()
    try:
        assert not looks_again()
        monkeypatch.setattr(compat, "_KNOWN_CALLBACKS", frozenset())
        dispatch.watch_wrappers(lambda owner, name, value: None)
        assert not looks_again()
        monkeypatch.undo()
    finally:
        dispatch.close()
        dispatch.watch_wrappers(lambda owner, name, value: None)
    assert looks_again()
