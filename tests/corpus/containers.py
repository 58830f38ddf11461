"""Containers of Python and iterators over them."""

from __future__ import annotations

import collections
import enum
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from .example import Example, entry


@entry
def dict_of_text() -> Example:
    d: dict[Any, Any] = {"a": 1, "b": torch.ones(2), "c": [1, 2]}
    example = Example(lambda x, d: x * d["a"] + d["b"] + len(d["c"]), torch.ones(2), d)
    return example.change(
        value=lambda: d.__setitem__("a", d["a"] + 1),
        same_value=lambda: d.__setitem__("a", 1),
        true=lambda: d.__setitem__("a", True),
        tensor=lambda: d.__setitem__("b", torch.ones(3)),
        missing=lambda: d.pop("a", None),
        extra=lambda: d.__setitem__("z", 1),
        inner=lambda: d["c"].append(3),
        reordered=lambda: d.__setitem__("b", d.pop("b")),
    ).rebind(
        "d",
        copy=lambda: {"a": 1, "b": torch.ones(2), "c": [1, 2]},
        ordered=lambda: collections.OrderedDict(a=1, b=torch.ones(2), c=[1, 2]),
        empty=dict,
        none=lambda: None,
    )


@entry
def dict_of_many_keys() -> Example:
    class Color(enum.Enum):
        RED = 1
        BLUE = 2

    d: dict[Any, Any] = {1: 2, (1, "a"): 3, Color.RED: 4, 2.5: 5, b"k": 6, True or 0: 2, torch.float32: 7}

    def function(x: torch.Tensor) -> torch.Tensor:
        return x * d[1] + d[(1, "a")] + d[Color.RED] + d[2.5] + d[b"k"] + d[torch.float32]

    return Example(function, torch.ones(2)).change(
        number=lambda: d.__setitem__(1, d[1] + 1),
        pair=lambda: d.__setitem__((1, "a"), 30),
        member=lambda: d.__setitem__(Color.RED, 40),
        unused=lambda: d.__setitem__(Color.BLUE, 41),
        real=lambda: d.__setitem__(2.5, 50),
        octets=lambda: d.__setitem__(b"k", 60),
        dtype=lambda: d.__setitem__(torch.float32, 70),
        emptied=d.clear,
        filled=lambda: d.update({1: 2, (1, "a"): 3, Color.RED: 4, 2.5: 5, b"k": 6, torch.float32: 7}),
    )


@entry
def dict_that_is_iterated() -> Example:
    d = {"a": 1, "b": 2, "c": 3}

    def function(x: torch.Tensor) -> torch.Tensor:
        for key, value in d.items():
            x = x + value if key != "b" else x * value
        return x + len(d) + ("z" in d)

    return Example(function, torch.ones(2)).change(
        value=lambda: d.__setitem__("b", d.get("b", 0) + 1),
        unchanged=lambda: d.__setitem__("b", d.get("b", 2)),
        moved=lambda: d.__setitem__("a", d.pop("a", 1)),
        removed=lambda: d.pop("c", None),
        added=lambda: d.__setitem__("z", 4),
        refilled=lambda: (d.clear(), d.update(a=1, b=2, c=3)),
        emptied=d.clear,
    )


class Attributes(collections.OrderedDict):  # type: ignore[type-arg]
    """A dict that also has attributes."""


@entry
def unusual_dicts() -> Example:
    ordered = collections.OrderedDict(a=1, b=2)
    default = collections.defaultdict(list, a=[1])
    own = Attributes(a=1)
    counter = collections.Counter("aab")

    def function(x: torch.Tensor) -> torch.Tensor:
        for key, value in ordered.items():
            x = x + value if key == "a" else x * value
        return x + len(default["a"]) + own["a"] + counter["a"] + ("b" in default)

    return Example(function, torch.ones(2)).change(
        moved_to_end=lambda: ordered.move_to_end(next(iter(ordered))),
        ordered_value=lambda: ordered.__setitem__("b", 3),
        ordered_refilled=lambda: (ordered.clear(), ordered.update(a=1, b=2)),
        default_grows=lambda: default["a"].append(2),
        default_missing=lambda: default["b"],
        default_removed=lambda: default.pop("a", None),
        own_value=lambda: own.__setitem__("a", 2),
        own_attribute=lambda: setattr(own, "extra", 1),
        counted=lambda: counter.update("a"),
    )


@entry
def lists() -> Example:
    items: list[Any] = [1, torch.ones(2), [2, [3]], "text"]

    def function(x: torch.Tensor, items: list[Any]) -> torch.Tensor:
        return x * items[0] + items[1] + items[2][1][0] + len(items)

    return (
        Example(function, torch.ones(2), items)
        .change(
            first=lambda: items.__setitem__(0, items[0] + 1) if items and type(items[0]) is int else None,
            real=lambda: items.__setitem__(0, 1.0) if items else None,
            longer=lambda: items.append(0),
            shorter=lambda: items.pop() if len(items) > 3 else None,
            innermost=lambda: items[2][1].__setitem__(0, 4),
            unguarded=lambda: items[2].__setitem__(0, 9),
            tensor=lambda: items.__setitem__(1, torch.ones(3)),
            same_tensor=lambda: items.__setitem__(1, torch.zeros(2)),
        )
        .rebind(
            "items",
            equal=lambda: [1, torch.ones(2), [2, [3]], "text"],
            pair=lambda: (1, torch.ones(2), [2, [3]], "text"),
            subclass=lambda: type("Items", (list,), {})([1, torch.ones(2), [2, [3]], "text"]),
            empty=list,
        )
    )


class Point(NamedTuple):
    x: int
    y: Any


@entry
def tuples() -> Example:
    def function(x: torch.Tensor, pair: Any, point: Any) -> torch.Tensor:
        return x * pair[0] + pair[1][0] + point.x + point.y

    example = Example(function, torch.ones(2), (1, (2, "a")), Point(3, torch.ones(2)))
    example.rebind(
        "pair",
        equal=lambda: (1, (2, "b")),
        first=lambda: (2, (2, "a")),
        inner=lambda: (1, (3, "a")),
        longer=lambda: (1, (2, "a"), 3),
        listed=lambda: [1, (2, "a")],
        true=lambda: (True, (2, "a")),
        none=lambda: None,
    )
    return example.rebind(
        "point",
        same=lambda: Point(3, torch.zeros(2)),
        other=lambda: Point(4, torch.ones(2)),
        plain=lambda: (3, torch.ones(2)),
        number=lambda: Point(3, 1),
        namesake=lambda: collections.namedtuple("Point", "x y")(3, torch.ones(2)),
    )


@entry
def sets() -> Example:
    numbers, frozen, words = {1, 2}, frozenset({"a"}), {"x"}

    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + 1 if 1 in numbers else x - 1
        x = x * 2 if 3 in numbers else x * 3
        return x + len(words) + ("a" in frozen)

    return Example(function, torch.ones(2)).change(
        removed=lambda: numbers.discard(1),
        restored=lambda: numbers.add(1),
        third=lambda: numbers.add(3),
        not_third=lambda: numbers.discard(3),
        unrelated=lambda: numbers.add(7),
        word=lambda: words.add("y"),
        no_word=lambda: words.discard("y"),
        emptied=numbers.clear,
    )


@entry
def set_arguments() -> Example:
    def function(x: torch.Tensor, s: Any) -> torch.Tensor:
        return x + len(s) + sum(s) if 1 in s else x

    return Example(function, torch.ones(2), {1}).rebind(
        "s",
        same=lambda: {1},
        other=lambda: {2},
        more=lambda: {1, 2},
        frozen=lambda: frozenset({1}),
        listed=lambda: [1],
        empty=set,
        true=lambda: {True},
    )


@entry
def iterators() -> Example:
    def function(x: torch.Tensor, t: Iterator[int], r: Iterator[int]) -> torch.Tensor:
        return x + next(t) * next(r)

    example = Example(function, torch.ones(2), iter((1, 2, 3)), iter(range(2, 8, 2)))
    example.rebind(
        "t",
        same_t=lambda: iter((1, 2, 3)),
        other_t=lambda: iter((2, 2, 3)),
        longer_t=lambda: iter((1, 2, 3, 4)),
        empty_t=lambda: iter(()),
        list_t=lambda: iter([1, 2, 3]),
        exhausted_t=lambda: advanced(iter((1,)), 2),
        advanced_t=lambda: advanced(iter((0, 1, 2, 3)), 1),
    )
    return example.rebind(
        "r",
        same_r=lambda: iter(range(2, 8, 2)),
        other_r=lambda: iter(range(2, 10, 2)),
        advanced_r=lambda: advanced(iter(range(0, 8, 2)), 1),
        empty_r=lambda: iter(range(0)),
        huge_r=lambda: iter(range(2, 10**30, 2)),
        tuple_r=lambda: iter((2, 4, 6)),
    )


def advanced(iterator: Iterator[Any], steps: int) -> Iterator[Any]:
    for _ in range(steps):
        next(iterator, None)
    return iterator


@entry
def ranges_and_slices() -> Example:
    def function(x: torch.Tensor, r: range, s: slice) -> torch.Tensor:
        for i in r:
            x = x + i
        return x[s]

    example = Example(function, torch.ones(4), range(0, 4, 2), slice(1, 3))
    example.rebind(
        "r",
        same_r=lambda: range(0, 4, 2),
        equal_r=lambda: range(0, 3, 2),
        other_r=lambda: range(3),
        empty_r=lambda: range(0),
        list_r=lambda: [0, 2],
    )
    return example.rebind(
        "s", same_s=lambda: slice(1, 3), other_s=lambda: slice(1, 4), open_s=lambda: slice(1, None), number_s=lambda: 1
    )


@entry
def deques_and_views() -> Example:
    queue = collections.deque([1, 2], maxlen=4)
    proxy_target = {"a": 1, "b": 2}
    proxy = types.MappingProxyType(proxy_target)

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + queue[0] + len(queue) + proxy["a"]

    return Example(function, torch.ones(2)).change(
        appended=lambda: queue.append(3),
        rotated=lambda: queue.rotate(1),
        refilled=lambda: (queue.clear(), queue.extend([1, 2])),
        proxied=lambda: proxy_target.update(a=proxy_target["a"] + 1),
        proxied_back=lambda: proxy_target.update(a=1),
        proxied_more=lambda: proxy_target.update(c=1),
    )
