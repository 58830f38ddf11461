"""The guard manager of a cache entry: its root is the native checker, and torch's tree answers everything else.

Under ``UNIFIED_GUARDS_VERIFY`` torch's tree is also the oracle (:func:`oracle_of`). Entry point:
:class:`UnifiedGuardManagerWrapper`.
"""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch._dynamo.guards as torch_guards
from torch._C._dynamo import guards as native
from torch._C._dynamo.eval_frame import _debug_get_precompile_entries as _loaded_entries
from torch._dynamo.eval_frame import _debug_get_cache_entry_list

from unified_guards import _C, verify
from unified_guards.dynamo import single_flight
from unified_guards.statistics import tally

if TYPE_CHECKING:
    from unified_guards.dynamo.entry import DynamoEntry


class UnifiedGuardManagerWrapper(torch_guards.GuardManagerWrapper):
    """Torch's wrapper, whose root is the native checker and whose every other answer comes from torch's own tree.

    Never constructed: the wrapper that Dynamo filled is given this class, so whoever holds that wrapper holds this one.
    """

    torch_root: Any
    entry: DynamoEntry
    ask: Callable[[dict[str, Any]], Any]
    binds: tuple[Any, Any] | None = None  # a signature, and what binds arguments to it (dynamo/saved.py)

    @property
    def cache_entry(self) -> Any:
        """Torch's entry; None as soon as torch has dropped it. The manager may live on: torch keeps some."""
        return vars(self).get("cache_entry")

    @cache_entry.setter
    def cache_entry(self, value: Any) -> None:
        self.__dict__["cache_entry"] = value
        if value is not None:
            single_flight.is_added(self)
        else:
            for dispatcher in list(vars(self).get("dispatchers", ())):
                dispatcher._forget_entry(self)

    def tell(self, dispatcher: _C.Dispatcher) -> None:
        """Has the dispatcher forget the entry when torch drops it."""
        self.__dict__.setdefault("dispatchers", weakref.WeakSet()).add(dispatcher)

    def _torch(self) -> torch_guards.GuardManagerWrapper:
        """What this object was before: torch's tree with everything else as it is now."""
        view = torch_guards.GuardManagerWrapper.__new__(torch_guards.GuardManagerWrapper)
        vars(view).update(vars(self))
        view.root = self.torch_root
        return view

    def check(self, x: Any) -> bool:
        """Called for code that was compiled ahead of time. Frames are looked up by way of the root."""
        answer = self.ask(x)
        if isinstance(answer, bool):
            return answer
        raise answer.exception

    def check_verbose(self, x: Any) -> Any:
        """Torch's reason. Its tree also counts the failure, which is how torch chooses its diff guards."""
        holds = False
        try:
            with _torch_function_state_kept():
                found = self._torchs_reason(x)
                holds = bool(found.result)
                return found
        finally:
            with contextlib.suppress(Exception):  # only for reading: nothing here may change what torch says
                self.entry.note_recompilation(x, holds=holds)

    def _torchs_reason(self, x: Any) -> Any:
        try:
            self.torch_root.check(x)
            return self._with_extras(self.torch_root.check_verbose(x), x)
        except SystemError as error:
            # User code raised in a guard and torch left the error pending: it is the user's, as in eager.
            raise (error.__cause__ or error) from None
        except RuntimeError as error:
            # Torch's guards can throw where ours fail. Say so in a single part, which torch does not run as code.
            reason = f"a guard could not be evaluated: {str(error).splitlines()[0]}"
            return native.GuardDebugInfo(False, [reason], 0)

    def _with_extras(self, found: Any, f_locals: Any) -> Any:
        """Torch's reason; where torch's tree passes, the strict guard that failed, which that tree does not have.

        The reason is a single part: torch does not run that as code.
        """
        reason = self.entry.failing_extra(f_locals) if found.result and isinstance(f_locals, dict) else None
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
        """Called when torch drops the cache entry: an object that a guard knows by its identity has died, or Dynamo was
        reset. A user's code in a guard may do that while torch's lookup runs. The lookup goes on to use the roots, so
        they are kept until it is over."""
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
    """Torch's verdict. Where it is not ``verdict``, torch is asked once more, and the second answer counts. Dict tags
    let torch skip guards, an exception may have left its tree in the middle of a check, and user code in a guard may
    answer differently each time."""
    expected = _answer(lambda: root.check(f_locals))
    return expected if expected == verdict else _answer(lambda: root.check_verbose(f_locals).result)


def _answer(ask: Callable[[], Any]) -> bool:
    """Torch's answer; False where torch throws, because there the native checker must miss."""
    with _torch_function_state_kept():
        try:
            return bool(ask())
        except Exception:
            return False


def oracle_of(
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
            # The checker is not asked again: a user's code in a guard may have changed what another guard reads, after
            # that other guard had passed. A second answer would hide the first one, which was wrong.
            return judge.disagree(verdict, None)
        if unified.entry.stopped_at_an_extra():
            return None  # torch's tree does not have this guard
        failure = unified.entry.last_failure
        if unified.entry.checker.check(f_locals):
            return None  # user code in a guard answers differently from one call to the next
        return judge.disagree(verdict, failure)

    return compare


def managers_on(code: types.CodeType) -> list[Any]:
    """The guard managers of the cache entries of ``code``, in the order in which a lookup asks them: those that were
    loaded come first."""
    return [entry.guard_manager for entry in (*_loaded_entries(code), *_debug_get_cache_entry_list(code))]


def entries_of(code: types.CodeType) -> list[DynamoEntry]:
    """The cache entries of ``code`` that are checked natively, in the order in which a lookup asks them."""
    return [wrapper.entry for wrapper in managers_on(code) if isinstance(wrapper, UnifiedGuardManagerWrapper)]
