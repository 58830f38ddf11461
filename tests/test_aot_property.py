"""Random functions on random calls: every result and gradient is eager's, and only guards cause recompiles.

A function is Python source put together from steps; on failure the source and the calls are printed, and running them
again fails again.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functorch.compile import nop
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import unified_guards
from unified_guards import reference

from .aot import assert_like_eager

CONDITIONS = (
    "x.shape[0] > 2",
    "x.shape[0] == y.shape[0]",
    "x.shape[0] * 2 >= y.shape[0] + 1",
    "x.shape[0] % 2 == 0",
    "x.dtype == torch.float64",
    "x.dtype == y.dtype",
    "x.is_contiguous()",
    "x.stride(0) > 1",
    "x.requires_grad",
    "torch.is_grad_enabled()",
    "x is y",
    "isinstance(k, bool)",
    "k is None",
    "k == 1",
    "isinstance(k, int) and k > 2",
    "len(rest) > 1",
    "x.ndim == 2",
)
STEPS = (
    "x = x * 2",
    "x = x + 1",
    "x = x - y.sum()",
    "x = x.sin()",
    "x = x.flip(0)",
    "x = x[1:]",
    "x = x.reshape(-1, 1)",
    "x = x * (k if isinstance(k, (int, float)) else 3)",
    "x = x * len(rest)",
    "x = x + rest[0]",
    "x = x.sum() * y",
    "x = torch.cat([x.reshape(-1), y.reshape(-1)])",
    "y = y.clone().add_(1)",
    "x.data.shape",
)
WRITES = ("y0.add_(1)", "y0.mul_(x0.sum().detach())", "x0.add_(y0.sum())")


@st.composite
def sources(draw: st.DrawFn) -> str:
    """The text of a function of x, y, k and a list."""
    lines = ["def function(x, y, k=None, *, rest):", "    x0, y0 = x, y"]
    if draw(st.booleans()):
        lines.append(f"    if not (x0.requires_grad or y0.requires_grad): {draw(st.sampled_from(WRITES))}")
    for _ in range(draw(st.integers(1, 5))):
        step = draw(st.sampled_from(STEPS))
        if draw(st.booleans()):
            other = draw(st.sampled_from(STEPS))
            lines += [
                f"    if {draw(st.sampled_from(CONDITIONS))}:",
                f"        {step}",
                "    else:",
                f"        {other}",
            ]
        else:
            lines.append(f"    {step}")
    lines.append(f"    return {draw(st.sampled_from(('x', '(x, y)', '{0: x, 1: k}', '[x, x.shape[0], x0]')))}")
    return "\n".join(lines)


TENSORS = (
    "torch.arange(float({n}))",
    "torch.arange({n}, dtype=torch.float64)",
    "torch.arange(float({n}), requires_grad=True)",
    "torch.arange({n}.0 * 2)[::2]",
    "torch.arange(20.0)[{n}:2 * {n}]",
)


@st.composite
def calls(draw: st.DrawFn) -> str:
    """The text that gives (args, kwargs, whether grad mode is on) of one call."""
    x, y = (draw(st.sampled_from(TENSORS)).format(n=draw(st.integers(1, 5))) for _ in range(2))
    if draw(st.integers(0, 4)) == 0:
        pair = f"({x},) * 2"
    elif draw(st.integers(0, 4)) == 0:
        pair = f"(lambda b: (b[:3], b[{draw(st.integers(0, 4))}:5]))(torch.arange(6.0))"
    else:
        pair = f"({x}, {y})"
    k = draw(st.sampled_from(("", ", 1", ", True", ", 2", ", 3", ", 0.5", ", -0.0", ", 'a'", ", None")))
    rest = ", ".join(draw(st.lists(st.sampled_from(("1", "2.5", "torch.ones(1)")), min_size=1, max_size=2)))
    return f"((*{pair}{k},), {{'rest': [{rest}]}}, {draw(st.booleans())})"


def make(source: str) -> Any:
    """The function of a text."""
    scope: dict[str, Any] = {"torch": torch}
    exec(source, scope)
    return scope["function"]


def value(text: str) -> Any:
    """The arguments of a text; a new tensor every time."""
    return eval(text, {"torch": torch})


def fails(function: Any, args: Any, kwargs: Any) -> type[Exception] | None:
    """What eager raises, if it does."""
    try:
        function(*args, **kwargs)
    except Exception as error:
        return type(error)
    return None


@pytest.mark.parametrize("dynamic", [False, True, None])
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(source=sources(), sequence=st.lists(calls(), min_size=2, max_size=6))
def test_every_call_is_like_eager(dynamic: bool | None, source: str, sequence: list[str]) -> None:
    note(f"dynamic={dynamic}\n{source}\ncalls = [\n    {', '.join(sequence)}\n]")
    function = make(source)
    compiled = unified_guards.aot_function(function, nop, dynamic=dynamic, recompile_limit=100)
    for text in (*sequence, *sequence):
        args, kwargs, grad = value(text)
        with torch.set_grad_enabled(grad):
            expected = fails(function, *value(text)[:2])
            if expected is not None:
                with pytest.raises(expected):
                    compiled(*args, **kwargs)
                continue
            assert_like_eager(function, compiled, *args, **kwargs)
            again = compiled.cache_info()
            args, kwargs, _ = value(text)
            compiled(*args, **kwargs)
            assert compiled.cache_info().recompiles == again.recompiles
            check_evaluators(compiled, *value(text)[:2])
    check_reasons(compiled)


def check_evaluators(compiled: Any, args: Any, kwargs: Any) -> None:
    """Native and reference agree on every version."""
    found = compiled._find(args, kwargs)
    frame = {"args": args, "kwargs": kwargs}
    passing = [entry for entry in compiled._keys() if reference.evaluate(entry.guard_set, frame)]
    assert (found is None and not passing) or found in passing


def check_reasons(compiled: Any) -> None:
    """A recompile is explained by one guard of each version that there was."""
    info, reasons = compiled.cache_info(), compiled.recompiles()
    assert len(reasons) <= info.recompiles
    guards = {str(item) for entry in compiled._keys() for item in entry.guard_set}
    for recompile in reasons:
        for reason in recompile.reasons:
            text = reason.partition("  # ")[0]
            assert text in guards or text.endswith(" is missing"), reason
