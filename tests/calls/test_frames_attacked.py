"""Attacks on frames in the middle of a call: cells, other globals, who looks at the stack, classes that change."""

from __future__ import annotations

import sys
import traceback
import types
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

import unified_guards
from unified_guards.dynamo.bytecode import TRY_IS_TABLE

from ..harness import assert_same, ones
from .test_frames import compiled, frames
from .test_known import supported

pytestmark = [supported, pytest.mark.skipif(not TRY_IS_TABLE, reason="the code of entries is left alone before 3.11")]


# -- locals that are cells ---------------------------------------------------------------------------------------------


def in_a_cell(x: torch.Tensor, kept: Any) -> Any:
    def inner() -> Any:
        return kept

    return x * 3, inner()


def changed_in_a_cell(x: torch.Tensor, kept: Any, into: list[Any]) -> torch.Tensor:
    y = x * 2

    def inner() -> torch.Tensor:
        nonlocal kept
        kept = [*kept, 1]
        return y

    z = inner() + y
    into.append(kept)
    return z


def called_in_the_middle(function: Callable[..., Any]) -> Callable[..., Any]:
    """A compiled function that calls another compiled one, where torch's frame hook is on."""
    nested = compiled(function)

    def outer(*args: Any) -> Any:
        torch._dynamo.graph_break()
        return torch._dynamo.disable(lambda: nested(*args))()

    return compiled(outer)  # type: ignore[no-any-return]


def test_a_local_that_is_a_cell() -> None:
    made, kept = called_in_the_middle(in_a_cell), [3]
    for _ in range(4):
        assert made(ones(3), kept)[1] is kept


def test_a_local_that_is_a_cell_and_is_changed() -> None:
    made = called_in_the_middle(changed_in_a_cell)
    for _ in range(4):
        into: list[Any] = []
        assert_same(made(ones(3), [3], into), ones(3) * 4)
        assert into == [[3, 1]]


# -- other functions of the same code ----------------------------------------------------------------------------------

scale = ones(3) * 2


def scaled_by_a_global(x: torch.Tensor) -> torch.Tensor:
    y = x * scale
    torch._dynamo.graph_break()
    return y + 1


def calls(x: torch.Tensor, function: Callable[..., Any]) -> Any:
    return function(x)


def test_a_function_of_the_same_code_has_its_own_globals() -> None:
    torch._dynamo.reset()
    made = compiled(calls)
    for _ in range(4):
        assert_same(made(ones(3), scaled_by_a_global), ones(3) * 3)
    twin = types.FunctionType(scaled_by_a_global.__code__, {**globals(), "scale": ones(3) * 5})
    for _ in range(3):
        assert_same(made(ones(3), twin), ones(3) * 6)
    assert_same(made(ones(3), scaled_by_a_global), ones(3) * 3)


# -- who looks at the stack --------------------------------------------------------------------------------------------

seen: list[list[str]] = []


@torch._dynamo.disable
def look() -> None:
    frame, names = sys._getframe(1), []
    while frame is not None and frame.f_code is not who_looks.__code__:
        names.append(frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    seen.append(names)
    warnings.warn("somebody looks", stacklevel=4)


@torch._dynamo.disable
def fail() -> None:
    raise ArithmeticError("behind the graph")


def looks_twice(x: torch.Tensor) -> torch.Tensor:
    y = x + 1
    look()
    z = y * 2
    look()
    return z * 3


def who_looks(dispatch: bool) -> tuple[list[list[str]], list[int]]:
    """Who is on the stack, and which lines a warning names, in the end."""
    torch._dynamo.reset()
    with unified_guards.config.patch(dispatch=dispatch):
        made = compiled(looks_twice)
        for _ in range(4):
            made(ones(3))
    seen.clear()
    with warnings.catch_warnings(record=True) as caught, frames(2 if dispatch else 0):
        warnings.simplefilter("always")
        made(ones(3))
    return seen.copy(), [each.lineno for each in caught]


def test_what_follows_a_graph_is_no_frame_more_on_the_stack() -> None:
    without = who_looks(dispatch=False)
    assert who_looks(dispatch=True) == without


def fails_late(x: torch.Tensor) -> torch.Tensor:
    y = x + 1
    torch._dynamo.graph_break()
    z = y * 2
    fail()
    return z * 3


def who_fails(dispatch: bool) -> list[tuple[str, int | None]]:
    torch._dynamo.reset()
    with unified_guards.config.patch(dispatch=dispatch):
        made = compiled(fails_late)
        for _ in range(5):
            with pytest.raises(ArithmeticError) as raised:
                made(ones(3))
    found = traceback.extract_tb(raised.value.__traceback__)
    return [(frame.name, frame.lineno) for frame in found if "_dynamo" not in frame.filename][1:]


def test_a_traceback_from_behind_a_graph_names_each_function_once() -> None:
    without = who_fails(dispatch=False)
    assert who_fails(dispatch=True) == without


# -- classes that change -----------------------------------------------------------------------------------------------


def test_a_parameter_that_gets_a_class_with_a_gradient_of_its_own() -> None:
    class Nine(torch.nn.Parameter):
        grad = property(lambda self: ones(3) * 9)  # type: ignore[assignment]

    torch._dynamo.reset()
    parameters = [torch.nn.Parameter(ones(3)) for _ in range(2)]
    for parameter in parameters:
        parameter.grad = ones(3)
    made = compiled(torch.optim.SGD(parameters, lr=1.0, foreach=True).step)
    for _ in range(4):
        made()
    parameters[0].__class__ = Nine
    before = parameters[0].detach().clone()
    with torch.no_grad():
        made()
    assert_same(parameters[0].detach().as_subclass(torch.Tensor), before - 9)
