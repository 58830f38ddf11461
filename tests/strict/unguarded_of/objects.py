"""Slots, keys and annotations."""

from __future__ import annotations

import collections
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
