"""What Dynamo reads and no guard can hold on to: with ``install(strict=True)`` it ends the graph there.

The rest of the frame runs as Python runs it, which is right by construction; with ``fullgraph=True`` Dynamo raises, and
says why. Entry point: :func:`watch`.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.variables.base import VariableTracker
from torch._dynamo.variables.builtin import BuiltinVariable
from torch._dynamo.variables.functions import UserFunctionVariable, WrapperUserFunctionVariable
from torch._dynamo.variables.lists import BaseListVariable
from torch._dynamo.variables.misc import RandomVariable
from torch._dynamo.variables.tensor import (
    NumpyNdarrayVariable,
    SymNodeVariable,
    TensorVariable,
    UnspecializedPythonVariable,
    UntypedStorageVariable,
)
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable
from torch._dynamo.variables.user_defined import UserDefinedClassVariable, UserDefinedObjectVariable

from unified_guards.dynamo import compat
from unified_guards.dynamo.strict.purity import state_read, unguarded_part
from unified_guards.guards.memory import bytes_of_storage, storage_of

#: Where metaclasses are whose ``__call__`` Dynamo knows.
_KNOWN_METACLASSES = frozenset({"enum", "abc", "torch", "torch.nn.parameter", "torch.autograd.function", "typing"})

#: What a tensor is a view of, how often it was written to, its hooks, its address, what autograd made it from: running
#: code changes them, or Dynamo has something else in their place.
_OF_TENSORS = frozenset(
    {
        "_base",
        "_version",
        "_cdata",
        "_grad",
        "_grad_fn",
        "_has_symbolic_sizes_strides",
        "_backward_hooks",
        "_post_accumulate_grad_hooks",
        "output_nr",
        "retains_grad",
    }
)


def _random_call(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """A generator of Python's that draws has another state afterwards, and Dynamo draws while it traces."""

    @functools.wraps(original)
    def call_method(self: Any, tx: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self, RandomVariable) and self.source is not None and wanted():
            compat.end_graph("strict: a random.Random object is used", f"{self.source.name}.{name}")
        return original(self, tx, name, *args, **kwargs)

    return call_method


def _tensor_attribute(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def read(self: Any, tx: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted() and name in _OF_TENSORS:
            compat.end_graph(f"strict: {name} of a tensor is read", str(self))
        return original(self, tx, name, *args, **kwargs)

    return read


def _size_of_storage(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """The memory of an input has a guard (``state.py``). That of a view made in the graph may be an input's, or not;
    and Dynamo may take the memory for one that is as large as the tensor."""

    @functools.wraps(original)
    def call_method(self: Any, tx: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        found = original(self, tx, name, *args, **kwargs)
        measured = name == "size" and isinstance(self, UntypedStorageVariable) and wanted()
        if measured and not _is_as_large(self.from_tensor, found):
            compat.end_graph("strict: the memory of a tensor is read", str(self))
        return found

    return call_method


def _is_as_large(tracker: Any, found: Any) -> bool:
    """Whether the memory of an input is as large as Dynamo says."""
    given = getattr(tracker.as_proxy().node.meta.get("grapharg"), "example", None)
    if tracker.source is None or not found.is_python_constant() or storage_of(given) is None:
        return False
    return bool(bytes_of_storage(given) == found.as_python_constant())


def _class_of_a_symbol(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """``n.__class__`` of a number that became a symbol is the class of the number, as ``type(n)`` is."""

    @functools.wraps(original)
    def read(self: Any, tx: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted() and name == "__class__" and isinstance(self, SymNodeVariable):
            return VariableTracker.build(tx, self.python_type())
        return original(self, tx, name, *args, **kwargs)

    return read


def _comparison(ask: Callable[[Any, Any], bool], original: Callable[..., Any], wanted: Callable[[], bool]) -> Any:
    """Dynamo asks no metaclass about a constant. Where the metaclass says otherwise, Python has to ask."""

    @functools.wraps(original)
    def compare(self: Any, tx: Any, value: Any, kinds: Any) -> Any:
        found = original(self, tx, value, kinds)
        if wanted() and all(each.is_python_constant() for each in (value, kinds, found)):
            given, classes = value.as_python_constant(), kinds.as_python_constant()
            if ask(given, classes) is not found.as_python_constant():
                compat.end_graph("strict: a metaclass answers for its instances", str(kinds))
        return found

    return compare


def _text(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """Dynamo calls ``repr`` of an object whose class has no ``__str__``, rather than trace it."""

    @functools.wraps(original)
    def call_str(self: Any, tx: Any, value: Any) -> Any:
        given = vars(value).get("value") if wanted() and isinstance(value, UserDefinedObjectVariable) else None
        if given is not None and _has_no_text(type(given)):
            compat.end_graph("strict: the text of an object is made", str(value))
        return original(self, tx, value)

    return call_str


def _has_no_text(kind: Any) -> bool:
    return kind.__str__ is object.__str__


def _made(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """Dynamo does not call the ``__call__`` of a metaclass."""

    @functools.wraps(original)
    def call_function(self: Any, tx: Any, *args: Any, **kwargs: Any) -> Any:
        meta = type(self.value)
        if wanted() and type(meta.__call__) is types.FunctionType and meta.__module__ not in _KNOWN_METACLASSES:
            compat.end_graph("strict: a metaclass makes the instance", str(self))
        return original(self, tx, *args, **kwargs)

    return call_function


def _coroutine(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """Dynamo runs an ``async`` function where Python makes a coroutine of the call."""

    @functools.wraps(original)
    def call_function(self: Any, tx: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted() and self.get_code().co_flags & _ASYNC:
            compat.end_graph("strict: a coroutine is made", str(self))
        return original(self, tx, *args, **kwargs)

    return call_function


def _cached(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """Dynamo traces what is behind an ``lru_cache``, which may have computed its answer from other state."""

    @functools.wraps(original)
    def call_function(self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        kept = self.wrapper_obj
        if wanted() and isinstance(kept, functools._lru_cache_wrapper):
            given = [*self.self_args(), *args, *kwargs.values()]
            if state_read(kept.__wrapped__) is not None or not all(each.is_python_constant() for each in given):
                compat.end_graph("strict: a function with an lru_cache is called", str(kept))
        return original(self, tx, args, kwargs)

    return call_function


def _without_source(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """What a function finds in its cells and defaults has no guards where Dynamo does not know where the function is,
    as with an ``__init__``. Those that are constants, functions and classes are compared (``lookups.py``)."""

    @functools.wraps(original)
    def bind_args(self: Any, parent: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted() and self.source is None and (name := unguarded_part(self.fn)) is not None:
            compat.end_graph("strict: what a function has in a cell or a default is read", f"{self.fn}: {name}")
        return original(self, parent, *args, **kwargs)

    return bind_args


def _mixed(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """Dynamo has a tensor in the place of an array of numpy. Eager converts it in other ways, or refuses it."""

    @functools.wraps(original)
    def call_function(self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        found = original(self, tx, args, kwargs)
        if wanted() and getattr(self, "fn", getattr(self, "value", None)) not in _CONVERTERS:
            _refuse_mixture(args)
        return found

    return call_function


def _mixed_method(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call_method(self: Any, tx: Any, name: Any, args: Any, kwargs: Any) -> Any:
        found = original(self, tx, name, args, kwargs)
        if wanted() and not isinstance(self, NumpyNdarrayVariable):
            _refuse_mixture([self, *args])
        return found

    return call_method


def _refuse_mixture(args: Any) -> None:
    tensors = [each for each in args if isinstance(each, TensorVariable)]
    arrays = [each for each in tensors if _is_array(each)]
    if arrays and len(tensors) > len(arrays):
        compat.end_graph("strict: an array of numpy and a tensor are combined", str(arrays[0]))


def _is_array(tracker: Any) -> bool:
    return isinstance(tracker, NumpyNdarrayVariable) and not isinstance(tracker, UnspecializedPythonVariable)


_CONVERTERS = frozenset({torch.as_tensor, torch.tensor, torch.asarray, torch.from_numpy, isinstance, type})
_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def _contains(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """Torch 2.13 finds no constant among symbols."""

    @functools.wraps(original)
    def contains(self: Any, tx: Any, item: Any) -> Any:
        if wanted() and item.is_python_constant() and any(isinstance(each, SymNodeVariable) for each in self.items):
            compat.end_graph("strict: a constant is searched among symbols", str(self))
        return original(self, tx, item)

    return contains


def watch(put: Callable[[Any, str, Any], None], wanted: Callable[[], bool]) -> None:
    """Ends graphs while ``wanted`` says so. ``put`` is ``setattr`` that remembers what was there."""
    makers: list[tuple[Any, str, Callable[..., Any]]] = [
        *((owner, "call_method", _random_call) for owner in (VariableTracker, RandomVariable)),
        *((owner, "call_method", _size_of_storage) for owner in (VariableTracker, UntypedStorageVariable)),
        (BuiltinVariable, "call_str", _text),
        (UserDefinedClassVariable, "call_function", _made),
        (UserFunctionVariable, "call_function", _coroutine),
        (UserFunctionVariable, "bind_args", _without_source),
        (WrapperUserFunctionVariable, "call_function", _cached),
        (BuiltinVariable, "call_function", _mixed),
        (TorchInGraphFunctionVariable, "call_function", _mixed),
        (TensorVariable, "call_method", _mixed_method),
        (BaseListVariable, "sq_contains", _contains),
        (BuiltinVariable, "call_isinstance", functools.partial(_comparison, isinstance)),
        (BuiltinVariable, "call_issubclass", functools.partial(_comparison, issubclass)),
    ]
    for name in compat.ATTRIBUTE_LOOKUPS:
        makers += [(TensorVariable, name, _tensor_attribute), (VariableTracker, name, _class_of_a_symbol)]
    for owner, name, make in makers:
        if name in vars(owner):
            put(owner, name, make(vars(owner)[name], wanted))
