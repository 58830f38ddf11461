"""What torch's ``aot_function`` takes beside the function. Entry point: :class:`Compilers`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch._functorch import aot_autograd as torch_aot
from torch._functorch._aot_autograd.schemas import OutputType
from torch._functorch.partitioners import default_partition
from torch._guards import TracingContext

from unified_guards.errors import Unguardable
from unified_guards.guards.memory import storage_of

#: What torch's ``aot_module_simplified`` takes in this version.
SIMPLIFIED = inspect.signature(torch_aot.aot_module_simplified).parameters


class CompilerFailed(Exception):
    """A compiler of the user's has raised what this has as its cause. Never leaves this package."""


@dataclasses.dataclass(frozen=True)
class Compilers:
    """What torch's ``aot_function`` takes beside the function, in its words.

    Attributes:
        options: handed to every compiler as keyword arguments.
        config: what else torch's ``aot_module_simplified`` takes.
    """

    fw_compiler: Callable[..., Any]
    bw_compiler: Callable[..., Any] | None = None
    partition_fn: Callable[..., Any] = default_partition
    decompositions: dict[Any, Callable[..., Any]] | None = None
    num_params_buffers: int = 0
    keep_inference_input_mutations: bool = False
    inference_compiler: Callable[..., Any] | None = None
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    config: dict[str, Any] = dataclasses.field(default_factory=dict)

    def with_options(self, compiler: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """A compiler that is given the options, too."""
        return functools.partial(compiler, **self.options) if compiler is not None and self.options else compiler

    def lower(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        """The graph of a frame, compiled, forward and backward, by torch's AOTAutograd.

        Raises:
            CompilerFailed: a compiler or the partitioner has raised.
            Unguardable: compiled code would not do what the function does.
            Exception: torch cannot trace the graph.
        """
        with _telling() as told:
            compiled: Callable[..., Any] = torch_aot.aot_module_simplified(
                graph,
                inputs,
                told(self.with_options(self.fw_compiler)),
                told(self.with_options(self.bw_compiler)),
                told(self.partition_fn),
                self.decompositions,
                self.keep_inference_input_mutations,
                told(self.with_options(self.inference_compiler)),
                **self.config,
            )
        _refuse_wrong_writes(inputs)
        _refuse_wrong_views(graph, inputs)
        return compiled


def _refuse_wrong_writes(inputs: Sequence[Any]) -> None:
    """Where AOTAutograd's code is wrong about inputs that it writes to."""
    metadata: Any = getattr(TracingContext.get(), "fw_metadata", None)
    written = () if metadata is None else metadata.input_info
    if not any(info.mutates_data or info.mutates_metadata for info in written):
        return
    if any(map(_is_illegal, written)):
        raise Unguardable("the function writes to a leaf that requires grad, which eager refuses")
    # It takes views of memory that inputs share for views of one base; and where strides are symbolic, it applies them
    # to a copy that has others.
    alike = _share_memory(inputs)
    for info in metadata.output_info:
        if info.output_type in _NO_ALIAS:
            continue
        base = inputs[info.base_idx] if info.base_idx is not None and info.base_idx < len(inputs) else None
        if alike or (isinstance(base, torch.Tensor) and _is_symbolic(base)):
            raise Unguardable("the function writes to an argument and returns a view of it")


def _refuse_wrong_views(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> None:
    """A view that was made without a graph is a leaf. AOTAutograd makes the views that come out with one."""
    metadata: Any = getattr(TracingContext.get(), "fw_metadata", None)
    if metadata is None or not torch.is_grad_enabled():
        return
    if not any(node.target is torch._C._set_grad_enabled for node in graph.graph.nodes):
        return
    for info in metadata.output_info:
        base = inputs[info.base_idx] if info.base_idx is not None and info.base_idx < len(inputs) else None
        if info.output_type is OutputType.alias_of_input and isinstance(base, torch.Tensor) and base.requires_grad:
            raise Unguardable("the function sets the grad mode and returns a view of an argument")


_NO_ALIAS = (OutputType.non_alias, OutputType.unsafe_view_alias, OutputType.custom_function_view)


def _is_illegal(info: Any) -> bool:
    hidden = info.mutations_hidden_from_autograd or info.mutations_under_no_grad_or_inference_mode
    return bool(info.mutates_data and info.requires_grad and info.is_leaf and not hidden)


def _share_memory(inputs: Sequence[Any]) -> bool:
    storages = [storage_of(each) for each in inputs if isinstance(each, torch.Tensor)]
    known = [each for each in storages if each is not None]
    return len(set(known)) < len(known)


def _is_symbolic(tensor: torch.Tensor) -> bool:
    return any(not isinstance(number, int) for number in (*tensor.size(), *tensor.stride()))


@contextlib.contextmanager
def _telling() -> Iterator[Callable[[Any], Any]]:
    """A function that gives a compiler which tells what it raises from what torch raises.

    It tells while this is entered: torch compiles some backward graphs when they are first run, in a call of a user.
    """
    entered = [True]

    def told(compiler: Callable[..., Any] | None) -> Any:
        if compiler is None or (not inspect.isroutine(compiler) and not isinstance(compiler, functools.partial)):
            return compiler  # an object that torch may ask for more than to be called

        @functools.wraps(compiler)
        def telling(*args: Any, **kwargs: Any) -> Any:
            try:
                return compiler(*args, **kwargs)
            except Exception as error:
                if entered:
                    raise CompilerFailed from error
                raise

        return telling

    try:
        yield told
    finally:
        entered.clear()
