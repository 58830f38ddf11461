"""What Dynamo looked up while it traced a frame, noted for ``install(strict=True)``.

Torch guards what a lookup found, not always that the same lookup would still find it: an attribute that was absent, or
was found in a class, can be given to an object that is asked first. So each lookup is noted by the object that was
asked and the name: attributes, names that only ``builtins`` had, and classes that ``isinstance`` was asked about; also
the classes whose special methods Python looks up without naming them, modules that were imported, functions whose
result became a constant, and tensors whose memory was measured.
Where a version of torch lacks a function that is wrapped here, what it would do is not noted. Entry points:
:func:`watch`, :func:`taken`.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import types
import typing
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch._dynamo.side_effects import SideEffects
from torch._dynamo.source import SkipGuardSource
from torch._dynamo.symbolic_convert import InliningInstructionTranslator, InstructionTranslatorBase
from torch._dynamo.variables import builder
from torch._dynamo.variables.base import VariableTracker
from torch._dynamo.variables.builtin import BuiltinVariable
from torch._dynamo.variables.dicts import ConstDictVariable
from torch._dynamo.variables.functions import PolyfilledFunctionVariable, UserFunctionVariable
from torch._dynamo.variables.lazy import LazyVariableTracker
from torch._dynamo.variables.tensor import UntypedStorageVariable
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable
from torch._dynamo.variables.user_defined import UserDefinedClassVariable
from torch._guards import TracingContext

from unified_guards.dynamo import compat
from unified_guards.guards.accesses import MISSING

_IMMUTABLE_TYPE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE
_SIMPLE = (type(None), bool, int, float, complex, str, bytes)


def can_change(kind: type) -> bool:
    """Whether names can be put into the class itself."""
    return not kind.__flags__ & _IMMUTABLE_TYPE


class Asked(NamedTuple):
    """An object that was asked, as far as it is known.

    Attributes:
        value: the object; MISSING when it was made while tracing.
        source: torch's source of it, when `value` is not known at once.
        kind: its class, when it is a new object.
    """

    value: Any
    source: Any = None
    kind: Any = None

    @property
    def key(self) -> object:
        if self.value is not MISSING:
            return id(self.value)
        return id(self.kind if self.source is None else self.source)


class Reads:
    """The lookups of one compilation, in order, each once. Keeps the objects that were asked alive: ids are keys here.

    Attributes:
        attributes: an object, the name of an attribute, and whether it was only asked whether there is one.
        supers: a class, the class after which its order is searched, and the name of an attribute.
        names: a class, and a name that its own dict was asked for.
        builtins: a dict of globals that has no such name, and the name.
        kinds: an object and a class that it was compared with; then whether it was a class itself (``issubclass``).
        specials: classes of objects that took part in an operation of Python's.
        called: names of functions of Python's that were called.
        made: classes that were called.
        imports: names of modules that were imported.
        folds: functions that were called with constants, and these, where the result is one, too.
        unbound: functions that do not take the arguments that they were called with.
        cells: functions with cells that Dynamo inlined without a source.
        storages: torch's sources of tensors whose memory was measured.
    """

    def __init__(self) -> None:
        self.attributes: dict[object, tuple[Asked, str, bool]] = {}
        self.supers: dict[object, tuple[type, type, str]] = {}
        self.names: dict[object, tuple[type, str]] = {}
        self.builtins: dict[object, tuple[dict[str, Any], str]] = {}
        self.kinds: dict[object, tuple[Asked, Any, bool]] = {}
        self.specials: dict[int, type] = {}
        self.called: dict[str, None] = {}
        self.made: dict[int, type] = {}
        self.imports: dict[str, None] = {}
        self.folds: dict[object, tuple[Callable[..., Any], tuple[Any, ...]]] = {}
        self.unbound: dict[int, types.FunctionType] = {}
        self.cells: dict[int, types.FunctionType] = {}
        self.storages: dict[int, Any] = {}


_reads: weakref.WeakKeyDictionary[TracingContext, Reads] = weakref.WeakKeyDictionary()


def taken(context: TracingContext) -> Reads:
    """Returns what was noted of a compilation, and forgets it."""
    return _reads.pop(context, None) or Reads()


def _of(tx: Any) -> Reads:
    return _reads.setdefault(tx.output.tracing_context, Reads())


def _realized(tracker: Any) -> Any:
    """The tracker; for a lazy one, what it stands for, or None if Dynamo has not realized it yet. Realizes nothing."""
    if type(tracker) is VariableTracker or not issubclass(type(tracker), LazyVariableTracker):
        return tracker
    return tracker.unwrap() if tracker.is_realized() else None


def _asked(tracker: Any) -> Asked | None:
    """The object behind a tracker. None where nothing can be given to it: a constant, or something made by Dynamo."""
    own = vars(tracker)
    source = own.get("source")
    value = next((own[name] for name in ("value", "fn") if name in own), MISSING)
    if value is MISSING:
        return Asked(MISSING, source) if source is not None else None
    if type(value) in _SIMPLE:
        return None
    if source is None and "New" in type(own.get("mutation_type")).__name__:
        return Asked(MISSING, None, type(value))
    return Asked(value)


def _note_attribute(tracker: Any, tx: Any, name: Any, only_whether: bool) -> None:
    if type(name) is not str:
        return
    if "typevar" in vars(tracker) and "objvar" in vars(tracker):
        _note_super(tracker, tx, name)
        return
    asked = _asked(tracker)
    if name == "__annotations__" and tx.f_globals.get("__name__") == "inspect":
        return  # which reads them of whatever it is given
    if asked is not None:
        _of(tx).attributes.setdefault((asked.key, name, only_whether), (asked, name, only_whether))


def _note_super(tracker: Any, tx: Any, name: str) -> None:
    after, of = (_realized(vars(tracker)[each]) for each in ("typevar", "objvar"))
    after, of = (vars(each).get("value") if each is not None else None for each in (after, of))
    kind = of if isinstance(of, type) else type(of)
    if isinstance(after, type) and after in kind.__mro__:
        _of(tx).supers.setdefault((kind, after, name), (kind, after, name))


def _kinds(found: Any) -> Iterator[Any]:
    """The classes that a second argument of ``isinstance`` has."""
    if isinstance(found, tuple):
        for each in found:
            yield from _kinds(each)
    elif isinstance(found, types.UnionType) or typing.get_origin(found) is typing.Union:
        yield from _kinds(typing.get_args(found))
    else:
        yield found


def _note_kinds(tx: Any, tracker: Any, kinds: Any, of_classes: bool) -> None:
    tracker, kinds = _realized(tracker), _realized(kinds)
    if tracker is None or kinds is None:
        return
    try:
        found = list(_kinds(kinds.as_python_constant()))
        asked = _asked(tracker) or Asked(MISSING, None, tracker.python_type())
    except NotImplementedError:
        return
    for kind in found:
        _of(tx).kinds.setdefault((asked.key, id(kind), of_classes), (asked, kind, of_classes))


# -- what is wrapped ---------------------------------------------------------------------------------------------------


def _attribute(original: Callable[..., Any], wanted: Callable[[], bool], only_whether: bool) -> Callable[..., Any]:
    @functools.wraps(original)
    def read(self: Any, tx: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted():
            _note_attribute(self, tx, name, only_whether)
        return original(self, tx, name, *args, **kwargs)

    return read


def _slot_read(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """Of what is no slot of a type the tracker is asked, and notes it."""

    @functools.wraps(original)
    def generic_getattr(tx: Any, tracker: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted() and type(name) is str:
            asked = tracker.realize()  # as torch does first
            written = tx.output.side_effects.has_pending_mutation_of_attr(asked, name)
            if not written and asked.lookup_tp_getset_member(name) is not None:
                _note_attribute(asked, tx, name, False)
        return original(tx, tracker, name, *args, **kwargs)

    return generic_getattr


def _own_name(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """Torch 2.11 looks into the own dict of a class (``name in kind.__dict__``), and guards nothing of it."""

    @functools.wraps(original)
    def has_key_in_generic_dict(self: Any, tx: Any, name: Any) -> Any:
        if wanted() and type(name) is str and not tx.output.side_effects.has_pending_mutation_of_attr(self, name):
            _of(tx).names.setdefault((id(self.value), name), (self.value, name))
        return original(self, tx, name)

    return has_key_in_generic_dict


def _builtin(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load(self: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted() and type(name) is str and name not in self.f_globals:
            _of(self).builtins.setdefault((id(self.f_globals), name), (self.f_globals, name))
        return original(self, name, *args, **kwargs)

    return load


def _global(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """Torch takes what modules of the standard library have for constant. What can change there has its guards here."""

    @functools.wraps(original)
    def get_globals_source_and_value(self: Any, name: str) -> Any:
        module, tracker, source = original(self, name)
        if wanted() and type(source) is SkipGuardSource and not _stays(self.f_globals.get(name)):
            source = source.base
        return module, tracker, source

    return get_globals_source_and_value


def _stays(value: Any) -> bool:
    """Whether nobody is expected to put something else in the place of a global of Python's, or to change it."""
    return isinstance(
        value, (*_SIMPLE, type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, frozenset)
    )


def _comparison(original: Callable[..., Any], wanted: Callable[[], bool], of_classes: bool) -> Callable[..., Any]:
    @functools.wraps(original)
    def compare(self: Any, tx: Any, value: Any, kinds: Any) -> Any:
        try:
            return original(self, tx, value, kinds)
        finally:  # by now Dynamo has realized both
            if wanted():
                _note_kinds(tx, value, kinds, of_classes)

    return compare


def _slots(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """What Dynamo asks a class which operations it has. Torch remembers the answer, and classes change: ask again."""
    ask = getattr(original, "__wrapped__", original)

    @functools.wraps(original)
    def slots(kind: type) -> Any:
        if not wanted():
            return original(kind)
        _note_special(kind)
        return ask(kind) if can_change(kind) else original(kind)

    return slots


def _operation(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """A method of a tracker that stands for an operation of Python's, or for a call of a special method."""

    @functools.wraps(original)
    def operate(self: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted():
            _note_operand(self)
        return original(self, *args, **kwargs)

    return operate


def _special_call(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call_method(self: Any, tx: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted() and type(name) is str and name.startswith("__"):
            _note_operand(self)
        return original(self, tx, name, *args, **kwargs)

    return call_method


def _note_operand(tracker: Any) -> None:
    with contextlib.suppress(NotImplementedError):
        _note_special(tracker.python_type())
    if isinstance(value := vars(tracker).get("value"), type):
        _note_special(value)


def _note_special(kind: type) -> None:
    context = TracingContext.try_get()
    if context is not None:
        _reads.setdefault(context, Reads()).specials.setdefault(id(kind), kind)


def _called(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call_function(self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        try:
            return original(self, tx, args, kwargs)
        finally:  # by now Dynamo has realized them
            if wanted():
                _of(tx).called[getattr(self.fn, "__name__", "")] = None
                for tracker in filter(None, map(_realized, args)):
                    _note_operand(tracker)

    return call_function


def _stored(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def store_attr(self: Any, item: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted():
            _note_operand(item)
        return original(self, item, *args, **kwargs)

    return store_attr


def _made(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call_function(self: Any, tx: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted() and isinstance(self.value, type):
            _of(tx).made.setdefault(id(self.value), self.value)
        return original(self, tx, *args, **kwargs)

    return call_function


def _imported(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """Dynamo remembers the first module of a name, and keeps it among the globals of the frame. It is given the one
    that the import statement has found."""

    @functools.wraps(original)
    def import_source(self: Any, module_name: str) -> Any:
        if not (wanted() and self.current_instruction.opname.endswith("IMPORT_NAME")):
            return original(self, module_name)
        _of(self).imports[module_name] = None
        alias, scope = f"__import_{module_name.replace('.', '_dot_')}", self.output.global_scope
        found = sys.modules.get(module_name)
        if found is None:
            return original(self, module_name)
        scope.pop(alias, None)
        source = original(self, module_name)
        scope[alias] = found
        return source

    return import_source


def _folded(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call_function(self: Any, tx: Any, args: Any, kwargs: Any) -> Any:
        found = original(self, tx, args, kwargs)
        if wanted() and not kwargs and self.can_constant_fold_through():
            function = vars(self).get("fn", vars(self).get("value"))
            if function in _state_readers() and all(each.is_python_constant() for each in args):
                given = tuple(each.as_python_constant() for each in args)
                _of(tx).folds.setdefault((id(function), given), (function, given))
        return found

    return call_function


@functools.cache
def _state_readers() -> frozenset[Callable[..., Any]]:
    """Functions of the process's state that Dynamo takes for constant, and that none of torch's guards looks at."""
    return frozenset(
        {
            torch.get_autocast_dtype,
            torch.get_autocast_gpu_dtype,
            torch._C._is_any_autocast_enabled,
            torch.autograd._is_checkpoint_valid,
            sys.getrecursionlimit,
            sys.get_int_max_str_digits,
        }
    )


def _measured(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def call_method(self: Any, tx: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "size" and isinstance(self, UntypedStorageVariable) and wanted():
            source = self.from_tensor.source
            _of(tx).storages.setdefault(id(source), source)
        return original(self, tx, name, *args, **kwargs)

    return call_method


def _bound(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def bind_args(self: Any, parent: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted() and self.source is None and type(self.fn) is types.FunctionType and self.fn.__closure__:
            _of(parent).cells.setdefault(id(self.fn), self.fn)
        try:
            return original(self, parent, *args, **kwargs)
        except Exception:
            if wanted() and type(self.fn) is types.FunctionType:
                _of(parent).unbound.setdefault(id(self.fn), self.fn)
            raise

    return bind_args


def _closure(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """Torch guards no class that it comes to by a closure: it takes each for the ``__class__`` of ``super()``."""

    @functools.wraps(original)
    def is_from_closure_source(source: Any) -> bool:
        return not wanted() and bool(original(source))

    return is_from_closure_source


def _missed(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    """Torch guards that a key is not there when it is asked whether it is, and not when ``d[key]`` raises."""

    @functools.wraps(original)
    def getitem(self: Any, tx: Any, key: Any) -> Any:
        if wanted() and key not in self:
            self.install_dict_contains_guard(tx, [key])
        return original(self, tx, key)

    return getitem


def _trackers(cls: type = VariableTracker) -> Iterator[type]:
    yield cls
    each: type
    for each in type.__subclasses__(cls):
        if not issubclass(each, LazyVariableTracker):
            yield from _trackers(each)


def _is_operation(name: str, own: Any) -> bool:
    """Whether this is how torch names what a slot of a type does (from 2.13)."""
    named = name.endswith("_impl") or name.startswith(("sq_", "mp_", "nb_"))
    return named and name not in compat.ATTRIBUTE_LOOKUPS and type(own) is types.FunctionType


def watch(put: Callable[[Any, str, Any], None], wanted: Callable[[], bool]) -> None:
    """Notes lookups while ``wanted`` says so. ``put`` is ``setattr`` that remembers what was there."""
    methods = {**dict.fromkeys(compat.ATTRIBUTE_LOOKUPS, False), "call_obj_hasattr": True}
    for cls in dict.fromkeys(_trackers()):
        for name, only_whether in methods.items():
            if name in vars(cls):
                put(cls, name, _attribute(vars(cls)[name], wanted, only_whether))
        for name, own in [each for each in vars(cls).items() if _is_operation(*each)]:
            put(cls, name, _operation(own, wanted))
        if "call_method" in vars(cls):
            put(cls, "call_method", _special_call(vars(cls)["call_method"], wanted))
    makers: list[tuple[Any, str, Callable[..., Any]]] = [
        *((module, name, _slots) for module, name in compat.slot_queries()),
        *((module, name, _slot_read) for module, name in compat.attribute_queries()),
        (SideEffects, "store_attr", _stored),
        (UserDefinedClassVariable, "call_function", _made),
        (UserDefinedClassVariable, "has_key_in_generic_dict", _own_name),
        (InstructionTranslatorBase, "import_source", _imported),
        (TorchInGraphFunctionVariable, "call_function", _folded),
        (PolyfilledFunctionVariable, "call_function", _folded),
        *((owner, "call_method", _measured) for owner in (VariableTracker, UntypedStorageVariable)),
        (UserFunctionVariable, "bind_args", _bound),
        (ConstDictVariable, "getitem_const_raise_exception_if_absent", _missed),
        (InstructionTranslatorBase, "load_builtin_from_argval", _builtin),
        (BuiltinVariable, "call_function", _called),
        (builder, "is_from_closure_source", _closure),
        (InliningInstructionTranslator, "get_globals_source_and_value", _global),
        (BuiltinVariable, "call_isinstance", functools.partial(_comparison, of_classes=False)),
        (BuiltinVariable, "call_issubclass", functools.partial(_comparison, of_classes=True)),
    ]
    for owner, name, make in makers:
        if name in vars(owner):
            put(owner, name, make(vars(owner)[name], wanted))
