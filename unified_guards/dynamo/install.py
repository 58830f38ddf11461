"""Patches torch, so that the guards of frames compiled from now on are checked natively, and takes that back.

While installed, every ``CheckFunctionManager`` that Dynamo makes is finished by :func:`unify.finish`. Torch's own tree
is kept beside the native checker and goes on answering everything but the lookup: recompile reasons, logs, diff guards.
Entry points: :func:`install`, :func:`uninstall`, :func:`installed`.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch._dynamo.guards as torch_guards
from torch._dynamo.output_graph import OutputGraph
from torch._guards import TracingContext

from unified_guards import _C, config, verify
from unified_guards.dynamo import compat, dispatch, frames, made, recompiles, saved, single_flight
from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper
from unified_guards.dynamo.provenance import Watch, collecting, is_barrier
from unified_guards.dynamo.strict import breaks, reads
from unified_guards.dynamo.strict.backend_call import noting_calls
from unified_guards.dynamo.tap import Tap, recording
from unified_guards.dynamo.unify import finish


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Switches the cyclic garbage collector off, and collects the youngest generation at the end.

    Building guards makes thousands of objects that live on, and no garbage. They would trigger full collections, each
    of which walks everything that the process has compiled so far. The collection at the end keeps them from counting
    towards the next full one.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.collect(0)
            gc.enable()


def _wrapped_init(original: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(original)

    def __init__(self: Any, f_code: types.CodeType, output_graph: Any, *args: Any, **kwargs: Any) -> None:
        context = getattr(output_graph, "tracing_context", None)
        if not (is_installed() or context in _marked or _thread.capture is not None):
            original(self, f_code, output_graph, *args, **kwargs)
            return
        with _released(context), _collector_paused():
            with recording() as records, collecting(output_graph) as origins, saved.noting() as noted:
                original(self, f_code, output_graph, *args, **kwargs)
            if getattr(output_graph, "export", False):
                return  # an exported frame is never looked up
            given = signature.bind(self, f_code, output_graph, *args, **kwargs).arguments
            loaded = compat.is_loaded(given)
            if loaded:
                noted.saved = saved.being_loaded()
                origins.sources.update(saved.sources_of(output_graph))
            # Loaded code was traced elsewhere: what strict mode would guard is not known here.
            finish(self, f_code, output_graph, records, origins, strictly=not loaded and _is_strict())
            if isinstance(self.guard_manager, UnifiedGuardManagerWrapper):
                self.guard_manager.entry.saved = noted.saved
                if not loaded and not compat.is_ahead_of_time(given):  # these are in no list of torch's
                    single_flight.is_finished(f_code, self.guard_manager)
            records.clear()

    __init__.__doc__ = original.__doc__
    return __init__


def _captured_compile(original: Callable[..., Any]) -> Callable[..., Any]:
    """``OutputGraph.call_user_compiler``, where a capture may order the inputs of the graph."""

    def call_user_compiler(self: Any, graph: Any, inputs: Any) -> Any:
        if _thread.capture is not None:
            inputs = _thread.capture.prepared(graph, inputs)
        return original(self, graph, inputs)

    is_barrier(call_user_compiler)
    call_user_compiler.__doc__ = original.__doc__
    return call_user_compiler


def _captured_suffix(original: Callable[..., Any]) -> Callable[..., Any]:
    """``OutputGraph.codegen_suffix``, which writes the code of what a frame does beside its graph."""

    def codegen_suffix(self: Any, tx: Any, results: Any, *args: Any, **kwargs: Any) -> Any:
        if _thread.capture is not None:
            _thread.capture.check(self, results)
        return original(self, tx, results, *args, **kwargs)

    codegen_suffix.__doc__ = original.__doc__
    return codegen_suffix


class _Installation:
    """What was changed in torch, and how it was before."""

    def __init__(self) -> None:
        _C.outlive_what_code_carries(compat.code_with_extra_state())
        self.before: list[tuple[Any, str, Any]] = []
        self.tap = Tap(self.put)
        self.watch = Watch(self.put)
        name = "call_user_compiler"
        self.put(OutputGraph, name, _captured_compile(noting_calls(vars(OutputGraph)[name], _is_strict)))
        self.put(OutputGraph, "codegen_suffix", _captured_suffix(vars(OutputGraph)["codegen_suffix"]))
        reads.watch(self.put, _is_strict)
        breaks.watch(self.put, _is_strict)
        dispatch.watch_wrappers(self.put)
        made.watch(self.put)
        frames.watch_frames(self.put, lambda: _thread.capture is None)
        saved.watch_saved(self.put)
        recompiles.watch(self.put)
        manager = torch_guards.CheckFunctionManager
        self.put(manager, "__init__", _wrapped_init(vars(manager)["__init__"]))

    def put(self, owner: Any, name: str, value: Any) -> None:
        self.before.append((owner, name, vars(owner)[name]))
        setattr(owner, name, value)

    def undo(self) -> None:
        dispatch.close()
        for owner, name, value in reversed(self.before):
            setattr(owner, name, value)


class Capture(Protocol):
    """Who captures frames in a thread."""

    def check(self, output_graph: Any, results: Sequence[Any]) -> None:
        """Called when a frame is traced to its end. What this raises ends the compilation."""

    def prepared(self, graph: Any, inputs: Sequence[Any]) -> list[Any]:
        """Called before the backend. The inputs in another order, in which the placeholders are put, too."""


class _Thread(threading.local):
    capture: Capture | None = None


_thread = _Thread()
_lock = threading.RLock()
_current: _Installation | None = None
_asked_for = False  # by install()
_inside = 0  # `with installed()` blocks that are open, in any thread
_captures = 0  # and `with capturing()` blocks
_strict_asked_for = False
_strict_inside = 0
_has_warned = False  # of what was compiled before install()
_MOST_NAMED = 3  # functions in that warning
#: Frames that are being compiled by unified_guards.backend(); each keeps torch patched until its guards are built.
_marked: weakref.WeakKeyDictionary[TracingContext, weakref.finalize[Any, Any]] = weakref.WeakKeyDictionary()
_marked_count = 0  # how many of these frames are not yet released


def _patch_as_wanted() -> None:
    """Patches torch if anybody wants that now, and takes it back if nobody does. The caller has the lock."""
    global _current
    # In a loop: meanwhile the garbage collector may end the mark of a frame, which changes what is wanted.
    while (wanted := _asked_for or _inside > 0 or _captures > 0 or _marked_count > 0) is not (_current is not None):
        if wanted:
            _current = _Installation()
        elif _current is not None:
            _current.undo()
            _current = None


def install(*, strict: bool = False) -> None:
    """From now on, every frame that ``torch.compile`` compiles has its guards checked natively.

    Frames compiled before are not touched; the first call that finds some warns of it, once in a process. Idempotent
    and thread-safe; undone by :func:`uninstall`. Environment: ``UNIFIED_GUARDS_VERIFY=1`` also evaluates torch's tree
    on every check and raises :class:`~unified_guards.GuardDisagreement` when the verdicts differ;
    ``UNIFIED_GUARDS_VERIFY=0.01`` does so on that share of the checks, and warns and takes torch's verdict instead of
    raising; ``UNIFIED_GUARDS_NO_FALLBACK=1`` raises :class:`FallbackError` where a frame's guards cannot be lifted;
    ``UNIFIED_GUARDS_STRICT=1`` is ``strict=True`` everywhere; ``UNIFIED_GUARDS_LOG=recompiles`` logs each recompile.
    ``unified_guards.config`` has the same switches. Takes the place of ``root`` in
    ``torch._dynamo.guards.GuardManagerWrapper``.

    Args:
        strict: also guard what torch leaves out (``dynamo/strict``): hooks and methods that come later, memory that
            inputs share, and more. Then a frame may be compiled again where torch would reuse it, and give a wrong
            result. Lasts until :func:`uninstall`, whoever calls ``install()`` in between.
    """
    global _asked_for, _strict_asked_for, _has_warned
    verify.share()  # warns now of a wrong UNIFIED_GUARDS_VERIFY
    recompiles.warn_of_wrong_log()
    with _lock:
        before = [] if is_installed() or _has_warned else made.compiled_without()
        _asked_for = True
        _strict_asked_for |= strict
        _patch_as_wanted()
        _has_warned |= bool(before)
    if before:
        warnings.warn(_told_of(before), stacklevel=2)


def _told_of(before: list[types.CodeType]) -> str:
    """What to tell a user whose ``install()`` comes late: what was compiled before is not checked natively."""
    names = list(dict.fromkeys(map(made.name_of, before)))
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    entries = "one cache entry" if len(before) == 1 else f"{len(before)} cache entries"
    return (
        f"unified_guards.install() comes after torch.compile has made {entries}, where torch's guards stay in place: "
        f"{', '.join(names[:_MOST_NAMED])}{more}. Call install() before anything is compiled, or "
        "torch._dynamo.reset() after it, so that all is compiled again."
    )


def uninstall() -> None:
    """Puts back every attribute of torch that :func:`install` changed. Frames compiled meanwhile keep their checker.

    Does nothing when not installed. Inside a ``with installed()`` block it takes effect when the block ends.
    """
    global _asked_for, _strict_asked_for
    with _lock:
        _asked_for = _strict_asked_for = False
        _patch_as_wanted()


def is_installed() -> bool:
    """Whether frames that are compiled now get a native checker."""
    return _asked_for or _inside > 0


def _is_strict() -> bool:
    return _strict_asked_for or _strict_inside > 0 or config.strict or _thread.capture is not None


def _count_marked(count: int) -> None:
    global _marked_count
    with _lock:
        _marked_count += count
        _patch_as_wanted()


def mark(context: TracingContext) -> None:
    """Has the guards of the frame that ``context`` belongs to lifted, whether installed or not.

    The mark ends when they are lifted, at :func:`release`, or at the latest when ``context`` is gone, which is when its
    compilation failed.
    """
    if context not in _marked:
        _count_marked(1)
        _marked[context] = end = weakref.finalize(context, _count_marked, -1)
        end.atexit = False


def release(context: TracingContext | None) -> None:
    """Ends :func:`mark`."""
    found = _marked.pop(context, None) if context is not None else None
    if found is not None:
        found()


@contextlib.contextmanager
def _released(context: TracingContext | None) -> Iterator[None]:
    try:
        yield
    finally:
        release(context)


@contextlib.contextmanager
def installed(*, strict: bool = False) -> Iterator[None]:
    """Installed inside the ``with`` block, and afterwards as before it.

    Installation is a state of the process: other threads compile with it too, until the last block is left.

    Args:
        strict: as in :func:`install`.
    """
    global _inside, _strict_inside
    with _lock:
        _inside += 1
        _strict_inside += strict
        _patch_as_wanted()
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            _strict_inside -= strict
            _patch_as_wanted()


@contextlib.contextmanager
def capturing(capture: Capture) -> Iterator[None]:
    """What this thread compiles inside the ``with`` block has its guards lifted, strictly, whether installed or not."""
    global _captures
    with _lock:
        _captures += 1
        _patch_as_wanted()
    before, _thread.capture = _thread.capture, capture
    try:
        yield
    finally:
        _thread.capture = before
        with _lock:
            _captures -= 1
            _patch_as_wanted()


__all__ = [
    "capturing",
    "install",
    "installed",
    "is_installed",
    "mark",
    "release",
    "uninstall",
]
