"""Dispatch modes, torch function modes and the thread's dispatch state: which likenesses may be believed where."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from ...modes import Function, Hidden, Visible
from ..protocol import Run, program


class OtherFunction(Function):
    pass


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("w", torch.ones(3))

    def forward(self) -> Any:
        return self.w * 2


def _level() -> Iterator[None]:
    from torch._C._functorch import _vmap_decrement_nesting, _vmap_increment_nesting

    _vmap_increment_nesting(3, "error")
    try:
        yield
    finally:
        _vmap_decrement_nesting()


def _functional() -> Iterator[None]:
    torch._enable_functionalization(reapply_views=True)
    try:
        yield
    finally:
        torch._disable_functionalization()


def _excluded(key: str) -> Callable[[], Iterator[None]]:
    def made() -> Iterator[None]:
        with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))):
            yield

    return made


def _stack(*modes: Callable[[], Any]) -> Callable[[], Any]:
    @contextlib.contextmanager
    def made() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode())
            yield

    return made


MODES: dict[str, Callable[[], Any]] = {
    "none": contextlib.nullcontext,
    "hidden": Hidden,
    "visible": Visible,
    "hidden_in_visible": _stack(Visible, Hidden),
    "visible_in_hidden": _stack(Hidden, Visible),
    "two_hidden": _stack(Hidden, Hidden),
    "function": Function,
    "other_function": OtherFunction,
    "function_in_hidden": _stack(Hidden, Function),
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "hidden_no_grad": _stack(Hidden, torch.no_grad),
    "no_torch_function": torch._C.DisableTorchFunction,
    "no_torch_function_at_all": torch._C.DisableTorchFunctionSubclass,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_dispatch": lambda: torch._C._DisableTorchDispatch(),
    "below_autograd": lambda: torch._C._AutoDispatchBelowAutograd(),
    "no_adinplace": contextlib.contextmanager(_excluded("ADInplaceOrView")),
    "no_python": contextlib.contextmanager(_excluded("Python")),
    "vmap_level": contextlib.contextmanager(_level),
    "functionalized": contextlib.contextmanager(_functional),
    "default_device": lambda: torch.device("cpu"),
    "deterministic": lambda: _switched(torch.use_deterministic_algorithms),
}

SECOND = (
    "visible",
    "visible_in_hidden",
    "hidden",
    "hidden_in_visible",
    "function_in_hidden",
    "none",
    "functionalized",
    "vmap_level",
    "no_dispatch",
    "below_autograd",
    "no_adinplace",
    "no_torch_function",
)


@contextlib.contextmanager
def _switched(switch: Callable[[bool], None]) -> Iterator[None]:
    switch(True)
    try:
        yield
    finally:
        switch(False)


def _calls(run: Run, mode: str, compiled: Any, function: Any, times: int, name: str) -> None:
    with MODES[mode]():
        for index in range(times):
            run.step(compiled, function, f"{name} {mode} {index}")


@program(first=("hidden", "visible", "two_hidden", "functionalized", "vmap_level", "no_python"))
def one_mode_then_all_others(run: Run, first: str) -> None:
    for second in SECOND:
        torch._dynamo.reset()
        module = Held()
        compiled = run.compile(module)
        for _ in range(5):
            run.step(compiled, module, "outside")
        _calls(run, first, compiled, module, 4, "first")
        _calls(run, second, compiled, module, 3, "second")
        run.step(compiled, module, "outside again")


@program(
    order=("hidden visible", "visible hidden", "hidden none", "functionalized hidden", "vmap_level hidden visible")
)
def argument_under_modes(run: Run, order: str) -> None:
    def function(x: Any) -> Any:
        return x * 2

    x = torch.ones(3)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x))
    for mode in order.split(" ") * 2:
        _calls(run, mode, lambda: compiled(x), lambda: function(x), 4, "")


@program()
def likeness_taken_first_in_a_hidden_mode(run: Run) -> None:
    module = Held()
    compiled = run.compile(module)
    with Hidden():
        for _ in range(6):
            run.step(compiled, module, "hidden")
    run.step(compiled, module, "outside")
    with Visible():
        run.step(compiled, module, "visible")
    with Visible(), Hidden():
        run.step(compiled, module, "hidden in visible")


@program()
def mode_entered_in_the_module(run: Run) -> None:
    module = Held()
    compiled = run.compile(module)

    def under(mode: Any) -> Any:
        with mode:
            return compiled()

    run.warm(compiled)
    for mode in (Hidden, Visible, Function, Hidden, Visible):
        for _ in range(3):
            run.step(lambda mode=mode: under(mode()), module, mode.__name__)


@program()
def function_modes_counted(run: Run) -> None:
    def function(x: Any) -> Any:
        return x * 2

    x = torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x))
    with Function():
        run.warm(lambda: compiled(x), 3)
        with OtherFunction():
            for _ in range(3):
                run.step(lambda: compiled(x), lambda: function(x), "two")
        run.step(lambda: compiled(x), lambda: function(x), "one")
    run.step(lambda: compiled(x), lambda: function(x), "none")
    with OtherFunction():
        run.step(lambda: compiled(x), lambda: function(x), "another")
    torch.set_default_device("cpu")
    run.step(lambda: compiled(x), lambda: function(x), "a default device")
    torch.set_default_device(None)
    run.step(lambda: compiled(x), lambda: function(x), "none")


@program()
def subclass_under_modes(run: Run) -> None:
    class Sub(torch.Tensor):
        pass

    def function(x: Any) -> Any:
        return x * 2

    x = torch.ones(2).as_subclass(Sub)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x))
    with torch._C.DisableTorchFunctionSubclass():
        for _ in range(3):
            run.step(lambda: compiled(x), lambda: function(x), "subclasses off")
    with torch._C.DisableTorchFunction():
        for _ in range(3):
            run.step(lambda: compiled(x), lambda: function(x), "all off")
    run.step(lambda: compiled(x), lambda: function(x), "on again")


@program()
def precision_there_and_back(run: Run) -> None:
    """A switch of the matmul precision there and back does not leave misses for good."""

    def function(x: Any) -> Any:
        return x * 2

    x = torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x))
    before = torch.get_float32_matmul_precision()
    for precision in ("high", before, "medium", before):
        torch.set_float32_matmul_precision(precision)
        run.step(lambda: compiled(x), lambda: function(x), precision)
    graphs = run.graphs
    run.warm(lambda: compiled(x), 10)
    assert run.graphs == graphs, "misses for good"


@program(switch=("grad", "threads", "dtype", "deterministic", "cudnn", "warn_only", "autocast_cache"))
def global_switches(run: Run, switch: str) -> None:
    def function(x: Any) -> Any:
        return x * 2 + torch.ones(2)

    changes: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "grad": (lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)),
        "threads": (lambda: torch.set_num_threads(2), lambda: torch.set_num_threads(1)),
        "dtype": (lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
        "deterministic": (
            lambda: torch.use_deterministic_algorithms(True),
            lambda: torch.use_deterministic_algorithms(False),
        ),
        "warn_only": (
            lambda: torch.use_deterministic_algorithms(True, warn_only=True),
            lambda: torch.use_deterministic_algorithms(False),
        ),
        "cudnn": (
            lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
            lambda: setattr(torch.backends.cudnn, "allow_tf32", True),
        ),
        "autocast_cache": (
            lambda: torch.set_autocast_cache_enabled(False),
            lambda: torch.set_autocast_cache_enabled(True),
        ),
    }
    x = torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x))
    for index in range(2):
        for change in changes[switch]:
            change()
            for _ in range(3):
                run.step(lambda: compiled(x), lambda: function(x), f"{switch} {index}")
