"""Many compiled versions of one function, each under its own GuardSet, looked up natively.

A call goes straight to a dispatcher (csrc/call); Python runs only on a miss. Entry points: :class:`UnifiedCache`,
:class:`CacheInfo`.
"""

from __future__ import annotations

import copy
import functools
import itertools
import logging
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch._dynamo.config
import torch._dynamo.eval_frame as torch_frames
import torch.fx._symbolic_trace
from torch._guards import TracingContext
from torch._logging import getArtifactLogger
from torch._subclasses.fake_tensor import is_fake
from torch.utils import _pytree as pytree
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from unified_guards import _C
from unified_guards.aot.capture import Capturer, NotCaptured, drop, tracing
from unified_guards.aot.compilers import Compilers
from unified_guards.dynamo.entry import DynamoEntry
from unified_guards.entry import text_of
from unified_guards.errors import RecompileLimitError
from unified_guards.statistics import tally

if TYPE_CHECKING:
    from unified_guards.report.advice import Advice

_log = logging.getLogger(__name__)
_recompiles = getArtifactLogger(__name__, "recompiles")


class CacheInfo(NamedTuple):
    """What a cache has done so far.

    Attributes:
        hits: calls that used a compiled version.
        misses: calls for which no version fitted, however many were checked.
        entries: compiled versions that are kept.
        max_entries: how many are kept at most.
        recompiles: versions that were compiled after the first, whether they are still kept or not.
        eager: why calls were run without compiling, and how many for each reason.
        fake_conversions: tensors and integers that were made fake, over all compilations.
    """

    hits: int
    misses: int
    entries: int
    max_entries: int
    recompiles: int
    eager: dict[str, int]
    fake_conversions: int


class Recompile(NamedTuple):
    """Why a version was compiled.

    Attributes:
        reasons: the guard at which each version that was kept failed, with who asked for it.
        advice: the cause of each and what to do, as in ``unified_guards.explain()``; None where that is not known.
    """

    reasons: tuple[str, ...]
    advice: tuple[Advice | None, ...] = ()

    def __str__(self) -> str:
        """The reasons with their causes; what is to be done, once for each cause."""
        lines: list[str] = []
        told: set[str] = set()
        for reason, advice in itertools.zip_longest(self.reasons, self.advice):
            lines.append(f"- {reason}")
            if advice is not None:
                lines += [f"  {line}" for line in advice.lines(told)]
                told.add(advice.remedy)
        return "\n".join(lines)


class Policy(NamedTuple):
    """How many versions are compiled and kept."""

    recompile_limit: int
    on_recompile_limit: str
    max_entries: int


class _Refusal:
    """Why calls of one kind are run eagerly, and how many came since."""

    def __init__(self) -> None:
        self.reason = ""
        self._calls = 0

    def is_due(self) -> bool:
        """Counts a call; whether this one is to be tried."""
        self._calls += 1
        # A function that makes something on its first call changes nothing on its second.
        is_next = self._calls == 1 and self.reason.startswith("the function changes")
        return is_next or self._calls in (16, 256)


def make_policy(recompile_limit: int | None, on_recompile_limit: str, max_entries: int | None) -> Policy:
    """Checks the words of a user.

    Raises:
        ValueError: a limit is not positive, or the policy is not known.
    """
    limit = torch._dynamo.config.recompile_limit if recompile_limit is None else recompile_limit
    most = limit if max_entries is None else max_entries
    for name, value in (("recompile_limit", limit), ("max_entries", most)):
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a positive int, got {value!r}")
    if on_recompile_limit not in ("eager", "error"):
        raise ValueError(f"on_recompile_limit must be 'eager' or 'error', got {on_recompile_limit!r}")
    return Policy(limit, on_recompile_limit, most)


def is_being_traced(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether some other tracer or transform runs this call: it sees through, as through any Python function.

    Raises:
        RuntimeError: a fake mode is active, and a tensor is real.
    """
    if _is_somebody_tracing():
        return True
    tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    return _is_in_fake_mode(tensors) or any(map(torch._is_functional_tensor, tensors))


def _is_somebody_tracing() -> bool:
    keys, mode_of = torch._C._TorchDispatchModeKey, torch._C._get_dispatch_mode
    return (
        TracingContext.try_get() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or mode_of(keys.PROXY) is not None
        or mode_of(keys.FUNCTIONAL) is not None
        or torch.compiler.is_exporting()
        or torch.fx._symbolic_trace.is_fx_symbolic_tracing()
        or torch._C._is_tracing()
    )


def _is_in_fake_mode(tensors: list[torch.Tensor]) -> bool:
    """Whether a fake mode is active: it sees what the function itself does."""
    if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FAKE) is None:
        return False
    for at, tensor in enumerate(tensors):
        if not is_fake(tensor):
            raise RuntimeError(
                f"a fake mode is active and tensor {at} of this call is real ({tuple(tensor.shape)}, {tensor.dtype}). "
                "Convert it first (fake_mode.from_tensor(x)), or make the call outside of the fake mode."
            )
    return True


def _why_eager() -> str | None:
    """What of the state of the thread has a call run eagerly: it would see what is traced, or torch is told to."""
    if torch_frames._stance.stance != "default":
        return "torch.compiler.set_stance() is in effect"
    modes = [torch._C._get_function_stack_at(at) for at in range(torch._C._len_torch_function_stack())]
    modes += _get_current_dispatch_mode_stack()
    for mode in modes:
        if not isinstance(mode, DeviceContext):
            return f"a mode is active ({type(mode).__qualname__})"
    return None


def _why(entry: DynamoEntry, frame: dict[str, Any]) -> str:
    """What to say of an entry that did not fit."""
    return text_of(entry.failure(entry.checker.last_failure, frame))


def _advice(entry: DynamoEntry, frame: dict[str, Any]) -> Advice | None:
    # Imported here: only a miss is explained.
    from unified_guards.report.advice import advice_on, for_entry_point

    seen = entry.look(entry.checker.last_failure, frame)
    return None if seen is None else for_entry_point(advice_on(seen))


class UnifiedCache(_C.Entrance):
    """A callable that keeps compiled versions of ``target``; what ``aot_function`` returns.

    Calling it runs the version whose guards hold, or compiles one.
    """

    def __init__(
        self, target: Callable[..., Any], compilers: Compilers, *, dynamic: bool | None, policy: Policy
    ) -> None:
        super().__init__()
        self._target = target
        self._compilers = compilers
        self._dynamic = dynamic
        self._policy = policy
        self.name = getattr(target, "__qualname__", type(target).__qualname__)
        self.cache_clear()
        functools.update_wrapper(self, target, updated=())

    # -- for the user ----------------------------------------------------------------------------------------------

    def cache_info(self) -> CacheInfo:
        """What the cache has done so far."""
        return CacheInfo(
            0 if self._dispatcher is None else self._dispatcher.counts[0],
            self._misses,
            len(self._entries()),
            self._policy.max_entries,
            max(0, self._compilations - 1),
            dict(self._eager),
            self._capturer.conversions,
        )

    def cache_clear(self) -> None:
        """Forgets every version, what is known of dimensions that change, and all counts."""
        compilers = self._compilers
        self._capturer = Capturer(
            self._target, compilers.lower, self.name, dynamic=self._dynamic, static=compilers.num_params_buffers
        )
        self._dispatcher = self._capturer.dispatcher()
        self._gate = None
        if self._dispatcher is not None:
            self._lead_to(self._dispatcher)
            self._gate = _C.Gate(self._dispatcher)
        self._misses = 0
        self._compilations = 0
        self._refused: dict[object, _Refusal] = {}
        self._gave_up: str | None = None
        self._eager: dict[str, int] = {}
        self._history: list[Recompile] = []

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compiles the version for these arguments without running it, unless there is one already."""
        with tracing:
            if self._find(args, kwargs) is None:
                self._compile(args, kwargs)

    def recompiles(self) -> tuple[Recompile, ...]:
        """Why each version after the first was compiled, oldest first."""
        return tuple(self._history)

    def explain(self) -> Any:
        """A report on every version: its guards, who asked for each, what was simplified; and why it was compiled."""
        # Imported here: only for reading.
        from unified_guards.aot.report import report

        return report(self)

    def __get__(self, owner: object, kind: type | None = None) -> Any:
        """Binds, as a function does that is found in a class."""
        return self if owner is None else types.MethodType(self, owner)

    def __deepcopy__(self, memo: dict[int, Any]) -> UnifiedCache:
        """A cache of its own, for a copy of the function where that can be copied. Compilers are not copied."""
        made = memo[id(self)] = UnifiedCache.__new__(UnifiedCache)
        target = copy.deepcopy(self._target, memo)
        made.__init__(target, self._compilers, dynamic=self._dynamic, policy=self._policy)  # type: ignore[misc]
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """A cache of its own, with nothing in it, that does not know this one's versions."""
        return _made_again, (self._target, self._compilers, self._dynamic, self._policy)

    # -- a miss ----------------------------------------------------------------------------------------------------

    def _miss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if is_being_traced(args, kwargs):
            return self._target(*args, **kwargs)
        reason = _why_eager() or self._gave_up or self._why_refused(args, kwargs)
        if reason is not None:
            self._run_eagerly(reason)
            return self._target(*args, **kwargs)
        self._misses += 1
        with tracing:
            compiled = self._find(args, kwargs) is not None or self._compile(args, kwargs)
        if not compiled or self._dispatcher is None or self._gate is None:
            return self._target(*args, **kwargs)
        result = self._gate(args, kwargs)
        if result is not _C.LONG_WAY:
            self._dispatcher._forget()  # of a graph that has run once, more may be left out (dynamo/graphs.py)
            return result
        self._run_eagerly("it changes what its guards read while they are checked")
        return self._target(*args, **kwargs)

    def _why_refused(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        refusal = self._refused.get(self._kind_of(args, kwargs)) if self._refused else None
        return None if refusal is None or refusal.is_due() else refusal.reason

    def _kind_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """Calls of one kind are taken to fail alike when they are captured. Where they do not, they run eagerly."""
        leaves, spec = pytree.tree_flatten((args, kwargs))
        owner = getattr(self._target, "__self__", self._target)
        state = torch.is_grad_enabled(), getattr(owner, "training", None)
        return str(spec), tuple(map(self._kind_of_leaf, leaves)), state

    def _kind_of_leaf(self, leaf: Any) -> object:
        if isinstance(leaf, torch.Tensor):
            sizes = leaf.shape if self._dynamic is False else leaf.dim()
            return type(leaf), leaf.dtype, sizes, leaf.requires_grad
        return (type(leaf), leaf) if type(leaf) in (bool, str, type(None)) else type(leaf)

    def _find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DynamoEntry | None:
        manager = None if self._dispatcher is None else self._dispatcher._find(args, kwargs)
        return None if manager is None else manager.entry

    def _compile(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Adds the version that this call needs; False when the call has to be run eagerly."""
        frame = {"args": args, "kwargs": kwargs, "target": self._target}
        recompile = self._reason(frame)
        if not self._may_compile(recompile):
            return False
        try:
            entry = self._capturer.capture(args, kwargs)
        except NotCaptured as reason:
            self._refuse(str(reason), args, kwargs)
            return False
        if self._find(args, kwargs) is not entry:
            missed = entry.checker.last_failure is not None
            why = f"the function changes what it depends on: {_why(entry, frame)}"
            self._drop(entry)
            self._refuse(why if missed else "the code that Dynamo has made of it cannot be called", args, kwargs)
            return False
        self._refused.pop(self._kind_of(args, kwargs), None)
        self._compilations += 1
        tally.aot_entries += 1
        if recompile is not None and self._compilations > 1:
            self._history.append(recompile)
        self._evict()
        return True

    def _refuse(self, reason: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Calls like this one are not captured again, but for a few tries: what was in the way may be gone."""
        self._run_eagerly(reason)
        self._refused.setdefault(self._kind_of(args, kwargs), _Refusal()).reason = reason
        if len(self._refused) >= self._policy.recompile_limit:
            self._gave_up = reason
            _log.warning("%s runs eagerly from now on, because %s", self.name, reason)

    def _entries(self) -> list[DynamoEntry]:
        return self._capturer.entries()

    def _reason(self, frame: dict[str, Any]) -> Recompile | None:
        entries = self._entries()
        if not entries:
            return None
        reason = Recompile(
            tuple(_why(entry, frame) for entry in entries), tuple(_advice(entry, frame) for entry in entries)
        )
        _recompiles.debug("Recompiling %s\n    triggered by the following guard failure(s):\n%s", self.name, reason)
        return reason

    def _may_compile(self, recompile: Recompile | None) -> bool:
        limit, policy, _ = self._policy
        if self._compilations < limit:
            return True
        because = f" The last reasons:\n{recompile}" if recompile is not None else ""
        message = f"{self.name} was compiled {limit} times, its recompile_limit.{because}"
        if policy == "error":
            raise RecompileLimitError(
                f"{message}\nRaise recompile_limit, pass dynamic=True, or on_recompile_limit='eager'."
            )
        reason = f"recompile_limit ({limit}) reached"
        if reason not in self._eager:
            _log.warning("%s\nFrom now on other calls run eagerly (on_recompile_limit='eager').", message)
        self._run_eagerly(reason)
        return False

    def _run_eagerly(self, reason: str) -> None:
        self._eager[reason] = self._eager.get(reason, 0) + 1
        tally.ran_eagerly(reason)

    def _drop(self, entry: DynamoEntry) -> None:
        for manager in self._capturer.managers():
            if manager.entry is entry:
                drop(manager)

    def _evict(self) -> None:
        for entry in self._entries()[self._policy.max_entries :]:
            self._drop(entry)


def _made_again(target: Callable[..., Any], compilers: Compilers, dynamic: bool | None, policy: Policy) -> UnifiedCache:
    return UnifiedCache(target, compilers, dynamic=dynamic, policy=policy)


def _call(self: UnifiedCache, *args: Any, **kwargs: Any) -> Any:
    """What a call is to Dynamo, which sees through it as through any Python function."""
    if torch.compiler.is_compiling():
        return self._target(*args, **kwargs)
    return _C.Entrance.__call__(self, *args, **kwargs)


_C.show_call(UnifiedCache, _call)

__all__ = ["CacheInfo", "Policy", "Recompile", "UnifiedCache", "is_being_traced", "make_policy", "tracing"]
