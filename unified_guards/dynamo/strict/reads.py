"""What Dynamo looked up while it traced a frame, noted for ``install(strict=True)``.

Torch guards what a lookup found, not always that the same lookup would still find it: an attribute that was absent, or
was found in a class, can be given to an object that is asked first. So each lookup is noted by the object that was
asked and the name: attributes, names that only ``builtins`` had, and classes that ``isinstance`` was asked about.
Where a version of torch lacks a function that is wrapped here, what it would do is not noted. Entry points:
:func:`watch`, :func:`taken`.
"""

from __future__ import annotations

import functools
import types
import typing
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from torch._dynamo.symbolic_convert import InstructionTranslatorBase
from torch._dynamo.variables.base import VariableTracker
from torch._dynamo.variables.builtin import BuiltinVariable
from torch._dynamo.variables.lazy import LazyVariableTracker
from torch._guards import TracingContext

from unified_guards.dynamo import compat
from unified_guards.guards.accesses import MISSING

_SIMPLE = (type(None), bool, int, float, complex, str, bytes)


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
        builtins: a dict of globals that has no such name, and the name.
        kinds: an object and a class that it was compared with; then whether it was a class itself (``issubclass``).
    """

    def __init__(self) -> None:
        self.attributes: dict[object, tuple[Asked, str, bool]] = {}
        self.supers: dict[object, tuple[type, type, str]] = {}
        self.builtins: dict[object, tuple[dict[str, Any], str]] = {}
        self.kinds: dict[object, tuple[Asked, Any, bool]] = {}


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


def _builtin(original: Callable[..., Any], wanted: Callable[[], bool]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load(self: Any, name: Any, *args: Any, **kwargs: Any) -> Any:
        if wanted() and type(name) is str and name not in self.f_globals:
            _of(self).builtins.setdefault((id(self.f_globals), name), (self.f_globals, name))
        return original(self, name, *args, **kwargs)

    return load


def _comparison(original: Callable[..., Any], wanted: Callable[[], bool], of_classes: bool) -> Callable[..., Any]:
    @functools.wraps(original)
    def compare(self: Any, tx: Any, value: Any, kinds: Any) -> Any:
        try:
            return original(self, tx, value, kinds)
        finally:  # by now Dynamo has realized both
            if wanted():
                _note_kinds(tx, value, kinds, of_classes)

    return compare


def _trackers(cls: type = VariableTracker) -> Iterator[type]:
    yield cls
    each: type
    for each in type.__subclasses__(cls):
        if not issubclass(each, LazyVariableTracker):
            yield from _trackers(each)


def watch(put: Callable[[Any, str, Any], None], wanted: Callable[[], bool]) -> None:
    """Notes lookups while ``wanted`` says so. ``put`` is ``setattr`` that remembers what was there."""
    methods = {**dict.fromkeys(compat.ATTRIBUTE_LOOKUPS, False), "call_obj_hasattr": True}
    for cls in dict.fromkeys(_trackers()):
        for name, only_whether in methods.items():
            if name in vars(cls):
                put(cls, name, _attribute(vars(cls)[name], wanted, only_whether))
    for owner, name, make in (
        (InstructionTranslatorBase, "load_builtin_from_argval", _builtin),
        (BuiltinVariable, "call_isinstance", functools.partial(_comparison, of_classes=False)),
        (BuiltinVariable, "call_issubclass", functools.partial(_comparison, of_classes=True)),
    ):
        if name in vars(owner):
            put(owner, name, make(vars(owner)[name], wanted))
