"""Each condition under which a call has to go the long way, as a block that is entered, with what is counted then."""

from __future__ import annotations

import contextlib
import cProfile
import sys
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, NamedTuple
from unittest import mock

import torch
import torch._dynamo
from torch._C._dynamo import eval_frame
from torch._guards import TracingContext, tracing

from ..modes import Hidden

STANCE = "torch.compiler.set_stance() is in effect"
PROFILING = "somebody profiles or traces"


class Condition(NamedTuple):
    why: str
    enter: Callable[[], contextlib.AbstractContextManager[Any]]


def stance(name: str, **options: Any) -> Condition:
    return Condition(STANCE, lambda: torch.compiler.set_stance(name, **options))


@contextlib.contextmanager
def _profiled_by(set_function: Callable[[Any], None]) -> Iterator[None]:
    set_function(lambda frame, event, argument: None)
    try:
        yield
    finally:
        set_function(None)


@contextlib.contextmanager
def _callback() -> Iterator[None]:
    """As in a frame that Dynamo runs."""
    before = eval_frame.set_eval_frame(False)
    try:
        yield
    finally:
        eval_frame.set_eval_frame(before)


@contextlib.contextmanager
def _debugger_of_bytecode() -> Iterator[None]:
    eval_frame.set_bytecode_debugger_callback(lambda code: None)
    try:
        yield
    finally:
        eval_frame.set_bytecode_debugger_callback(None)


@contextlib.contextmanager
def _guard_complete_hook() -> Iterator[None]:
    before = eval_frame.set_guard_complete_hook(lambda hit: None)
    try:
        yield
    finally:
        eval_frame.set_guard_complete_hook(before)


@contextlib.contextmanager
def monitored(seen: Callable[[CodeType, int], Any]) -> Iterator[None]:
    """A tool of sys.monitoring is told of each function that starts."""
    tools: Any = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
    tools.use_tool_id(tools.COVERAGE_ID, "a test")
    try:
        tools.register_callback(tools.COVERAGE_ID, tools.events.PY_START, seen)
        tools.set_events(tools.COVERAGE_ID, tools.events.PY_START)
        yield
    finally:
        tools.set_events(tools.COVERAGE_ID, 0)
        tools.free_tool_id(tools.COVERAGE_ID)


CONDITIONS = {
    "a frame that Dynamo runs": Condition(
        "called from code that Dynamo is compiling or running frame by frame", _callback
    ),
    "a tracing context": Condition("a compilation is going on in this thread", lambda: tracing(TracingContext(None))),
    "exporting": Condition(
        "torch.export is running", lambda: mock.patch.object(torch.compiler, "_is_exporting_flag", True)
    ),
    "error_on_graph_break": Condition(
        "torch._dynamo.error_on_graph_break() is in effect", lambda: torch._dynamo.error_on_graph_break(True)
    ),
    "a dispatch mode": Condition("a mode of torch functions or of dispatch is active", Hidden),
    "torch.profiler": Condition(PROFILING, torch.profiler.profile),
    "the autograd profiler": Condition(PROFILING, torch.autograd.profiler.profile),
    "sys.setprofile": Condition(PROFILING, lambda: _profiled_by(sys.setprofile)),
    "cProfile": Condition(PROFILING, cProfile.Profile),
    "sys.settrace": Condition(PROFILING, lambda: _profiled_by(sys.settrace)),
    "force_eager": stance("force_eager"),
    "eager_on_recompile": stance("eager_on_recompile"),
    "fail_on_recompile": stance("fail_on_recompile"),
    "eager_then_compile": stance("eager_then_compile"),
    "aot_eager_then_compile": stance("aot_eager_then_compile"),
    "a backend that is forced": stance("default", force_backend="eager"),
    "unsafe guards": stance("default", skip_guard_eval_unsafe=True),
}

if sys.version_info >= (3, 12):
    CONDITIONS["sys.monitoring"] = Condition(PROFILING, lambda: monitored(lambda code, offset: None))

#: Hooks that the frame hook calls.
FRAME_HOOKS = {
    "a guard-complete hook": Condition("a hook looks at every call of compiled code", _guard_complete_hook),
    "a debugger of bytecode": Condition("a hook looks at every call of compiled code", _debugger_of_bytecode),
}

__all__ = ["CONDITIONS", "FRAME_HOOKS", "Condition", "monitored"]
