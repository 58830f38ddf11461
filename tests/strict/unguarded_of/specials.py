"""Special methods that a class gets, or has replaced, and that Python looks up without naming them."""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable
from typing import Any

from ...harness import TORCH
from ..unguarded import reads


class _Sum:
    def __add__(self, other: Any) -> int:
        return 1


def instance_of(*bases: type, given: tuple[Any, ...] = (), **own: Any) -> Callable[[], Any]:
    """An object of a class that nobody else has."""
    return lambda: type("Kind", bases, dict(own))(*given)


def gets(name: str, value: Any) -> Callable[[Any], None]:
    def change(held: Any) -> None:
        setattr(held if isinstance(held, type) else type(held), name, value)

    return change


def _total(items: Any) -> Any:
    total = 0
    for item in items:
        total += item
    return total


def _first_of(items: Any) -> Any:
    first, _ = items
    return first


def _added_in_place(held: Any) -> Any:
    total = held
    total += 1
    return total


def _missing(held: Any) -> Any:
    try:
        return held["missing"]
    except KeyError:
        return 1


def _stored(held: Any) -> Any:
    held["new"] = 3
    return held.pop("new", 0)


def _set(kind: Any) -> Any:
    made = kind()
    made.value = 3
    return made.value


def _entered(manager: Any) -> Any:
    with manager as value:
        return value


def _both() -> Any:
    base = type("Base", (), {"__add__": lambda self, other: 1})
    return base(), type("Derived", (base,), {})()


reads("bool", instance_of(), lambda held: 1 if held else 2, gets("__bool__", lambda self: False))
reads("len_of_a_condition", instance_of(), lambda held: 2 if not held else 1, gets("__len__", lambda self: 0))
reads("eq", instance_of(), lambda held: held == 1, gets("__eq__", lambda self, other: True))
reads("ne", instance_of(__eq__=lambda self, other: True), lambda held: held != 1, gets("__ne__", lambda a, b: True))
reads("len_of_a_list", instance_of(list, given=([1],)), len, gets("__len__", lambda self: 5))
reads("getitem_of_a_list", instance_of(list, given=([1],)), lambda held: held[0], gets("__getitem__", lambda *a: 5))
reads("getitem_of_a_dict", instance_of(dict, given=({0: 1},)), lambda held: held[0], gets("__getitem__", lambda *a: 5))
reads("missing", instance_of(dict), _missing, gets("__missing__", lambda self, key: 5))
reads("setitem", instance_of(dict, given=({0: 1},)), _stored, gets("__setitem__", lambda *a: None))
reads("iter", instance_of(list, given=([1],)), _total, gets("__iter__", lambda self: iter([5])))
reads("unpacked", instance_of(list, given=([1, 2],)), _first_of, gets("__iter__", lambda self: iter([7, 8])))
reads(
    "reversed",
    instance_of(list, given=([1, 2],)),
    lambda held: next(iter(reversed(held))),
    gets("__reversed__", lambda self: iter([7])),
)
reads("contains", instance_of(set), lambda held: 5 in held, gets("__contains__", lambda *a: True))
reads("add", instance_of(int, given=(3,)), lambda held: held + 1, gets("__add__", lambda a, b: 9))
reads(
    "enter",
    instance_of(__enter__=lambda self: 1, __exit__=lambda *a: None),
    _entered,
    gets("__enter__", lambda self: 5),
)
reads("abs", instance_of(int, given=(-1,)), abs, gets("__abs__", lambda self: 7))
reads("iadd", instance_of(_Sum), _added_in_place, gets("__iadd__", lambda a, b: 7))
reads("radd_first", _both, lambda held: held[0] + held[1], lambda held: gets("__radd__", lambda a, b: 7)(held[1]))
reads("callable", instance_of(), callable, gets("__call__", lambda self: 5))
reads("index", instance_of(__index__=lambda self: 1), operator.index, gets("__index__", lambda self: 5))
reads("setattr", lambda: type("Kind", (), {"value": 1}), _set, gets("__setattr__", lambda *a: None))
reads("init", lambda: type("Kind", (), {"value": 1}), lambda kind: kind().value, lambda kind: _with_init(kind))
reads(
    "class_getitem",
    lambda: type("Kind", (), {"__class_getitem__": classmethod(lambda cls, item: 1)}),
    lambda kind: kind[0],
    gets("__class_getitem__", classmethod(lambda cls, item: 5)),
)


def _with_init(kind: Any) -> None:
    kind.__init__ = lambda self: setattr(self, "value", 5)


def _kind_of_meta(**own: Any) -> Any:
    return type("Meta", (type,), dict(own))("Kind", (), {"value": 1})


reads(
    "len_of_a_class",
    functools.partial(_kind_of_meta, __len__=lambda cls: 1),
    len,
    lambda kind: gets("__len__", lambda cls: 5)(type(kind)),
)
reads(
    "call_of_a_metaclass",
    _kind_of_meta,
    lambda kind: kind().value,
    lambda kind: gets("__call__", lambda cls: types.SimpleNamespace(value=5))(type(kind)),
)
reads(
    "instancecheck_of_a_constant",
    functools.partial(_kind_of_meta, __instancecheck__=lambda cls, value: True),
    lambda kind: isinstance(1, kind),
    lambda kind: gets("__instancecheck__", lambda cls, value: False)(type(kind)),
    ends="a metaclass answers for its instances" if TORCH < (2, 15) else None,
)

LENGTH = [1]

reads(
    "text_of_an_object",
    instance_of(__repr__=lambda self: "a" * LENGTH[0]),
    lambda held: len(str(held)),
    lambda held: LENGTH.__setitem__(0, 5),
    lambda held: LENGTH.__setitem__(0, 1),
    ends="the text of an object is made",
)
