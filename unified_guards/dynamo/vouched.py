"""Which inputs of a graph the check has found itself: then nobody has to read them again.

A guard on a parameter is reached the way that Dynamo's code reads the parameter. The native checker remembers what an
accessor found (``csrc/witness``), so where an input of the plan is what some accessor of the entry's program reads, it
is taken from there. A source and a read are the same where the classes on the way are known: the dispatcher then asks
these classes whether an attribute is what the instance dict holds (``csrc/call/vouched.h``). Most are guarded. The
class of an object that is guarded by its identity, or of a parameter whose gradient is read, is compared each time.
Entry point: :func:`rows_of`.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from typing import Any

from unified_guards.dynamo.symbols import Global, Local, Read, parameters_of
from unified_guards.entry import Entry
from unified_guards.guards.ir import Access, Source, Test

Symbol = Local | Global | Read

_ITEMS = {Access.DICT_ITEM, Access.ITEM, Access.LIST_ITEM, Access.TUPLE_ITEM}
_ATTRIBUTES = {Access.ATTR, Access.GENERIC_ATTR}


def rows_of(inputs: Iterable[Any], entry: Entry, function: types.FunctionType) -> list[tuple[int, ...]]:
    """For each input of a plan the row of the entry's program that reads the same, and the rows of the objects on the
    way whose class is not guarded. Empty where there is none.

    Args:
        inputs: the inputs, as symbols.
        entry: whose guards are checked.
        function: whose code has the entry.
    """
    reader = _Reader(entry, function)
    rows: dict[Source, int] = {}
    found: dict[Symbol, tuple[int, ...]] = {}
    for row, origin in enumerate(entry.row_origins):
        symbol = reader.symbol(origin) if isinstance(origin, Source) else None
        if symbol is None or not isinstance(origin, Source):
            continue
        rows[origin] = row  # the last one before what is read below it
        untyped = reader.untyped(origin)
        if all(base in rows for base in untyped):
            found.setdefault(symbol, (row, *(rows[base] for base in untyped)))
    return [found.get(item, ()) if isinstance(item, Read) else () for item in inputs]


class _Reader:
    """Says sources as the symbols of a plan."""

    def __init__(self, entry: Entry, function: types.FunctionType) -> None:
        self.globals = function.__globals__
        self.known: dict[Source, Symbol | None] = {}
        self.typed: set[Source] = set()
        self.same: set[Source] = set()  # the sources of one object; its class may be another one
        self.keys: dict[Source, str] = {}
        self.made = parameters_of(function.__code__).made
        for item in entry.checked:
            (source, *others) = item.sources or (None,)
            if source is None or others:
                continue
            if item.test is Test.TYPE_IS:
                self.typed.add(source)
            elif item.test is Test.IS:
                self.same.add(source)
            elif item.test is Test.EQUALS and source.access is Access.DICT_KEY_AT and type(item.params[0]) is str:
                self.keys[source] = item.params[0]

    def symbol(self, source: Source) -> Symbol | None:
        """What reads the same as an accessor; None where that is not certain."""
        if source not in self.known:
            self.known[source] = self._symbol(source)
        return self.known[source]

    def _symbol(self, source: Source) -> Symbol | None:
        base = source.base
        if base is None:
            return None
        if source.access is Access.LOCAL:
            return Local(source.key)
        if source.access is Access.DICT_ITEM and base.access is Access.GLOBALS:
            return Global(source.key) if base.key is self.globals else None
        if source.access is Access.DICT_ITEM and base.access is Access.GENERIC_DICT:
            assert base.base is not None
            return self._read(base.base, source.key, "attribute")
        if source.access in _ATTRIBUTES:
            return self._read(base, source.key, "attribute")
        if source.access is Access.GRAD:
            found = self.symbol(base)
            return None if found is None else Read(found, "grad", "attribute")  # untyped() says: compare the class
        if source.access in _ITEMS:
            return self._read(base, source.key, "item")
        if source.access is Access.DICT_VALUE_AT:
            key = self.keys.get(base.child(Access.DICT_KEY_AT, source.key))
            return None if key is None else self._read(base, key, "item")
        return None

    def untyped(self, source: Source) -> list[Source]:
        """What is on the way to a source and has a class that is not guarded."""
        found = []
        while source.base is not None:
            of_gradient = source.access is Access.GRAD and source.base not in self.typed
            if of_gradient or (source.base in self.same and source.base not in self.typed):
                found.append(source.base)
            source = source.base
        return found

    def _read(self, base: Source, key: Any, kind: str) -> Read | None:
        """A read behind a base whose class is guarded."""
        found = self.symbol(base)
        is_made = isinstance(found, Local) and found.name in self.made
        if found is None or type(key) not in (int, str) or not (is_made or base in self.typed or base in self.same):
            return None
        return Read(found, key, kind)


__all__ = ["rows_of"]
