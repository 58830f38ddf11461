"""Puts the native checker into Dynamo's cache entries, and takes it out again.

While installed, every ``CheckFunctionManager`` that Dynamo makes is finished by :func:`_unify`: its guards are lifted,
simplified and lowered, and its wrapper gets a fresh root whose only guard is the native checker. Torch's own tree is
kept beside it (:class:`UnifiedGuardManagerWrapper`) and goes on answering everything but the lookup: recompile
reasons, logs, diff guards. Entry points: :func:`install`, :func:`uninstall`, :func:`installed`.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import inspect
import threading
import time
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch._dynamo.guards as torch_guards
from torch._C._dynamo import guards as native
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch._dynamo.output_graph import OutputGraph
from torch._guards import CompileContext, TracingContext

from unified_guards import _C, verify
from unified_guards._environment import is_set
from unified_guards.dynamo import attribute_getters, compat, reads, strict
from unified_guards.dynamo.lift import CannotLift, lift
from unified_guards.dynamo.provenance import Origins, Watch, collecting
from unified_guards.dynamo.tap import Tap, recording
from unified_guards.guards import semantics
from unified_guards.guards.describe import describe, failing_of
from unified_guards.guards.ir import Access, Guard, GuardSet, Source
from unified_guards.lower.discriminators import introduce, program_of
from unified_guards.lower.rows import CannotLower, Program, lower, make_checker
from unified_guards.report import costs
from unified_guards.simplify.driver import simplify
from unified_guards.simplify.work import Removed
from unified_guards.statistics import tally


class FallbackError(RuntimeError):
    """Under ``UNIFIED_GUARDS_NO_FALLBACK=1``: a frame's guards could not be lifted. The message says why.

    Raised where the frame is compiled. Without the variable the reason is counted in
    ``stats().frames_left_to_torch``, and the frame keeps torch's guards.
    """


#: Of one entry that are kept.
_MOST_MISSES = 8


class Miss(NamedTuple):
    """Why a function was compiled again although there was a cache entry.

    Attributes:
        at: when, in seconds since the epoch.
        guard: the guard of the entry that did not hold, or the source that was missing.
        text: the guard, the values that it was asked about, who made it and for which line.
    """

    at: float
    guard: Guard | Source
    text: str


class Frame:
    """The unified guards of one cache entry.

    Attributes:
        guard_set: everything that was lifted.
        checked: what is left to check after simplification.
        removed: the rest, each with the rule that removed it.
        stopped: where simplification used up its steps; None when it did not.
        python_callbacks: how many Python functions one full check calls.
        misses: why the last recompilations happened although there was this entry, the newest last.
        compile_id: torch's name for the compilation that made the entry, as in its logs: "0/1".
        compiled_at: when that was, in seconds since the epoch.
        meaning: what each row of the native program stands for, for reading a failure; then those of `telling`.
        rows: how many the native program has.
        telling: guards that tell this entry from the others of its code, asked first (lower/discriminators.py).
        checker: the native checker.
        measured: what its checks cost; None unless that is measured (report/costs.py).
    """

    def __init__(self, guard_set: GuardSet) -> None:
        self.guard_set = guard_set
        self.checked: GuardSet
        self.removed: list[Removed]
        self.stopped: str | None
        self.checked, self.removed, self.stopped = simplify(guard_set)
        self.meaning: list[Any] = []
        self.rows = 0
        self.python_callbacks = 0
        self.misses: collections.deque[Miss] = collections.deque(maxlen=_MOST_MISSES)
        self.compile_id = str(CompileContext.current_compile_id())
        self.compiled_at = time.time()
        self.telling: list[Guard] = []
        self.checker: _C.Checker
        self.measured: costs.Measured | None = None

    def build(self, oracle: Callable[[dict[str, Any], bool], bool | None] | None, share: float = 1) -> None:
        """Lowers what is to be checked; ``oracle`` is told of that share of the checks."""
        program: Program = lower(self.checked)
        self.meaning, self.rows = program.meaning, len(program.rows)
        self.python_callbacks = program.python_callbacks
        witness = is_set("UNIFIED_GUARDS_WITNESS", "1")
        self.checker = make_checker(program, oracle, witness=witness, share=share)

    def tell(self, item: Guard) -> None:
        """Has the checker ask a guard of `checked` before all others."""
        told = program_of(item)
        self.checker.tell(told.rows, len(self.meaning))
        self.meaning += told.meaning

    @property
    def last_failure(self) -> str | None:
        """The guard, or the source that was missing, at which the last miss stopped."""
        at = self.checker.last_failure
        if at is None:
            return None
        meaning = self.meaning[at]
        return f"{meaning} is missing" if isinstance(meaning, Source) else str(meaning)

    @property
    def extras(self) -> GuardSet:
        """The guards that nobody but `install(strict=True)` asked for."""
        return GuardSet(
            (item, maker)
            for item, maker in self.checked.entries()
            if all(each.maker == strict.MAKER for each in self.checked.provenance(item))
        )

    def stopped_at_an_extra(self) -> bool:
        """Whether it was such a guard at which the last miss stopped, or what nothing but such guards reads."""
        at, extras = self.checker.last_failure, self.extras
        meaning = None if at is None else self.meaning[at]
        if isinstance(meaning, Source):
            others = GuardSet(entry for entry in self.checked.entries() if entry[0] not in extras)
            return meaning not in others.sources()
        return meaning in extras

    def failing_extra(self, f_locals: dict[str, Any]) -> str | None:
        """The first such guard that does not hold, as :func:`describe` tells it."""
        extras = self.extras
        failing = semantics.explain_failure(extras, f_locals)
        return None if failing is None else describe(failing, extras.provenance(failing), f_locals)

    def note_miss(self, f_locals: dict[str, Any]) -> None:
        """Called when a frame that this entry did not fit is compiled again."""
        at = self.checker.last_failure
        if at is None:
            return
        meaning = self.meaning[at]
        if isinstance(meaning, Source):
            self.misses.append(Miss(time.time(), meaning, f"{meaning} is missing"))
        else:
            failing = failing_of(self.checked, meaning, f_locals)
            text = describe(failing, self.checked.provenance(failing), f_locals)
            self.misses.append(Miss(time.time(), failing, text))


class UnifiedGuardManagerWrapper(torch_guards.GuardManagerWrapper):
    """Torch's wrapper, whose root is the native checker and whose every other answer comes from torch's own tree.

    Never constructed: the wrapper that Dynamo filled becomes one, so that whoever holds it holds this.
    """

    torch_root: Any
    frame: Frame

    def _torch(self) -> torch_guards.GuardManagerWrapper:
        """What this object was before: torch's tree with everything else as it is now."""
        view = torch_guards.GuardManagerWrapper.__new__(torch_guards.GuardManagerWrapper)
        vars(view).update(vars(self))
        view.root = self.torch_root
        return view

    def check(self, x: Any) -> bool:
        with _torch_function_state_kept():
            return bool(self.torch_root.check(x))

    def check_verbose(self, x: Any) -> Any:
        """Torch's reason. Its tree also counts the failure, which is how torch chooses its diff guards."""
        with contextlib.suppress(Exception):  # only for reading: nothing here may change what torch says
            self.frame.note_miss(x)
        with _torch_function_state_kept():
            try:
                self.torch_root.check(x)
                return self._with_extras(self.torch_root.check_verbose(x), x)
            except SystemError as error:
                # User code raised in a guard and torch left the error pending: it is the user's, as in eager.
                raise (error.__cause__ or error) from None
            except RuntimeError as error:
                # Torch's guards can throw where ours fail: say so, in the one part that is not evaluated as code.
                reason = f"a guard could not be evaluated: {str(error).splitlines()[0]}"
                return native.GuardDebugInfo(False, [reason], 0)

    def _with_extras(self, found: Any, f_locals: Any) -> Any:
        """Where torch's tree would go on, the guard that it does not have: one part is not evaluated as code."""
        reason = self.frame.failing_extra(f_locals) if found.result and isinstance(f_locals, dict) else None
        return found if reason is None else native.GuardDebugInfo(False, [reason], 0)

    def collect_diff_guard_sources(self) -> Any:
        return self._torch().collect_diff_guard_sources()

    def clone_with_chosen_sources(self, chosen_sources: Any) -> Any:
        return self._torch().clone_with_chosen_sources(chosen_sources)

    def find_tag_safe_roots(self) -> None:
        self._torch().find_tag_safe_roots()

    def populate_code_parts_for_debugging(self) -> None:
        self._torch().populate_code_parts_for_debugging()

    def __str__(self) -> str:
        return str(self._torch())

    def __del__(self, outlive: Callable[[object], None] = _C.outlive) -> None:
        """An object that it knows by its identity has died, or it was reset: while a checker runs, code of a user's may
        have done that in a guard, and the lookup still stands on the roots."""
        outlive(vars(self))


@contextlib.contextmanager
def _torch_function_state_kept() -> Iterator[None]:
    """A C++ exception in torch's tree leaves torch functions switched off."""
    before = _C.torch_function_state()
    try:
        yield
    finally:
        _C.set_torch_function_state(before)


def _torch_says(root: Any, f_locals: dict[str, Any], verdict: bool) -> bool:
    """Torch's verdict. Where it is not ``verdict``, torch is asked once more and that answer counts: dict tags let
    torch skip guards, an exception may have left its tree in the middle of a check, and code of the user's in a guard
    may answer differently each time, of which nothing can be said."""
    expected = _answer(lambda: root.check(f_locals))
    return expected if expected == verdict else _answer(lambda: root.check_verbose(f_locals).result)


def _answer(ask: Callable[[], Any]) -> bool:
    """Where torch throws, we must miss."""
    with _torch_function_state_kept():
        try:
            return bool(ask())
        except Exception:
            return False


def _oracle(
    wrapper: torch_guards.GuardManagerWrapper, root: Any, judge: verify.Judge
) -> Callable[[dict[str, Any], bool], bool | None]:
    """Compares a verdict with torch's on the same frame, and answers which one to give instead, if any."""
    held = weakref.ref(wrapper)

    def compare(f_locals: dict[str, Any], verdict: bool) -> bool | None:
        tally.compare()
        if _torch_says(root, f_locals, verdict) == verdict:
            return None
        unified = held()
        if not isinstance(unified, UnifiedGuardManagerWrapper):
            return None
        if verdict:
            # However a second question is answered: code of the user's in a guard may have changed, after it was
            # vouched for, what another guard is about.
            return judge.disagree(verdict, None)
        if unified.frame.stopped_at_an_extra():
            return None  # torch's tree does not have this guard
        failure = unified.frame.last_failure
        if unified.frame.checker.check(f_locals):
            return None  # user code in a guard answers differently from one call to the next
        return judge.disagree(verdict, failure)

    return compare


def frames_of(code: types.CodeType) -> list[Frame]:
    """The unified guards of the cache entries that ``code`` has, those that may be used next first."""
    wrappers = (entry.guard_manager for entry in _debug_get_cache_entry_list(code))
    return [wrapper.frame for wrapper in wrappers if isinstance(wrapper, UnifiedGuardManagerWrapper)]


def _unify(wrapper: Any, code: types.CodeType, output_graph: Any, records: list[Any], origins: Origins) -> None:
    """Replaces the root of a finished wrapper by the native checker."""
    guard_set = lift(records, wrapper.root, origins)
    if _is_strict():
        guard_set = strict.with_extras(guard_set, output_graph, records)
    frame = Frame(guard_set)
    if not len(frame.guard_set):
        tally.lifted += 1  # nothing to check: torch's empty root is as good as any
        return
    attribute_getters.learn(
        (kwargs["example_value"] for _, _, _, kwargs, _ in records if "example_value" in kwargs),
        {source.key for source in frame.checked.sources() if source.access is Access.ATTR},
    )
    share = verify.share()
    judge = verify.Judge(share, f"{code.co_name} ({code.co_filename}:{code.co_firstlineno})", "torch's guard tree")
    oracle = _oracle(wrapper, wrapper.root, judge) if share > 0 else None
    if costs.is_on():
        frame.build(costs.watch(frame, wrapper.root, oracle))  # every check is measured, and compared on the way
    else:
        frame.build(oracle, share)
    introduce(frame, frames_of(code), Frame.tell)
    stub = native.RootGuardManager()
    stub.attach_compile_id(str(CompileContext.current_compile_id()))
    stub.add_lambda_guard(frame.checker.callable(), ["unified_guards"], None)
    wrapper.torch_root = wrapper.root
    wrapper.root = stub
    wrapper.frame = frame
    wrapper.__class__ = UnifiedGuardManagerWrapper
    tally.lifted += 1
    costs.note(code, frame)


def _finish(manager: Any, code: types.CodeType, output_graph: Any, records: list[Any], origins: Origins) -> None:
    """Unifies, or leaves torch's tree in place and counts why. Raises only when asked to."""
    try:
        _unify(manager.guard_manager, code, output_graph, records, origins)
        return
    except (CannotLift, CannotLower) as reason:
        why = str(reason)
    except Exception as error:
        why = f"internal error: {type(error).__name__}: {error}"
        if not tally.warned:
            tally.warned = True
            warnings.warn(
                f"unified_guards could not take over the guards of {code.co_name}: {why}. Torch's own guards stay in "
                "place, so results are not affected. Please report it.",
                stacklevel=2,
            )
    tally.left(why)
    costs.note(code, None, why)
    if is_set("UNIFIED_GUARDS_NO_FALLBACK"):
        raise FallbackError(f"the guards of {code.co_name} ({code.co_filename}) stay torch's: {why}")


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Without cyclic collections: building makes thousands of objects that live on and no garbage, and each full
    collection that they would trigger walks everything the process has compiled so far. The young ones are looked at
    once, at the end, so that what happens here does not decide when the next full collection comes."""
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
        if not (is_installed() or context in _marked):
            original(self, f_code, output_graph, *args, **kwargs)
            return
        with _released(context), _collector_paused():
            with recording() as records, collecting(output_graph) as origins:
                original(self, f_code, output_graph, *args, **kwargs)
            if getattr(output_graph, "export", False):
                return  # never looked up
            given = signature.bind(self, f_code, output_graph, *args, **kwargs).arguments
            if compat.is_loaded_from_a_package(given):
                tally.left("loaded from a package")
            else:
                _finish(self, f_code, output_graph, records, origins)
            records.clear()

    __init__.__doc__ = original.__doc__
    return __init__


class _Installation:
    """What was changed in torch, and how it was before."""

    def __init__(self) -> None:
        _C.outlive_what_code_carries(compat.code_with_extra_state())
        self.before: list[tuple[Any, str, Any]] = []
        self.tap = Tap(self.put)
        self.watch = Watch(self.put)
        name = "call_user_compiler"
        self.put(OutputGraph, name, strict.noting_calls(vars(OutputGraph)[name], _is_strict))
        reads.watch(self.put, _is_strict)
        manager = torch_guards.CheckFunctionManager
        self.put(manager, "__init__", _wrapped_init(vars(manager)["__init__"]))

    def put(self, owner: Any, name: str, value: Any) -> None:
        self.before.append((owner, name, vars(owner)[name]))
        setattr(owner, name, value)

    def undo(self) -> None:
        for owner, name, value in reversed(self.before):
            setattr(owner, name, value)


_lock = threading.RLock()
_current: _Installation | None = None
_asked_for = False  # by install()
_inside = 0  # `with installed()` blocks that are open, in any thread
_strict_asked_for = False
_strict_inside = 0
#: Frames that are being compiled by unified_guards.backend(); each keeps torch patched until its guards are built.
_marked: weakref.WeakKeyDictionary[TracingContext, weakref.finalize[Any, Any]] = weakref.WeakKeyDictionary()
_held = 0  # of those, how many are not yet released


def _settle() -> None:
    """Brings what is patched in line with what is asked for. Holds the lock."""
    global _current
    # Again until it fits: the collector may end a frame's mark in between.
    while (wanted := _asked_for or _inside > 0 or _held > 0) is not (_current is not None):
        if wanted:
            _current = _Installation()
        elif _current is not None:
            _current.undo()
            _current = None


def install(*, strict: bool = False) -> None:
    """From now on, every frame that ``torch.compile`` compiles has its guards checked natively.

    Frames compiled before are not touched. Idempotent and thread-safe; undone by :func:`uninstall`. Environment:
    ``UNIFIED_GUARDS_VERIFY=1`` also evaluates torch's tree on every check and raises
    :class:`~unified_guards.GuardDisagreement` when the verdicts differ; ``UNIFIED_GUARDS_VERIFY=0.01`` does so on that
    share of the checks, and warns and takes torch's verdict instead of raising; ``UNIFIED_GUARDS_NO_FALLBACK=1`` raises
    :class:`FallbackError` where a frame's guards cannot be lifted; ``UNIFIED_GUARDS_STRICT=1`` is ``strict=True``
    everywhere. Takes the place of ``root`` in ``torch._dynamo.guards.GuardManagerWrapper``.

    Args:
        strict: also guard what torch leaves out (``dynamo/strict.py``): hooks and methods that come later, memory that
            inputs share, and more. Then a frame may be compiled again where torch would reuse it, and give a wrong
            result. Lasts until :func:`uninstall`, whoever calls ``install()`` in between.
    """
    global _asked_for, _strict_asked_for
    verify.share()  # says now what is wrong with it
    with _lock:
        _asked_for = True
        _strict_asked_for |= strict
        _settle()


def uninstall() -> None:
    """Puts back every attribute of torch that :func:`install` changed. Frames compiled meanwhile keep their checker.

    Does nothing when not installed. Inside a ``with installed()`` block it takes effect when the block ends.
    """
    global _asked_for, _strict_asked_for
    with _lock:
        _asked_for = _strict_asked_for = False
        _settle()


def is_installed() -> bool:
    """Whether frames that are compiled now get a native checker."""
    return _asked_for or _inside > 0


def _is_strict() -> bool:
    return _strict_asked_for or _strict_inside > 0 or is_set("UNIFIED_GUARDS_STRICT")


def _hold(count: int) -> None:
    global _held
    with _lock:
        _held += count
        _settle()


def mark(context: TracingContext) -> None:
    """The guards of the frame that ``context`` belongs to are to be lifted, whether installed or not.

    Ends when they were, at :func:`release`, or at the latest when ``context`` is gone: its compilation failed.
    """
    if context not in _marked:
        _hold(1)
        _marked[context] = end = weakref.finalize(context, _hold, -1)
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
        _settle()
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            _strict_inside -= strict
            _settle()


__all__ = [
    "FallbackError",
    "Frame",
    "Miss",
    "UnifiedGuardManagerWrapper",
    "install",
    "installed",
    "is_installed",
    "mark",
    "release",
    "uninstall",
]
