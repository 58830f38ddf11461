"""From a callable and its lifted inputs to compiled code: torch's AOTAutograd, at the time of lowering.

Entry points: :class:`Compilers`, :func:`compile_entry`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._functorch import aot_autograd as torch_aot
from torch._functorch._aot_autograd.descriptors import PlainAOTInput
from torch._functorch._aot_autograd.schemas import AOTConfig, OutputType
from torch._functorch.partitioners import default_partition
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from unified_guards import _C
from unified_guards.aot.lifting import (
    Leaf,
    Lifting,
    Role,
    Template,
    is_constant,
    keep_shared_memory_static,
    shares_memory,
)
from unified_guards.aot.places import Ambient
from unified_guards.aot.shapes import fake_mode_for, make_fake
from unified_guards.aot.stand_in import StandIn
from unified_guards.aot.state import State, standing_in
from unified_guards.errors import Unguardable

_REBUILD: dict[str, int] = _C.REBUILD
#: Rows of (kind, count, object) in prefix order, as csrc/lookup/lookup.h takes them.
Rebuild = list[tuple[int, int, Any]]


@dataclasses.dataclass(frozen=True)
class Compilers:
    """What torch's ``aot_function`` takes beside the function, in its words."""

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

    def lower(self, state: Any, captured: Any) -> Callable[[list[Any]], Any]:
        """The captured graphs, compiled."""
        compiled, _ = torch_aot.aot_stage2_compile(
            state,
            captured,
            self.partition_fn,
            self.with_options(self.fw_compiler),
            self.with_options(self.bw_compiler),
            self.with_options(self.inference_compiler),
        )
        return compiled  # type: ignore[no-any-return]


@dataclasses.dataclass
class Compiled:
    """What tracing one call made.

    Attributes:
        function: from the flat list of real leaves to the flat outputs.
        rebuild: from the flat outputs to what the function returned.
        leaves: in the order in which the graph takes them.
        mutates: whether it writes to some of them.
        reads_offset: whether it looked at where a tensor begins in its storage.
    """

    function: Callable[[list[Any]], Any]
    rebuild: Rebuild
    leaves: list[Leaf]
    mutates: bool
    reads_offset: bool


class _FlatFunction:
    """The function over the flat leaves, as AOTAutograd traces it, several times."""

    def __init__(self, target: Callable[..., Any], template: Template, leaves: list[Leaf], state: State) -> None:
        self.target = target
        self.template = template
        self.leaves = leaves
        self.state = state
        self.rebuild: Rebuild = []
        self.reads_offset = False
        self.__name__ = getattr(target, "__name__", type(target).__name__)

    def __call__(self, *flat: Any) -> list[Any]:
        traced = dict(zip(self.leaves, flat, strict=True))
        args, kwargs = self.template(traced)
        before = pytree.tree_flatten((args, kwargs))
        tensors = [leaf for leaf in self.leaves if isinstance(leaf.value, torch.Tensor)]
        mode = StandIn({id(leaf.value): traced[leaf] for leaf in tensors}, {id(traced[leaf]): leaf for leaf in tensors})
        ambient, attributes = Ambient(), _own_attributes(traced)
        try:
            with standing_in(self.leaves, traced), mode.watching(), mode:
                result = self.target(*args, **kwargs)
        finally:
            changed = self.state.restore() or ambient.restore()
        self.reads_offset |= mode.reads_offset
        if mode.refused is not None:
            raise Unguardable(f"the function {mode.refused}")  # and caught the first one
        if _own_attributes(traced) != attributes:
            changed = "an attribute of a tensor"
        if changed is not None:
            raise Unguardable(f"the function changes {changed}")
        after = pytree.tree_flatten((args, kwargs))
        if before[1] != after[1] or any(a is not b for a, b in zip(before[0], after[0], strict=True)):
            raise Unguardable("the function changes a container among its arguments")
        outputs: list[Any] = []
        self.rebuild = []
        self._output(mode.swap(result), outputs)
        return outputs

    def _output(self, value: Any, outputs: list[Any]) -> None:
        """Writes how to build ``value`` out of the outputs of the graph."""
        kind, rows = type(value), self.rebuild
        if isinstance(value, torch.nn.Parameter) and not any(value is leaf.value for leaf in self.leaves):
            raise Unguardable("the function returns a new torch.nn.Parameter")
        if isinstance(value, torch.Tensor | torch.SymInt | torch.SymFloat):
            rows.append((_REBUILD["LEAF"], len(outputs), None))
            outputs.append(value)
        elif isinstance(value, torch.SymBool):
            rows.append((_REBUILD["CONSTANT"], 0, bool(value)))
        elif kind is tuple or kind is list:
            rows.append((_REBUILD["TUPLE" if kind is tuple else "LIST"], len(value), None))
            for item in value:
                self._output(item, outputs)
        elif kind is dict:
            rows.append((_REBUILD["DICT"], len(value), tuple(value)))
            for item in value.values():
                self._output(item, outputs)
        elif kind in pytree.SUPPORTED_NODES or (isinstance(value, tuple) and hasattr(kind, "_make")):
            self._node(value, outputs)
        elif is_constant(value) or id(value) in self.state.lifting.constants:
            rows.append((_REBUILD["CONSTANT"], 0, value))
        else:
            raise Unguardable(
                f"the function returns a {kind.__module__}.{kind.__qualname__}, which is neither a tensor, nor a "
                "constant, nor registered with torch.utils._pytree"
            )

    def _node(self, value: Any, outputs: list[Any]) -> None:
        if isinstance(value, tuple):
            children, build = list(value), getattr(type(value), "_make", type(value))
        else:
            node = pytree.SUPPORTED_NODES[type(value)]
            children, context = node.flatten_fn(value)
            unflatten = node.unflatten_fn

            def build(parts: list[Any]) -> Any:
                return unflatten(parts, context)

        self.rebuild.append((_REBUILD["CALL"], len(children), build))
        for child in children:
            self._output(child, outputs)


_ORDER = {Role.PARAMETER: 0, Role.BUFFER: 1, Role.ARGUMENT: 2, Role.CAPTURED: 3}


def in_order(leaves: list[Leaf]) -> list[Leaf]:
    """Parameters and buffers first, as in torch's ``aot_module``; then arguments; then the rest."""
    return sorted(leaves, key=lambda leaf: _ORDER[leaf.role])


def fake_leaves(lifting: Lifting) -> tuple[list[Leaf], Any]:
    """The leaves in the order of the graph, each with its fake; and the fake mode."""
    leaves = in_order(lifting.leaves)
    keep_shared_memory_static(leaves)
    symbolic = any(any(leaf.dynamic) or not isinstance(leaf.value, torch.Tensor) for leaf in leaves)
    mode = fake_mode_for([leaf.value for leaf in leaves], symbolic=symbolic)
    with _tracing_may_fail():
        make_fake(leaves, mode)
    return leaves, mode


def compile_entry(
    target: Callable[..., Any], template: Template, lifting: Lifting, state: State, compilers: Compilers
) -> tuple[Compiled, Any]:
    """Traces ``target`` on fake leaves and compiles its graphs, forward and backward.

    Returns:
        What was compiled, and the ShapeEnv that was guarded on (or None).

    Raises:
        Unguardable: the function has effects that compiled code would not have.
        Exception: whatever the function, torch or a compiler raises.
    """
    leaves, mode = fake_leaves(lifting)
    static = sum(leaf.role in (Role.PARAMETER, Role.BUFFER) for leaf in leaves)
    config = AOTConfig(
        fw_compiler=None,
        bw_compiler=None,
        inference_compiler=None,
        partition_fn=None,
        decompositions=compilers.decompositions,
        num_params_buffers=static + compilers.num_params_buffers,
        aot_id=next(torch_aot.AOT_COUNTER),
        keep_inference_input_mutations=compilers.keep_inference_input_mutations,
        dynamic_shapes=mode.shape_env is not None,
        aot_autograd_arg_pos_to_source=None,
        is_export=False,
        no_tangents=False,
        **compilers.config,
    )
    flat_fn = _FlatFunction(target, template, leaves, state)
    fakes = [leaf.fake for leaf in leaves]
    with contextlib.ExitStack() as stack, _state_kept(state):
        with _tracing_may_fail():
            made = torch_aot.create_aot_state(
                stack, flat_fn, fakes, [PlainAOTInput(at) for at in range(len(fakes))], config, mode, mode.shape_env
            )
            mutates = any(info.mutates_data or info.mutates_metadata for info in made.fw_metadata.input_info)
            if any(map(_is_illegal_write, made.fw_metadata.input_info)):
                raise Unguardable("the function writes to a leaf that requires grad, which eager refuses")
            if mutates:
                _refuse_views_of_written(leaves, made.fw_metadata)
            captured = torch_aot.aot_stage1_graph_capture(made, flat_fn)
        function = compilers.lower(made, captured)
    return Compiled(function, flat_fn.rebuild, leaves, mutates, flat_fn.reads_offset), mode.shape_env


def _is_illegal_write(info: Any) -> bool:
    hidden = info.mutations_hidden_from_autograd or info.mutations_under_no_grad_or_inference_mode
    return bool(info.mutates_data and info.requires_grad and info.is_leaf and not hidden)


def _refuse_views_of_written(leaves: list[Leaf], metadata: Any) -> None:
    """Where AOTAutograd makes wrong views of inputs that it wrote to: of memory that inputs share, because it takes
    them for views of one base; and with symbolic strides, because it applies them to a copy of other strides."""
    plain = (OutputType.non_alias, OutputType.unsafe_view_alias, OutputType.custom_function_view)
    for info in metadata.output_info:
        if info.output_type in plain:
            continue
        base = leaves[info.base_idx] if info.base_idx is not None and info.base_idx < len(leaves) else None
        if shares_memory(leaves) or (base is not None and any(base.dynamic)):
            raise Unguardable("the function writes to an argument and returns a view of it")


@contextlib.contextmanager
def _tracing_may_fail() -> Iterator[None]:
    """What cannot be traced can be run: if the function itself is wrong, it will say so then, as eager does."""
    try:
        yield
    except Unguardable:
        raise
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_torchs(frame.filename)]
        line = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        if isinstance(error, DataDependentOutputException | DynamicOutputShapeException | GuardOnDataDependentSymNode):
            raise Unguardable(f"the function depends on the values of tensors{line}") from None
        said = str(error).partition("\n")[0]
        raise Unguardable(f"it cannot be traced{line}: {type(error).__name__}: {said}") from error


def _own_attributes(traced: dict[Leaf, Any]) -> list[set[str]]:
    """The names that the program gave to attributes of the traced tensors; torch's begin with an underscore."""
    tensors = (tensor for tensor in traced.values() if isinstance(tensor, torch.Tensor))
    return [{name for name in vars(tensor) if not name.startswith("_")} for tensor in tensors]


def _is_torchs(path: str) -> bool:
    return path.startswith((os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(__file__))))


@contextlib.contextmanager
def _state_kept(state: State) -> Iterator[None]:
    """What the function wrote to is put back, also when tracing fails in the middle."""
    try:
        yield
    finally:
        state.restore()
