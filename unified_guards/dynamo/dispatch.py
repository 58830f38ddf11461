"""The short way from a call of a compiled function to its graph: what torch's wrapper is given to ask first.

What ``torch.compile`` returns stays torch's wrapper, a Python function with all its attributes. Its code is replaced by
one that first hands the call to a :class:`Dispatcher` (``csrc/call``). The dispatcher decides, natively and with the
GIL held, whether the short way may be taken and which of torch's cache entries fits. Then it follows the entry's plan
(``dynamo/plan.py``). In all other cases the code goes on as torch wrote it, the *long way*. Entry points:
:func:`watch_wrappers`, :func:`close`.
"""

from __future__ import annotations

import functools
import inspect
import types
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch._dynamo.eval_frame as torch_frames
from torch._dynamo import convert_frame
from torch._dynamo.exc import ShortenTraceback, UncapturedHigherOrderOpError, Unsupported, UserError
from torch.nn.modules import module as modules

from unified_guards import _C, config
from unified_guards.dynamo import compat
from unified_guards.dynamo.bytecode import TRY_IS_TABLE
from unified_guards.dynamo.comparison import Comparison
from unified_guards.dynamo.gated import gated, own_code, with_gate
from unified_guards.dynamo.graphs import graph_of
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper
from unified_guards.dynamo.plan import Plan
from unified_guards.dynamo.single_flight import look_again
from unified_guards.dynamo.symbols import Global, Local
from unified_guards.dynamo.vouched import rows_of
from unified_guards.entry import Entry
from unified_guards.verify import Judge

#: Where a wrapper keeps its dispatcher: the collector looks there, and not into code.
_ATTRIBUTE = "_unified_guards_dispatcher"

_GENERATORS = 0x20 | 0x80 | 0x200  # CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR


class Dispatcher(_C.Dispatcher):
    """Decides for the calls of one wrapper."""

    backend: Any
    context: Any

    @property
    def _is_in_region(self) -> bool:
        """Whether what this code goes on to is compiled in a region of recompilation that has to be entered."""
        return compat.region_of(self.context) != -1

    def _prepare(self) -> bool:
        """Called where an entry of torch's is not known yet: reads all of them anew. True where that is done."""
        self._forget()
        for entry in self._entries():
            self._know(*entry)
        return True

    def _know(self, manager: Any, code: Any, backend: Any) -> None:
        if backend is not self.backend and not _same_backend(backend, self.backend):
            self._add(manager, code, None, None, "kMiss")
        elif not isinstance(manager, UnifiedGuardManagerWrapper):
            self._add(manager, code, None, None, "kForeign")
        else:
            manager.tell(self)
            own, plan = own_code(code)
            planned = None if plan is None else self._way_of(plan, manager.entry)
            way = planned or self._function_of(own)
            comparison = self._comparison_of(manager.entry.judge, own, plan, planned)
            why = "kNone" if way is not None else "kCode"
            self._add(manager, code, manager.entry.checker, way, why, comparison)

    def _way_of(self, plan: Plan, entry: Entry) -> tuple[Any, ...] | None:
        """(plan, the rows of the entry's program that read what its inputs are, the function that is left to run)."""
        way = self._way_to_graph(plan, entry)
        rest = None if plan.rest is None else self._function_of(plan.rest.code)
        return None if way is None or (rest is None) is not (plan.rest is None) else (*way, rest)

    def _way_to_graph(self, plan: Plan, entry: Entry) -> tuple[Any, ...] | None:
        """The same without the function."""
        graph = graph_of(self._function.__globals__.get(plan.graph))
        if graph is None:
            return None
        rows = rows_of((*plan.inputs, *plan.kept), entry, self._function)
        return (*graph, *_numbered(plan, self._names)), rows

    def _function_of(self, code: types.CodeType) -> types.FunctionType | None:
        """The code as a function, to be run with Dynamo watching: it may go on in a frame that is to be compiled."""
        function = self._function
        if code.co_freevars != function.__code__.co_freevars or self._is_in_region:
            return None
        strategy = torch._C._dynamo.eval_frame._FrameExecStrategy(_SKIP, _DEFAULT)
        torch._C._dynamo.eval_frame.set_code_exec_strategy(code, strategy)
        return types.FunctionType(code, function.__globals__, function.__name__, None, function.__closure__)

    def _comparison_of(
        self, judge: Judge | None, code: types.CodeType, plan: Plan | None, way: Any
    ) -> Comparison | None:
        """What compares hits with what Dynamo's code does; None where nobody asks, or where that code runs anyway."""
        function = self._function
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        if judge is None or plan is None or way is None or not cells.keys() >= set(code.co_freevars):
            return None
        closure = tuple(cells[name] for name in code.co_freevars)
        dynamos = types.FunctionType(code, function.__globals__, function.__name__, None, closure)
        return Comparison(judge, dynamos, plan.graph, way)

    def _rescue(self, error: BaseException) -> None:
        """As torch's wrapper does with what leaves the compiled code."""
        if isinstance(error, Unsupported | UncapturedHigherOrderOpError | UserError):
            if torch._dynamo.config.verbose:
                return
            cause = error
            while cause.__cause__ is not None:
                cause.__cause__.with_traceback(None)
                cause = cause.__cause__
            raise error.with_traceback(None) from error.__cause__
        if isinstance(error, ShortenTraceback):
            raise error.remove_dynamo_frames() from None


def _same_backend(one: Any, other: Any) -> bool:
    """As torch's lookup compares them. Believed from then on: a backend does not change what it is equal to."""
    return type(one) is type(other) and bool(one == other)


#: Plan::Kind in csrc/call/plan.h.
_READS = {"global": 0, "attribute": 1, "item": 2, "size": 3, "stride": 4, "storage_offset": 5}


def _numbered(plan: Plan, names: tuple[str, ...]) -> tuple[Any, ...]:
    """A plan with its reads and inputs by their registers: those of the locals, then one for each read."""
    registers: dict[Any, int] = {Local(name): at for at, name in enumerate(names)}
    reads: list[tuple[int, int, Any]] = []
    for each in plan.reads:
        if isinstance(each, Global):
            reads.append((_READS["global"], 0, each.name))
        else:
            reads.append((_READS[each.kind], registers[each.base], each.key))
        registers[each] = len(names) + len(reads) - 1
    inputs = [registers[item] for item in (*plan.inputs, *plan.kept)]
    return reads, inputs, plan.rebuild if plan.rest is None else None, plan.unpacked, len(plan.kept)


# -- which wrappers ----------------------------------------------------------------------------------------------------

#: The wrappers that have a gate, with their code before and after.
_open: weakref.WeakKeyDictionary[types.FunctionType, tuple[types.CodeType, types.CodeType]] = (
    weakref.WeakKeyDictionary()
)


def watch_wrappers(put: Callable[[Any, str, Any], None]) -> None:
    """From now on, wrappers that ``torch.compile`` makes have a gate, and gates are open.

    Args:
        put: is ``setattr`` that remembers what was there.
    """
    if not _learn():
        return
    maker = compat.maker_of_wrappers()
    original = vars(maker)["__call__"]

    @functools.wraps(original)
    def __call__(self: Any, fn: Any) -> Any:
        wrapper = original(self, fn)
        compiles = isinstance(self, torch_frames.OptimizeContext)
        if compiles and config.dispatch and isinstance(wrapper, types.FunctionType):
            _attach(self, wrapper)
        return wrapper

    put(maker, "__call__", __call__)
    _watch_hooks(put)
    if compat.is_known_module_call(torch_frames.OptimizedModule.__call__.__code__):
        call = torch_frames.OptimizedModule.__call__
        _give_gate(call, with_gate(gated(call.__code__, ("self", "args", "kwargs")), _C.module_gate))
    if TRY_IS_TABLE and compat.is_known_callback(convert_frame.CatchErrorsWrapper.__call__.__code__):
        for kind in (convert_frame.ConvertFrame, convert_frame.ConvertFrameAssert):
            convert = kind.__call__
            _give_gate(convert, with_gate(gated(convert.__code__, ("frame",)), look_again))
    for wrapper, (_, asking) in list(_open.items()):
        wrapper.__code__ = asking
    _C.dispatch(True)


#: What has a gate while gates are open, beside the wrappers.
_TORCHS_OWN = (torch_frames.OptimizedModule, convert_frame.ConvertFrame, convert_frame.ConvertFrameAssert)


def _give_gate(wrapper: types.FunctionType, asking: types.CodeType) -> None:
    _open[wrapper] = wrapper.__code__, asking
    wrapper.__code__ = asking


def close() -> None:
    """Gives every wrapper its own code back."""
    _C.dispatch(False)
    for wrapper, (own, asking) in list(_open.items()):
        if wrapper.__code__ is asking:
            wrapper.__code__ = own
    for kind in _TORCHS_OWN:
        _open.pop(kind.__call__, None)


def _watch_hooks(put: Callable[[Any, str, Any], None]) -> None:
    """Notices hooks of torch's that look at every call: guards of several ranks that agree, a debugger of bytecode."""
    native = torch._C._dynamo.eval_frame
    for name in ("set_guard_complete_hook", "set_bytecode_debugger_callback"):
        setter = vars(native).get(name)
        if setter is None:
            continue
        before = setter(None)
        setter(before)
        _hooks[name] = before is not None
        for owner in (native, torch_frames):
            if vars(owner).get(name) is setter:
                put(owner, name, _noting(name, setter))
    _C.note_hook(any(_hooks.values()))
    order = vars(native).get("_set_lru_cache")
    if order is not None:
        put(native, "_set_lru_cache", _noting_order(order))


def _noting_order(setter: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(setter)
    def noting(moves_hits: Any) -> Any:
        _C.note_order(bool(moves_hits))
        return setter(moves_hits)

    return noting


_hooks: dict[str, bool] = {}


def _noting(name: str, setter: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(setter)
    def noting(hook: Any) -> Any:
        _hooks[name] = hook is not None
        _C.note_hook(any(_hooks.values()))
        return setter(hook)

    return noting


@functools.cache
def _learn() -> bool:
    """Tells the dispatcher where torch keeps what its wrapper looks at. False where that is not known."""
    native = torch._C._dynamo.eval_frame
    hooks = tuple(vars(modules)[name] for name in _GLOBAL_HOOKS)
    try:
        _C.learn_calls(
            compat.flags_of_calls(),
            native.get_eval_frame_callback,
            native.set_eval_frame,
            getattr(native, "set_fullgraph_compiled_frame_count", None),
            torch._dynamo.mutation_guard.GenerationTracker,
            hooks,
            torch_frames.OptimizedModule,
            _ON_THE_WAY,
            torch._C._functorch.pop_dynamic_layer_stack_and_undo_to_depth,
            compat.code_with_extra_state(),
        )
    except (TypeError, KeyError, AttributeError):
        return False
    return True


#: What a call of a module goes through before forward, and has to be torch's own.
_TORCHS = ("__getattribute__", "_wrapped_call_impl", "_call_impl", "_compiled_call_impl")
_ON_THE_WAY = ("__call__", *_TORCHS, "forward")
_GLOBAL_HOOKS = (
    "_global_backward_hooks", "_global_backward_pre_hooks", "_global_forward_hooks", "_global_forward_pre_hooks",
)  # fmt: skip


def _attach(context: Any, wrapper: types.FunctionType) -> None:
    callee: Any = vars(wrapper).get("_torchdynamo_orig_callable")
    if not compat.is_known_wrapper(wrapper.__code__) or not _enters_plainly(context):
        return
    forward = _forward_of(callee)
    function = forward or getattr(callee, "__func__", callee)
    if not isinstance(function, types.FunctionType) or function.__code__.co_flags & _GENERATORS:
        return
    whole = getattr(callee, "__func__", None) is modules.Module._wrapped_call_impl
    region, callback = compat.region_of(context), context.callback
    made = Dispatcher(callee, forward, whole, region, context.fullgraph, callback, _patches_of(context))
    made.context, made.backend = context, torch_frames.innermost_backend(context.callback)
    vars(wrapper)[_ATTRIBUTE] = made
    made._serve(wrapper)
    _give_gate(wrapper, with_gate(gated(wrapper.__code__, ("args", "kwargs"), TRY_IS_TABLE), _C.Gate(made)))


def dispatcher_for(context: Any, function: types.FunctionType) -> Dispatcher | None:
    """A dispatcher for calls of an AOT entry point, which compiles this function in this context of torch's.

    None where it is not known what torch looks at.
    """
    if not _learn():
        return None
    made = Dispatcher(function, None, False, -1, False, context.callback, _patches_of(context), own=True)
    made.context, made.backend = context, torch_frames.innermost_backend(context.callback)
    return made


def _enters_plainly(context: Any) -> bool:
    """Whether entering the context of a wrapper does nothing but to count a generation and to patch Dynamo's config."""
    if context.export or not callable(context.callback) or context.error_on_graph_break:
        return False
    return {getattr(hook, "__qualname__", "") for hook in context.enter_exit_hooks} <= {_COUNTS, _PATCHES}


def _patches_of(context: Any) -> tuple[Callable[[], Callable[[], None]], ...]:
    """What patches Dynamo's config, which only a compilation reads: so it is done where something may be compiled."""
    return tuple(hook for hook in context.enter_exit_hooks if getattr(hook, "__qualname__", "") == _PATCHES)


_COUNTS = "_TorchDynamoContext.__init__.<locals>.call_on_enter"
_PATCHES = "ConfigModule._make_closure_patcher.<locals>.change"
_SKIP, _DEFAULT = (getattr(torch._C._dynamo.eval_frame._FrameAction, name) for name in ("SKIP", "DEFAULT"))


def _forward_of(callee: Any) -> types.FunctionType | None:
    """The forward of the class of a module whose whole call was compiled; None where something else was."""
    if not isinstance(callee, types.MethodType) or not isinstance(callee.__self__, modules.Module):
        return None
    if callee.__func__ not in (modules.Module._wrapped_call_impl, modules.Module._call_impl):
        return None
    kind = type(callee.__self__)
    static = inspect.getattr_static
    is_torchs = all(static(kind, name) is static(modules.Module, name) for name in _TORCHS)
    forward = static(kind, "forward", None)
    return forward if is_torchs and type(forward) is types.FunctionType else None


def is_known() -> bool:
    """Whether the wrapper that this torch puts around a compiled function is known."""

    def nothing() -> None:
        """Never called: it is only wrapped."""

    wrapper = torch._dynamo.optimize("eager")(nothing)
    code, _ = _open.get(wrapper, (wrapper.__code__, None))
    return _learn() and compat.is_known_wrapper(code)


def counts_of(wrapper: types.FunctionType) -> tuple[int, dict[str, int]] | None:
    """(short ways, {why long: how many times}) of a wrapper of torch's; None where it has no gate."""
    found = vars(wrapper).get(_ATTRIBUTE)
    return found.counts if isinstance(found, Dispatcher) else None


__all__ = ["Dispatcher", "close", "counts_of", "dispatcher_for", "watch_wrappers"]
