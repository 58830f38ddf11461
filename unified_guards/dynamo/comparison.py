"""Compares what a plan does with what Dynamo's code does, on the calls that ``UNIFIED_GUARDS_VERIFY`` asks for.

A plan (``dynamo/plan.py``) says what the code of an entry does around its graph. Such code only reads, so it may be run
as well: with a graph that first compares what it is given with what the plan gathers. The real graph runs once, and the
result that the plan builds of its outputs is compared with the one that the code has built. Code that does more after
the graph must not do it twice: it is stopped where it calls the graph. Entry point: :class:`Comparison`.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch

from unified_guards.verify import Judge

#: At most one hit in so many is compared: the others show what a program does without.
_SELDOMEST = 8


class Comparison:
    """For one entry: called with the inputs that the plan gathers, makes the comparison of one call.

    Attributes:
        every: one hit in so many is compared, beginning with the first. No chance is in it, so that a run repeats.
    """

    def __init__(self, judge: Judge, function: types.FunctionType, graph: str, way: tuple[Any, ...]) -> None:
        """Of the plan ``way`` (``Dispatcher._way_of``) for a function whose code is Dynamo's and whose graph is the
        global of that name."""
        plan, *_ = way
        *_, self._steps, self._unpacked, _ = plan
        self.every = max(_SELDOMEST, round(1 / judge.share))
        self._stops = self._steps is None  # code is left to run
        self._judge = judge
        self._function = function
        self._graph = graph

    def __call__(self, inputs: tuple[Any, ...]) -> _Call:
        return _Call(self, inputs)

    def function(self, call: _Call) -> types.FunctionType:
        """Dynamo's code, with a graph that compares. The call does not refer to it: no cycle keeps the code alive."""
        own = self._function
        scope = {**own.__globals__, self._graph: call.run}
        return types.FunctionType(own.__code__, scope, own.__name__, None, own.__closure__)


def _plan(graph: Callable[..., Any], steps: Any, unpacked: int) -> tuple[Any, ...]:
    return graph, None, -1, (), [], [], steps, unpacked, 0


class _Stop(BaseException):
    """Ends code at its graph."""


class _Call:
    """One call.

    Attributes:
        builds: the plan that builds the result once more, of the outputs that there were; None where they are given in
            a form that cannot be read twice.
    """

    builds: tuple[Any, ...] | None = None
    _given: tuple[Any, ...] | None = None

    def __init__(self, entry: Comparison, inputs: tuple[Any, ...]) -> None:
        self._entry = entry
        self._inputs = inputs
        self._graph = entry._function.__globals__[entry._graph]

    def run(self, *args: Any) -> Any:
        """Stands for the graph."""
        if len(args) != len(self._inputs):
            self._differ(f"gives {len(self._inputs)} inputs to the graph where Dynamo's code gives {len(args)}")
        elif wrong := [at for at, given in enumerate(args) if not _is_same_input(given, self._inputs[at])]:
            self._differ(f"gives the graph another input {wrong[0]} than Dynamo's code")
        if self._entry._stops:
            self._given = args
            raise _Stop
        outputs = self._graph(*args)
        if type(outputs) in (list, tuple):
            self.builds = _plan(lambda: outputs, self._entry._steps, self._entry._unpacked)
        return outputs

    def stopped(self, error: BaseException | None) -> tuple[Any, ...] | None:
        """Called with what has ended the code that is to end at its graph. What it gives to the graph, if it does."""
        if error is not None and not isinstance(error, _Stop):
            raise error
        if error is None:
            self._differ("calls a graph where Dynamo's code calls none")
        return self._given

    def end(self, result: Any, built: Any) -> Any:
        """The result of the call.

        Args:
            result: what Dynamo's code has built.
            built: what the plan has built.
        """
        if not _is_same_result(result, built):
            self._differ("builds another result than Dynamo's code")
        return result

    def _differ(self, how: str) -> None:
        self._entry._judge.differ(how)


def _is_same_input(one: Any, other: Any) -> bool:
    """Whether they are one object, or look like what an attribute gives anew each time it is read."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return _looks(one) == _looks(other)
    return repr(one) == repr(other) if isinstance(one, int | float | complex | str) else True


def _looks(tensor: torch.Tensor) -> tuple[Any, ...]:
    return _place(tensor), tensor.shape, tensor.dtype, tensor.device, tensor.requires_grad


def _place(tensor: torch.Tensor) -> int | None:
    try:
        return int(tensor.data_ptr())
    except Exception:  # it has no memory of its own
        return None


def _is_same_result(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if type(one) in (list, tuple):
        return len(one) == len(other) and all(map(_is_same_result, one, other))
    if type(one) is dict:
        return list(one) == list(other) and all(_is_same_result(one[key], other[key]) for key in one)
    return not isinstance(one, torch.Tensor) and bool(one == other)


__all__ = ["Comparison"]
