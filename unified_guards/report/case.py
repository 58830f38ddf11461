"""A guard that did not hold and what it found, as the table of causes asks for it. Entry points: :class:`Case`,
:func:`path`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

from unified_guards.guards.accesses import MISSING
from unified_guards.guards.failures import Look, found_by, shown, value_at
from unified_guards.guards.ir import Access, Guard, Source, Test

_HOUSEKEEPING = frozenset({"_modules", "_parameters", "_buffers"})
OF_FUNCTIONS = frozenset({Access.FUNC_CODE, Access.FUNC_CLOSURE, Access.FUNC_DEFAULTS, Access.FUNC_KWDEFAULTS})
_OF_ATTRIBUTES = frozenset({Access.GENERIC_DICT, Access.ATTR, Access.GENERIC_ATTR})
#: Steps of a path that run no code of the user's.
_PLAIN = frozenset(
    {
        *(Access.FRAME, Access.LOCAL, Access.GLOBALS, Access.DICT_ITEM, Access.CONSTANT, Access.GENERIC_DICT),
        *(Access.LIST_ITEM, Access.TUPLE_ITEM, Access.DICT_VALUE_AT, Access.FUNC_CLOSURE, Access.FUNC_DEFAULTS),
    }
)
#: Kinds of tests: of identity, of equality, of type.
IDENTITY = frozenset({Test.IS, Test.IS_TARGET})
EQUALITY = frozenset({Test.EQUALS, Test.SAME_BITS, Test.DEEP_EQUALS})
TYPE = frozenset({Test.TYPE_IS, Test.SCRIPT_TYPE})


def path(source: Source) -> str:
    """A source as the program would write it: ``self.layers.weight`` for ``L['self'].__dict__['_modules']…``."""
    base = source.base
    if base is None or source.access is Access.GLOBALS:
        return ""
    if source.access is Access.LOCAL or base.access is Access.GLOBALS:
        return str(source.key)
    if source.access is Access.GENERIC_DICT:
        return path(base)
    if source.access is Access.DICT_ITEM and type(source.key) is str:
        if base.access is Access.GENERIC_DICT:
            return f"{path(base)}.{source.key}"
        if type(base.key) is str and base.key in _HOUSEKEEPING and base.base is not None:
            return f"{path(base.base)}{f'[{source.key}]' if source.key.isdigit() else f'.{source.key}'}"
    return source.text.replace(base.text, path(base), 1) if base.text else source.text


def _hints(codes: tuple[str, ...]) -> Iterator[str]:
    """Torch's hints in its texts of a guard. That a guard compares a type is said by the guard itself."""
    for code in codes:
        _, marked, hint = code.partition("(HINT: ")
        if marked and not hint.startswith("type "):
            yield hint.rstrip().removesuffix(")")
        avoid = re.search(r"to avoid .*", code)
        if avoid is not None:
            text = avoid[0].rstrip()
            yield text.removesuffix(")") if text.count(")") > text.count("(") else text


class Case:
    """A guard that did not hold and what it found, as the rows ask for it.

    Attributes:
        seen: what was looked at.
        test: of the guard; None where a source had no value.
        source: the guard's first source, or the one without a value.
        value: what was found there; at a source without a value what is at its base.
        expected: the first parameter of the guard.
        differences: by kind, of a tensor or of the state of torch.
        hints: torch's own.
    """

    def __init__(self, seen: Look) -> None:
        item = seen.origin
        self.seen = seen
        self.test = None if isinstance(item, Source) else item.test
        self.source = item if isinstance(item, Source) else item.source
        self.value = seen.values[0] if seen.values else MISSING
        self.params = item.params if isinstance(item, Guard) else ()
        self.expected = self.params[0] if self.params else MISSING
        self.differences = {each.kind: each for each in reversed(seen.differences)}
        self.steps = tuple(self.source.steps())
        self.codes = tuple(maker.code for maker in seen.makers)
        self.hints = tuple(dict.fromkeys(_hints(self.codes)))

    @property
    def keys(self) -> list[str]:
        """The names on the way to the source, the last first."""
        return [step.key for step in self.steps if type(step.key) is str]

    @property
    def global_at(self) -> Source | None:
        """The global at which the way begins."""
        return next((step for step in self.steps if step.base and step.base.access is Access.GLOBALS), None)

    @property
    def function(self) -> Source | None:
        """The function or partial on the way, if what is looked at is its code or what it captured."""
        inside = next((step.base for step in self.steps if step.access in OF_FUNCTIONS), None)
        if inside is not None:
            return inside
        partial = type(self.owner) is functools.partial
        return next((step.base for step in self.steps if step.access in _OF_ATTRIBUTES), None) if partial else None

    @property
    def place(self) -> str:
        """What the source is to the program."""
        captured = next((found[1] for hint in self.hints if (found := re.match(r'guard on "(\w+)"', hint))), None)
        if captured is not None and self.function is not None:
            return f"{captured}, which {path(self.function)} has captured,"
        return f"{'' if self.global_at is None else 'the global '}{path(self.source)}"

    @functools.cached_property
    def owner(self) -> Any:
        """The nearest object on the way that has attributes; ``MISSING`` where none is found without running code."""
        base = next((step.base for step in self.steps if step.access in _OF_ATTRIBUTES), None)
        if base is None or not all(step.access in _PLAIN for step in base.steps()):
            return MISSING
        return value_at(base, self.seen.f_locals)

    def was(self, expected: str | None = None) -> str:
        """What it was and what it is."""
        if expected is None:
            named = self.test in IDENTITY or self.test in TYPE
            expected = str(self.params[1]) if named else shown(self.expected)
        return f"{self.place} was {expected} when this was compiled and is {found_by(self.seen)}"

    def change(self) -> str:
        """What has changed, for any guard."""
        if self.test in IDENTITY or self.test in EQUALITY:
            return self.was()
        found = found_by(self.seen)
        if self.test is Test.DICT_LENGTH:
            return f"{path(self.source)} had {self.expected} keys when this was compiled and has {found}"
        what = f"{self.seen.origin}{' is missing' if self.test is None else ' does not hold'}"
        return f"{what} (found {found})" if found else what
