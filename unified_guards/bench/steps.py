"""Finds the steps of a program, and times what is in them: from one call of compiled code to the next.

A *step* lasts from one call of the compiled function or module that begins it to the next call of the same. It begins
with the one that is called the least often (but not a fiftieth as often as another, as an evaluation is), and if
several are called equally often, with the first. A *call* is one of compiled code from code that is not compiled.

Nothing is put around what ``torch.compile`` returns, whose identity counts: its code asks a clock first, the way
``dynamo/gated.py`` has it ask a dispatcher. So calls take the way that they take without a clock. Entry points:
:class:`Clock`, :func:`steps_of`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import inspect
import itertools
import sys
import threading
import types
from collections.abc import Callable, Hashable, Sequence
from statistics import median
from time import perf_counter_ns
from typing import Any

import torch
import torch._dynamo.eval_frame as torch_frames
from torch._dynamo.output_graph import OutputGraph

from _unified_guards_autoload import _AfterImport
from unified_guards.dynamo.gated import gated, with_gate

#: How many of the last calls are kept, and how many of those that were timed.
_MOST_CALLS, _MOST_TIMED = 100_000, 4096
#: How often as rarely as another function the one that begins a step may be called, and how many steps are needed.
_RARELY, _FEWEST = 50, 3


@dataclasses.dataclass(frozen=True)
class Call:
    """When a call of compiled code began.

    Attributes:
        key: what was called.
        at: in nanoseconds.
        epoch: is another number where something was compiled or measured in between.
    """

    key: Hashable
    at: int
    epoch: int


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of a program in which nothing was compiled or measured.

    Attributes:
        key: of the call that begins each of them.
        us: how long each took, in µs.
        calls: of compiled code in one of them, by what is called.
    """

    key: Hashable
    us: list[float]
    calls: dict[Hashable, float]

    @property
    def halves_us(self) -> list[float]:
        """The medians of the first half and of the second."""
        middle = len(self.us) // 2
        return [median(part) for part in (self.us[:middle], self.us[middle:]) if part]


def steps_of(calls: Sequence[Call]) -> Steps | None:
    """The steps among these calls; None where there are too few."""
    counts = collections.Counter(call.key for call in calls)
    least = max(_FEWEST, max(counts.values(), default=0) // _RARELY)
    often = {key: count for key, count in counts.items() if count > least}
    fewest = min(often.values(), default=0)
    # A program may end, or begin, in the middle of a step.
    first = next((key for key, count in often.items() if count <= fewest * 1.2), None)
    at = [number for number, call in enumerate(calls) if call.key == first]
    whole = [(begin, end) for begin, end in itertools.pairwise(at) if calls[begin].epoch == calls[end].epoch]
    if first is None or len(whole) < _FEWEST:
        return None
    inside = collections.Counter(call.key for begin, end in whole for call in calls[begin:end])
    return Steps(
        first,
        [(calls[end].at - calls[begin].at) / 1000 for begin, end in whole],
        {key: count / len(whole) for key, count in inside.items()},
    )


@dataclasses.dataclass(frozen=True)
class Timed:
    """One call that was timed, in nanoseconds: all of it, its graphs, and how many there were."""

    whole: int
    graphs: int
    count: int


class Clock:
    """Counts the calls of compiled code on this thread, notes when they began, and times them while told to.

    Attributes:
        calls: how often compiled code was called from code that is not compiled.
        begun: the last of these calls.
        timed: those that were timed, by what was called.
        is_timing: whether calls and their graphs are timed now.
        names: what is called, for people.

    Args:
        compilations: how many there have been: a step in which there was one counts for nothing.
    """

    def __init__(self, compilations: Callable[[], int] = lambda: 0) -> None:
        self.calls = 0
        self.begun: collections.deque[Call] = collections.deque(maxlen=_MOST_CALLS)
        self.timed: dict[Hashable, collections.deque[Timed]] = {}
        self.is_timing = False
        self.names: dict[Hashable, str] = {}
        self._compilations = compilations
        self._known_compilations = 0
        self._epoch = 0
        self._thread = threading.get_ident()
        self._is_inside = self._is_in_graph = False
        self._graph_ns = self._graphs = self._kernels = 0
        self._making_modules = 0

    # ---- for those who measure ---------------------------------------------------------------------------------------

    def begins(self, key: Hashable) -> None:
        """Called before each call, with what is called."""

    def ends(self) -> None:
        """Called after each call."""

    def disturb(self) -> None:
        """Has the step that goes on now count for nothing: something is compiled or measured in it."""
        self._epoch += 1

    def steps(self) -> Steps | None:
        """The steps so far; None where there are too few."""
        return steps_of(list(self.begun))

    def beside_us(self, steps: Steps) -> float | None:
        """What the calls of a step take beside their graphs, guards included, in µs. None where that was not timed.

        Nor is it known where calls have several graphs: code that is not compiled runs between them.
        """
        found = {key: self.timed.get(key, ()) for key in steps.calls}
        if not all(found.values()) or any(median(one.count for one in timed) > 1 for timed in found.values()):
            return None
        each = {key: median(one.whole - one.graphs for one in timed) for key, timed in found.items()}
        return sum(each[key] * count for key, count in steps.calls.items()) / 1000

    # ---- calls -------------------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Has what ``torch.compile`` makes from now on ask this clock, for the rest of the process.

        Unified guards are installed first, if at all: they have to see torch's own code.
        """
        functions: tuple[Any, ...] = (self.begins, self.ends, self._run)
        for function in functions:
            torch_frames.skip_code(function.__code__)
        original = torch_frames.OptimizeContext.__call__
        call_of_modules = vars(torch_frames.OptimizedModule).get("__call__")
        if call_of_modules is not None:
            self._give(call_of_modules, None)

        @functools.wraps(original)
        def __call__(context: Any, fn: Any) -> Any:
            is_module = isinstance(fn, torch.nn.Module) and call_of_modules is not None
            self._making_modules += is_module
            try:
                made = original(context, fn)
            finally:
                self._making_modules -= is_module
            # The forward of a module is called by the call of that module, which asks already.
            if isinstance(made, types.FunctionType) and not self._making_modules:
                self._give(made, _name_of(fn))
            return made

        torch_frames.OptimizeContext.__call__ = __call__
        self._time_graphs()

    def _give(self, function: types.FunctionType, name: str | None) -> None:
        """Has the code of a function ask the clock first. Without a name it is the call of any module."""
        code = function.__code__
        arguments = inspect.getargs(code)
        names = (*arguments.args, *filter(None, (arguments.varargs, arguments.varkw)))
        own = types.FunctionType(code, function.__globals__, code.co_name, function.__defaults__, function.__closure__)

        if name is not None and names == ("args", "kwargs"):
            self.names[own] = name

            def ask(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
                return self._run(own, own, args, kwargs)

        elif name is None and names == ("self", "args", "kwargs"):

            def ask(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # type: ignore[misc]
                key = id(module)
                if key not in self.names:
                    self.names[key] = _name_of(module._orig_mod)
                return self._run(key, own, (module, *args), kwargs)

        else:
            return  # this torch calls in another way: its calls are not counted
        torch_frames.skip_code(ask.__code__)
        function.__code__ = with_gate(gated(code, names), ask)

    def _run(self, key: Hashable, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._is_inside or threading.get_ident() != self._thread:
            return own(*args, **kwargs)
        self._is_inside = True
        self.calls += 1
        self.begun.append(Call(key, perf_counter_ns(), self._epoch))
        self.begins(key)
        self._graph_ns = self._graphs = 0
        began = perf_counter_ns()
        try:
            result = own(*args, **kwargs)
            if self.is_timing:
                whole = perf_counter_ns() - began
                if key not in self.timed:
                    self.timed[key] = collections.deque(maxlen=_MOST_TIMED)
                self.timed[key].append(Timed(whole, self._graph_ns, self._graphs))
            return result
        finally:
            self._is_inside = False
            compilations = self._compilations()
            if compilations != self._known_compilations:
                self._known_compilations = compilations
                self.disturb()
            self.ends()

    # ---- graphs ------------------------------------------------------------------------------------------------------

    def _time_graphs(self) -> None:
        """Has graphs that are compiled from now on be timed.

        What Inductor has compiled is timed inside of AOTAutograd's wrappers, which are part of what a call costs.
        """
        compile_graph = OutputGraph.call_user_compiler
        clock = self

        @functools.wraps(compile_graph)
        def call_user_compiler(graph: Any, *args: Any, **kwargs: Any) -> Any:
            kernels = clock._kernels
            made = compile_graph(graph, *args, **kwargs)
            return made if clock._kernels > kernels else clock._timing(made)

        OutputGraph.call_user_compiler = call_user_compiler
        name = "torch._inductor.output_code"
        if name in sys.modules:
            self._time_kernels(sys.modules[name])
        else:
            sys.meta_path.insert(0, _AfterImport(name, self._time_kernels))

    def _time_kernels(self, inductor: Any) -> None:
        clock = self

        def __setattr__(graph: Any, name: str, value: Any) -> None:
            if name == "current_callable" and callable(value):
                clock._kernels += 1
                value = clock._timing(value)
            object.__setattr__(graph, name, value)

        inductor.CompiledFxGraph.__setattr__ = __setattr__

    def _timing(self, graph: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*inputs: Any) -> Any:
            if not self.is_timing or self._is_in_graph or threading.get_ident() != self._thread:
                return graph(*inputs)
            self._is_in_graph = True
            began = perf_counter_ns()
            try:
                return graph(*inputs)
            finally:
                self._graph_ns += perf_counter_ns() - began
                self._graphs += 1
                self._is_in_graph = False

        with contextlib.suppress(AttributeError):
            timed._boxed_call = graph._boxed_call  # type: ignore[attr-defined]
        return timed


def _name_of(callee: Any) -> str:
    """What was given to ``torch.compile``, for people."""
    owner = getattr(callee, "__self__", None)
    if isinstance(callee, torch.nn.Module):
        return type(callee).__name__
    if owner is not None and not isinstance(owner, types.ModuleType | type):
        name = getattr(callee, "__name__", "")
        called = name in ("__call__", "_call_impl", "_wrapped_call_impl")
        return type(owner).__name__ if called else f"{type(owner).__name__}.{name}"
    name = getattr(callee, "__qualname__", None) or type(callee).__name__
    return str(name).rpartition("<locals>.")[2]
