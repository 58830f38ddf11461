"""Slots, keys and annotations."""

from __future__ import annotations

import collections
import dataclasses
import functools
from typing import Any

from ..unguarded import reads


class Slotted:
    __slots__ = ("value",)


def _value_of(held: Any) -> Any:
    try:
        return held.value
    except AttributeError:
        return 1


def _item_of(held: Any) -> Any:
    try:
        return held["key"]
    except KeyError:
        return 1


def _annotated() -> Any:
    def function(x: int) -> int:
        return x

    function.__annotations__ = {"x": int}
    return function


reads("slot_that_is_empty", Slotted, _value_of, lambda held: setattr(held, "value", 5))
reads("slot_asked_for", Slotted, lambda held: getattr(held, "value", 1), lambda held: setattr(held, "value", 5))
reads("key_that_is_missing", dict, _item_of, lambda held: held.__setitem__("key", 5))
reads("chain", lambda: collections.ChainMap({}, {"key": 2}), _item_of, lambda held: held.maps[0].update(key=5))
reads("user_dict", collections.UserDict, lambda held: held.get("key", 1), lambda held: held.update(key=5))
reads(
    "annotations",
    _annotated,
    lambda held: len(held.__annotations__),
    lambda held: held.__annotations__.update(y=int),
)


class _One:
    @staticmethod
    def value() -> float:
        return 1.0


class _Other:
    pass


def _classes() -> dict[str, type]:
    return {"is": _One}


reads(
    "class_in_a_closure",
    _classes,
    lambda held: 2 if held["is"] is _One else 3,
    lambda held: held.update({"is": _Other}),
)
reads(
    "class_in_a_closure_asked",
    _classes,
    lambda held: 2 if issubclass(held["is"], _One) else 3,
    lambda held: held.update({"is": _Other}),
)


def _record() -> Any:
    @dataclasses.dataclass
    class Record:
        value: int = 2

    return Record


def _other_default(record: Any) -> None:
    record.__init__.__defaults__ = (7,)


reads("default_of_what_makes_an_object", _record, lambda held: held().value, _other_default)


def _cached() -> Any:
    state = {"value": 2}

    @functools.lru_cache
    def value() -> int:
        return state["value"]

    value.state = state  # type: ignore[attr-defined]
    return value


reads("cache", _cached, lambda held: held(), lambda held: held.state.update(value=5), ends="lru_cache")


def _initial(held: list[int]) -> Any:
    class Made:
        def __init__(self, given: Any = held) -> None:
            self.value = given[0]

    return Made


def _made(held: list[int]) -> Any:
    class Made:
        def __init__(self) -> None:
            self.value = held[0]

    return Made


def _with(make: Any) -> Any:
    held = [1]
    return held, make(held)


def _change(given: Any) -> None:
    given[0][0] = 5


def _rebind(made: Any) -> None:
    made.__init__.__closure__[0].cell_contents = 5


def _celled() -> Any:
    value = 1

    class Made:
        def __init__(self) -> None:
            self.value = value

    return Made


def _method_kept() -> Any:
    class Keeping:
        value = 2

        @functools.lru_cache  # noqa: B019
        def read(self) -> int:
            return self.value

    return Keeping()


reads("default_that_is_changed", lambda: _with(_initial), lambda held: held[1]().value, _change)
reads("cell_of_what_makes_an_object", _celled, lambda held: held().value, _rebind)
reads("list_in_such_a_cell", lambda: _with(_made), lambda held: held[1]().value, _change)
reads(
    "cache_of_a_method",
    _method_kept,
    lambda held: held.read(),
    lambda held: setattr(held, "value", 5),
    ends="lru_cache",
)
