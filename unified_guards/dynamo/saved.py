"""Guards that torch saves together with compiled code, and builds anew where that code is loaded.

``torch.compile(...).aot_compile`` and torch's precompile pickle the objects that the guards of an entry are about, and
let the guards of which the expectation would mean nothing in another process fall: identities, and those on globals.
Loaded guards are built by the same ``CheckFunctionManager`` as those of a frame, and lifted like them; what differs is
here. The list of what was dropped travels along in torch's own pickle, as text, which torch without this package
ignores. Entry points: :func:`watch_saved`, :class:`Saved`, :func:`noting`, :func:`sources_of`, :func:`managers_of`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch._dynamo.guards as torch_guards
from torch._dynamo import aot_compile, package
from torch._dynamo.source import TensorProperty, TensorPropertySource

from unified_guards.dynamo.guard_manager import UnifiedGuardManagerWrapper
from unified_guards.guards.ir import Provenance


class Saved(NamedTuple):
    """What is known of guards that were saved.

    Attributes:
        loaded: whether they were loaded here; else they were built here and saved, or may be.
        dropped: the guards that torch left out when it saved them, as text with the line that asked for each; None
            where that is not known, because this package was not installed in the process that saved them.
    """

    loaded: bool
    dropped: tuple[str, ...] | None

    def __str__(self) -> str:
        what = "loaded from what was saved" if self.loaded else "saved"
        if self.dropped is None:
            return f"{what} without unified_guards: which guards torch dropped is not known"
        count = f"{len(self.dropped)} guards" if len(self.dropped) != 1 else "one guard"
        return f"{what}; torch dropped {count if self.dropped else 'no guard'}"


class _Noted:
    """What was noted of the guards that are being built."""

    saved: Saved | None = None


class _Thread(threading.local):
    noted: _Noted | None = None


_thread = _Thread()
#: The attribute of torch's saved state that holds the texts of what was dropped.
_DROPPED = "unified_guards_dropped"


@contextlib.contextmanager
def noting() -> Iterator[_Noted]:
    """Entered while torch builds the guards of an entry: gives what becomes known of their being saved."""
    outer, _thread.noted = _thread.noted, _Noted()
    try:
        yield _thread.noted
    finally:
        _thread.noted = outer


# -- saving --------------------------------------------------------------------------------------------------------


def _text(guard: Any) -> str:
    """A guard of Dynamo's in its own words, and the line that asked for it."""
    code = " and ".join(guard.code_list or ()) or f"{guard.create_fn_name()} of {guard.name}"
    return f"{code}  # {Provenance('dynamo', code, guard.user_stack)}"


def _serialize_guards(original: Callable[..., bytes]) -> Callable[..., bytes]:
    """``CheckFunctionManager.serialize_guards``, which is given the guards that are left."""

    @functools.wraps(original)
    def serialize_guards(self: Any, builder: Any, sorted_guards: Any, output_graph: Any) -> bytes:
        kept = set(map(id, sorted_guards))
        dropped = [_text(guard) for guard in output_graph.guards if id(guard) not in kept]
        if _thread.noted is not None:
            _thread.noted.saved = Saved(False, tuple(dict.fromkeys(dropped)))
        return original(self, builder, sorted_guards, output_graph)

    return serialize_guards


def _pickle_guards_state(original: Callable[..., bytes]) -> Callable[..., bytes]:
    @functools.wraps(original)
    def pickle_guards_state(state: Any, *args: Any, **kwargs: Any) -> bytes:
        saved = _thread.noted.saved if _thread.noted is not None else None
        if saved is not None:
            setattr(state, _DROPPED, saved.dropped)
        return original(state, *args, **kwargs)

    return pickle_guards_state


# -- loading -------------------------------------------------------------------------------------------------------


class _Loading(threading.local):
    saved = Saved(True, None)


_loading = _Loading()


def _load_guard_manager(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load_guard_manager(guards_state: Any, *args: Any, **kwargs: Any) -> Any:
        outer, _loading.saved = _loading.saved, Saved(True, getattr(guards_state, _DROPPED, None))
        try:
            return original(guards_state, *args, **kwargs)
        finally:
            _loading.saved = outer

    return load_guard_manager


def being_loaded() -> Saved:
    """What is known of the guards that are being loaded."""
    return _loading.saved


def sources_of(output_graph: Any) -> dict[str, Any]:
    """What the shape guards of a loaded entry may read, by torch's texts of it: sources of torch.

    Nothing prints these guards anew, so the texts are made here of the sources that other guards have.
    """
    found: dict[str, Any] = {}
    for guard in output_graph.guards:
        source = guard.originating_source
        while source is not None and source.name not in found:
            found[source.name] = source
            source = getattr(source, "base", None)
    for source, (sizes, strides) in _dims(output_graph):
        found[source.name] = source
        counts = ((TensorProperty.SIZE, sizes), (TensorProperty.STRIDE, strides))
        numbers = [TensorPropertySource(source, kind, at) for kind, count in counts for at in range(count)]
        numbers.append(TensorPropertySource(source, TensorProperty.STORAGE_OFFSET))
        found.update((number.name, number) for number in numbers)
    return found


def _dims(output_graph: Any) -> Iterator[tuple[Any, tuple[int, int]]]:
    for source, known in output_graph.input_source_to_sizes_strides.items():
        yield source, (len(known["size"]), len(known["stride"]))


# -- calling -------------------------------------------------------------------------------------------------------


def _binder(signature: inspect.Signature) -> Callable[..., dict[str, Any]] | None:
    """A function that binds its arguments as ``signature`` does, with its defaults, and gives them by name.

    The interpreter does that in a tenth of the time that ``inspect`` takes. None where a parameter has a name that
    such a function cannot have.
    """
    parameters = signature.parameters.values()
    if "locals" in signature.parameters:
        return None
    shown = [
        parameter.replace(annotation=parameter.empty, default=_default(parameter.default)) for parameter in parameters
    ]
    plain = signature.replace(parameters=shown, return_annotation=signature.empty)
    scope: dict[str, Any] = {}
    exec(f"def bind{plain}:\n    return locals()", scope)  # names that Python has accepted as parameters, and None
    bind: types.FunctionType = scope["bind"]
    given = [parameter for parameter in parameters if parameter.default is not parameter.empty]
    keywords = {each.name: each.default for each in given if each.kind is each.KEYWORD_ONLY}
    bind.__defaults__ = tuple(each.default for each in given if each.kind is not each.KEYWORD_ONLY)
    bind.__kwdefaults__ = keywords
    return bind


def _default(value: object) -> object:
    return value if value is inspect.Parameter.empty else None


def _prepare_f_locals(original: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """``AOTCompiledFunction.prepare_f_locals``: the frame that the guards are asked about."""

    @functools.wraps(original)
    def prepare_f_locals(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        manager = self._artifacts.guard_manager
        if not isinstance(manager, UnifiedGuardManagerWrapper) or self._artifacts.runtime_env.closure:
            return original(self, *args, **kwargs)
        signature = self._artifacts.signature
        if manager.binds is None or manager.binds[0] is not signature:
            manager.binds = (signature, _binder(signature))
        bind = manager.binds[1]
        if bind is None:
            return original(self, *args, **kwargs)
        try:
            return bind(*args, **kwargs)
        except TypeError:
            return original(self, *args, **kwargs)  # says of these arguments what torch says

    return prepare_f_locals


def managers_of(target: object) -> list[tuple[types.CodeType, Any]]:
    """The guard managers of what ``aot_compile`` returned or was loaded, each with the code that it is for."""
    if isinstance(target, aot_compile.AOTCompiledModel):
        return [found for result in target.compiled_results for found in managers_of(result)]
    if isinstance(target, aot_compile.AOTCompiledFunction):
        return [(target._artifacts.original_code, target._artifacts.guard_manager)]
    forward = getattr(target, "__dict__", {}).get("forward")  # of a module whose compiled code was loaded
    return managers_of(forward) if isinstance(forward, aot_compile.AOTCompiledModel) else []


def watch_saved(put: Callable[[Any, str, Any], None]) -> None:
    """Puts the wrappers above into torch. ``put`` is ``setattr`` that remembers what was there."""
    wrappers = (
        (torch_guards.CheckFunctionManager, "serialize_guards", _serialize_guards),
        (torch_guards, "pickle_guards_state", _pickle_guards_state),
        (package, "load_guard_manager", _load_guard_manager),
        (aot_compile.AOTCompiledFunction, "prepare_f_locals", _prepare_f_locals),
    )
    for owner, name, wrapped in wrappers:
        if name in vars(owner):  # else torch is older, and does that in the middle of a longer function
            put(owner, name, wrapped(vars(owner)[name]))


__all__ = ["Saved", "being_loaded", "managers_of", "noting", "sources_of", "watch_saved"]
