"""Many compiled versions of one function, each under its own GuardSet, looked up natively.

A call goes straight to ``_C.Lookup`` (csrc/lookup/lookup.cpp); Python runs only on a miss. Entry points:
:class:`UnifiedCache`, :class:`CacheInfo`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch._dynamo.config
from torch._logging import getArtifactLogger
from torch.utils import _pytree as pytree

from unified_guards import _C, verify
from unified_guards.aot.entry import ARGS, KWARGS, AotEntry, Lifted, guard_set_of
from unified_guards.aot.lifting import Dimensions
from unified_guards.aot.trace import Compilers, Rebuild, compile_entry
from unified_guards.entry import text_of
from unified_guards.errors import RecompileLimitError, Unguardable
from unified_guards.guards.ir import Guard, GuardSet, Source
from unified_guards.lower.discriminators import discriminate
from unified_guards.lower.rows import CannotLower
from unified_guards.statistics import tally

_log = logging.getLogger(__name__)
_recompiles = getArtifactLogger(__name__, "recompiles")

#: Tracing lets modules hold traced tensors for a while, so one thread traces at a time.
tracing = threading.RLock()


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
    """Why a version was compiled: the guard at which each version that was kept failed, with who asked for it."""

    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(f"- {reason}" for reason in self.reasons)


class Policy(NamedTuple):
    """How many versions are compiled and kept."""

    recompile_limit: int
    on_recompile_limit: str
    max_entries: int


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
    """Whether some other tracer or transform runs this call: it sees through, as through any Python function."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return True
    if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None:
        return True
    if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.FUNCTIONAL) is not None:
        return True
    return any(torch._is_functional_tensor(leaf) for leaf in _tensors(args, kwargs))


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]


def _why(entry: AotEntry, row: int | None, frame: dict[str, Any]) -> str:
    """What to say of an entry that did not fit, whose check failed at a row."""
    return text_of(entry.failure(row, frame))


def _forget(cache: weakref.ref[UnifiedCache], entry: weakref.ref[AotEntry]) -> None:
    """An object that an entry knows by address has died."""
    owner, dead = cache(), entry()
    if owner is not None and dead is not None:
        owner._drop(dead)


class UnifiedCache(_C.Lookup):
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
            self._hits - self._hits_before,
            self._misses - self._misses_before,
            len(self._compiled_entries()),
            self._policy.max_entries,
            max(0, self._compilations - 1),
            dict(self._eager),
            self._conversions,
        )

    def cache_clear(self) -> None:
        """Forgets every version, what is known of dimensions that change, and all counts."""
        self._clear()
        self._dimensions = Dimensions(self._dynamic)
        self._hits_before, self._misses_before = self._hits, self._misses
        self._compilations = 0
        self._refusals = 0
        self._gave_up: str | None = None
        self._conversions = 0
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

    # -- a miss ----------------------------------------------------------------------------------------------------

    def _miss(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if is_being_traced(args, kwargs):
            return self._target(*args, **kwargs)
        with tracing:
            compiled = self._find(args, kwargs) is not None or self._compile(args, kwargs)
        return self(*args, **kwargs) if compiled else self._target(*args, **kwargs)

    def _compile(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Adds the version that this call needs; False when the call has to be run eagerly."""
        frame = {"args": args, "kwargs": kwargs}
        recompile = self._reason(frame)
        if not self._may_compile(recompile):
            return False
        try:
            lifted = Lifted(self._target, args, kwargs, self._dimensions, self._compilers.num_params_buffers)
        except Unguardable as reason:
            self._run_eagerly(str(reason))
            return False
        try:
            if lifted.refused is not None:
                raise Unguardable(lifted.refused)
            self._add_compiled(lifted)
        except (Unguardable, CannotLower) as reason:
            return self._refuse(lifted, str(reason), frame)
        entry = self._keys()[0]
        if self._find(args, kwargs) is not entry:
            why = _why(entry, self._last_failure(entry), frame)
            self._drop(entry)
            return self._refuse(lifted, f"the function changes what it depends on: {why}", frame)
        self._compilations += 1
        if recompile is not None and self._compilations > 1:
            self._history.append(recompile)
        self._evict()
        return True

    def _add_compiled(self, lifted: Lifted) -> None:
        compiled, shape_env = compile_entry(
            self._target, lifted.template, lifted.lifting, lifted.state, self._compilers
        )
        self._conversions += len(compiled.leaves)
        guard_set = guard_set_of(
            lifted, shape_env, leaves=compiled.leaves, storages=compiled.mutates, offsets=compiled.reads_offset
        )
        gather = [leaf.source for leaf in compiled.leaves]
        self._install(lifted, guard_set, gather, compiled.function, compiled.rebuild, eager=False)
        tally.aot_entries += 1

    def _refuse(self, lifted: Lifted, reason: str, frame: dict[str, Any]) -> bool:
        """Calls like this one are not traced again: their version is the function itself. False when not even that."""
        self._refusals += 1
        if self._refusals >= self._policy.recompile_limit:
            self._gave_up = reason
            _log.warning("%s runs eagerly from now on, because %s", self.name, reason)

        def run(flat: list[Any]) -> list[Any]:
            args, kwargs = flat
            self._run_eagerly(reason)
            return [self._target(*args, **kwargs)]

        for leaf in lifted.lifting.leaves:
            leaf.fake = leaf.value
        guard_set = guard_set_of(lifted, None, leaves=[], storages=False, offsets=False)
        self._install(lifted, guard_set, [ARGS, KWARGS], run, [(_C.REBUILD["LEAF"], 0, None)], eager=True)
        entry = self._keys()[0]
        if self._find(frame["args"], frame["kwargs"]) is entry:
            self._evict()
            return True
        self._drop(entry)
        self._run_eagerly(reason)
        return False

    def _install(
        self,
        lifted: Lifted,
        guard_set: GuardSet,
        gather: list[Source],
        function: Callable[..., Any],
        rebuild: Rebuild,
        *,
        eager: bool,
    ) -> None:
        entry = AotEntry(guard_set, gather, list(lifted.lifting.kept.values()), eager=eager)
        lifted.lifting.deaths.tell = functools.partial(_forget, weakref.ref(self), weakref.ref(entry))
        others, share = self._keys(), verify.share()
        self._add(entry, entry.program.rows, function, rebuild, entry.oracle(share), share)
        discriminate(entry, others, self._add_discriminator)

    def _add_discriminator(self, entry: AotEntry, item: Guard) -> None:
        rows, first_row = entry.discriminator_rows(item)
        with contextlib.suppress(KeyError):  # dropped meanwhile: an object that it knows by address has died
            self._ask_first(entry, rows, first_row)

    def _compiled_entries(self) -> list[AotEntry]:
        return [entry for entry in self._keys() if not entry.eager]

    def _reason(self, frame: dict[str, Any]) -> Recompile | None:
        failures = [(entry, self._last_failure(entry)) for entry in self._compiled_entries()]
        if not failures:
            return None
        reason = Recompile(tuple(_why(entry, row, frame) for entry, row in failures))
        _recompiles.debug("Recompiling %s\n    triggered by the following guard failure(s):\n%s", self.name, reason)
        return reason

    def _may_compile(self, recompile: Recompile | None) -> bool:
        limit, policy, _ = self._policy
        if self._gave_up is not None:
            self._run_eagerly(self._gave_up)
            return False
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

    def _evict(self) -> None:
        for entry in self._keys()[self._policy.max_entries :]:
            self._drop(entry)
