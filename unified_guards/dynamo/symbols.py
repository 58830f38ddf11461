"""What the code of a cache entry is run on instead of values (``dynamo/plan.py``): where a value would come from.

The symbols are no tuples: a global with the name of a local would be equal to it.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from typing import Any, NamedTuple


class NotPlain(Exception):
    """The code does something that a plan cannot say."""


@dataclasses.dataclass(frozen=True)
class Local:
    """A local as the frame begins with it."""

    name: str


@dataclasses.dataclass(frozen=True)
class Global:
    """A global of the function."""

    name: str


@dataclasses.dataclass(frozen=True)
class Read:
    """An attribute, an item with a constant key, or a number of a tensor.

    Attributes:
        base: what it is read from.
        key: the name of the attribute, the key of the item, or the dimension; None for a storage offset.
        kind: "attribute", "item", or the method of the tensor.
    """

    base: Local | Global | Read
    key: Any
    kind: str


@dataclasses.dataclass(frozen=True)
class Constant:
    """A constant of the code."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Output:
    """What the graph returns, or the item of it at an index."""

    at: int | None = None


class Items(list[Any]):
    """A list or tuple that the code builds. Not compared by value: the code may add to one that it has twice."""

    def __init__(self, kind: type, items: list[Any]) -> None:
        super().__init__(items)
        self.kind = kind


class Table(NamedTuple):
    """A dict that the code builds with constant keys."""

    keys: tuple[Any, ...]
    values: list[Any]


class Parameters(NamedTuple):
    """The locals that a call sets.

    Attributes:
        given: those that take one argument each.
        made: the tuple of further arguments and the dict of named ones, which the interpreter makes itself.
    """

    given: tuple[str, ...]
    made: tuple[str, ...]


def parameters_of(code: types.CodeType) -> Parameters:
    """The parameters of a code object, in order."""
    given = code.co_argcount + code.co_kwonlyargcount
    made = bool(code.co_flags & inspect.CO_VARARGS) + bool(code.co_flags & inspect.CO_VARKEYWORDS)
    return Parameters(code.co_varnames[:given], code.co_varnames[given : given + made])
