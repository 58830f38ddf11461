"""Rules: state of the process that became part of the code is what it was: modules that were imported, what functions
said, the memory of tensors.

Entry points: :func:`imports`, :func:`folds`, :func:`storages`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator

from unified_guards.dynamo.strict.known import Extra, Known, same_object, same_value
from unified_guards.guards.ir import Access, Source, Test, guard
from unified_guards.guards.memory import bytes_of_storage, storage_of


def imports(known: Known) -> Iterator[Extra]:
    """That an import statement would find the same module."""
    modules = Source.frame().child(Access.CONSTANT, sys).child(Access.GENERIC_DICT).child(Access.DICT_ITEM, "modules")
    for name in known.reads.imports:
        if (module := sys.modules.get(name)) is not None:
            place = modules.child(Access.DICT_ITEM, name)
            yield Extra(same_object(place, module), place, "a module that is imported")


def folds(known: Known) -> Iterator[Extra]:
    """That functions of which Dynamo made a constant say the same. Each is a call of Python's on every check."""
    for function, given in known.reads.folds.values():
        ask = Source.frame().child(Access.CONSTANT, functools.partial(function, *given)).child(Access.CALL0)
        yield Extra(same_value(ask, function(*given)), ask, "what a function says of the process")


def storages(known: Known) -> Iterator[Extra]:
    """That the memory of tensors is as large, where it was measured."""
    places = {id(known.live(item.source)): item.source for item in known.guard_set if item.test is Test.TENSOR}
    for source in filter(None, known.reads.storages.values()):
        tensor = known.tensors.get(source.name)
        if tensor is not None and storage_of(tensor) is not None and id(tensor) in places:
            place = places[id(tensor)]
            size = place.child(Access.CALL1, bytes_of_storage)
            yield Extra(guard(Test.EQUALS, (size,), (bytes_of_storage(tensor),)), place, "the memory of a tensor")
