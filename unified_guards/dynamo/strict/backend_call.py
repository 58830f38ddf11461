"""Notes what Dynamo gave to the backend while it compiled a frame, for the rules of ``memory.py``.

Also makes torch's caches keep two calls apart that a strict guard tells apart. Entry points: :func:`noting_calls`,
:func:`call_of`, :func:`mutated`.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch._dynamo.utils import counters
from torch._guards import TracingContext

from unified_guards.dynamo import compat
from unified_guards.dynamo.provenance import is_barrier
from unified_guards.dynamo.strict.known import Call, Dims, Layout
from unified_guards.guards.memory import bytes_of_storage, storage_of

_calls: weakref.WeakKeyDictionary[TracingContext, Call] = weakref.WeakKeyDictionary()


class _Given(NamedTuple):
    """An input of the graph: torch's name of its source, the tensor, and what the graph has in its place."""

    name: str | None
    tensor: Any
    fake: Any


def _given(graph_module: Any) -> list[_Given]:
    parameters = getattr(graph_module, "_param_name_to_source", None) or {}
    own = dict(graph_module.named_parameters()) | dict(graph_module.named_buffers()) if parameters else {}
    found = [_Given(getattr(source, "name", None), own.get(name), None) for name, source in parameters.items()]
    for node in graph_module.graph.find_nodes(op="placeholder"):
        argument, fake = node.meta.get("grapharg"), node.meta.get("example_value")
        tensor = getattr(argument, "example", None)
        found.append(_Given(getattr(getattr(argument, "source", None), "name", None), tensor, fake))
    return found


def _fixed(number: Any) -> int | None:
    """A number of the graph; None for a symbol, because torch itself guards what depends on a symbol."""
    return number if type(number) is int else number.node.maybe_as_int()


def _dims_of(fake: Any) -> Dims | None:
    """Where a tensor is in memory, as far as the graph has made constants of it; None for a tensor without memory."""
    if not isinstance(fake, torch.Tensor) or storage_of(fake) is None:
        return None
    sizes, strides = (tuple(map(_fixed, each)) for each in (fake.size(), fake.stride()))
    return Dims(sizes, strides, _fixed(fake.storage_offset()))


def _layouts(given: list[_Given]) -> dict[str | None, Layout]:
    found = {}
    for each in given:
        own = _dims_of(each.fake)
        if own is not None:
            found[each.name] = Layout(own, _dims_of(each.fake._base))
    return found


#: Code with these names may depend on where a tensor begins in its memory.
_OFFSET_READERS = frozenset({"storage_offset", "as_strided", "as_strided_"})


def _reads_offsets(context: TracingContext | None) -> bool:
    codes = getattr(context, "traced_code", None) or ()
    return any(not _OFFSET_READERS.isdisjoint(code.co_names) for code in codes)


def _pattern(given: list[_Given], reads_offsets: bool) -> str:
    """Which inputs share memory, and how, as text. Compiled code depends on it, and no key of torch's caches has it.

    Empty where no input shares memory with another and none is read by its place in memory. Such calls keep the keys
    that torch gives them.
    """
    groups: dict[int | None, list[int]] = {}
    for at, each in enumerate(given):
        groups.setdefault(storage_of(each.tensor), []).append(at)
    groups.pop(None, None)
    shared = [group for group in groups.values() if len(group) > 1 or reads_offsets]
    return ";".join(",".join(f"{at}:{_memory_of(given[at].tensor)}" for at in group) for group in shared)


def _memory_of(tensor: torch.Tensor) -> str:
    base = tensor._base
    of = f" of {bytes_of_storage(tensor)} bytes"
    if base is not None:
        of += f" of {tuple(base.size())}{tuple(base.stride())}{base.storage_offset()}{base.dtype}"
    return f"{tensor.storage_offset()}{tuple(tensor.size())}{tuple(tensor.stride())}{tensor.dtype}{of}"


def _hits() -> int:
    return int(counters["aot_autograd"]["autograd_cache_hit"])


def noting_calls(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """``OutputGraph.call_user_compiler``, with what the backend was given noted while ``wanted`` says so.

    Torch's caches must not give the same code for two calls that a strict guard tells apart.
    """

    def call_user_compiler(self: Any, gm: Any, *args: Any, **kwargs: Any) -> Any:
        if not wanted():
            return original(self, gm, *args, **kwargs)
        given, before, reads_offsets = _given(gm), _hits(), _reads_offsets(self.tracing_context)
        inputs, layouts = [each.name for each in given], _layouts(given)
        pattern = _pattern(given, reads_offsets)
        del given  # it would keep tensors alive
        with compat.caches_apart(pattern) if pattern else contextlib.nullcontext():
            result = original(self, gm, *args, **kwargs)
        _calls[self.tracing_context] = Call(inputs, _hits() != before, layouts, reads_offsets)
        return result

    is_barrier(call_user_compiler)
    call_user_compiler.__doc__ = original.__doc__
    return call_user_compiler


def mutated(context: TracingContext | None, call: Call | None) -> list[bool] | None:
    """Which inputs of the graph its compiled code writes to; all of them where that cannot be told.

    It cannot be told where AOTAutograd took the result from its cache, or replaced inputs that share memory by their
    base, so that inputs have other numbers. None where no input is written to, and without AOTAutograd: then the
    graph's own operators run, and are right whatever shares memory.
    """
    if call is None:
        return None
    metadata = getattr(context, "fw_metadata", None)
    if metadata is None:
        return [True] * len(call.inputs) if call.cached else None
    written = [info.mutates_data or info.mutates_storage_metadata for info in metadata.input_info]
    if not any(written):
        return None
    return written if len(written) == len(call.inputs) else [True] * len(call.inputs)


def call_of(context: TracingContext) -> Call | None:
    """Returns what was noted of a compilation, and forgets it."""
    return _calls.pop(context, None)
