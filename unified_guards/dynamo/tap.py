"""Records what Dynamo asks of its guard tree while it builds one.

Every method of the guard-manager classes that adds a guard or a child is wrapped, and so are the module functions that
install relational guards: a call goes on to torch and, while a recording is active on this thread, is noted with its
structured arguments. Torch's own tree is built as ever. Entry points: :class:`Tap`, :func:`recording`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch._dynamo.guards as torch_guards
from torch._C._dynamo import guards as native

from unified_guards import _C
from unified_guards.dynamo.compat import SETS_STATE, DispatchState, dispatch_state, tensor_guard


class Record(NamedTuple):
    """One call: ``manager.method(*args, **kwargs)`` returned ``result``; module functions have no manager."""

    method: str
    manager: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


class _Active(threading.local):
    records: list[Any] | None = None
    state: DispatchState | None = None  # in which torch makes the guards; None: in that of this thread


_active = _Active()

_CLASSES = (native.GuardManager, native.RootGuardManager, native.DictGuardManager)
_FUNCTIONS = (
    "install_object_aliasing_guard",
    "install_no_tensor_aliasing_guard",
    "install_storage_overlapping_guard",
    "install_symbolic_shape_guard",
)
#: Methods whose names end with "_manager" and which make no child.
_NOT_A_CHILD = frozenset({"clone_manager"})

#: The names of records that hold more than the arguments of a call. Each kind has a recorder of its own.
TENSOR_FACTS = "tensor_facts"
LAMBDA_PARTS = "lambda_parts"
STATE_NOT_KNOWN = "state_not_known"


def recorded_methods(cls: type) -> list[str]:
    """The methods that ``cls`` itself defines and that add a guard or a child."""
    return [
        name
        for name in vars(cls)
        if name.startswith("add_") or (name.endswith("_manager") and name not in _NOT_A_CHILD)
    ]


def _named(call: Callable[..., Any], name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    call.__name__ = name
    call.__doc__ = original.__doc__
    return call


def _recorder(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    active = _active

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        records = active.records
        if records is not None:
            records.append((name, self, args, kwargs, result))
        return result

    return _named(call, name, original)


def _tensor_recorder(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Also reads what the guard will expect, now: it depends on the dispatch state in which torch makes the guard."""
    active = _active

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        records = active.records
        if records is not None:
            given = tensor_guard(args, kwargs)
            keys = given.get("dispatch_keys")
            facts = _C.tensor_facts(given["value"], None if keys is None else keys.raw_repr(), active.state)
            records.append((TENSOR_FACTS, self, facts, given, result))
        return result

    return _named(call, name, original)


def _keys_recorder(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a guard on a set of keys."""
    active = _active

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        records = active.records
        if records is not None:
            expected = _C.apply_dispatch_state(args[0].raw_repr(), active.state)
            records.append((name, self, (expected, *args[1:]), kwargs, result))
        return result

    return _named(call, name, original)


def _state_recorder(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Notes the state that torch has saved with guards, and in which it makes them anew."""
    active = _active

    def call(self: Any, state: Any) -> None:
        original(self, state)
        records = active.records
        if records is not None:
            active.state = dispatch_state(state)
            if active.state is None:
                records.append((STATE_NOT_KNOWN, None, (), {}, None))

    return _named(call, name, original)


def _function_recorder(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        records = _active.records
        if records is not None:
            records.append((name, None, args, kwargs, result))
        return result

    return _named(call, name, original)


def _lambda_recorder(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """The code parts of a Python guard, noted before the call that installs the function compiled from them.

    Only the parts of the ShapeEnv come with ``closure_vars``, the names that sympy's printer uses. The guard managers
    that exist by then are noted, too, by the names of their sources: they say where in the tree the values are that the
    parts read.
    """

    def call(
        self: Any, code_parts: Any, verbose_code_parts: Any, closure_vars: Any = None, is_epilogue: bool = True
    ) -> Any:
        records = _active.records
        if records is not None:
            maker = "dynamo" if closure_vars is None else "shape_env"
            parts = (list(code_parts), list(verbose_code_parts), maker, dict(self._cached_guard_managers))
            records.append((LAMBDA_PARTS, None, parts, {}, None))
        return original(self, code_parts, verbose_code_parts, closure_vars, is_epilogue)

    return _named(call, name, original)


_SPECIAL = {"add_tensor_match_guard": _tensor_recorder, "add_dispatch_key_set_guard": _keys_recorder}


class Tap:
    """Wraps and unwraps torch's guard-building calls. ``put`` is ``setattr`` that remembers what was there."""

    def __init__(self, put: Callable[[Any, str, Any], None]) -> None:
        for cls in _CLASSES:
            for name in recorded_methods(cls):
                make = _SPECIAL.get(name, _recorder)
                put(cls, name, make(name, vars(cls)[name]))
        if hasattr(native.RootGuardManager, SETS_STATE):
            original = vars(native.RootGuardManager)[SETS_STATE]
            put(native.RootGuardManager, SETS_STATE, _state_recorder(SETS_STATE, original))
        for name in _FUNCTIONS:
            put(torch_guards, name, _function_recorder(name, getattr(torch_guards, name)))
        builder = torch_guards.GuardBuilder
        name = "add_python_lambda_leaf_guard_to_root"
        put(builder, name, _lambda_recorder(name, vars(builder)[name]))


@contextlib.contextmanager
def recording() -> Iterator[list[Any]]:
    """Collects the calls made on this thread, as tuples in the shape of :class:`Record`.

    Compilation can nest (a guard's user code may compile): the inner recording hides the outer one.
    """
    outer = _active.records, _active.state
    records: list[Any] = []
    _active.records, _active.state = records, None
    try:
        yield records
    finally:
        _active.records, _active.state = outer
