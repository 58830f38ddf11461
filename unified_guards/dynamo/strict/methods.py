"""Rules: the methods and functions that Dynamo inlined are as they were.

Entry points: :func:`methods`, :func:`functions`, :func:`dunders`.
"""

from __future__ import annotations

import copy
import types
import weakref
from collections.abc import Iterator
from typing import Any

from torch import nn

from unified_guards import _C
from unified_guards.dynamo.strict.known import (
    WRAPPERS,
    Extra,
    Known,
    is_constant,
    mro_of,
    order_of,
    own_of,
    same_object,
)
from unified_guards.dynamo.strict.reads import can_change
from unified_guards.guards.ir import Access, Source, Test, guard
from unified_guards.guards.names import name_at

#: How Dynamo gets from the call of a module to its ``forward``, without tracing it.
_CALLS_FORWARD = (nn.Module.__call__, nn.Module._call_impl)


def dunders(known: Known, source: Source, function: types.FunctionType, place: Source) -> Iterator[Extra]:
    """That a function that was inlined still has its code, and defaults that are constants."""
    place_of_code, code = source.child(Access.FUNC_CODE), function.__code__
    if guard(Test.IS, (place_of_code,), (id(code), name_at(id(code)))) not in known.guard_set:
        name = f"the code of {name_at(id(function))}"
        yield Extra(guard(Test.IS_TARGET, (place_of_code,), (weakref.ref(code), name)), place, "code of a function")
    for access, defaults in (
        (Access.FUNC_DEFAULTS, function.__defaults__),
        (Access.FUNC_KWDEFAULTS, function.__kwdefaults__),
    ):
        if defaults is not None and is_constant(defaults):
            below = source.child(access)
            yield Extra(guard(Test.DEEP_EQUALS, (below,), (copy.deepcopy(defaults),)), place, "defaults of a function")


class _Methods:
    """The methods that Dynamo inlined, found in the classes that the set says objects are of."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self.traced = known.traced

    def extras(self) -> Iterator[Extra]:
        for item in self.known.guard_set:
            if item.test is Test.TYPE_IS:
                yield from self._of(_C.object_at(item.params[0]), item.source.child(Access.TYPE), item.source)
            elif item.test is Test.IS and isinstance(_C.object_at(item.params[0]), type):
                yield from self._of(_C.object_at(item.params[0]), item.source, item.source)

    def _of(self, kind: type, source: Source, place: Source) -> Iterator[Extra]:
        if not self.known.first(kind):
            return
        yield from order_of(kind, source, place, self.known)
        mro = mro_of(kind)
        where = [source, *(source.child(Access.TYPE_MRO).child(Access.TUPLE_ITEM, at) for at in range(1, len(mro)))]
        dicts = [each.child(Access.TYPE_DICT) for each in where]
        for at, owner in enumerate(mro):
            for name, value in list(own_of(owner).items()):
                function = self._inlined(value, issubclass(kind, nn.Module))
                if function is None:
                    continue
                yield from self._unshadowed(name, list(zip(mro[:at], dicts, strict=False)), place)
                if self.known.first(owner, name):
                    yield from self._method(dicts[at].child(Access.DICT_ITEM, name), value, function, place)

    def _inlined(self, value: Any, of_a_module: bool) -> types.FunctionType | None:
        if type(value) in WRAPPERS:
            value = getattr(value, WRAPPERS[type(value)])
        if type(value) is not types.FunctionType:
            return None
        asked = id(value.__code__) in self.traced or (of_a_module and value in _CALLS_FORWARD)
        return value if asked else None

    def _unshadowed(self, name: str, before: list[tuple[type, Source]], place: Source) -> Iterator[Extra]:
        """That no class that is asked earlier has come to have a method of this name."""
        for owner, source in before:
            if name not in own_of(owner) and can_change(owner) and self.known.first(owner, name):
                yield Extra(guard(Test.DICT_CONTAINS, (source,), (name, False)), place, "a method of a class")

    def _method(self, source: Source, value: Any, function: types.FunctionType, place: Source) -> Iterator[Extra]:
        if type(value) in WRAPPERS:
            source = source.child(Access.ATTR, WRAPPERS[type(value)])
        yield Extra(same_object(source, function), place, "a method of a class")
        yield from dunders(self.known, source, function, place)


def methods(known: Known) -> Iterator[Extra]:
    """That classes have the methods that were inlined, and that these are as they were."""
    return _Methods(known).extras()


_FUNCTION_FIELDS = frozenset({Access.FUNC_CODE, Access.FUNC_DEFAULTS, Access.FUNC_KWDEFAULTS, Access.FUNC_CLOSURE})


def functions(known: Known) -> Iterator[Extra]:
    """That functions of which the set reads a field have the code and the defaults that were inlined."""
    sources: dict[Source, Source] = {}  # from the source of a function to a guarded source below it
    for item in known.guard_set:
        for source in item.sources:
            for step in source.steps():
                if step.access in _FUNCTION_FIELDS and step.base is not None:
                    sources.setdefault(step.base, item.source)
    for source, place in sources.items():
        function = known.live(source)
        function = getattr(function, "__func__", function)
        if type(function) is types.FunctionType and id(function.__code__) in known.traced:
            yield from dunders(known, source, function, place)
