"""Rules: constants and containers are the same to the last bit, in the same order.

Entry points: :func:`values`, :func:`orders`, :func:`keywords`.
"""

from __future__ import annotations

import collections
import inspect
from collections.abc import Iterator
from typing import Any

import torch

from unified_guards.dynamo.strict.known import Extra, Known, is_constant, kind_of, parts
from unified_guards.guards.ir import Access, Source, Test, guard

#: Types whose values are never equal to a value of another type.
_ALONE = frozenset({str, bytes, type(None), type(...), type, torch.dtype, torch.device})


def _is_ambiguous(container: Any) -> bool:
    """Whether ``==`` may take other parts for these: True for 1, 0.0 for -0.0, a set for a frozenset, another order."""
    if type(container) is torch.Size:
        return False  # has nothing but exact integers
    held = list(parts(container) or ())
    return any(type(part) not in _ALONE for part in held) or (type(container) is dict and len(container) > 1)


def _has_a_zero(value: Any) -> bool:
    return (type(value) is float and value == 0) or (type(value) is complex and 0 in (value.real, value.imag))


def values(known: Known) -> Iterator[Extra]:
    """That constants are the same to the last bit, and containers of them all the way down."""
    for item in known.guard_set:
        source = item.source
        if item.test is Test.FLOAT_NAN or item.test is Test.COMPLEX_NAN:
            value = known.live(source)
            if type(value) in (float, complex):
                yield Extra(guard(Test.SAME_BITS, (source,), (value,)), source, "the bits of a NaN")
        elif item.test is Test.EQUALS:
            (value,) = item.params
            if _has_a_zero(value):
                yield Extra(guard(Test.SAME_BITS, (source,), (value,)), source, "the sign of a zero")
            elif _is_ambiguous(value):
                yield Extra(guard(Test.DEEP_EQUALS, (source,), (value,)), source, "types within a container")


def orders(known: Known) -> Iterator[Extra]:
    """That an OrderedDict whose items are guarded by position is still in its own order."""
    by_position = {
        source.base
        for source in known.guard_set.sources()
        if source.access in (Access.DICT_KEY_AT, Access.DICT_VALUE_AT) and source.base is not None
    }
    for item in known.guard_set:
        kind = kind_of(item) if item.source in by_position else None
        if kind is None or not issubclass(kind, collections.OrderedDict):
            continue
        by_position.discard(item.source)
        keys = tuple(known.live(item.source) or ())
        if all(map(is_constant, keys)):
            made = guard(Test.MAPPING_KEYS, (item.source,), (keys,))
            yield Extra(made, item.source, "the order of an OrderedDict")


def keywords(known: Known) -> Iterator[Extra]:
    """That the keyword arguments of a frame that takes any come in the same order: it may go through them."""
    code = known.code
    if not code.co_flags & inspect.CO_VARKEYWORDS:
        return
    given = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & inspect.CO_VARARGS)
    source = Source.frame().child(Access.LOCAL, code.co_varnames[given])
    named = known.live(source)
    if type(named) is dict and len(named) > 1 and source in known.guard_set.sources():
        made = guard(Test.MAPPING_KEYS, (source,), (tuple(named),))
        yield Extra(made, source, "the order of keyword arguments")
