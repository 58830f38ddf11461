"""Wraps any Dynamo backend: gives it fake inputs, and has the guards that its tracing adds lifted.

Entry point: :func:`backend`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._dynamo.backends.registry import lookup_backend
from torch._dynamo.eval_frame import skip_code
from torch._guards import TracingContext
from torch._subclasses.fake_tensor import FakeTensor

from unified_guards.dynamo import install
from unified_guards.dynamo.provenance import backend_call, is_barrier
from unified_guards.guards.memory import storage_of

Compiler = Callable[..., Callable[..., Any]]


# -- keyword arguments ---------------------------------------------------------------------------------------------


def _accepted(compiler_fn: Compiler) -> set[str] | None:
    """The keyword arguments that a backend takes beside the graph and the inputs; None for all."""
    try:
        parameters = list(inspect.signature(compiler_fn).parameters.values())
    except (TypeError, ValueError):
        return None  # the function does not say
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    named = [item for item in parameters if item.kind is item.POSITIONAL_OR_KEYWORD]
    taken = sum(item.kind is item.POSITIONAL_ONLY for item in parameters)
    given = named[max(2 - taken, 0) :] + [item for item in parameters if item.kind is item.KEYWORD_ONLY]
    return {item.name for item in given}


def _refuse_unknown(name: str, compiler_fn: Compiler, given: dict[str, Any]) -> None:
    accepted = _accepted(compiler_fn)
    unknown = [] if accepted is None else sorted(set(given) - accepted)
    if accepted is None or not unknown:
        return
    takes = f"it takes {', '.join(sorted(accepted))}" if accepted else "it takes none"
    raise TypeError(
        f"the backend {name} takes no keyword argument {', '.join(map(repr, unknown))} ({takes} beside the graph and "
        f"the inputs). Leave it out of torch.compile() or backend(), or declare it: def {name}(gm, example_inputs, *, "
        f"{unknown[0]}=None)"
    )


def _inductor(gm: torch.fx.GraphModule, example_inputs: Sequence[Any], *, mode: Any = None, options: Any = None) -> Any:
    """Inductor as ``torch.compile(backend="inductor")`` calls it: the registered function knows no mode or options."""
    return torch._TorchCompileInductorWrapper(mode, options, None)(gm, example_inputs)


# -- fake inputs ---------------------------------------------------------------------------------------------------


def _look(tensor: torch.Tensor) -> tuple[Any, ...]:
    """What tracing may have changed in a fake tensor; in the real tensor it is still as it was."""
    return (
        tensor.dtype,
        tensor.layout,
        tensor.device.type,
        tensor.requires_grad,
        tensor.is_leaf,
        tensor.retains_grad,
        tensor.is_leaf and tensor.grad is None,  # torch warns of reading .grad elsewhere
        tensor._backward_hooks is None,
        tensor.is_conj(),
        tensor.is_neg(),
    )


def _geometry(tensor: torch.Tensor) -> list[int] | None:
    if tensor.layout is not torch.strided:
        return list(map(_hint, tensor.size()))
    return [_hint(item) for item in (*tensor.size(), *tensor.stride(), tensor.storage_offset())]


def _hint(item: Any) -> Any:
    """The number that a size has in this call; None for one that Dynamo was told not to look at."""
    if not isinstance(item, torch.SymInt):
        return item
    return item.node.hint if item.node.has_hint() else None


def _storages(tensors: list[torch.Tensor]) -> list[int]:
    """For each tensor the first that shares its memory."""
    first: dict[int, int] = {}
    owners = [storage_of(tensor) or -at - 1 for at, tensor in enumerate(tensors)]
    return [first.setdefault(owner, at) for at, owner in enumerate(owners)]


def _as_they_came(fakes: list[torch.Tensor], reals: list[torch.Tensor]) -> bool:
    """Whether tracing left the fake inputs as they were. Tracing runs the graph on them: a graph that resizes an input,
    or adds something to it that needs a gradient, has made them unlike the inputs of the next call."""
    if any(type(fake) is not FakeTensor for fake in fakes):
        return False  # a wrapper subclass: what is inside may have changed
    with torch._C.DisableTorchFunction():
        pairs = zip(fakes, reals, strict=True)
        same = all(_look(fake) == _look(real) and _geometry(fake) == _geometry(real) for fake, real in pairs)
        return same and _storages(fakes) == _storages(reals)


def _converted(context: TracingContext, tensor: torch.Tensor) -> torch.Tensor:
    """The fake tensor for a real one, as AOTAutograd's ``process_inputs`` makes it."""
    symbolic = context.tensor_to_context.get(tensor)
    source = symbolic.tensor_source if symbolic is not None else None
    fake: torch.Tensor = context.fake_mode.from_tensor(tensor, symbolic_context=symbolic, source=source, trace=False)
    return fake


def _fake_inputs(context: TracingContext, graph: torch.fx.Graph, inputs: Sequence[Any]) -> list[Any]:
    """The inputs of the backend, with the fake tensors that Dynamo traced with in place of the real ones.

    Dynamo gives the backend a fresh fake mode, which knows no tensor yet, because tracing may have changed the fakes.
    Where tracing changed none, the mode that Dynamo traced with takes the place of the fresh one, and no tensor is
    converted twice.
    """
    known = [node.meta.get("example_value") for node in graph.find_nodes(op="placeholder")]
    at = [index for index, item in enumerate(inputs) if isinstance(item, torch.Tensor)]
    found = list(inputs)
    if len(known) == len(inputs) and _as_they_came([known[index] for index in at], [inputs[index] for index in at]):
        for index in at:
            found[index] = known[index]
        modes = {id(known[index].fake_mode): known[index].fake_mode for index in at}
        if len(modes) == 1:
            (mode,) = modes.values()
            # This is all in which Dynamo made the fresh mode differently.
            mode._allow_unsafe_data_ptr_access = context.fake_mode._allow_unsafe_data_ptr_access
            context.fake_mode = mode
        return found
    for index in at:
        if not isinstance(inputs[index], FakeTensor):
            found[index] = _converted(context, inputs[index])
    return found


# -- the backend ---------------------------------------------------------------------------------------------------


class _Backend:
    """What :func:`backend` returns. Equal to another one of the same function and options."""

    def __init__(self, compiler_fn: Compiler, name: str, options: dict[str, Any]) -> None:
        functools.update_wrapper(self, compiler_fn, updated=())
        # Named as in torch's logs and errors; some backends' own name is that of a helper.
        self.__name__ = self.__qualname__ = self.compiler_name = name
        self._compiler_fn = compiler_fn
        self._options = options

    def __call__(self, gm: torch.fx.GraphModule, example_inputs: Sequence[Any], **kwargs: Any) -> Callable[..., Any]:
        given = {**self._options, **kwargs}
        _refuse_unknown(self.__name__, self._compiler_fn, given)
        context = TracingContext.try_get()
        shape_env = getattr(getattr(context, "fake_mode", None), "shape_env", None)
        if context is None or shape_env is None or shape_env.frozen:
            # Called by hand, or for a specialization at run time, when the frame already has its guards.
            return self._compiler_fn(gm, example_inputs, **given)
        install.mark(context)
        try:
            with backend_call(context, gm.graph):
                return self._compiler_fn(gm, _fake_inputs(context, gm.graph, example_inputs), **given)
        except BaseException:
            install.release(context)
            raise

    def __getattr__(self, name: str) -> Any:
        """What torch reads from backends (``get_compiler_config``, ``reset``, …) is the wrapped one's."""
        # Dynamo tells cache entries apart by their original backend: entries of this one and of the wrapped one differ.
        if name.startswith("__") or name in ("_compiler_fn", "_torchdynamo_orig_backend"):
            raise AttributeError(name)
        return getattr(self._compiler_fn, name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Backend):
            return NotImplemented
        return self._compiler_fn == other._compiler_fn and self._options == other._options

    def __hash__(self) -> int:
        return hash(self._compiler_fn)

    def __repr__(self) -> str:
        return f"<unified_guards.backend({self.__name__})>"


is_barrier(_Backend.__call__)
# Torch's frame hook asks a backend for attributes: it must not be called for the code that answers.
skip_code(_Backend.__getattr__.__code__)


def backend(compiler_fn: str | Compiler, **options: Any) -> Callable[..., Callable[..., Any]]:
    """A Dynamo backend that compiles with ``compiler_fn`` and has the guards of what it compiles checked natively.

    >>> import torch
    >>> compiled = torch.compile(lambda x: x + 1, backend=backend("aot_eager"))
    >>> compiled(torch.ones(2))
    tensor([2., 2.])

    The guards of every frame that it compiles, those that tracing inside ``compiler_fn`` adds included, are lifted as
    if :func:`unified_guards.install` had been called, for that frame only. (A frame without any operation has no
    backend and no part in this.) ``compiler_fn`` gets the graph and, where Dynamo passes real tensors, the fake ones
    that Dynamo traced with, parameters among them, as ``torch._guards.detect_fake_mode`` expects; sizes stay
    ``SymInt``. AOTAutograd, hence ``aot_eager``, ``inductor`` and ``aot_autograd(fw_compiler=…)``, uses them as they
    are and converts nothing again. Where tracing changed its fakes (an input that the graph resizes; a tensor
    subclass), fresh ones are made. A compiler that runs the graph while it compiles finds the real tensors in the
    placeholders, as ``node.meta["grapharg"].example``.

    Two backends of the same function and equal options are equal, and share what was compiled.

    Args:
        compiler_fn: a function of a GraphModule and its inputs that returns a callable, or the name of a backend.
        options: passed to ``compiler_fn`` by keyword, with those of ``torch.compile(mode=…, options=…)``, which win.

    Raises:
        TypeError: ``compiler_fn`` does not take a keyword argument. Those of ``torch.compile`` are known when it
            compiles; Dynamo then raises ``BackendCompilerFailed`` with this as its cause.
        torch._dynamo.exc.InvalidBackend: there is no backend of this name.
    """
    found = lookup_backend(compiler_fn)
    name = compiler_fn if isinstance(compiler_fn, str) else getattr(found, "__name__", type(found).__name__)
    if isinstance(found, _Backend):
        options, found = {**found._options, **options}, found._compiler_fn
    if found is lookup_backend("inductor"):
        found = _inductor
    if not callable(found):
        raise TypeError(f"backend() takes a function or the name of a backend; got {type(found).__name__}")
    _refuse_unknown(name, found, options)
    return _Backend(found, name, options)


__all__ = ["backend"]
