"""Which names a function reads and writes beside its arguments. Entry points: :func:`names_read`,
:func:`globals_written`, :func:`modules_imported`."""

from __future__ import annotations

import dis
import functools
import types
from collections.abc import Iterator
from typing import NamedTuple


class Read(NamedTuple):
    """A name that code loads, and the attributes that it takes of it one after another."""

    name: str
    is_global: bool
    attributes: tuple[str, ...]


_GLOBAL = frozenset({"LOAD_GLOBAL", "LOAD_NAME"})
_CELL = frozenset({"LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF", "LOAD_FROM_DICT_OR_GLOBALS"})
_WRITES = frozenset({"STORE_GLOBAL", "DELETE_GLOBAL"})
_ATTRIBUTE = frozenset({"LOAD_ATTR", "LOAD_METHOD"})
#: May stand between a name and its attribute.
_TRANSPARENT = frozenset({"COPY", "DUP_TOP", "PUSH_NULL", "PRECALL", "EXTENDED_ARG", "CACHE", "NOP", "RESUME"})


def _reads(code: types.CodeType) -> Iterator[Read]:
    name: str | None = None
    is_global = False
    attributes: list[str] = []
    for step in dis.get_instructions(code):
        kind = step.opname
        if kind in _TRANSPARENT:
            continue
        if kind in _ATTRIBUTE and name is not None:
            attributes.append(step.argval)
            continue
        if name is not None:
            yield Read(name, is_global, tuple(attributes))
            name = None
        if kind in _GLOBAL or kind in _CELL:
            name, is_global, attributes = step.argval, kind in _GLOBAL, []
    if name is not None:
        yield Read(name, is_global, tuple(attributes))


@functools.lru_cache(maxsize=1024)
def globals_written(code: types.CodeType) -> tuple[str, ...]:
    """The globals that ``code``, or a function that it defines, assigns or deletes; each once."""
    steps = (step for part in _nested(code) for step in dis.get_instructions(part))
    return tuple(dict.fromkeys(step.argval for step in steps if step.opname in _WRITES))


@functools.lru_cache(maxsize=1024)
def modules_imported(code: types.CodeType) -> tuple[str, ...]:
    """The modules that ``code``, or a function that it defines, imports when it runs; each once."""
    steps = (step for part in _nested(code) for step in dis.get_instructions(part))
    return tuple(dict.fromkeys(step.argval for step in steps if step.opname == "IMPORT_NAME"))


@functools.lru_cache(maxsize=1024)
def attributes_named(code: types.CodeType) -> frozenset[str]:
    """The attributes that ``code``, or a function that it defines, takes of anything."""
    steps = (step for part in _nested(code) for step in dis.get_instructions(part))
    return frozenset(step.argval for step in steps if step.opname in _ATTRIBUTE or step.opname == "LOAD_SUPER_ATTR")


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


@functools.lru_cache(maxsize=1024)
def names_read(code: types.CodeType) -> tuple[Read, ...]:
    """The globals and closure variables that ``code``, or a function that it defines, loads; each once."""
    return tuple(dict.fromkeys(read for part in _nested(code) for read in _reads(part)))
