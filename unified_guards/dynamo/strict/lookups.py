"""Rule: the lookups that Dynamo made while it traced (``reads.py``) would find the same now.

An attribute is looked for in the class and its bases, in their order, and in the object's own dict; a global in the
dict of the module, then in ``builtins``. Torch guards what a lookup found, in the place where it was found. These rules
guard that nothing has come in front of that place. ``isinstance`` may run code of a metaclass, so it is asked again on
every check. Entry point: :func:`attributes`.
"""

from __future__ import annotations

import abc
import builtins
import contextlib
import functools
import sys
import types
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from torch import nn

from unified_guards.dynamo.strict.known import WRAPPERS, Extra, Known, mro_of, order_of, own_of, same_value
from unified_guards.dynamo.strict.methods import dunders
from unified_guards.dynamo.strict.reads import Asked, can_change
from unified_guards.guards.accesses import MISSING
from unified_guards.guards.ir import Access, Source, Test, guard
from unified_guards.guards.names import name_at

_ABSENT = "an attribute that comes to hide another"
_FOUND = "an attribute of a class"
#: Attributes that ``nn.Module`` sets. Dynamo reads them for itself, of every module that is called; and so it reads the
#: items of a container, whose names are no identifiers.
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"training"}
#: Attributes of a tensor that Dynamo takes for constant, and that its guard does not look at.
_OF_AUTOGRAD = frozenset({"is_leaf", "grad_fn", "grad_dtype", "volatile", "name"})
_PLAIN_TENSORS = (torch.Tensor, nn.Parameter, nn.Buffer)


class _KnownSources:
    """The sources of the set, by the objects that they lead to."""

    def __init__(self, known: Known) -> None:
        self.sources: dict[int, Source] = {}
        for wanted in ((Test.TYPE_IS, Test.IS, Test.TENSOR), None):
            for item in known.guard_set:
                if wanted is None or item.test in wanted:
                    for source in item.sources:
                        value = known.live(source)
                        if value is not None:
                            self.sources.setdefault(id(value), source)

    def of(self, value: Any) -> Source | None:
        """The source of an object that torch guards; of another, one that leads to it and does not keep it alive."""
        found = self.sources.get(id(value))
        if found is None:
            with contextlib.suppress(TypeError):
                reference = Source.frame().child(Access.CONSTANT, _Named(value))
                found = self.sources[id(value)] = reference.child(Access.WEAKREF_CALL)
        return found


class _Named(weakref.ref[Any]):
    """A weak reference whose text has no address."""

    __slots__ = ("__name__",)

    def __init__(self, value: Any) -> None:
        super().__init__(value)  # type: ignore[call-arg]
        self.__name__ = f"reference to {name_at(id(value))}"


class Lookups:
    def __init__(self, known: Known) -> None:
        self.known = known
        self.known_sources = _KnownSources(known)
        self.read = known.guard_set.sources()

    def attributes(self) -> Iterator[Extra]:
        for asked, name, only_whether in self.known.reads.attributes.values():
            value = self._value(asked)
            if value is not MISSING:
                yield from self._attribute(value, name, only_whether)
            elif asked.kind is not None and (source := self.known_sources.of(asked.kind)) is not None:
                for each in (name, "__getattribute__"):
                    yield from self._in_classes(asked.kind, source, each, source, 0)
        for kind, after, name in self.known.reads.supers.values():
            if (source := self.known_sources.of(kind)) is not None:
                yield from self._in_classes(kind, source, name, source, mro_of(kind).index(after) + 1)

    def names(self) -> Iterator[Extra]:
        """That the own dicts of classes have the names that they had, and no others of those that were asked for."""
        for kind, name in self.known.reads.names.values():
            if (source := self.known_sources.of(kind)) is not None:
                made = guard(Test.DICT_CONTAINS, (source.child(Access.TYPE_DICT),), (name, name in own_of(kind)))
                yield Extra(made, source, "a name in the dict of a class")

    def special(self, kind: type, names: list[str]) -> Iterator[Extra]:
        """Lookups in a class that pass by the object."""
        if (source := self.known_sources.of(kind)) is not None:
            for name in names:
                yield from self._in_classes(kind, source, name, source, 0)

    def unbound(self) -> Iterator[Extra]:
        """That functions which raised when they were called have no other defaults."""
        for function in self.known.reads.unbound.values():
            if (source := self.known_sources.of(function)) is not None:
                for name in ("__code__", "__defaults__", "__kwdefaults__"):
                    place = source.child(Access.ATTR, name)
                    yield Extra(same_value(place, getattr(function, name)), source, "the arguments of a function")

    def cells(self) -> Iterator[Extra]:
        """That functions which have no source in the set find the same in their cells."""
        for function in self.known.reads.cells.values():
            if _is_of_torch(function.__module__) or (source := self.known_sources.of(function)) is None:
                continue
            for at, cell in enumerate(function.__closure__ or ()):
                with contextlib.suppress(ValueError):  # an empty one
                    place = source.child(Access.FUNC_CLOSURE).child(Access.TUPLE_ITEM, at)
                    place = place.child(Access.ATTR, "cell_contents")
                    yield Extra(same_value(place, cell.cell_contents), source, "what a function has in its cells")

    def _value(self, asked: Asked) -> Any:
        if asked.value is not MISSING or asked.source is None:
            return asked.value
        if (tensor := self.known.tensors.get(asked.source.name)) is not None:
            return tensor
        with contextlib.suppress(Exception):  # it may be a source that has no object, or run code of the user's
            return self.known.resolve(asked.source)
        return MISSING

    def _attribute(self, value: Any, name: str, only_whether: bool) -> Iterator[Extra]:
        source = self.known_sources.of(value)
        if source is None:
            return
        if type(value) in _PLAIN_TENSORS and _found(type(value), name):
            if name in _OF_AUTOGRAD:
                place = source.child(Access.ATTR, name)
                yield Extra(same_value(place, getattr(value, name)), source, "what autograd knows of a tensor")
            return
        if type(value) is types.ModuleType:
            yield from self._of_module(value, source, name, only_whether)
        elif issubclass(type(value), type):  # isinstance would ask the object
            yield from self._of_class(value, source, name)
        else:
            yield from self._of_object(value, source, name)

    def _of_module(self, module: types.ModuleType, source: Source, name: str, only_whether: bool) -> Iterator[Extra]:
        own, place = types.ModuleType.__getattribute__(module, "__dict__"), source.child(Access.GENERIC_DICT)
        if name in own and not only_whether:
            return  # torch guards what is there
        for each in (name,) if name in own else (name, "__getattr__"):
            made = guard(Test.DICT_CONTAINS, (place,), (each, each in own))
            yield Extra(made, source, "an attribute of a module")

    def _of_class(self, kind: type, source: Source, name: str) -> Iterator[Extra]:
        meta, of_meta = type(kind), source.child(Access.TYPE)
        in_class, in_meta = _found(kind, name), _found(meta, name)
        first = in_meta is not None and _is_data(in_meta[1])
        if meta is not type:
            yield from self._in_classes(meta, of_meta, name, source, 0)
        if not first:
            yield from self._in_classes(kind, source, name, source, 0)
            if in_class is None and in_meta is None and meta is not type:
                yield from self._in_classes(meta, of_meta, "__getattr__", source, 0)

    def _of_object(self, value: Any, source: Source, name: str) -> Iterator[Extra]:
        kind = type(value)
        if issubclass(type(value), nn.Module) and (name in _OF_EVERY_MODULE or not name.isidentifier()):
            return
        found, own = _found(kind, name), _own_dict(value)
        if kind is types.FunctionType and name == "__annotations__":
            yield from self._annotations(value, source)
        if found is not None and type(found[1]) is types.MemberDescriptorType and not _has_slot(value, found[1]):
            empty = source.child(Access.CALL1, functools.partial(_has_slot, slot=found[1]))
            yield Extra(guard(Test.EQUALS, (empty,), (False,)), source, "a slot that is empty")
        if name == "__dict__" and own is not None and all(type(each) is str for each in own):
            keys = guard(Test.KEYS, (source.child(Access.GENERIC_DICT),), (tuple(own),))
            yield Extra(keys, source, "the names that an object has")
        of_kind = source.child(Access.TYPE)
        for each in (name, "__getattribute__"):
            yield from self._in_classes(kind, of_kind, each, source, 0)
        if own is not None and name in own:
            return  # torch guards what is there
        if found is None:
            yield from self._in_classes(kind, of_kind, "__getattr__", source, 0)
        elif _is_data(found[1]):
            return
        if own is not None and not (found is None and _is_part(value, name)):
            made = guard(Test.DICT_CONTAINS, (source.child(Access.GENERIC_DICT),), (name, False))
            yield Extra(made, source, _ABSENT)

    def _annotations(self, function: types.FunctionType, source: Source) -> Iterator[Extra]:
        """Torch takes annotations for constant."""
        place = source.child(Access.ATTR, "__annotations__")
        yield Extra(guard(Test.KEYS, (place,), (tuple(function.__annotations__),)), source, "annotations")
        for name, value in function.__annotations__.items():
            yield Extra(same_value(place.child(Access.DICT_ITEM, name), value), source, "annotations")

    def _in_classes(self, kind: type, source: Source, name: str, place: Source, start: int) -> Iterator[Extra]:
        """That the classes from ``start`` on that are asked before the one that has the name do not have it."""
        if not self.known.first("lookup", kind, name, start):
            return
        yield from order_of(kind, source, place, self.known)
        for at, owner in enumerate(mro_of(kind)[start:], start):
            step = source.child(Access.TYPE_MRO).child(Access.TUPLE_ITEM, at) if at else source
            content = step.child(Access.TYPE_DICT)
            if name in own_of(owner):
                yield from self._found_in(owner, content.child(Access.DICT_ITEM, name), name, place)
                return
            if can_change(owner) and self.known.first(owner, name):
                yield Extra(guard(Test.DICT_CONTAINS, (content,), (name, False)), place, _ABSENT)

    def _found_in(self, owner: type, source: Source, name: str, place: Source) -> Iterator[Extra]:
        value = own_of(owner)[name]
        if can_change(owner) and source not in self.read and self.known.first(owner, name):
            if type(value) in WRAPPERS:
                source = source.child(Access.ATTR, WRAPPERS[type(value)])
                value = getattr(value, WRAPPERS[type(value)])
            yield Extra(same_value(source, value), place, _FOUND)
            if type(value) is types.FunctionType and id(value.__code__) in self.known.traced:
                yield from dunders(self.known, source, value, place)

    # -- names of builtins ---------------------------------------------------------------------------------------------

    def builtins(self) -> Iterator[Extra]:
        for scope, name in self.known.reads.builtins.values():
            if name in scope or _is_of_torch(scope.get("__name__")):
                continue
            place = self._globals(scope)
            made = guard(Test.DICT_CONTAINS, (place,), (name, False))
            yield Extra(made, place, "a global that comes to hide a builtin")
            if not callable(value := getattr(builtins, name, None)):
                item = Source.frame().child(Access.CONSTANT, builtins).child(Access.GENERIC_DICT)
                item = item.child(Access.DICT_ITEM, name)
                yield Extra(same_value(item, value), item, "a builtin")

    def _globals(self, scope: dict[str, Any]) -> Source:
        frame = Source.frame()
        if scope is self.known.f_globals:
            return frame.child(Access.GLOBALS, scope)
        module = sys.modules.get(str(scope.get("__name__")))
        if module is not None and vars(module) is scope:
            return frame.child(Access.CONSTANT, module).child(Access.GENERIC_DICT)
        return frame.child(Access.CONSTANT, scope)

    # -- isinstance ----------------------------------------------------------------------------------------------------

    def kinds(self) -> Iterator[Extra]:
        for asked, kind, of_classes in self.known.reads.kinds.values():
            value = self._value(asked)
            made_class = asked.kind if value is MISSING else value if of_classes else type(value)
            if isinstance(made_class, type) and (source := self.known_sources.of(made_class)) is not None:
                yield from order_of(made_class, source, source, self.known)
            if type(kind) is type or _is_of_torch(getattr(type(kind), "__module__", "")):
                continue
            yield from self._meta(kind)
            if not _asks_code(kind) or (_is_of_python(kind) and not can_change(made_class)):
                continue
            if (yield from self._stays_true(made_class, kind)):
                continue
            yield from self._answer(made_class if value is MISSING else value, kind, of_classes or value is MISSING)

    def _meta(self, kind: Any) -> Iterator[Extra]:
        """That a metaclass does not come to have an ``__instancecheck__`` or ``__subclasscheck__`` of its own."""
        source = self.known_sources.of(kind) if isinstance(kind, type) else None
        if source is not None:
            for name in ("__instancecheck__", "__subclasscheck__"):
                yield from self._in_classes(type(kind), source.child(Access.TYPE), name, source, 0)

    def _stays_true(self, made_class: Any, kind: Any) -> Generator[Extra, None, bool]:
        """Whether an abstract class has this one as a subclass for good: what is registered stays registered."""
        meta: type = type(kind)
        if meta is not abc.ABCMeta or not isinstance(made_class, type) or not issubclass(made_class, kind):
            return False
        if kind not in mro_of(made_class) and can_change(made_class):
            return False
        hook = _found(kind, "__subclasshook__")
        if (hook is None or hook[0] is not object) and not _is_of_python(kind):
            return False
        if (source := self.known_sources.of(kind)) is not None:
            yield from self._in_classes(kind, source, "__subclasshook__", source, 0)
        return True

    def _answer(self, value: Any, kind: Any, of_classes: bool) -> Iterator[Extra]:
        source = self.known_sources.of(value)
        if source is None:
            return
        ask = _Question(kind, of_classes)
        with contextlib.suppress(Exception):  # the user's code may raise, which torch has compiled: no guard then
            answer = guard(Test.EQUALS, (source.child(Access.CALL1, ask),), (ask(value),))
            yield Extra(answer, source, "what a class says of its instances")


class _Question:
    """``isinstance(…, kind)`` or ``issubclass(…, kind)``. Its guard keeps it alive; it does not keep ``kind`` alive."""

    def __init__(self, kind: Any, of_classes: bool) -> None:
        self.ask: Callable[[Any, Any], bool] = issubclass if of_classes else isinstance
        self.kind = weakref.ref(kind) if isinstance(kind, type) else lambda: kind
        self.__name__ = f"{self.ask.__name__}[{getattr(kind, '__qualname__', kind)}]"

    def __call__(self, value: Any) -> bool:
        return self.ask(value, self.kind())


def _is_of_python(kind: Any) -> bool:
    """Whether an abstract class is Python's own: nobody is expected to tell it other things of Python's own types."""
    return getattr(kind, "__module__", None) == "collections.abc"


def _is_of_torch(module: object) -> bool:
    """Whether a module is torch's: nobody is expected to give it names that change what its own functions do."""
    return isinstance(module, str) and module.partition(".")[0] == "torch"


def _found(kind: type, name: str) -> tuple[type, Any] | None:
    """The class that has the name, and what it has there."""
    return next(((owner, own_of(owner)[name]) for owner in mro_of(kind) if name in own_of(owner)), None)


def _has_slot(value: Any, slot: Any) -> bool:
    """Whether there is something in a slot of an object."""
    try:
        slot.__get__(value)
    except AttributeError:
        return False
    return True


def _is_data(value: Any) -> bool:
    """Whether a descriptor is asked before the object's own dict."""
    return _found(type(value), "__set__") is not None or _found(type(value), "__delete__") is not None


def _own_dict(value: Any) -> dict[str, Any] | None:
    if not type(value).__dictoffset__:
        return None
    with contextlib.suppress(Exception):
        return dict.copy(object.__getattribute__(value, "__dict__"))
    return None


def _is_part(value: Any, name: str) -> bool:
    """Whether a module finds the name itself among its parts: ``nn.Module`` lets nobody hide these."""
    return (
        issubclass(type(value), nn.Module)
        and type(value).__getattr__ is nn.Module.__getattr__
        and any(name in (vars(value).get(each) or ()) for each in ("_parameters", "_buffers", "_modules"))
    )


def _asks_code(kind: Any) -> bool:
    meta = type(kind)
    return not isinstance(kind, type) or (
        getattr(meta, "__instancecheck__", None) is not type.__instancecheck__
        or getattr(meta, "__subclasscheck__", None) is not type.__subclasscheck__
    )


def attributes(known: Known) -> Iterator[Extra]:
    """That lookups of attributes and of builtins find what they found, and that ``isinstance`` answers as it did."""
    lookups = Lookups(known)
    yield from lookups.attributes()
    yield from lookups.names()
    yield from lookups.builtins()
    yield from lookups.kinds()
    yield from lookups.unbound()
    yield from lookups.cells()
