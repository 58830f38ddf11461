"""Traces what Dynamo has captured of a function, with torch's ``make_fx``. Entry point: :class:`Tracer`."""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch._guards import TracingContext
from torch.fx.experimental import proxy_tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from unified_guards.aot import cache
from unified_guards.aot.capture import Capturer, NotCaptured, tracing
from unified_guards.aot.fx_guards import Version, guards_of
from unified_guards.dynamo import compat
from unified_guards.entry import text_of
from unified_guards.errors import Unguardable
from unified_guards.guards.memory import storage_of

MODES = ("real", "fake", "symbolic")


class _Run(TorchDispatchMode):
    """Runs a graph as ``make_fx`` will trace it, and notes whether it writes to tensors."""

    def __init__(self, table: dict[Any, Callable[..., Any]]) -> None:
        super().__init__()
        self.table = table
        self.writes = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.writes = self.writes or func._schema.is_mutable
        if func in self.table:
            with self:
                found = self.table[func](*args, **(kwargs or {}))
            if found is not NotImplemented:
                return found
        return func(*args, **(kwargs or {}))


class _Lowering:
    """What becomes of Dynamo's graph: it stays as it is, and is run once on fake inputs, for the guards of that."""

    def __init__(self, table: dict[Any, Callable[..., Any]]) -> None:
        self.table = table
        self.writes = False
        self.inputs: list[Any] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        given = [node.meta.get("grapharg") for node in graph.graph.find_nodes(op="placeholder")]
        self.inputs = [getattr(each, "example", None) for each in given]
        mode = TracingContext.get().fake_mode
        with mode or contextlib.nullcontext(), _Run(self.table) as run:
            torch.fx.Interpreter(graph).run(*inputs)
        self.writes = run.writes
        graph.recompile()  # its inputs may have been put into another order
        forward: Callable[..., Any] = graph.forward
        return forward


#: In the names of functions that Dynamo makes to draw random numbers of Python's, before a graph is called.
_RANDOM_NUMBERS = "gen_rand_values"


def _raise_functions_own(error: BaseException | None) -> None:
    """Raises what the function raises while Dynamo runs it, if that is an exception of Python's and can be made."""
    while error is not None:
        name, arguments = compat.raised_by_function(error) or ("", "")
        kind = getattr(builtins, name, None)
        given = _literals(arguments)
        if isinstance(kind, type) and issubclass(kind, Exception) and given is not None:
            raise kind(*given) from error
        error = error.__cause__


def _literals(text: str) -> tuple[Any, ...] | None:
    try:
        return tuple(ast.literal_eval(f"[{text}]"))
    except (ValueError, SyntaxError):
        return None


class Tracer:
    """Traces one function, each time for other arguments. Its parameters are those of torch's ``make_fx``."""

    def __init__(
        self, function: Callable[..., Any], table: Any, mode: str, allow_real: bool, options: dict[str, Any]
    ) -> None:
        self.function = function
        self.table = table
        self.mode = mode
        self.allow_real = allow_real
        self.options = options

    def trace(self, *args: Any, **kwargs: Any) -> Version:
        """The graph for these arguments, and its guards.

        Raises:
            TypeError: the function cannot be captured whole.
        """
        name = getattr(self.function, "__name__", str(self.function))
        with tracing:  # torch patches itself meanwhile, for the whole process
            try:
                if (reason := cache._why_eager()) is not None:
                    raise NotCaptured(reason)
                return self._trace(name, args, kwargs)
            except (NotCaptured, Unguardable) as reason:
                _raise_functions_own(reason.__cause__)
                raise TypeError(f"make_fx cannot guard what {name} depends on: {reason}") from reason.__cause__

    def _trace(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Version:
        symbolic = self.mode == "symbolic"
        lowering = _Lowering(dict(self.table or {}) if symbolic else {})
        capturer = Capturer(self.function, lowering, name, dynamic=symbolic)
        with compat.autograd_is_captured():
            entry = capturer.capture(args, kwargs)
        (manager,) = capturer.managers()
        if any(_RANDOM_NUMBERS in name for name in manager.cache_entry.code.co_names):
            raise NotCaptured("the function draws random numbers of Python's")
        frame = {"args": args, "kwargs": kwargs, "target": self.function}
        guard_set, kept = guards_of(entry.guard_set, frame, symbolic=symbolic, writes=lowering.writes)
        code, function = manager.cache_entry.code, capturer.function
        captured = types.FunctionType(code, function.__globals__, name, None, function.__closure__)
        graph = self._graph(captured, args, kwargs, lowering)
        is_current, made = (lambda: manager.cache_entry is not None), (capturer, kept)
        version = Version(guard_set, graph, tuple(kwargs), self.function, is_current, made)
        if not version.check(args, kwargs):
            raise NotCaptured(f"it is another each time: {text_of(version.failure(args, kwargs))}")
        return version

    def _graph(
        self, captured: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], lowering: _Lowering
    ) -> torch.fx.GraphModule:
        count, names = len(args), tuple(kwargs)

        def called(*flat: Any) -> Any:
            return captured(*flat[:count], **dict(zip(names, flat[count:], strict=True)))

        given = (*args, *kwargs.values())
        traced = functools.wraps(self.function)(called) if _takes(self.function, len(given)) and not kwargs else called
        make = proxy_tensor.make_fx(traced, self.table, self.mode, self.allow_real, **self.options)
        if not lowering.writes:
            with _generators_kept(given):
                return make(*given)
        copied, copies = _copied(given)
        with _generators_kept(given), _written_back([each for each in lowering.inputs if id(each) not in copies]):
            return make(*copied)


def _takes(function: Any, count: int) -> bool:
    """Whether torch can name that many arguments after those of the function."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and code.co_argcount == count and code.co_kwonlyargcount == 0


@contextlib.contextmanager
def _generators_kept(given: Any) -> Iterator[None]:
    devices = {leaf.device for leaf in pytree.tree_leaves(given) if isinstance(leaf, torch.Tensor)}
    with torch.random.fork_rng([device for device in devices if device.type == "cuda"]):
        yield


def _copied(given: Any) -> tuple[Any, dict[int, torch.Tensor]]:
    """The arguments with copies of their tensors, and these by the addresses of the originals."""
    copies: dict[int, torch.Tensor] = {}
    storages: dict[int, torch.UntypedStorage] = {}

    def copy(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        if id(leaf) not in copies:
            copies[id(leaf)] = _copy(leaf, storages)
        return copies[id(leaf)]

    return pytree.tree_map(copy, given), copies


def _copy(tensor: torch.Tensor, storages: dict[int, torch.UntypedStorage]) -> torch.Tensor:
    """A copy that shares memory with the copies of those that the tensor shares it with."""
    memory = storage_of(tensor)
    if memory is None or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)
    if memory not in storages:
        storages[memory] = tensor.untyped_storage().clone()
    made = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    made.set_(storages[memory], tensor.storage_offset(), tensor.size(), tensor.stride())
    made.requires_grad_(tensor.requires_grad)
    return made if tensor.is_leaf else made.view_as(made)


@contextlib.contextmanager
def _written_back(tensors: list[Any]) -> Iterator[None]:
    """What the function has beside its arguments, and writes to, is put back."""
    held = [each for each in tensors if isinstance(each, torch.Tensor)]
    before = [each.detach().clone() for each in held]
    with torch.autograd._unsafe_preserve_version_counter(tuple(held)):
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(held, before, strict=True):
                    tensor.detach().copy_(value)
