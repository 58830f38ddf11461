"""Frames that Dynamo's frame hook finds in the middle of a compiled call: their code asks a gate first."""

from __future__ import annotations

import contextlib
import gc
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.eval_frame import _debug_get_cache_entry_list

import unified_guards
from unified_guards import _C
from unified_guards.dynamo import gated, plan
from unified_guards.dynamo.bytecode import TRY_IS_TABLE
from unified_guards.statistics import tally

from ..harness import assert_same, ones
from .test_known import supported

pytestmark = [supported, pytest.mark.skipif(not TRY_IS_TABLE, reason="the code of entries is left alone before 3.11")]


@contextlib.contextmanager
def frames(count: int) -> Iterator[None]:
    """Inside, so many frames in the middle of a call go the short way."""
    before = unified_guards.stats().short_frames
    yield
    assert unified_guards.stats().short_frames - before == count


def gates(scope: dict[str, Any]) -> list[Any]:
    return [value for value in scope.values() if isinstance(value, _C.FrameGate)]


def compiled(function: Any, backend: Any = "eager", **options: Any) -> Any:
    return torch.compile(function, backend=backend, dynamic=False, **options)


# -- a step of an optimizer --------------------------------------------------------------------------------------------


class Step:
    """A compiled step over some parameters, and the same parameters with an eager one."""

    def __init__(self, count: int = 4) -> None:
        self.parameters, self.twins = self.made(count), self.made(count)
        self.optimizer, self.eager = self.adamw(self.parameters), self.adamw(self.twins)
        self.compiled = compiled(self.optimizer.step)
        for _ in range(4):
            self.run()

    @staticmethod
    def made(count: int) -> list[torch.nn.Parameter]:
        made = [torch.nn.Parameter(ones(2)) for _ in range(count)]
        for parameter in made:
            parameter.grad = ones(2)
        return made

    @staticmethod
    def adamw(parameters: list[torch.nn.Parameter]) -> torch.optim.AdamW:
        return torch.optim.AdamW(parameters, lr=1e-2, foreach=True)

    def run(self) -> None:
        self.compiled()
        self.eager.step()
        for mine, twin in zip(self.parameters, self.twins, strict=True):
            assert_same(mine.detach(), twin.detach())


def test_a_step_takes_its_gradients_from_the_check() -> None:
    step = Step()
    with frames(1):
        step.run()
    scope = vars(sys.modules[torch.optim.Adam.__module__])
    assert (4, 4) in [found for gate in gates(scope) for found in gate.dispatcher.inputs]


def test_a_gradient_that_is_replaced_is_used_at_once() -> None:
    step = Step()
    for parameters in (step.parameters, step.twins):
        parameters[1].grad = ones(2) * 7
    with frames(1):
        step.run()


def test_a_gradient_that_is_written_is_used_at_once() -> None:
    step = Step()
    for parameters in (step.parameters, step.twins):
        parameters[2].grad.mul_(3)  # type: ignore[union-attr]
    with frames(1):
        step.run()


def test_a_parameter_without_a_gradient() -> None:
    step = Step()
    for parameters in (step.parameters, step.twins):
        parameters[0].grad = None
    for _ in range(3):
        step.run()


def test_a_gradient_that_a_class_gives_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    step = Step()
    real = torch._C.TensorBase.grad  # type: ignore[attr-defined]
    asked = []

    def grad(self: torch.Tensor) -> Any:
        asked.append(self)
        return real.__get__(self)

    monkeypatch.setattr(torch.nn.Parameter, "grad", property(grad, real.__set__), raising=False)
    step.compiled()
    assert asked


# -- frames behind a graph break ---------------------------------------------------------------------------------------


class Broken(torch.nn.Module):
    """Breaks the graph in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(ones(3) * 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        torch._dynamo.graph_break()
        return y * self.scale


def hit(made: Any, *args: Any) -> Any:
    for _ in range(3):
        made(*args)
    with frames(1):
        return made(*args)


def test_what_follows_a_graph_break() -> None:
    module = Broken()
    assert_same(hit(compiled(module), ones(3)), module(ones(3)))


def test_a_parameter_that_is_replaced_behind_a_graph_break() -> None:
    module = Broken()
    made = compiled(module)
    hit(made, ones(3))
    module.scale = torch.nn.Parameter(ones(3) * 5)
    assert_same(made(ones(3)), module(ones(3)))


def test_several_breaks() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        x = x + 1
        torch._dynamo.graph_break()
        return x * 2

    made = compiled(function)
    for _ in range(3):
        made(ones(3))
    with frames(2):
        assert_same(made(ones(3)), function(ones(3)))


def test_side_effects_behind_a_graph_break_happen_once() -> None:
    def function(x: torch.Tensor, into: list[Any]) -> torch.Tensor:
        y = x + 1
        torch._dynamo.graph_break()
        z = y * 2
        into.append(z)
        return z

    made = compiled(function)
    for _ in range(3):
        made(ones(3), [])
    into: list[Any] = []
    with frames(1):
        made(ones(3), into)
    assert len(into) == 1


def test_other_shapes_behind_a_graph_break() -> None:
    module = Broken()
    made = compiled(module)
    for count in (3, 1, 3, 1, 3):
        assert_same(made(ones(count)), module(ones(count)))


def inner(x: torch.Tensor) -> torch.Tensor:
    return x * 3


def test_a_compiled_function_that_another_one_calls() -> None:
    nested = compiled(inner)

    def function(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return torch._dynamo.disable(lambda: nested(x))() + 1

    made = compiled(function)
    for _ in range(4):
        assert_same(made(ones(3)), ones(3) * 3 + 1)


# -- what is around the graph ------------------------------------------------------------------------------------------


def failing(calls: list[int]) -> Callable[..., Any]:
    def backend(module: Any, _: Any) -> Callable[..., Any]:
        def graph(*args: Any) -> Any:
            calls.append(1)
            if len(calls) > 8:
                raise ArithmeticError("in the graph")
            return module(*args)

        return graph

    return backend


def test_an_error_in_the_graph() -> None:
    """It leaves as it would have, through the same functions, and the hook is on again."""

    def seen(dispatch: bool) -> list[str]:
        module, calls = Broken(), []
        with unified_guards.config.patch(dispatch=dispatch):
            made = compiled(module, failing(calls))
            for _ in range(4):
                made(ones(3))
        with pytest.raises(ArithmeticError) as raised:
            made(ones(3))
            made(ones(3))
        assert torch._C._dynamo.eval_frame.get_eval_frame_callback() is None
        return [frame.name for frame in traceback.extract_tb(raised.value.__traceback__) if frame.name != "_fn"]

    found = seen(dispatch=True)
    assert found[-1] == "graph"
    assert "forward" in found or any(name.startswith("torch_dynamo_resume_in_forward") for name in found)


def test_the_graph_itself_is_not_compiled() -> None:
    callbacks = []

    def backend(module: Any, _: Any) -> Callable[..., Any]:
        def graph(*args: Any) -> Any:
            callbacks.append(torch._C._dynamo.eval_frame.get_eval_frame_callback())
            return module(*args)

        return graph

    made = compiled(Broken(), backend)
    for _ in range(3):
        made(ones(3))
    callbacks.clear()
    with frames(1):
        made(ones(3))
    assert callbacks == [None, None]


def test_a_profiler_sees_what_dynamo_wrote() -> None:
    made = compiled(Broken())
    hit(made, ones(3))
    with frames(0), torch.autograd.profiler.profile() as profile:
        made(ones(3))
    assert any("Pregraph bytecode" in event.name for event in profile.function_events)


def test_a_size_that_a_subclass_computes_is_not_compiled() -> None:
    class Sized(torch.Tensor):
        __torch_function__ = torch._C._disabled_torch_function_impl

        def size(self, *args: Any) -> Any:
            return torch.Tensor.size(self, *args)

    def function(x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x * x.shape[0]

    made = torch.compile(function, backend="eager", dynamic=True)
    for count in (3, 4, 5, 6):
        x = ones(count).as_subclass(Sized)
        assert torch.equal(made(x).as_subclass(torch.Tensor), ones(count) * count)


# -- between the lookup and the gate -----------------------------------------------------------------------------------


class Scaled:
    """Holds a tensor, as an attribute."""

    def __init__(self, scale: torch.Tensor) -> None:
        self.scale = scale


def scaled(x: torch.Tensor, by: Scaled) -> torch.Tensor:
    return x * by.scale


def gate_of(function: Any) -> Any:
    (entry,) = _debug_get_cache_entry_list(function.__code__)
    (name,) = [name for name in entry.code.co_names if name.startswith("___unified_guards_frame")]
    return function.__globals__[name]


def test_what_has_changed_since_the_lookup_is_read_as_it_is() -> None:
    made, by = compiled(scaled), Scaled(ones(3) * 2)
    for _ in range(4):
        made(ones(3), by)
    gate = gate_of(scaled)
    assert_same(gate(ones(3), by), ones(3) * 2)
    by.scale = ones(3) * 5
    gc.collect()
    assert_same(gate(ones(3), by), ones(3) * 5)
    assert_same(gate(ones(3), Scaled(ones(3) * 7)), ones(3) * 7)
    torch._dynamo.reset()


def test_an_entry_that_was_dropped_since_the_lookup() -> None:
    made, by = compiled(scaled), Scaled(ones(3) * 2)
    for _ in range(4):
        made(ones(3), by)
    gate = gate_of(scaled)
    torch._dynamo.reset()
    assert gate(ones(3), by) is _C.LONG_WAY


def test_a_gate_of_other_locals() -> None:
    made, by = compiled(scaled), Scaled(ones(3) * 2)
    made(ones(3), by)
    assert gate_of(scaled)(ones(3)) is _C.LONG_WAY
    torch._dynamo.reset()


# -- the code ----------------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_an_entry_that_is_dropped() -> None:
    graphs = []

    def backend(module: Any, _: Any) -> Any:
        graphs.append(weakref.ref(module))
        return module.forward

    scope = Broken.forward.__globals__
    torch._dynamo.reset()
    others = gates(scope)
    made = compiled(Broken(), backend)
    for _ in range(3):
        made(ones(3))
    assert len(gates(scope)) == len(others) + 2
    del made
    torch._dynamo.reset()
    gc.collect()
    # Torch itself keeps what it has made for code that breaks its graph, but not for what follows.
    assert len(gates(scope)) == len(others) + 1
    assert graphs[-1]() is None


def test_the_reason_of_a_recompilation_is_torchs(caplog: pytest.LogCaptureFixture) -> None:
    made = compiled(inner)
    made(ones(3))
    with caplog.at_level("DEBUG", "torch._dynamo.guards"):
        torch._logging.set_logs(recompiles=True)
        try:
            made(ones(4))
        finally:
            torch._logging.set_logs()
    assert "Recompiling function inner" in caplog.text or made(ones(4)) is not None


def test_no_gate_where_the_dispatcher_is_switched_off() -> None:
    with unified_guards.config.patch(dispatch=False):
        made = compiled(Broken())
        for _ in range(3):
            made(ones(3))
        with frames(0):
            made(ones(3))


def test_a_wrong_plan_of_a_frame_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = plan.plan_of

    def wrong(code: Any) -> Any:
        made = right(code)
        return made._replace(inputs=tuple(reversed(made.inputs)))

    monkeypatch.setattr(gated, "plan_of", wrong)
    with unified_guards.config.patch(verify=1):
        made = compiled(Broken())
        with pytest.raises(unified_guards.GuardDisagreement, match="another input"):
            for _ in range(20):
                made(ones(3))
    tally.disagreements.pop()  # otherwise the test has failed
