"""Captures calls of a function whole, with Dynamo, for the AOT entry points.

The function is called by a trampoline, whose code object is the wrapper's own: torch's cache entries of that code are
the versions of the wrapper, and nobody else's. Dynamo captures the trampoline with everything that it calls in one
graph. The entry has Dynamo's guards, those that the compiler of the graph has added, and those of strict mode, lifted
into one set (``dynamo/unify.py``). Entry points: :class:`Capturer`, :class:`NotCaptured`.
"""

from __future__ import annotations

import builtins
import contextlib
import itertools
import logging
import os
import random
import re
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch._dynamo.config as dynamo_config
import torch._dynamo.eval_frame as torch_frames
from torch._dynamo import convert_frame, exc
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch._dynamo.side_effects import SideEffects
from torch._dynamo.source import AttrSource, DictGetItemSource
from torch._dynamo.variables import ConstantVariable, UserDefinedObjectVariable, UserFunctionVariable
from torch._dynamo.variables.base import AttributeMutationNew, ValueMutationExisting, ValueMutationNew
from torch._dynamo.variables.dicts import ConstDictVariable
from torch._dynamo.variables.iter import IteratorVariable
from torch._dynamo.variables.lists import ListIteratorVariable
from torch._guards import TracingContext
from torch._subclasses import FakeTensor
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from unified_guards.aot.compilers import CompilerFailed
from unified_guards.aot.operators import run_while_tracing
from unified_guards.dynamo import compat, dispatch, install
from unified_guards.dynamo.backend import backend
from unified_guards.dynamo.entry import DynamoEntry
from unified_guards.dynamo.graphs import ListGraph
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper
from unified_guards.errors import Unguardable

#: A function of Dynamo's graph and its inputs, which are fake. It gives what AOTAutograd gives.
Lower = Callable[[torch.fx.GraphModule, Sequence[Any]], Callable[..., Any]]

#: Threads that miss together compile once. It is torch's own lock: what Dynamo's config is patched to during a capture
#: is nobody else's.
tracing = convert_frame.compile_lock


class NotCaptured(Exception):
    """A call cannot be captured whole, and has to be run eagerly. The message says why. Never leaves this package."""


class _Stop(BaseException):
    """Ends a capture before its graph runs."""


class _Thread(threading.local):
    capturing: bool = False


_thread = _Thread()


class _Graph(ListGraph):
    """The compiled graph of an entry. While it is captured it does not run."""

    def __call__(self, *inputs: Any) -> Any:
        if _thread.capturing:
            raise _Stop
        return super().__call__(*inputs)


# -- the trampoline ----------------------------------------------------------------------------------------------------

_SOURCE = """
def make(target):
    def call(*args, **kwargs):
        return target(*args, **kwargs)
    return call
"""
_numbers = itertools.count()


def _trampoline(target: Callable[..., Any], name: str) -> types.FunctionType:
    """A function that calls the target, with code and globals of its own.

    Its file has no other function: Dynamo keeps what it knows of sizes that change by file, line and name.
    """
    scope: dict[str, Any] = {"__builtins__": builtins, "__name__": __name__}
    exec(compile(_SOURCE, f"<unified_guards: {name} {next(_numbers)}>", "exec"), scope)
    made: types.FunctionType = scope.pop("make")(target)
    return made


# -- capturing ---------------------------------------------------------------------------------------------------------

#: The limits that count are those of the wrapper, and what fails is told. A compiler that keeps the ``forward`` of its
#: graph has that of a whole graph module, and not one that asks on each call whether it is written.
_CONFIG = {
    "recompile_limit": 1 << 30,
    "accumulated_recompile_limit": 1 << 30,
    "fail_on_recompile_limit_hit": False,
    "suppress_errors": False,
    "error_on_recompile": False,
    "allow_rnn": True,
    "use_lazy_graph_module": False,
}


class _Capture:
    """One capture: what is asked of Dynamo beside its own way."""

    def __init__(self, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], static: int) -> None:
        module = target if isinstance(target, torch.nn.Module) else torch.nn.Module()
        leaves = pytree.tree_leaves((args, kwargs))
        order = (*module.parameters(), *module.buffers(), *leaves)
        self._order = {id(value): at for at, value in reversed(list(enumerate(order)))}
        self.refused: str | None = None
        self._static = [leaf for leaf in leaves[:static] if isinstance(leaf, torch.Tensor)]
        self._real = [each for each in order if isinstance(each, torch.Tensor) and not isinstance(each, FakeTensor)]
        self._grad_mode = torch.is_grad_enabled()

    def check(self, output_graph: Any, results: Sequence[Any]) -> None:
        """Refuses a function that writes to what it finds: it would be captured anew for each call. And one that
        returns an iterator: Dynamo gives one of another class, over what it has computed."""
        if any(isinstance(each, IteratorVariable | ListIteratorVariable) for each in results):
            self._refuse("the function returns an iterator")
        if torch.is_grad_enabled() is not self._grad_mode and not compat.keeps_grad_mode():
            self._refuse("the function leaves another grad mode behind, which AOTAutograd of this torch does not")
        effects: SideEffects = output_graph.side_effects
        for variable in effects.id_to_variable.values():
            new = isinstance(variable.mutation_type, AttributeMutationNew | ValueMutationNew)
            if not new and effects.is_modified(variable) and not _is_put_back(variable, effects, output_graph):
                self._refuse(f"the function changes {_named(variable)}")

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        raise NotCaptured(reason)

    def prepared(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> list[Any]:
        """Parameters and buffers first, as in torch's ``aot_module``; then arguments; then the rest."""
        for node in graph.graph.nodes:
            if node.op == "call_function" and _sets_state(node.target):
                self._refuse(f"the function calls {node.target.__name__}()")
        if (unseen := _unseen(graph)) is not None:
            self._refuse(f"nobody has seen the code of {unseen}")
        if (ran := run_while_tracing(graph, inputs)) is not None:
            self._refuse(ran)
        for each in inputs:
            if isinstance(each, torch.Tensor) and not _is_traced_as_it_is(each):
                self._refuse(f"a {type(each).__qualname__} is among the inputs, which AOTAutograd takes for a Tensor")
        nodes = graph.graph.find_nodes(op="placeholder")
        last = len(self._order)
        keys = [self._order.get(id(each), last) if isinstance(each, torch.Tensor) else -1 for each in inputs]
        order = sorted(range(len(nodes)), key=keys.__getitem__)
        for at in reversed(order):
            graph.graph._root.append(nodes[at])
        return [inputs[at] for at in order]

    @contextlib.contextmanager
    def marked(self) -> Iterator[None]:
        """The sizes of the first arguments are constants, if the user says so. No tensor keeps what Dynamo leaves."""
        before = [vars(tensor).get(_STATIC) for tensor in self._static]
        clean = [tensor for tensor in self._real if _LEFT_BEHIND not in vars(tensor)]
        try:
            for tensor in self._static:
                setattr(tensor, _STATIC, set(range(tensor.dim())))
            yield
        finally:
            for tensor, value in zip(self._static, before, strict=True):
                delattr(tensor, _STATIC) if value is None else setattr(tensor, _STATIC, value)
            for tensor in clean:
                vars(tensor).pop(_LEFT_BEHIND, None)


@contextlib.contextmanager
def _no_short_cut() -> Iterator[None]:
    """Dynamo has a short cut for ``tree_map``, which gives a torch.Size for a tuple, or a dict for a defaultdict."""
    short = vars(UserFunctionVariable).get(_SHORT_CUT)
    if short is not None:
        setattr(UserFunctionVariable, _SHORT_CUT, lambda *_: None)
    try:
        yield
    finally:
        if short is not None:
            setattr(UserFunctionVariable, _SHORT_CUT, short)


_SHORT_CUT = "_maybe_call_tree_map_fastpath"

#: Of a tensor: the dimensions that ``torch._dynamo.mark_static`` has marked.
_STATIC = "_dynamo_static_indices"
#: An attribute of fake tensors, which torch 2.15 leaves on a real one whose ``data`` was set.
_LEFT_BEHIND = "fake_device"


class Capturer:
    """Captures calls of one function, and keeps what was captured.

    Attributes:
        function: the trampoline: it calls the target.
        conversions: how many inputs the graphs had that were captured.
    """

    def __init__(
        self, target: Callable[..., Any], lower: Lower, name: str, *, dynamic: bool | None, static: int = 0
    ) -> None:
        self.function = _trampoline(target, name)
        self.conversions = 0
        self._target = target
        self._lower = lower
        self._static = static
        # Torch's entries hold what compiles them, where no collector looks: it must not hold the function.
        held = weakref.ref(self)
        compiles = backend(lambda graph, inputs: _held(held)._compile(graph, inputs))

        # A function: torch's frame hook asks what it is given for attributes, and must not come upon Python code there.
        def compiled(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
            return compiles(graph, inputs)

        context = torch._dynamo.optimize(compiled, nopython=True, dynamic=dynamic)
        self._context = context
        # As OptimizeContext.__call__ does, without what may have been put around it.
        self._call = torch_frames._TorchDynamoContext.__call__(context, self.function)

    def dispatcher(self) -> dispatch.Dispatcher | None:
        """What finds the entry that fits a call, and runs it."""
        return dispatch.dispatcher_for(self._context, self.function)

    def managers(self) -> list[UnifiedGuardManagerWrapper]:
        """The guard managers of what was captured, the most recently used first."""
        entries = _debug_get_cache_entry_list(self.function.__code__)
        return [each.guard_manager for each in entries if isinstance(each.guard_manager, UnifiedGuardManagerWrapper)]

    def entries(self) -> list[DynamoEntry]:
        """What was captured, the most recently used first."""
        return [manager.entry for manager in self.managers()]

    def capture(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DynamoEntry:
        """Adds the entry for such calls. The function does not run.

        Raises:
            NotCaptured: the call has to be run eagerly.
            Exception: whatever a compiler of the user's raises.
        """
        before = _debug_get_cache_entry_list(self.function.__code__)
        capture = _Capture(self._target, args, kwargs, self._static)
        try:
            with self._capturing(capture), contextlib.suppress(_Stop):
                self._call(*args, **kwargs)
        except Exception as error:
            _raise_compilers_own(error)
            raise NotCaptured(capture.refused or _reason_of(error)) from error
        finally:
            _keep_from_reset(self.function.__code__)
        after = _debug_get_cache_entry_list(self.function.__code__)
        made = [entry for entry in after if not any(entry is each for each in before)]
        if len(made) != 1:
            raise NotCaptured("Dynamo does not compile it")
        _keep_from_reset(made[0].code)
        manager = made[0].guard_manager
        if not isinstance(manager, UnifiedGuardManagerWrapper):
            drop(manager)
            raise NotCaptured("its guards cannot be checked natively")
        return manager.entry

    def _compile(self, graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        self.conversions += len(inputs)
        with _in_their_own_mode(graph, inputs) as given:
            return _Graph(self._lower(graph, given))

    @contextlib.contextmanager
    def _capturing(self, capture: _Capture) -> Iterator[None]:
        before, _thread.capturing = _thread.capturing, True
        hook, numbers = torch._C._dynamo.eval_frame.set_eval_frame(None), random.getstate()
        try:
            with tracing, dynamo_config.patch(**_CONFIG), install.capturing(capture), capture.marked(), _no_short_cut():
                yield
        finally:
            torch._C._dynamo.eval_frame.set_eval_frame(hook)
            random.setstate(numbers)  # what the graph needs is drawn before it
            _thread.capturing = before


def _held(reference: weakref.ref[Capturer]) -> Capturer:
    found = reference()
    assert found is not None  # it is capturing
    return found


@contextlib.contextmanager
def _in_their_own_mode(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Inputs that are fake to begin with, as they came: they are traced further in their own mode."""
    given = [node.meta["grapharg"].example for node in graph.graph.find_nodes(op="placeholder")]
    modes = {id(each.fake_mode): each.fake_mode for each in given if isinstance(each, FakeTensor)}
    if not modes:
        yield inputs
        return
    (mode, *others), context = modes.values(), TracingContext.get()
    if others or mode.shape_env is not None or not all(isinstance(each, FakeTensor) for each in given):
        raise NotCaptured("it is called on fake tensors and on others")
    dynamos, context.fake_mode = context.fake_mode, mode
    try:
        yield given
    finally:
        context.fake_mode = dynamos


def drop(manager: Any) -> None:
    """Has torch drop the entry of a guard manager."""
    if manager.cache_entry is not None:
        manager.extra_state.invalidate(manager.cache_entry, torch._dynamo.guards.DeletedGuardManagerWrapper("dropped"))


def _keep_from_reset(code: types.CodeType) -> None:
    """``torch._dynamo.reset()`` drops what it knows of all code that Dynamo has seen. It leaves this code alone."""
    for seen in (convert_frame.input_codes, convert_frame.output_codes):
        seen.seen = [each for each in seen.seen if each() is not code]
        seen.seen_ids.discard(id(code))


# -- what is not captured ----------------------------------------------------------------------------------------------


def _is_put_back(variable: Any, effects: SideEffects, output_graph: Any) -> bool:
    """Whether all attributes that were written, or all items, have in the end what they had at first."""
    if type(variable) is ConstDictVariable:
        return _has_old_items(variable, output_graph)
    written = effects.store_attr_mutations.get(variable)
    if not written or type(variable) is not UserDefinedObjectVariable or compat.has_new_contents(variable, effects):
        return False
    before = getattr(variable.value, "__dict__", None)
    if type(before) is not dict:
        return False
    return all(name in before and _is_what_was(before[name], variable, name, now) for name, now in written.items())


def _has_old_items(variable: ConstDictVariable, output_graph: Any) -> bool:
    try:
        before = compat.value_of_source(output_graph, variable.source)
        now = {key.vt.as_python_constant(): value.realize() for key, value in variable.items.items()}
    except Exception:  # a key that is no constant, or a source whose object cannot be told
        return False
    same = type(before) is dict and list(before) == list(now)
    return same and all(value.source == DictGetItemSource(variable.source, key) for key, value in now.items())


def _is_what_was(before: Any, owner: Any, name: str, now: Any) -> bool:
    now = now.realize()
    if owner.source is not None and now.source == AttrSource(owner.source, name):
        return True
    return isinstance(now, ConstantVariable) and now.value is before


_PLAIN = (torch.Tensor, torch.nn.Parameter, torch.nn.Buffer, FakeTensor)


def _is_traced_as_it_is(tensor: torch.Tensor) -> bool:
    return type(tensor) in _PLAIN or is_traceable_wrapper_subclass(tensor)


#: Functions of torch that set a state for all that follows. Dynamo puts them into the graph, and AOTAutograd leaves
#: them out of it.
_SET_STATE = re.compile(r"set_|use_|manual_seed|seed")


def _sets_state(function: Any) -> bool:
    module = getattr(function, "__module__", None) or ""
    is_public = module == "torch" or module.startswith(("torch.random", "torch.backends", "torch.utils"))
    return is_public and _SET_STATE.match(getattr(function, "__name__", "")) is not None


def _unseen(graph: torch.fx.GraphModule) -> str | None:
    """A function of the user's that Dynamo has put into its graph as it is (``torch.compiler.allow_in_graph``)."""
    graphs = [each.graph for each in graph.modules() if isinstance(each, torch.fx.GraphModule)]
    for node in (node for each in graphs for node in each.nodes if node.op == "call_function"):
        module = getattr(node.target, "__module__", None) or ""
        if type(node.target) is types.FunctionType and module.partition(".")[0] not in ("torch", "functorch"):
            return str(node.target.__qualname__)
    return None


def _named(variable: Any) -> str:
    source = getattr(variable, "source", None)
    name = "something" if source is None else str(source.name)
    return f"the container {name}" if isinstance(variable.mutation_type, ValueMutationExisting) else name


def _raise_compilers_own(error: BaseException | None) -> None:
    """Raises what a compiler of the user's has raised, if that is what went wrong."""
    while error is not None:
        if isinstance(error, CompilerFailed) and error.__cause__ is not None:
            raise error.__cause__
        error = getattr(error, "inner_exception", None) or error.__cause__


_DEPENDS_ON_DATA = (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode)


def _reason_of(error: BaseException) -> str:
    """Dynamo's reason in one line, with the line of the program."""
    if isinstance(error, exc.BackendCompilerFailed):
        error = error.inner_exception
    if isinstance(error, NotCaptured | Unguardable):
        return str(error)
    at = _line_of(error)
    kind = getattr(error, "gb_type", None) or ""
    cause = error.__cause__
    if kind.startswith("Data") or isinstance(error, _DEPENDS_ON_DATA) or isinstance(cause, _DEPENDS_ON_DATA):
        return f"the function depends on the values of tensors{at}"
    said = kind or f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return f"it cannot be captured{at}: {said}"


def _line_of(error: BaseException) -> str:
    frames = [frame for frame in getattr(error, "real_stack", None) or () if _is_users(frame.filename)]
    return f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""


_LIBRARIES = tuple(os.path.dirname(path) + os.sep for path in (torch.__file__, os.path.dirname(__file__)))


def _is_users(path: str) -> bool:
    return not path.startswith(("<", *_LIBRARIES))


class _NotOurs(logging.Filter):
    """Torch says of each recompilation why; of versions of an AOT entry point ``aot/cache.py`` says it."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _thread.capturing


torch._dynamo.guards.recompiles_log.addFilter(_NotOurs())

__all__ = ["Capturer", "NotCaptured", "drop", "tracing"]
