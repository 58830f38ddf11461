"""What is called for a compiled graph on the short way, without the wrappers that have nothing to do there.

Dynamo puts a wrapper around each graph that switches Dynamo off; on the short way it is off. AOTAutograd puts three
around what Inductor has compiled. Where the graph needs no gradient, mutates nothing and returns no alias of an input,
all they do is to switch gradients off and count the outputs. Which wrappers these are is compared with what torch
itself makes for such a graph, so a wrapper that does more is called. Entry point: :func:`graph_of`.
"""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Any, NamedTuple

from torch._dynamo.eval_frame import DisableContext, OptimizedModule

from unified_guards import _C
from unified_guards.dynamo import compat
from unified_guards.dynamo.bytecode import numbers_in

#: Plan in csrc/call/plan.h.
ONE_BY_ONE, AS_LIST = -1, -2


class Graph(NamedTuple):
    """How a compiled graph is called.

    Attributes:
        owner: what is called, or whose attribute is.
        attribute: the name of that attribute, read on every call; None where the owner itself is called.
        outputs: ONE_BY_ONE or AS_LIST: how the inputs are given. Otherwise they are given as one list, with gradients
            switched off, and this many outputs come back.
        left_out: the code of the wrappers that are not called, the innermost first. A traceback names them.
    """

    owner: Any
    attribute: str | None = None
    outputs: int = ONE_BY_ONE
    left_out: tuple[types.CodeType, ...] = ()


class ListGraph:
    """What AOTAutograd has made of a graph for an AOT entry point, and Dynamo calls.

    Attributes:
        forward: as AOTAutograd gives it to Dynamo.
        compiled: the same, called with one list of inputs.
    """

    def __init__(self, forward: Callable[..., Any]) -> None:
        known = isinstance(forward, types.FunctionType) and forward.__code__ is _forward_code()
        cells = _cells_of(forward) if known else {}
        self.forward = forward
        is_plain = cells.get("params_buffers_flat") == []
        self.compiled = _without_prologue(cells["compiled_fn"]) if is_plain else functools.partial(_on_list, forward)

    def __call__(self, *inputs: Any) -> Any:
        return self.compiled(list(inputs))


def _on_list(forward: Callable[..., Any], inputs: list[Any]) -> Any:
    return forward(*inputs)


def graph_of(function: Any) -> Graph | None:
    """What to call for the global that Dynamo has made for a graph; None where it has another form than is known."""
    if type(function) is OptimizedModule and isinstance(function.dynamo_ctx, DisableContext):
        return Graph(function)  # a backend that returns the module: its call runs hooks of all modules
    if not isinstance(function, types.FunctionType) or not _is_disabled(function):
        return None
    inner = vars(function).get("_torchdynamo_orig_callable")
    if not callable(inner):
        return None
    if isinstance(inner, ListGraph):
        return _left_alone(inner.forward) or Graph(inner.compiled, None, AS_LIST)
    found = _compiled_by_inductor(inner) or Graph(inner)
    return found._replace(left_out=(*found.left_out, function.__code__))


def _without_prologue(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """What AOTAutograd has written for one graph, without the wrapper that tells a profiler where it begins."""
    if not isinstance(compiled, types.FunctionType) or not compat.is_known_runtime_wrapper(compiled.__code__):
        return compiled
    cells = _cells_of(compiled)
    written, inner, first = (cells[name] for name in _OF_RUNTIME_WRAPPER)
    return functools.partial(written, inner, first, _nothing)


_OF_RUNTIME_WRAPPER = ("_codegen_runtime_wrapper", "_inner_compiled_fn", "_first_invocation_ctx")


def _nothing() -> None:
    pass


def _is_disabled(function: types.FunctionType) -> bool:
    known = vars(function)
    return known.get("_torchdynamo_disable") is True and known.get("_torchdynamo_wrapper_id") == id(function)


def _compiled_by_inductor(forward: Any) -> Graph | None:
    """What Inductor has compiled, if it stands alone behind the wrappers of AOTAutograd."""
    found = _left_alone(forward)
    return found if found is not None and _is_inductors(found.owner) else None


def _is_inductors(compiled: Any) -> bool:
    if "torch._inductor.output_code" not in sys.modules:  # a program without Inductor is spared its import
        return False
    from torch._inductor.output_code import CompiledFxGraph

    return type(compiled) is CompiledFxGraph


def _left_alone(forward: Any) -> Graph | None:
    """What a compiler has made, if it stands alone behind the wrappers of AOTAutograd."""
    if not isinstance(forward, types.FunctionType) or forward.__code__ is not _forward_code():
        return None
    cells = _cells_of(forward)
    wrapper = _unwrapped(cells.get("compiled_fn"))
    if cells.get("params_buffers_flat") != []:
        return None
    if not isinstance(wrapper, types.FunctionType):
        return None
    cells = _cells_of(wrapper)
    compiled, outputs = _unwrapped(cells.get("_inner_compiled_fn")), _outputs_of(wrapper)
    if outputs is None or not callable(compiled) or cells["_first_invocation_ctx"]._is_first:
        return None
    written = cells["_codegen_runtime_wrapper"].__code__
    left_out = (written, wrapper.__code__, forward.__code__)
    attribute = _attribute_of(compiled) if _is_inductors(compiled) else None
    if attribute is None:
        return Graph(compiled, None, outputs, left_out)
    return Graph(compiled, attribute, outputs, (type(compiled).__call__.__code__, *left_out))


def _unwrapped(function: Any) -> Any:
    """Without what AOTAutograd's cache puts around it, which only hands a call on."""
    from torch._functorch._aot_autograd.runtime_wrappers import SerializableCompiledFunction

    return function.compiled_fn if type(function) is SerializableCompiledFunction else function


def _attribute_of(compiled: Any) -> str | None:
    """Where the call of a CompiledFxGraph does nothing but to call what it holds."""
    if not compat.is_known_graph_call(type(compiled).__call__.__code__):
        return None
    # On a device with kernels that are tuned while they run, the call also ends what is measured of that.
    _watch_records()
    is_on_cpu = list(compiled.device_types) == ["cpu"]
    return "current_callable" if is_on_cpu and compiled._compile_context is None else None


@functools.cache
def _watch_records() -> None:
    """Has calls go torch's way while Inductor records which graphs run: the call of a CompiledFxGraph does that."""
    from torch._inductor import debug

    _C.learn_flag(("kHook", vars(debug), "RECORD_GRAPH_EXECUTION", False))


def _cells_of(function: Any) -> dict[str, Any]:
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if cell != types.CellType()}


@functools.cache
def _forward_code() -> types.CodeType | None:
    """Of the function that AOTAutograd gives to Dynamo: it makes a list of its arguments and hands that on."""
    from torch._functorch import aot_autograd

    found = [
        constant
        for constant in aot_autograd.aot_module_simplified.__code__.co_consts
        if isinstance(constant, types.CodeType) and compat.is_known_aot_forward(constant)
    ]
    return found[0] if len(found) == 1 else None


def _outputs_of(wrapper: types.FunctionType) -> int | None:
    """How many outputs the wrapper of a plain graph expects; None of another wrapper."""
    code = _orchestration(wrapper)
    if code is None:
        return None
    for count in dict.fromkeys(number for number in numbers_in(code) if 0 <= number < 100_000):
        plain = _plain_wrapper(count)
        if plain is not None and plain.__code__ is wrapper.__code__ and _same_code(_orchestration(plain), code):
            return count
    return None


def _orchestration(wrapper: types.FunctionType) -> types.CodeType | None:
    """The code that AOTAutograd has written for one graph."""
    written = _cells_of(wrapper).get("_codegen_runtime_wrapper")
    return getattr(written, "__code__", None)


@functools.lru_cache(maxsize=64)
def _plain_wrapper(outputs: int) -> types.FunctionType | None:
    """The wrapper that torch itself makes for a graph with nothing but outputs."""

    class Metadata:
        num_outputs = outputs
        grad_enabled_mutation = None

        def __getattr__(self, name: str) -> Any:
            return 0 if name.startswith("num_") else ()

    from torch._functorch._aot_autograd import runtime_wrappers

    make: Callable[..., Any] = runtime_wrappers._create_runtime_wrapper
    try:
        made = make(
            lambda args: args,
            runtime_metadata=Metadata(),
            indices_of_inps_to_detach=[],
            trace_joint=False,
            keep_input_mutations=False,
            disable_amp=False,
        )
    except Exception:  # this torch makes it in another way
        return None
    return made if isinstance(made, types.FunctionType) else None


def _same_code(one: types.CodeType | None, other: types.CodeType) -> bool:
    if one is None:
        return False
    parts = ("co_code", "co_consts", "co_names", "co_varnames")
    return all(getattr(one, part) == getattr(other, part) for part in parts)


__all__ = ["Graph", "ListGraph", "graph_of"]
