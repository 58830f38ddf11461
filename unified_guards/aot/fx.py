"""``make_fx`` whose graph knows for which inputs it was traced. Entry points: :func:`make_fx`,
:class:`GuardedGraphModule`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch

from unified_guards.aot.cache import is_being_traced
from unified_guards.aot.fx_guards import Version, travelling
from unified_guards.aot.fx_trace import MODES, Tracer
from unified_guards.entry import text_of
from unified_guards.errors import GuardError
from unified_guards.guards.ir import Guard, GuardSet

_ON_FAILURE = ("raise", "retrace", "ignore")


class Guards:
    """The guards of a :class:`GuardedGraphModule` and, with ``on_guard_failure="retrace"``, of its later versions.

    Attributes:
        first: the version that was traced first.
        left: guards that did not travel with a pickled graph, as texts.
    """

    def __init__(self, trace: Callable[..., Version] | None, on_guard_failure: str) -> None:
        self.trace = trace
        self.on_guard_failure = on_guard_failure
        self.versions: list[Version] = []
        self.first: Version
        self.left: tuple[str, ...] = ()

    def add(self, version: Version) -> None:
        """A version, tried before the others."""
        if not self.versions:
            self.first = version
        self.versions.insert(0, version)

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Version | None:
        """The version whose guards hold."""
        return next((version for version in self.versions if version.check(args, kwargs)), None)

    def version_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Version | None:
        """What to run; None when no guards hold and nothing else was asked for."""
        found = self.find(args, kwargs)
        if found is None and self.on_guard_failure == "retrace" and self.trace is not None:
            found = self.trace(*args, **kwargs)
            self.add(found)
        return found

    def error(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> GuardError:
        """What to raise after a failed check of the version that was traced first."""
        failure = self.first.failure(args, kwargs)
        failed = failure.origin if failure is not None and isinstance(failure.origin, Guard) else None
        return GuardError(
            f"this graph was traced for other inputs; the guard that fails: {text_of(failure)}\nTrace again for these "
            "inputs, or pass on_guard_failure='retrace' (or 'ignore') to make_fx.",
            failed,
            () if failed is None else self.first.entry.checked.provenance(failed),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Guards:
        return self

    def __reduce__(self) -> Any:
        """The guards on arguments and on the thread, as text. The function stays, and what was guarded of it."""
        taken, left = travelling(self.first.entry.guard_set)
        how = "raise" if self.on_guard_failure == "retrace" else self.on_guard_failure
        return _from_text, (taken.to_json(), self.first.keywords, (*self.left, *left), how)


def _from_text(text: str, keywords: tuple[str, ...], left: tuple[str, ...], on_guard_failure: str) -> Guards:
    made = Guards(None, on_guard_failure)
    made.add(Version(GuardSet.from_json(text), None, keywords))
    made.left = left
    return made


class GuardedGraphModule(torch.fx.GraphModule):
    """What :func:`make_fx` returns: a graph module that checks its inputs when it is called.

    ``forward`` runs the graph unchecked. Under another tracer or transform calls are not checked: their inputs are not
    what the graph was traced for, by nature.

    It can be copied and pickled. A copy has the same guards. A pickled graph takes those on its arguments and on the
    state of the thread along; what its function read beside them stays in this process, and ``guards_left_behind``
    says so there.
    """

    _unified: Guards | None = None

    @property
    def guards(self) -> GuardSet:
        """What must hold of the inputs, and of what the function read beside them, for this graph to be right."""
        return self._held().first.entry.guard_set

    @property
    def guards_left_behind(self) -> tuple[str, ...]:
        """The guards that did not come along when the graph was pickled, as texts."""
        return self._held().left

    def check(self, *args: Any, **kwargs: Any) -> bool:
        """Whether the guards hold for a call with these arguments."""
        return self._held().find(args, kwargs) is not None

    def _held(self) -> Guards:
        if self._unified is None:
            raise RuntimeError("this graph module has no guards: it was not made by unified_guards.make_fx")
        return self._unified

    def __deepcopy__(self, memo: dict[int, Any]) -> GuardedGraphModule:
        made: GuardedGraphModule = super().__deepcopy__(memo)
        object.__setattr__(made, "_unified", self._unified)
        return made

    def __copy__(self) -> GuardedGraphModule:
        made = _guarded(super().__copy__())
        object.__setattr__(made, "_unified", self._unified)
        return made

    def __reduce__(self) -> Any:
        graph = copy.deepcopy(self.graph)
        for node in graph.nodes:
            if isinstance(node.type, str):
                node.type = None  # torch cannot write down annotations that are strings
        return _unpickled, (torch.fx.GraphModule(self, graph), self._unified)

    def recompile(self) -> Any:
        """As torch's; the call that it generates is put behind the check."""
        made = super().recompile()
        cls: Any = type(self)
        unchecked = cls.__call__

        def __call__(self: GuardedGraphModule, *args: Any, **kwargs: Any) -> Any:
            held = self._unified
            if held is None or torch.compiler.is_compiling():
                return unchecked(self, *args, **kwargs)
            version = held.first if held.on_guard_failure == "ignore" else held.version_for(args, kwargs)
            if version is None and not is_being_traced(args, kwargs):
                raise held.error(args, kwargs)
            version = version or held.first
            given = version.in_order(args, kwargs)
            return unchecked(self, *given) if version.graph is None else version.graph.forward(*given)

        cls.__call__ = __call__
        return made


def _guarded(graph: torch.fx.GraphModule) -> GuardedGraphModule:
    made = GuardedGraphModule(graph, graph.graph)
    made.__dict__.update({name: value for name, value in vars(graph).items() if name not in vars(made)})
    made.meta.update(graph.meta)
    return made


def _unpickled(graph: torch.fx.GraphModule, held: Guards | None) -> GuardedGraphModule:
    made = _guarded(graph)
    object.__setattr__(made, "_unified", held)
    return made


def make_fx(
    f: Callable[..., Any],
    decomposition_table: Any = None,
    tracing_mode: str = "real",
    _allow_non_fake_inputs: bool = False,
    *,
    on_guard_failure: str = "raise",
    **options: Any,
) -> Callable[..., GuardedGraphModule]:
    """``torch.fx.experimental.proxy_tensor.make_fx`` whose graph carries its guards.

    The function is captured whole by Dynamo, whose guards the graph gets, and what was captured is traced: the function
    itself does not run, tensors are not written to, and generators of random numbers stay where they are.

    Args:
        f: a function, traced for the arguments of the call of what this returns.
        decomposition_table: as torch's.
        tracing_mode: as torch's: ``"real"``, ``"fake"``, or ``"symbolic"``, where sizes are guarded rather than fixed.
        _allow_non_fake_inputs: as torch's.
        options: what else torch's takes in this version.
        on_guard_failure: what calling the graph on other inputs does: ``"raise"`` a :class:`GuardError`,
            ``"retrace"`` (and run the new graph, kept beside the first) or ``"ignore"``.

    Returns:
        A function of example arguments, by position and by keyword, that gives a :class:`GuardedGraphModule`:
        ``gm.guards`` prints and serialises, ``gm.check(*args)`` answers, ``gm(*args)`` checks and runs.

    Raises:
        ValueError: ``on_guard_failure`` or ``tracing_mode`` is not known.
        TypeError: on tracing, when something that the function depends on cannot be guarded.
    """
    if on_guard_failure not in _ON_FAILURE:
        raise ValueError(f"on_guard_failure must be one of {', '.join(_ON_FAILURE)}; got {on_guard_failure!r}")
    if tracing_mode not in MODES:
        raise ValueError(f"tracing_mode must be 'real', 'fake' or 'symbolic'; got {tracing_mode!r}")
    tracer = Tracer(f, decomposition_table, tracing_mode, _allow_non_fake_inputs, options)

    @functools.wraps(f)
    def wrapped(*args: Any, **kwargs: Any) -> GuardedGraphModule:
        version = tracer.trace(*args, **kwargs)
        assert version.graph is not None
        made = _guarded(version.graph)
        held = Guards(tracer.trace, on_guard_failure)
        held.add(version.of_the_module_itself())
        object.__setattr__(made, "_unified", held)
        return made

    return wrapped
