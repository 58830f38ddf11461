"""Changes of Python objects, each made after warm calls, undone and made again: compared with torch's verdicts."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..protocol import VERIFIED, Holder, Run, program


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Data:
    scale: int = 3
    text: str = "a"


@dataclasses.dataclass(frozen=True)
class Frozen:
    scale: int = 3


Point = collections.namedtuple("Point", "a b")


class Thing:
    shared = 5

    def __init__(self) -> None:
        self.scale, self.flag, self.none, self.text, self.ratio = 3, True, None, "a", 0.5
        self.items, self.pair, self.table = [1, 2, 3], (1, (2, 3)), {"k": 1, "deep": {"l": 2}}
        self.group, self.frozen = {1, 2}, frozenset({1, 2})
        self.ordered, self.default = collections.OrderedDict(a=1, b=2), collections.defaultdict(lambda: 4, a=1)
        self.queue, self.point = collections.deque([1, 2]), Point(1, 2)
        self.colour, self.data, self.cold = Colour.RED, Data(), Frozen()
        self.child = Holder()
        self.child.level, self.child.items = 1, [Holder(), Holder()]
        self.child.items[0].on, self.child.items[1].on = True, True
        self.space, self.dtype, self.device = types.SimpleNamespace(heads=2), torch.float32, torch.device("cpu")
        self.size, self.span, self.complex = torch.Size((2, 3)), range(3), 1j
        self.kind, self.function, self.partial = int, _double, functools.partial(_times, factor=2)
        self.layer = nn.Linear(2, 2)
        nn.init.ones_(self.layer.weight.data), nn.init.zeros_(self.layer.bias.data)
        self.net = nn.Sequential(nn.Identity(), nn.ReLU())
        self.slice, self.ellipsis, self.tensors = slice(0, 2), ..., [torch.ones(2), torch.ones(3)]

    def method(self, x: Any) -> Any:
        return x + self.shared

    @property
    def twice(self) -> int:
        return self.scale * 2

    @staticmethod
    def static(x: Any) -> Any:
        return x + 1

    @classmethod
    def of_class(cls, x: Any) -> Any:
        return x + cls.shared


def _double(x: Any) -> Any:
    return x * 2


def _triple(x: Any) -> Any:
    return x * 3


def _times(x: Any, factor: int) -> Any:
    return x * factor


class Elsewhere(Thing):
    shared = 6


def _set(name: str, value: Any) -> Callable[[Thing], Any]:
    return lambda t: setattr(t, name, value)


def _child(name: str, value: Any) -> Callable[[Thing], Any]:
    return lambda t: setattr(t.child, name, value)


def _class(name: str, value: Any) -> Callable[[Thing], Any]:
    return lambda t: setattr(Thing, name, value)


Use = Callable[[Any, Any], Any]
_number: dict[str, Use] = {
    "scale": lambda x, t: x * t.scale,
    "twice": lambda x, t: x * t.twice,
    "flag": lambda x, t: x * 2 if t.flag else x * 3,
    "none": lambda x, t: x * 2 if t.none is None else x * 3,
    "text": lambda x, t: x * 2 if t.text == "a" else x * 3,
    "ratio": lambda x, t: x * t.ratio,
    "items": lambda x, t: x * t.items[0] + len(t.items) + sum(t.items),
    "pair": lambda x, t: x * t.pair[1][0] + t.pair[0],
    "table": lambda x, t: x * t.table["k"] + t.table["deep"]["l"] + len(t.table),
    "order": lambda x, t: x * 2 if next(iter(t.table)) == "k" else x * 3,
    "in": lambda x, t: x * 2 if "more" in t.table else x * 3,
    "group": lambda x, t: x * 2 if 3 in t.group else x * 3,
    "frozen": lambda x, t: x * 2 if 3 in t.frozen else x * 3,
    "ordered": lambda x, t: x * next(iter(t.ordered.values())),
    "default": lambda x, t: x * t.default["a"],
    "queue": lambda x, t: x * t.queue[0] + len(t.queue),
    "point": lambda x, t: x * t.point.a,
    "colour": lambda x, t: x * 2 if t.colour is Colour.RED else x * 3,
    "data": lambda x, t: x * t.data.scale,
    "cold": lambda x, t: x * t.cold.scale,
    "child": lambda x, t: x * t.child.level,
    "items_of_child": lambda x, t: x * sum(1 for item in t.child.items if item.on),
    "space": lambda x, t: x * t.space.heads,
    "dtype": lambda x, t: x.to(t.dtype) + 1,
    "device": lambda x, t: x.to(t.device) + 1,
    "size": lambda x, t: x * t.size[0],
    "span": lambda x, t: x * len(t.span),
    "kind": lambda x, t: x * 2 if t.kind is int else x * 3,
    "function": lambda x, t: t.function(x),
    "partial": lambda x, t: t.partial(x),
    "layer": lambda x, t: t.layer(x),
    "training": lambda x, t: x * 2 if t.layer.training else x * 3,
    "net": lambda x, t: t.net(x * -1),
    "slice": lambda x, t: x[t.slice] * 2,
    "tensors": lambda x, t: x * t.tensors[0] + len(t.tensors),
    "method": lambda x, t: t.method(x),
    "static": lambda x, t: t.static(x),
    "of_class": lambda x, t: t.of_class(x),
    "shared": lambda x, t: x * t.shared,
    "absent": lambda x, t: x * (t.extra if hasattr(t, "extra") else 9),
    "getattr": lambda x, t: x * getattr(t, "extra", 9),
    "isinstance": lambda x, t: x * 2 if isinstance(t, Elsewhere) else x * 3,
    "type": lambda x, t: x * 2 if type(t) is Thing else x * 3,
    "same": lambda x, t: x * 2 if t.items is t.child.items else x * 3,
}

CHANGES: dict[str, tuple[str, Callable[[Thing], Any]]] = {
    "int": ("scale", _set("scale", 4)),
    "int to equal float": ("scale", _set("scale", 3.0)),
    "int to bool": ("scale", _set("scale", True)),
    "int deleted": ("scale", lambda t: delattr(t, "scale")),
    "int through vars": ("scale", lambda t: vars(t).update(scale=4)),
    "int behind a property": ("twice", _set("scale", 4)),
    "property replaced": ("twice", _class("twice", property(lambda self: 11))),
    "property by a number": ("twice", _class("twice", 11)),
    "bool": ("flag", _set("flag", False)),
    "bool to int": ("flag", _set("flag", 1)),
    "none": ("none", _set("none", 1)),
    "text": ("text", _set("text", "b")),
    "text to an equal subclass": ("text", _set("text", type("Text", (str,), {})("a"))),
    "float": ("ratio", _set("ratio", 0.25)),
    "float to nan": ("ratio", _set("ratio", float("nan"))),
    "float to minus zero": ("ratio", _set("ratio", -0.0)),
    "list element": ("items", lambda t: t.items.__setitem__(0, 9)),
    "list appended": ("items", lambda t: t.items.append(4)),
    "list replaced": ("items", _set("items", [3, 2, 1])),
    "list emptied": ("items", lambda t: t.items.clear()),
    "list to tuple": ("items", _set("items", (1, 2, 3))),
    "list reversed": ("items", lambda t: t.items.reverse()),
    "list to subclass": ("items", _set("items", type("List", (list,), {"__len__": lambda self: 8})([1, 2, 3]))),
    "tuple": ("pair", _set("pair", (1, (4, 3)))),
    "dict value": ("table", lambda t: t.table.update(k=2)),
    "dict deep": ("table", lambda t: t.table["deep"].update(l=5)),
    "dict key more": ("table", lambda t: t.table.update(more=1)),
    "dict key gone": ("table", lambda t: t.table.pop("k")),
    "dict replaced": ("table", _set("table", {"k": 7, "deep": {"l": 2}})),
    "dict order": ("order", lambda t: t.table.update(k=t.table.pop("k"))),
    "dict to a subclass": (
        "table",
        lambda t: setattr(
            t,
            "table",
            type("Table", (dict,), {"__getitem__": lambda self, key: {"l": 6} if key == "deep" else 6})(t.table),
        ),
    ),
    "membership": ("in", lambda t: t.table.update(more=1)),
    "set": ("group", lambda t: t.group.add(3)),
    "set replaced": ("group", _set("group", {1, 2, 3})),
    "frozenset": ("frozen", _set("frozen", frozenset({3}))),
    "ordered dict moved": ("ordered", lambda t: t.ordered.move_to_end("a")),
    "default dict": ("default", lambda t: t.default.update(a=2)),
    "default dict key gone": ("default", lambda t: t.default.pop("a")),
    "deque rotated": ("queue", lambda t: t.queue.rotate(1)),
    "deque appended": ("queue", lambda t: t.queue.append(1)),
    "named tuple": ("point", _set("point", Point(2, 2))),
    "named tuple to tuple subclass": ("point", _set("point", collections.namedtuple("Point", "b a")(1, 2))),
    "enum": ("colour", _set("colour", Colour.BLUE)),
    "dataclass field": ("data", lambda t: setattr(t.data, "scale", 4)),
    "dataclass default": ("data", lambda t: (delattr(t.data, "scale"), setattr(Data, "scale", 8))),
    "frozen dataclass": ("cold", _set("cold", Frozen(4))),
    "frozen dataclass written": ("cold", lambda t: object.__setattr__(t.cold, "scale", 5)),
    "object's attribute": ("child", _child("level", 2)),
    "object replaced": ("child", lambda t: setattr(t, "child", types.SimpleNamespace(level=5, items=[]))),
    "object's class": (
        "child",
        lambda t: setattr(t.child, "__class__", type("Own", (Holder,), {"level": property(lambda self: 6)})),
    ),
    "object in a list": ("items_of_child", lambda t: setattr(t.child.items[1], "on", False)),
    "object in a list replaced": (
        "items_of_child",
        lambda t: t.child.items.__setitem__(0, types.SimpleNamespace(on=False)),
    ),
    "namespace": ("space", lambda t: setattr(t.space, "heads", 3)),
    "dtype": ("dtype", _set("dtype", torch.float64)),
    "device": ("device", _set("device", torch.device("meta"))),
    "size": ("size", _set("size", torch.Size((4, 3)))),
    "size to tuple": ("size", _set("size", (5, 3))),
    "range": ("span", _set("span", range(4))),
    "type": ("kind", _set("kind", float)),
    "function": ("function", _set("function", _triple)),
    "function to lambda": ("function", _set("function", lambda x: x * 5)),
    "function to builtin": ("function", _set("function", torch.neg)),
    "function to module": ("function", lambda t: setattr(t, "function", nn.Identity())),
    "partial": ("partial", _set("partial", functools.partial(_times, factor=3))),
    "partial's keywords": ("partial", lambda t: t.partial.keywords.update(factor=4)),
    "layer's weight": ("layer", lambda t: setattr(t.layer, "weight", nn.Parameter(torch.ones(3, 2)))),
    "layer's bias": ("layer", lambda t: setattr(t.layer, "bias", None)),
    "layer replaced": ("layer", lambda t: setattr(t, "layer", nn.Identity())),
    "layer's hook": ("layer", lambda t: t.layer.register_forward_hook(lambda module, given, out: out + 3)),
    "layer's forward": ("layer", lambda t: setattr(t.layer, "forward", lambda x: x + 5)),
    "layer's class": (
        "layer",
        lambda t: setattr(t.layer, "__class__", type("L", (nn.Linear,), {"forward": lambda self, x: x + 6})),
    ),
    "training": ("training", lambda t: t.layer.eval()),
    "net's module": ("net", lambda t: t.net.__setitem__(1, nn.Identity())),
    "net longer": ("net", lambda t: t.net.append(nn.ReLU())),
    "net shorter": ("net", lambda t: t.net.__delitem__(1)),
    "slice": ("slice", _set("slice", slice(1, 2))),
    "tensor in a list": ("tensors", lambda t: t.tensors.__setitem__(0, torch.ones(2, 2))),
    "list of tensors longer": ("tensors", lambda t: t.tensors.append(torch.ones(2))),
    "method of the class": ("method", _class("method", lambda self, x: x + 30)),
    "method of the instance": ("method", lambda t: setattr(t, "method", lambda x: x + 40)),
    "method's code": ("method", lambda t: setattr(Thing.method, "__code__", (lambda self, x: x + 50).__code__)),
    "static method": ("static", _class("static", staticmethod(lambda x: x + 60))),
    "class method": ("of_class", _class("of_class", classmethod(lambda cls, x: x + 70))),
    "class attribute": ("shared", _class("shared", 7)),
    "class attribute shadowed": ("shared", _set("shared", 8)),
    "class attribute gone": ("shared", lambda t: delattr(Thing, "shared")),
    "class attribute of a method": ("method", _class("shared", 9)),
    "class": ("shared", lambda t: setattr(t, "__class__", Elsewhere)),
    "absent comes": ("absent", _set("extra", 2)),
    "absent comes to the class": ("absent", _class("extra", 2)),
    "absent comes by __getattr__": ("absent", _class("__getattr__", lambda self, name: 6)),
    "absent with a default": ("getattr", _set("extra", 2)),
    "isinstance": ("isinstance", lambda t: setattr(t, "__class__", Elsewhere)),
    "exact type": ("type", lambda t: setattr(t, "__class__", Elsewhere)),
    "identity": ("same", lambda t: setattr(t.child, "items", t.items)),
    "getattribute": ("scale", _class("__getattribute__", lambda self, name: object.__getattribute__(self, "shared"))),
    "slot hides the dict": ("scale", _class("scale", property(lambda self: 12))),
    "instance dict replaced": ("scale", lambda t: setattr(t, "__dict__", {**vars(t), "scale": 13})),
}


@program(variants=VERIFIED, change=tuple(CHANGES))
def changed_undone_changed(run: Run, change: str) -> None:
    which, apply = CHANGES[change]
    use, x, thing = _number[which], torch.ones(2), Thing()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.__dict__["thing"] = thing

        def forward(self, x: Any) -> Any:
            return use(x, self.thing)

    net = Net()
    as_argument, as_attribute = run.compile(use), run.compile(net)
    spots = (
        ("argument", lambda: as_argument(x, thing), lambda: use(x, thing)),
        ("module", lambda: as_attribute(x), lambda: net(x)),
    )
    classes = (Thing, Data)
    for _, compiled, _ in spots:
        run.warm(compiled)
    for turn in range(2):
        before = [dict(vars(kind)) for kind in classes]
        code = Thing.method.__code__
        saved = dict(vars(thing))
        apply(thing)
        for place, compiled, eager in spots:
            for _ in range(2):
                run.step(compiled, eager, f"{place} changed {turn}")
        for kind, names in zip(classes, before, strict=True):
            for name in set(vars(kind)) - set(names):
                delattr(kind, name)
            for name, value in names.items():
                if vars(kind).get(name) is not value:
                    setattr(kind, name, value)
        Thing.method.__code__ = code
        object.__setattr__(thing, "__class__", Thing)
        thing.__dict__ = saved
        fresh = Thing()
        for name in saved:
            setattr(thing, name, getattr(fresh, name))
        for place, compiled, eager in spots:
            run.step(compiled, eager, f"{place} undone {turn}")
            run.warm(compiled, 3)
