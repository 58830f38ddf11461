"""``make_fx`` whose graph knows for which inputs it was traced. Entry points: :func:`make_fx`,
:class:`GuardedGraphModule`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.fx.experimental import proxy_tensor

from unified_guards import _C, verify
from unified_guards.aot.cache import is_being_traced, tracing
from unified_guards.aot.entry import AotEntry, Lifted, guard_set_of
from unified_guards.aot.lifting import Dimensions, Leaf, Role, keep_shared_memory_static
from unified_guards.aot.shapes import fake_mode_for, make_fake
from unified_guards.aot.stand_in import StandIn
from unified_guards.entry import text_of
from unified_guards.errors import GuardError, Unguardable
from unified_guards.guards.ir import Guard, GuardSet, Test, guard

_ON_FAILURE = ("raise", "retrace", "ignore")


class _Version(NamedTuple):
    """A graph and its guards. The first version's graph is that of the module which is called, a copy perhaps: None."""

    graph: torch.fx.GraphModule | None
    entry: AotEntry


class Guards(_C.Lookup):
    """The guards of a :class:`GuardedGraphModule` and, with ``on_guard_failure="retrace"``, of its later versions."""

    def __init__(self, trace: Callable[..., tuple[torch.fx.GraphModule, AotEntry]], on_guard_failure: str) -> None:
        super().__init__()
        self.trace = trace
        self.on_guard_failure = on_guard_failure
        self.first: AotEntry

    def add(self, graph: torch.fx.GraphModule | None, entry: AotEntry) -> None:
        """A version, tried before the others."""
        if not self._keys():
            self.first = entry
        share, rebuild = verify.share(), [(_C.REBUILD["LEAF"], 0, None)]
        self._add(_Version(graph, entry), entry.program.rows, list, rebuild, entry.oracle(share), share)

    def version_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Version | None:
        """What to run; None when no guards hold and nothing else was asked for."""
        found: _Version | None = self._find(args, kwargs)
        if found is None and self.on_guard_failure == "retrace" and not kwargs:
            self.add(*self.trace(*args))
            found = self._keys()[0]
        return found

    def error(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> GuardError:
        """What to raise after a failed check of the version that was traced first."""
        version = next(item for item in self._keys() if item.entry is self.first)
        failure = self.first.failure(self._last_failure(version), {"args": args, "kwargs": kwargs})
        failed = failure.origin if failure is not None and isinstance(failure.origin, Guard) else None
        text = text_of(failure)
        provenance = () if failed is None else self.first.checked.provenance(failed)
        return GuardError(
            f"this graph was traced for other inputs; the guard that fails: {text}\nTrace again for these inputs, or "
            "pass on_guard_failure='retrace' (or 'ignore') to make_fx.",
            failed,
            provenance,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Guards:
        return self

    def __reduce__(self) -> Any:
        raise TypeError(
            "guards know objects of this process by address and are not picklable: keep gm.guards.to_json(), and "
            "pickle torch.fx.GraphModule(gm, gm.graph)"
        )


class GuardedGraphModule(torch.fx.GraphModule):
    """What :func:`make_fx` returns: a graph module that checks its inputs when it is called.

    ``forward`` runs the graph unchecked. Under another tracer or transform calls are not checked: their inputs are not
    what the graph was traced for, by nature.
    """

    _unified: Guards | None = None

    @property
    def guards(self) -> GuardSet:
        """What must hold of the inputs, and of what the function read beside them, for this graph to be right."""
        return self._held().first.guard_set

    def check(self, *args: Any, **kwargs: Any) -> bool:
        """Whether the guards hold for a call with these arguments."""
        return self._held()._find(args, kwargs) is not None

    def _held(self) -> Guards:
        if self._unified is None:
            raise RuntimeError("this graph module has no guards: it was not made by unified_guards.make_fx")
        return self._unified

    def __deepcopy__(self, memo: dict[int, Any]) -> GuardedGraphModule:
        made: GuardedGraphModule = super().__deepcopy__(memo)
        object.__setattr__(made, "_unified", self._unified)
        return made

    def recompile(self) -> Any:
        """As torch's; the call that it generates is put behind the check."""
        made = super().recompile()
        cls: Any = type(self)
        unchecked = cls.__call__

        def __call__(self: GuardedGraphModule, *args: Any, **kwargs: Any) -> Any:
            held = self._unified
            if held is None or held.on_guard_failure == "ignore":
                return unchecked(self, *args, **kwargs)
            version = held.version_for(args, kwargs)
            if version is None and not is_being_traced(args, kwargs):
                raise held.error(args, kwargs)
            if version is None or version.graph is None:
                return unchecked(self, *args, **kwargs)
            return version.graph.forward(*args, **kwargs)

        cls.__call__ = __call__
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

    Args:
        f: a function, traced for the arguments of the call of what this returns.
        decomposition_table: as torch's.
        tracing_mode: as torch's: ``"real"``, ``"fake"``, or ``"symbolic"``, where sizes are guarded rather than fixed.
        _allow_non_fake_inputs: as torch's.
        options: what else torch's takes in this version.
        on_guard_failure: what calling the graph on other inputs does: ``"raise"`` a :class:`GuardError`,
            ``"retrace"`` (and run the new graph, kept beside the first) or ``"ignore"``.

    Returns:
        A function of example arguments that gives a :class:`GuardedGraphModule`: ``gm.guards`` prints and serialises,
        ``gm.check(*args)`` answers, ``gm(*args)`` checks and runs.

    Raises:
        ValueError: ``on_guard_failure`` or ``tracing_mode`` is not known.
        TypeError: on tracing, when something that the function depends on cannot be guarded.
    """
    if on_guard_failure not in _ON_FAILURE:
        raise ValueError(f"on_guard_failure must be one of {', '.join(_ON_FAILURE)}; got {on_guard_failure!r}")
    if tracing_mode not in ("real", "fake", "symbolic"):
        raise ValueError(f"tracing_mode must be 'real', 'fake' or 'symbolic'; got {tracing_mode!r}")

    def trace(*args: Any) -> tuple[torch.fx.GraphModule, AotEntry]:
        with tracing:  # torch patches itself meanwhile, for the whole process
            return _trace(f, args, tracing_mode, on_guard_failure, decomposition_table, _allow_non_fake_inputs, options)

    @functools.wraps(f)
    def wrapped(*args: Any) -> GuardedGraphModule:
        graph, entry = trace(*args)
        made = GuardedGraphModule(graph, graph.graph)
        made.__dict__.update({name: value for name, value in vars(graph).items() if name not in vars(made)})
        made.meta.update(graph.meta)
        held = Guards(trace, on_guard_failure)
        held.add(None, entry)
        object.__setattr__(made, "_unified", held)
        return made

    return wrapped


def _trace(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    tracing_mode: str,
    on_guard_failure: str,
    table: Any,
    allow_real: bool,
    options: dict[str, Any],
) -> tuple[torch.fx.GraphModule, AotEntry]:
    symbolic = tracing_mode == "symbolic"
    try:
        lifted = Lifted(f, args, {}, Dimensions(symbolic))
        leaves = [leaf for leaf in lifted.lifting.leaves if leaf.role is Role.ARGUMENT]
        shape_env = _make_inputs(leaves, lifted, tracing_mode, allow_real)
        traced_args, _ = lifted.template({leaf: leaf.fake for leaf in leaves})
        mode = StandIn({}, {id(leaf.fake): leaf for leaf in leaves})

        @functools.wraps(f)
        def watched(*inner: Any) -> Any:
            with mode.watching(), mode:
                return f(*inner)

        try:
            graph = proxy_tensor.make_fx(watched, table, tracing_mode, allow_real, **options)(*traced_args)
        finally:
            changed = lifted.state.restore()
        if changed is not None:
            raise Unguardable(f"the function changes {changed}")
        guard_set = guard_set_of(lifted, shape_env, leaves=leaves, storages=_mutates(graph), offsets=mode.reads_offset)
    except Unguardable as reason:
        raise TypeError(f"make_fx cannot guard what {getattr(f, '__name__', f)} depends on: {reason}") from None
    return graph, AotEntry(guard_set, [], list(lifted.lifting.kept.values()))


def _make_inputs(leaves: list[Leaf], lifted: Lifted, tracing_mode: str, allow_real: bool) -> Any:
    """Gives every leaf what stands for it while tracing; returns the ShapeEnv, if there is one.

    What the function captured stays what it is: torch puts it into the graph as a constant, so it must also stay the
    same object.
    """
    for leaf in lifted.lifting.leaves:
        leaf.fake = leaf.value
        if leaf.role is not Role.ARGUMENT:
            params = (id(leaf.value), "that tensor")
            lifted.lifting.keep(leaf.value)
            lifted.lifting.relations.append((guard(Test.IS, (leaf.source,), params), leaf.maker))
    if tracing_mode == "real":
        return None
    symbolic = tracing_mode == "symbolic"
    keep_shared_memory_static(leaves)
    mode = fake_mode_for(
        [leaf.value for leaf in leaves],
        symbolic=True,
        allow_fallback_kernels=not symbolic,
        allow_non_fake_inputs=allow_real,
        static_shapes=not symbolic,
    )
    make_fake(leaves, mode)
    return mode.shape_env if symbolic else None


def _mutates(graph: torch.fx.GraphModule) -> bool:
    schemas = (getattr(node.target, "_schema", None) for node in graph.graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in schemas)
