"""Dicts, lists, sets, tuples, deques, and containers of the user's."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from ..world import World
from .parts import _c_setitem, attribute, in_place, number, refill, setter
from .table import Change, row


@row(3)
def dict_methods(w: World) -> Iterator[Change]:
    for d in (w.space.numbers, w.things[0].config, w.layers[0].config, w.space.words):
        key = next(iter(d))
        yield from in_place(
            d,
            lambda d=d, key=key: d.__setitem__(key, number()),
            lambda d=d, key=key: d.update({key: [number()]}),
            lambda d=d, key=key: d.pop(key, None),
            lambda d=d: d and d.popitem(),
            lambda d=d: d.setdefault("extra", number()),
            lambda d=d, key=key: d.setdefault(key, number()),
            lambda d=d: d.clear(),
            lambda d=d: d.__ior__({"extra": 1}),
            lambda d=d, key=key: d.__setitem__(key, d.pop(key, None)),  # to the end
            lambda d=d, key=key: dict.__init__(d, {key: number()}),
            lambda d=d, key=key: _c_setitem(d, key, number()),
        )


@row(2, neutral=True)
def dict_same_again(w: World) -> Iterator[Change]:
    """Writes that leave what a dict maps as it is."""
    for d in (w.space.numbers, w.things[0].config, w.space.words, w.scope):
        key = next(iter(d))
        yield Change(lambda d=d, key=key: d.__setitem__(key, d[key]) if key in d else None)
        yield Change(lambda d=d: d.update(d))
        yield Change(lambda d=d: d.setdefault("absent" if "absent" in d else next(iter(d), None)) if d else None)


@row(neutral=True)
def dict_refilled(w: World) -> Iterator[Change]:
    for d in (w.space.numbers, w.space.words, w.things[0].config):
        yield Change(refill(d))


@row(neutral=True)
def dict_grows_and_shrinks(w: World) -> Iterator[Change]:
    """Its table of keys is another one afterwards."""
    for d in (w.space.numbers, w.things[0].config, w.space.words, w.scope):

        def churn(d: Any = d) -> None:
            for at in range(200):
                d[f"grown{at}"] = at
            for at in range(200):
                del d[f"grown{at}"]

        yield Change(churn)


@row()
def dict_other_keys(w: World) -> Iterator[Change]:
    """The same key again, the key by an equal one of another type, one that is no text."""
    numbers = w.space.numbers

    def rekeyed(key: Any) -> None:
        numbers.pop(1, None)
        numbers[key] = 2

    yield from in_place(numbers, lambda: numbers.__setitem__(True, 2), lambda: rekeyed(True), lambda: rekeyed(1.0))
    words = w.space.words
    yield from in_place(words, lambda: words.__setitem__(1, 1), lambda: words.__setitem__("wo" + "rd1", number()))


@row()
def ordered_and_default_dicts(w: World) -> Iterator[Change]:
    space = w.space
    ordered, default, counter, own = space.ordered, space.default, space.counter, space.attributes
    yield from in_place(
        ordered,
        lambda: ordered.move_to_end(next(iter(ordered), None)) if ordered else None,
        lambda: ordered and ordered.popitem(last=False),
        lambda: ordered.__setitem__("a", number()),
        lambda: dict.__setitem__(ordered, "a", number()),
        lambda: dict.pop(ordered, "zz", None),
        lambda: ordered.update(extra=1),
    )
    yield from in_place(default, lambda: default["missing"], lambda: default["a"].__iadd__([]), lambda: default.clear())
    yield from in_place(counter, lambda: counter.update("a"), lambda: counter.subtract("b"), lambda: counter["none"])
    yield from in_place(own, lambda: own.__setitem__("a", 2))
    yield Change(setter(own, "extra", number), lambda: vars(own).pop("extra", None))


@row()
def nested_dicts(w: World) -> Iterator[Change]:
    deep = w.space.deep
    inner = deep["a"]["b"]["c"]
    yield from in_place(inner, lambda: inner.__setitem__("d", number()), lambda: inner.clear())
    yield from in_place(deep["a"], lambda: deep["a"].__setitem__("b", {"c": {"d": 1}}))
    yield from in_place(deep, lambda: deep.__setitem__("a", copy.deepcopy(deep.get("a"))), lambda: deep.pop("a", None))
    for thing in w.things[:3]:
        config, found = thing.config, thing.config["deep"]
        yield from in_place(found, lambda found=found: found.__setitem__("k", [number()]))
        yield from in_place(config, lambda config=config: config.__setitem__("deep", {"k": [1]}))
    yield from in_place(w.space.empty, lambda: w.space.empty.__setitem__("a", 1))


@row(3)
def list_methods(w: World) -> Iterator[Change]:
    for one in (w.space.items, w.things[0].items, w.inlines[0].items, w.layers[0].names):
        yield from in_place(
            one,
            lambda one=one: one.append(number()),
            lambda one=one: one and one.pop(),
            lambda one=one: one.insert(0, number()),
            lambda one=one: one.extend([1, 2]),
            lambda one=one: one.reverse(),
            lambda one=one: one.clear(),
            lambda one=one: one and one.__setitem__(0, number()),
            lambda one=one: one.__setitem__(slice(0, 2), [7]),
            lambda one=one: one.__imul__(2),
            lambda one=one: one.__init__([number(), 2]),
            lambda one=one: one.__delitem__(slice(0, 1)),
        )


@row(neutral=True)
def list_moved_in_memory(w: World) -> Iterator[Change]:
    """Its items are where they were, in another block of memory."""
    for one in (w.space.items, w.things[0].items, w.space.plain_list):

        def churn(one: Any = one) -> None:
            one.extend(range(500))
            del one[-500:]

        yield Change(churn)


@row()
def list_items(w: World) -> Iterator[Change]:
    items = w.space.items
    inner = items[2]
    yield from in_place(inner, lambda: inner.append(1), lambda: inner.__setitem__(1, [3]))
    innermost = inner[1]
    yield from in_place(innermost, lambda: innermost.append(4))
    plain = w.space.plain_list
    yield from in_place(plain, lambda: plain.append(3), lambda: list.__setitem__(plain, slice(0, 1), [9]))


@row()
def sets(w: World) -> Iterator[Change]:
    group = w.space.group
    yield from in_place(
        group,
        lambda: group.add("absent"),
        lambda: group.discard(1),
        lambda: group.clear(),
        lambda: group.update({5, 6}),
        lambda: group.symmetric_difference_update({1, 9}),
        lambda: group and group.pop(),
        lambda: (group.discard(1), group.add(True)),
    )
    yield from attribute(w.space, "frozen_group", lambda: frozenset({1, 2}), lambda: frozenset({1}), lambda: {1, 2})


@row()
def tuples_replaced(w: World) -> Iterator[Change]:
    yield from attribute(
        w.space, "nested", lambda: (1, (2, [3]), {"k": 1}), lambda: (1, (2, [4]), {"k": 1}), lambda: (1, 2), lambda: [1]
    )
    deepest = w.space.nested[1][1]
    yield from in_place(deepest, lambda: deepest.append(4), lambda: deepest.__setitem__(0, number()))
    yield from in_place(w.space.nested[2], lambda: w.space.nested[2].update(k=2))
    for thing in w.things[:3]:
        yield from attribute(thing, "pair", lambda: (1, (3, "x"), None), lambda: (1, (2, "x")), lambda: [1, (2, "x")])


@row()
def queues_and_own_containers(w: World) -> Iterator[Change]:
    queue, sized = w.space.queue, w.space.sized
    yield from in_place(queue, lambda: queue.append(3), lambda: queue.rotate(1), lambda: queue.clear())
    yield from in_place(sized.content, lambda: sized.content.append(3), lambda: sized.content.__setitem__(0, 9))
    yield from attribute(sized, "content", lambda: [1, 2], lambda: (1, 2), lambda: [1])
    yield from attribute(w.space.sly, "number", number)
