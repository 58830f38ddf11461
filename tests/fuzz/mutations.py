"""The table of what may happen to a guarded object: every way in which Python or torch changes one.

A row is a function of the world that yields :class:`Change` pairs, one for each object that it can happen to.
``change`` does it; ``restore`` puts back what guards may look at, whatever happened in between, and may be called at
any time. A change without a restore is one that no guard may notice, or that leaves the object as it was. Rows are
found by name in :data:`ROWS`.
"""

from __future__ import annotations

import collections
import copy
import ctypes
import functools
import gc
import itertools
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils import _device

from ..modes import Function, Hidden, Visible
from .world import Color, Point, World

Do = Callable[[], object]


class Change(NamedTuple):
    """Something that happens, and how it is undone."""

    change: Do
    restore: Do | None = None


class Row(NamedTuple):
    """A row of the table.

    Attributes:
        name: what it is called.
        changes: of a world.
        weight: how often it is drawn, relative to others.
        anywhere: whether it may happen at the very moment of a check: from another thread, or from user code that a
            guard runs. Not so where torch lets go of the GIL while it writes what guards read.
        neutral: that no guard set may notice it (save for those on dict versions).
    """

    name: str
    changes: Callable[[World], Iterator[Change]]
    weight: float
    anywhere: bool
    neutral: bool


ROWS: dict[str, Row] = {}


def row(weight: float = 1.0, *, anywhere: bool = True, neutral: bool = False) -> Callable[[Any], Any]:
    """Registers a row under its function's name."""

    def register(changes: Callable[[World], Iterator[Change]]) -> Callable[[World], Iterator[Change]]:
        ROWS[changes.__name__] = Row(changes.__name__, changes, weight, anywhere, neutral)
        return changes

    return register


# -- parts that rows are made of ---------------------------------------------------------------------------------------


def then(*steps: Do) -> Do:
    def do() -> None:
        for step in steps:
            step()

    return do


def setter(owner: Any, name: str, make: Callable[[], Any]) -> Do:
    return lambda: setattr(owner, name, make())


def put(owner: Any, name: str, value: Any) -> Do:
    return lambda: setattr(owner, name, value)


def attribute(owner: Any, name: str, *makers: Callable[[], Any]) -> Iterator[Change]:
    """The attribute bound to what each of ``makers`` gives, and back to the very object that it was."""
    back = put(owner, name, getattr(owner, name))
    for make in makers:
        yield Change(setter(owner, name, make), back)


def refill(target: Any) -> Do:
    """Puts the items of a dict, list or set back, in order."""
    if isinstance(target, dict):
        items = list(dict.items(target))

        def refill_dict() -> None:
            target.clear()
            for key, value in items:
                target[key] = value

        return refill_dict
    if isinstance(target, set):
        kept = set(target)
        return lambda: (target.clear(), target.update(kept))
    before = list(target)
    if isinstance(target, collections.deque):
        return lambda: (target.clear(), target.extend(before))
    return lambda: target.__setitem__(slice(None), before)


def in_place(target: Any, *changes: Do) -> Iterator[Change]:
    """Changes of the items of a container."""
    back = refill(target)
    for change in changes:
        yield Change(change, back)


def refill_attributes(owner: Any) -> Do:
    """Puts the instance dict back, in order. Makes the dict when there was none."""
    before = dict(vars(owner))

    def do() -> None:
        found = vars(owner)
        found.clear()
        found.update(before)

    return do


def without(kind: Any, name: str) -> Do:
    """Takes an attribute out of a class, if it is there."""
    return lambda: delattr(kind, name) if name in vars(kind) else None


def refill_class(kind: Any) -> Do:
    """Puts the attributes of a class back, in order, save for those of the language."""
    before = {name: value for name, value in vars(kind).items() if not name.startswith("__")}

    def do() -> None:
        for name in [name for name in vars(kind) if not name.startswith("__")]:
            delattr(kind, name)
        for name, value in before.items():
            setattr(kind, name, value)

    return do


fresh = itertools.count(1000)


def number() -> int:
    """A number that was not there before, above all small ones."""
    return next(fresh)


_c_setattr = ctypes.pythonapi.PyObject_SetAttr
_c_setattr.argtypes, _c_setattr.restype = [ctypes.py_object] * 3, ctypes.c_int
_c_generic_setattr = ctypes.pythonapi.PyObject_GenericSetAttr
_c_generic_setattr.argtypes, _c_generic_setattr.restype = [ctypes.py_object] * 3, ctypes.c_int
_c_setitem = ctypes.pythonapi.PyDict_SetItem
_c_setitem.argtypes, _c_setitem.restype = [ctypes.py_object] * 3, ctypes.c_int


def plain_objects(world: World) -> list[Any]:
    return [*world.things[:4], world.kept["target"]]


# -- attributes of plain objects ---------------------------------------------------------------------------------------


@row(3)
def setattr_value(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        yield from attribute(thing, "own", number, lambda: 2.0, lambda: True, lambda: None, lambda: [2])
        yield from attribute(thing, "text", lambda: "other", lambda: b"text", number)
        yield from attribute(thing, "real", lambda: -0.5, lambda: float("nan"))
        yield from attribute(thing, "flag", lambda: False, lambda: 1)


@row(2)
def setattr_equal_value(w: World) -> Iterator[Change]:
    """Another object that is equal: only guards on identity notice."""
    for thing in plain_objects(w):
        yield from attribute(thing, "text", lambda: "".join(["te", "xt"]))
        yield from attribute(thing, "real", lambda: float("0.5"))
        yield from attribute(thing, "items", lambda: [1, 2.5, "three", [4, (5,)]])
        yield from attribute(thing, "config", lambda: {"alpha": 0.5, "deep": {"k": [1]}, 3: None})
        yield from attribute(thing, "pair", lambda: (1, (2, "x"), None))
        yield from attribute(thing, "child", lambda: w.classes.Inline())


@row(2, neutral=True)
def setattr_same_object(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        for name in ("own", "text", "items", "config"):
            yield Change(put(thing, name, getattr(thing, name)))


@row(2)
def setattr_child(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        yield from attribute(thing, "child", lambda: None, lambda: w.classes.OtherInline(), lambda: w.classes.Slotted())
        yield from attribute(thing.child, "a", number, lambda: None)


@row(2)
def setattr_inline(w: World) -> Iterator[Change]:
    """Objects whose dict was never asked for."""
    for one in w.inlines:
        yield from attribute(one, "a", number, lambda: True)
        yield from attribute(one, "b", lambda: "c")
        yield from attribute(one, "items", lambda: [1, 2, 3], lambda: [1, 2])
        yield from attribute(one, "c", lambda: 1)


@row()
def inline_attribute_deleted(w: World) -> Iterator[Change]:
    def missing(one: Any) -> None:
        if hasattr(one, "c"):
            del one.c

    for one in w.inlines:
        yield Change(functools.partial(missing, one), put(one, "c", None))


@row()
def inline_attribute_added(w: World) -> Iterator[Change]:
    def drop(one: Any) -> None:
        if hasattr(one, "extra"):
            del one.extra

    for one in w.inlines:
        yield Change(setter(one, "extra", number), functools.partial(drop, one))


@row(0.3, neutral=True)
def inline_materialised(w: World) -> Iterator[Change]:
    """From here on the object has a dict of its own."""
    for one in w.inlines[3:]:
        yield Change(functools.partial(vars, one))


@row()
def inline_then_through_the_dict(w: World) -> Iterator[Change]:
    for one in w.inlines[4:]:
        yield Change(lambda one=one: vars(one).__setitem__("a", number()), put(one, "a", 1))


@row()
def many_attributes(w: World) -> Iterator[Change]:
    """More than an object keeps inline, or than a shared key table holds."""
    for thing in (w.things[0], w.inlines[5]):

        def grow(thing: Any = thing) -> None:
            for at in range(40):
                setattr(thing, f"grown{at}", at)

        yield Change(grow, refill_attributes(thing))


@row(2)
def object_setattr(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        yield Change(lambda thing=thing: object.__setattr__(thing, "own", number()), put(thing, "own", thing.own))
    frozen = w.space.frozen
    yield Change(
        lambda: object.__setattr__(frozen, "items", (5, 6)), lambda: object.__setattr__(frozen, "items", (1, 2))
    )
    yield Change(lambda: object.__setattr__(frozen, "width", number()), lambda: object.__setattr__(frozen, "width", 2))


@row()
def c_level_setattr(w: World) -> Iterator[Change]:
    for thing in (w.things[0], w.things[2], w.inlines[0], w.inlines[1]):
        name = "own" if hasattr(thing, "own") else "a"
        back = put(thing, name, getattr(thing, name))
        yield Change(lambda thing=thing, name=name: _c_setattr(thing, name, number()), back)
        yield Change(lambda thing=thing, name=name: _c_generic_setattr(thing, name, number()), back)


@row()
def delattr_and_back(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        back = refill_attributes(thing)
        yield Change(lambda thing=thing: vars(thing).pop("own", None), back)
        yield Change(lambda thing=thing: thing.__delattr__("items") if "items" in vars(thing) else None, back)


@row()
def attribute_order(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):

        def move(thing: Any = thing) -> None:
            before = vars(thing).pop("own", 2)
            thing.own = before

        yield Change(move, refill_attributes(thing))


@row()
def instance_dict_replaced(w: World) -> Iterator[Change]:
    """Another dict with the same items, then with others."""
    for thing in plain_objects(w):
        before = vars(thing)
        yield Change(lambda thing=thing: setattr(thing, "__dict__", dict(vars(thing))), put(thing, "__dict__", before))
        yield Change(
            lambda thing=thing: setattr(thing, "__dict__", {**vars(thing), "own": number()}),
            put(thing, "__dict__", before),
        )


@row(0.5)
def instance_dicts_exchanged(w: World) -> Iterator[Change]:
    one, two = w.things[0], w.things[1]
    first, second = vars(one), vars(two)

    def exchange() -> None:
        one.__dict__, two.__dict__ = vars(two), vars(one)

    yield Change(exchange, then(put(one, "__dict__", first), put(two, "__dict__", second)))


@row(2)
def through_the_instance_dict(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        back = refill_attributes(thing)
        yield Change(lambda thing=thing: vars(thing).__setitem__("own", number()), back)
        yield Change(lambda thing=thing: vars(thing).update(own=number(), text="new"), back)
        yield Change(lambda thing=thing: vars(thing).setdefault("extra", number()), back)
        yield Change(lambda thing=thing: vars(thing).popitem(), back)
        yield Change(lambda thing=thing: vars(thing).clear(), back)
        yield Change(lambda thing=thing: vars(thing).__ior__({"own": number()}), back)
        yield Change(lambda thing=thing: _c_setitem(vars(thing), "own", number()), back)
        yield Change(lambda thing=thing: vars(thing).pop("own", None), back)
        yield Change(lambda thing=thing: vars(thing).__setitem__(1, 2), back)  # no longer only text


@row(2)
def class_assigned(w: World) -> Iterator[Change]:
    made = w.classes
    for thing in plain_objects(w):
        yield Change(put(thing, "__class__", made.Twin), put(thing, "__class__", made.Thing))
    for one in w.inlines[2:]:  # it makes the dict of the object, and some are to keep their values inline
        yield Change(put(one, "__class__", made.OtherInline), put(one, "__class__", made.Inline))
    slotted = w.space.slotted
    yield Change(put(slotted, "__class__", made.SlottedTwin), put(slotted, "__class__", made.Slotted))


@row()
def slots(w: World) -> Iterator[Change]:
    slotted = w.space.slotted

    def missing() -> None:
        if hasattr(slotted, "b"):
            del slotted.b

    back = put(slotted, "b", slotted.b)
    yield from attribute(slotted, "a", number, lambda: True)
    yield Change(missing, back)
    yield Change(setter(slotted, "b", lambda: [1, 2]), back)
    yield Change(put(slotted, "c", 1), lambda: slotted.__delattr__("c") if hasattr(slotted, "c") else None)


@row()
def behind_a_property(w: World) -> Iterator[Change]:
    for thing in plain_objects(w):
        yield from attribute(thing, "_value", number)


@row()
def behind_getattr(w: World) -> Iterator[Change]:
    dynamic = w.space.dynamic
    yield from in_place(
        dynamic.table,
        lambda: dynamic.table.update(found=number()),
        lambda: dynamic.table.pop("found", None),
        lambda: dynamic.table.update(extra=1),
    )
    yield Change(setter(dynamic, "found", lambda: 1), lambda: vars(dynamic).pop("found", None))
    yield Change(setter(dynamic, "found", number), lambda: vars(dynamic).pop("found", None))
    yield from attribute(w.space.hooked, "seen", number)


@row()
def shadowing(w: World) -> Iterator[Change]:
    """An attribute of the class, found in the instance from now on."""
    for thing in plain_objects(w):
        back = refill_attributes(thing)
        for name in ("shared", "level", "method", "table"):
            yield Change(setter(thing, name, number), back)
        yield Change(lambda thing=thing: setattr(thing, "shared", type(thing).shared), back)


@row()
def namespaces(w: World) -> Iterator[Change]:
    space = w.space.name_space
    yield from attribute(space, "heads", number)
    yield from attribute(space.inner, "eps", lambda: 0.25)
    yield from attribute(space, "inner", lambda: types.SimpleNamespace(eps=0.5))
    yield Change(setter(space, "extra", number), lambda: vars(space).pop("extra", None))


@row()
def dataclasses_and_namedtuples(w: World) -> Iterator[Change]:
    config = w.space.config
    yield from attribute(config, "width", number)
    yield from attribute(config, "inner", lambda: w.classes.Config(3), lambda: w.classes.Config(4), lambda: None)
    yield from attribute(config.inner, "name", lambda: "b")
    yield from attribute(w.space, "point", Point, lambda: Point(1, 3), lambda: (1, 2))
    yield from attribute(w.space, "frozen", w.classes.Frozen, lambda: w.classes.Frozen(3))


@row(2)
def below_the_space(w: World) -> Iterator[Change]:
    """What the one object above everything else holds is replaced."""
    space = w.space
    yield from attribute(space, "color", lambda: Color.BLUE, lambda: 1)
    yield from attribute(space, "dtype", lambda: torch.float64, lambda: "float32")
    yield from attribute(space, "device", lambda: torch.device("cpu"), lambda: torch.device("meta"))
    yield from attribute(space, "size", lambda: torch.Size([2, 3]), lambda: torch.Size([3]), lambda: (2, 3))
    yield from attribute(space, "span", lambda: range(1, 9, 2), lambda: range(1, 7, 2))
    yield from attribute(space, "part", lambda: slice(1, 4), lambda: slice(1, 5))
    yield from attribute(space, "nan", lambda: float("nan"), lambda: -float("nan"), lambda: 1.0)
    yield from attribute(space, "zero", lambda: -0.0, lambda: 0, lambda: 5e-324)
    yield from attribute(space, "pole", lambda: complex(1, float("nan")), lambda: 1j, lambda: complex(float("nan"), 1))
    yield from attribute(space, "octets", lambda: bytes([111, 99]), lambda: "octets")
    yield from attribute(space, "thing_class", lambda: w.classes.Twin, lambda: int)
    yield from attribute(space, "bare", lambda: w.functions.other, lambda: len)
    yield from attribute(space, "method", lambda: w.things[0].method, lambda: w.things[1].method)
    yield from attribute(space, "partial", lambda: functools.partial(w.functions.helper, a=2), lambda: None)


# -- modules -----------------------------------------------------------------------------------------------------------


def layers(w: World) -> list[Any]:
    return w.layers[:4]


@row(2)
def module_attribute(w: World) -> Iterator[Change]:
    for layer in layers(w):
        yield from attribute(layer, "flag", lambda: False, lambda: 1)
        yield from attribute(layer, "eps", lambda: 0.25, lambda: 1)
        yield from attribute(layer.inner, "limit", number, lambda: True)
        yield from attribute(layer.norm, "eps", lambda: 1e-3)


@row(3)
def module_counter(w: World) -> Iterator[Change]:
    """A counter on a module, counted up with every call: nothing is guarded on it."""
    for layer in (*w.layers, w.layers[0].inner):

        def count(layer: Any = layer) -> None:
            layer.calls = getattr(layer, "calls", 0) + 1

        yield Change(count, lambda layer=layer: vars(layer).pop("calls", None))


@row()
def train_and_eval(w: World) -> Iterator[Change]:
    for layer in layers(w):
        yield Change(lambda layer=layer: layer.eval(), lambda layer=layer: layer.train())
        yield Change(lambda layer=layer: layer.norm.eval(), lambda layer=layer: layer.train())
        yield Change(lambda layer=layer: layer.blocks[1].eval(), lambda layer=layer: layer.train())


def refill_module(layer: Any) -> Do:
    """The dicts of a module put back: the objects themselves, and what is in them."""
    back = [refill(getattr(layer, name)) for name in ("_parameters", "_buffers", "_modules")]
    return then(refill_attributes(layer), *back)


@row(2)
def submodule_replaced(w: World) -> Iterator[Change]:
    for layer in layers(w):
        back = refill_module(layer)
        yield Change(setter(layer, "linear", lambda: nn.Linear(3, 3)), back)
        yield Change(setter(layer, "norm", nn.Identity), back)
        yield Change(setter(layer, "inner", lambda: w.classes.Inner()), back)
        yield Change(setter(layer, "inner", lambda: w.classes.OtherInner()), back)
        yield Change(lambda layer=layer: layer.add_module("inner", None), back)
        yield Change(lambda layer=layer: layer._modules.pop("norm", None), back)
        yield Change(lambda layer=layer: layer._modules.update(norm=layer._modules.get("linear")), back)


@row(2)
def parameter_replaced(w: World) -> Iterator[Change]:
    for layer in layers(w):
        linear, back = layer.linear, refill_module(layer.linear)
        yield Change(setter(linear, "weight", lambda: nn.Parameter(torch.ones(3, 3))), back)
        yield Change(setter(linear, "weight", lambda: nn.Parameter(torch.ones(4, 3))), back)
        yield Change(setter(linear, "bias", lambda: None), back)
        yield Change(lambda linear=linear: linear._parameters.update(weight=torch.ones(3, 3)), back)
        yield Change(lambda linear=linear: linear.register_parameter("more", nn.Parameter(torch.ones(1))), back)
        yield Change(lambda linear=linear: linear._parameters.pop("bias", None), back)


@row()
def buffer_replaced(w: World) -> Iterator[Change]:
    for layer in layers(w):
        inner, back = layer.inner, refill_module(layer.inner)
        yield Change(setter(inner, "offset", lambda: torch.zeros(3)), back)
        yield Change(setter(inner, "offset", lambda: torch.zeros(4)), back)
        yield Change(setter(inner, "offset", lambda: None), back)
        yield Change(lambda inner=inner: inner.register_buffer("more", torch.zeros(1)), back)


@row()
def module_dicts_replaced(w: World) -> Iterator[Change]:
    """The dict of parameters, buffers or modules is another one, with the same items or fewer."""
    for layer in layers(w):
        for module, name in ((layer, "_modules"), (layer.linear, "_parameters"), (layer.inner, "_buffers")):
            yield from attribute(
                module,
                name,
                lambda module=module, name=name: dict(getattr(module, name)),
                lambda module=module, name=name: collections.OrderedDict(getattr(module, name)),
                dict,
            )


@row()
def module_class(w: World) -> Iterator[Change]:
    for layer in layers(w):
        yield Change(put(layer, "__class__", w.classes.OtherLayer), put(layer, "__class__", w.classes.Layer))
        yield Change(
            put(layer.inner, "__class__", w.classes.OtherInner), put(layer.inner, "__class__", w.classes.Inner)
        )


@row()
def module_instance_dict(w: World) -> Iterator[Change]:
    for layer in layers(w):
        for module in (layer, layer.inner):
            before = vars(module)
            yield Change(
                lambda module=module: setattr(module, "__dict__", dict(vars(module))), put(module, "__dict__", before)
            )
            yield Change(
                lambda module=module: module.__setstate__(copy.copy(module.__dict__)), refill_attributes(module)
            )


@row()
def module_lists(w: World) -> Iterator[Change]:
    for layer in layers(w):
        blocks, back = layer.blocks, refill_module(layer.blocks)
        heads = layer.heads
        yield Change(lambda blocks=blocks: blocks.append(w.classes.Inner()), back)
        yield Change(lambda blocks=blocks: blocks.insert(0, w.classes.Inner()), back)
        yield Change(lambda blocks=blocks: len(blocks) and blocks.pop(-1), back)
        yield Change(lambda blocks=blocks: blocks.__setitem__(0, w.classes.Inner()) if len(blocks) else None, back)
        yield Change(
            lambda heads=heads: heads._modules.update(a=heads._modules.get("b"), b=heads._modules.get("a")),
            refill(heads._modules),
        )


@row()
def module_forward_and_hooks(w: World) -> Iterator[Change]:
    for layer in layers(w):
        yield Change(setter(layer, "forward", lambda: len), lambda layer=layer: vars(layer).pop("forward", None))
        for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            hooks = getattr(layer.linear, name)
            yield Change(lambda hooks=hooks: hooks.__setitem__(number(), len), refill(hooks))


@row(0.4, anywhere=False)
def module_to(w: World) -> Iterator[Change]:
    """``.to()`` and its like: the data of each parameter is another, or each parameter is."""
    for layer in w.layers[:2]:
        linear = layer.linear
        yield Change(lambda linear=linear: linear.to(torch.float64), lambda linear=linear: linear.to(torch.float32))
        yield Change(lambda linear=linear: linear.double().float())
        yield Change(lambda linear=linear: linear.half(), lambda linear=linear: linear.float())
        back = then(refill(linear._parameters), lambda linear=linear: linear.to(torch.float32))

        def overwritten(linear: Any = linear) -> None:
            torch.__future__.set_overwrite_module_params_on_conversion(True)
            try:
                linear.to(torch.float64)
            finally:
                torch.__future__.set_overwrite_module_params_on_conversion(False)

        def swapped(linear: Any = linear) -> None:
            torch.__future__.set_swap_module_params_on_conversion(True)
            try:
                linear.to(torch.float64)
            except RuntimeError:
                pass  # somebody holds a weak reference
            finally:
                torch.__future__.set_swap_module_params_on_conversion(False)

        yield Change(overwritten, back)
        yield Change(swapped, back)


@row(0.5, anywhere=False)
def module_requires_grad(w: World) -> Iterator[Change]:
    for layer in layers(w):
        yield Change(
            lambda layer=layer: layer.linear.requires_grad_(False),
            lambda layer=layer: layer.linear.requires_grad_(True),
        )


@row(0.2, anywhere=False)
def load_state_dict(w: World) -> Iterator[Change]:
    for layer in w.layers[:2]:
        linear, back = layer.linear, refill(layer.linear._parameters)
        yield Change(lambda linear=linear: linear.load_state_dict(linear.state_dict()))
        yield Change(
            lambda linear=linear: linear.load_state_dict(
                {"weight": torch.ones(3, 3), "bias": torch.ones(3)}, assign=True
            ),
            back,
        )


# -- containers --------------------------------------------------------------------------------------------------------


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


# -- classes -----------------------------------------------------------------------------------------------------------


@row(2)
def class_attributes(w: World) -> Iterator[Change]:
    made = w.classes
    yield from attribute(made.Thing, "shared", number, lambda: 1.0)
    yield from attribute(made.Thing, "table", lambda: {"a": 1, "b": [1, 2]}, lambda: None)
    yield from attribute(made.Root, "level", number)
    yield from attribute(made.Base, "family", lambda: "other")
    yield from attribute(made.Layer, "scale", number)
    yield from attribute(made.Inline, "kind", lambda: "other")
    table = made.Thing.table
    below = table["b"]
    yield from in_place(table, lambda: table.__setitem__("a", number()), lambda: table.clear())
    yield from in_place(below, lambda: below.reverse(), lambda: below.append(3))
    yield Change(lambda: type.__setattr__(made.Thing, "shared", number()), put(made.Thing, "shared", 1))


@row()
def class_attribute_added(w: World) -> Iterator[Change]:
    """Between the object and where an attribute of it is found, or where none was."""

    made = w.classes
    targets: list[tuple[Any, str]] = [(made.Thing, "level"), (made.Base, "level"), (made.Thing, "extra")]
    targets += [(made.Root, "extra"), (made.Inline, "extra"), (made.Layer, "extra"), (made.Thing, "unrelated")]
    targets += [(made.Slotted, "extra"), (made.Meta, "extra"), (made.Inner, "calls")]
    for kind, name in targets:
        yield Change(setter(kind, name, number), without(kind, name))


@row()
def class_attribute_deleted(w: World) -> Iterator[Change]:
    made = w.classes
    for kind, name in ((made.Thing, "shared"), (made.Base, "family"), (made.Inline, "kind"), (made.Thing, "value")):
        back = refill_class(kind)
        back()  # now what has no dunder comes last, as it will whenever it is put back
        yield Change(without(kind, name), back)


@row()
def class_descriptors(w: World) -> Iterator[Change]:
    """A property or a ``__getattr__`` comes to a class: it goes before what the instance has, or answers for it."""

    made = w.classes
    for kind, name in ((made.Thing, "own"), (made.Inline, "a"), (made.Thing, "text")):
        yield Change(put(kind, name, property(lambda self: 77)), without(kind, name))
    yield from attribute(made.Slotted, "a", lambda: property(lambda self: 77))
    for kind in (made.Thing, made.Inline, made.Slotted):
        for name in ("__getattr__", "__getattribute__"):
            yield Change(put(kind, name, lambda self, name: 77), without(kind, name))
    yield Change(
        put(made.Thing, "value", property(lambda self: 5)), put(made.Thing, "value", vars(made.Thing)["value"])
    )
    yield Change(put(made.Thing, "__len__", lambda self: 3), without(made.Thing, "__len__"))


@row()
def class_bases(w: World) -> Iterator[Change]:
    made = w.classes
    yield Change(put(made.Thing, "__bases__", (made.OtherBase,)), put(made.Thing, "__bases__", (made.Base,)))
    yield Change(put(made.Twin, "__bases__", (made.OtherBase,)), put(made.Twin, "__bases__", (made.Thing,)))


@row()
def metaclass(w: World) -> Iterator[Change]:
    made = w.classes
    yield from attribute(made.Meta, "tag", number)
    yield Change(put(made.Thing, "__class__", made.OtherMeta), put(made.Thing, "__class__", made.Meta))
    yield Change(put(made.Meta, "computed", 5), put(made.Meta, "computed", vars(made.Meta)["computed"]))
    yield Change(
        put(made.Meta, "shared", property(lambda cls: 5)),
        lambda: "shared" in vars(made.Meta) and delattr(made.Meta, "shared"),
    )


@row()
def class_attribute_becomes_a_descriptor(w: World) -> Iterator[Change]:
    made = w.classes
    yield from attribute(made.Thing, "worn", made.Worn, number)
    for name in ("__get__", "__set__"):
        yield Change(put(made.Worn, name, lambda *_: 77), without(made.Worn, name))
    worn = made.Thing.worn
    descriptors = type("Descriptor", (), {"__get__": lambda *_: 77})
    yield Change(put(worn, "__class__", descriptors), put(worn, "__class__", made.Worn))


@row()
def members_of_an_enumeration(w: World) -> Iterator[Change]:
    shades = w.classes.Shade
    dark, light = shades.DARK, shades.LIGHT
    yield Change(
        lambda: type.__setattr__(shades, "DARK", light),
        lambda: type.__setattr__(shades, "DARK", dark),
    )
    yield from attribute(dark, "_value_", number)


@row()
def metaclass_answers(w: World) -> Iterator[Change]:
    meta = w.classes.Meta
    yield Change(put(meta, "__getattr__", lambda cls, name: 77), without(meta, "__getattr__"))

    def instead(cls: Any, name: str) -> Any:
        return 77 if name in ("shared", "worn") else type.__getattribute__(cls, name)

    yield Change(put(meta, "__getattribute__", instead), without(meta, "__getattribute__"))


@row()
def class_names(w: World) -> Iterator[Change]:
    yield from attribute(w.classes.Thing, "__name__", lambda: "Renamed")
    yield from attribute(w.classes.Thing, "__qualname__", lambda: "Renamed")
    yield from attribute(w.classes.Thing, "__doc__", lambda: "text")


@row(0.5, neutral=True)
def subclasses_come_and_go(w: World) -> Iterator[Change]:
    yield Change(lambda: type("Temporary", (w.classes.Thing,), {"shared": 5})().own)
    yield Change(lambda: type("Temporary", (w.classes.Layer,), {}))


# -- functions and cells -----------------------------------------------------------------------------------------------


@row(2)
def function_fields(w: World) -> Iterator[Change]:
    helper, other = w.functions.helper, w.functions.other
    yield from attribute(helper, "__code__", lambda: other.__code__, lambda: helper.__code__.replace(co_name="renamed"))
    yield from attribute(helper, "__defaults__", lambda: (4,), lambda: (2,), lambda: None, lambda: (torch.ones(2), 2))
    yield from attribute(
        helper, "__kwdefaults__", lambda: {"b": 4, "c": None}, lambda: {"b": 3, "c": None}, lambda: None
    )
    yield from attribute(helper, "__name__", lambda: "renamed")
    yield from attribute(helper, "__qualname__", lambda: "renamed")
    yield Change(setter(helper, "extra", number), lambda: vars(helper).pop("extra", None))
    note = vars(helper)["note"]
    yield from in_place(note, lambda: note.update(k=number()))


@row(2)
def function_kwdefaults_in_place(w: World) -> Iterator[Change]:
    defaults = w.functions.helper.__kwdefaults__
    yield from in_place(
        defaults,
        lambda: defaults.update(b=number()),
        lambda: defaults.pop("c", None),
        lambda: defaults.clear(),
        lambda: defaults.setdefault("d", 1),
    )


@row(2)
def cells(w: World) -> Iterator[Change]:
    def emptied(cell: Any) -> None:
        try:
            del cell.cell_contents
        except ValueError:
            pass

    for cell in w.functions.helper.__closure__:
        before = cell.cell_contents
        back = put(cell, "cell_contents", before)
        yield Change(setter(cell, "cell_contents", number), back)
        yield Change(setter(cell, "cell_contents", lambda before=before: copy.copy(before)), back)
        yield Change(functools.partial(emptied, cell), back)
        if isinstance(before, list):
            yield from in_place(before, lambda before=before: before.append(1), lambda before=before: before.clear())


@row()
def partials(w: World) -> Iterator[Change]:
    partial = w.space.partial
    before = (*partial.__reduce__()[2][:3], vars(partial))
    for state in ((w.functions.other, (), {"a": 2}, {}), (w.functions.helper, (1,), {"a": 3}, None)):
        yield Change(lambda state=state: partial.__setstate__(state), lambda: partial.__setstate__(before))


# -- globals, inputs, weak references ----------------------------------------------------------------------------------


@row(2)
def global_variables(w: World) -> Iterator[Change]:
    scope = w.scope
    yield from in_place(
        scope,
        lambda: scope.update(number=number()),
        lambda: scope.pop("number", None),
        lambda: scope.update(items=[1, 2]),
        lambda: scope.update(helper=w.functions.other),
        lambda: scope.update(unrelated=number()),
        lambda: scope.update(extra=number()),
    )
    items = scope["items"]
    yield from in_place(items, lambda: items.append(3), lambda: items.__setitem__(0, number()))


@row(3)
def global_step(w: World) -> Iterator[Change]:
    """A global that is counted up with every call."""

    def count() -> None:
        w.scope["step"] = w.scope.get("step", 0) + 1

    yield Change(count, lambda: w.scope.update(step=0))


@row(2)
def weak_references(w: World) -> Iterator[Change]:
    scope, kept, space = w.scope, w.kept, w.space
    target, layer_ref, target_ref = kept["target"], scope["layer_ref"], scope["ref"]
    back = lambda: (scope.__setitem__("ref", target_ref), scope.__setitem__("layer_ref", layer_ref))  # noqa: E731
    yield Change(lambda: scope.__setitem__("ref", weakref.ref(target)), back)
    yield Change(lambda: scope.__setitem__("ref", weakref.ref(w.classes.Thing())), back)
    yield Change(lambda: scope.__setitem__("layer_ref", weakref.ref(w.layers[1])), back)
    yield Change(lambda: scope.__setitem__("layer_ref", weakref.proxy(w.layers[0])), back)
    yield Change(lambda: scope.__setitem__("layer_ref", w.layers[0]), back)
    yield from attribute(space, "ref", lambda: weakref.ref(w.things[0]), lambda: weakref.ref(w.things[1]), lambda: None)


@row()
def weak_target_dies(w: World) -> Iterator[Change]:
    """The target of a weak reference goes, and another one comes to where it was."""
    space = w.space
    make = w.classes.Slotted
    space.mortal.target = make()
    space.mortal.ref = weakref.ref(space.mortal.target)

    def reborn(number_of: int) -> None:
        made = make()
        made.a = number_of
        space.mortal.target = made
        space.mortal.ref = weakref.ref(made)

    yield Change(lambda: setattr(space.mortal, "target", None), lambda: reborn(1))
    yield Change(lambda: reborn(1))
    yield Change(lambda: (setattr(space.mortal, "target", None), reborn(2)), lambda: reborn(1))


@row(3)
def inputs(w: World) -> Iterator[Change]:
    """What a call passes is another object in every call; here it is one that differs."""
    given, kwargs = w.inputs, w.kwargs
    yield from in_place(
        given,
        lambda: given.update(x=torch.zeros(2, 3)),
        lambda: given.update(x=torch.ones(2, 4)),
        lambda: given.update(x=torch.ones(2, 3, dtype=torch.float64)),
        lambda: given.update(x=torch.ones(2, 3, requires_grad=True)),
        lambda: given.update(x=torch.ones(3, 2).t()),
        lambda: given.update(x=None),
        lambda: given.update(n=number()),
        lambda: given.update(n=5.0),
        lambda: given.update(text="other"),
        lambda: given.update(text="".join(["mo", "de"])),
        lambda: given.update(real=1.25),
        lambda: given.pop("real", None),
        lambda: given.update(extra=1),
    )
    yield Change(lambda: setattr(w, "advanced", 2), lambda: setattr(w, "advanced", 1))
    yield from in_place(
        kwargs,
        lambda: kwargs.update(flag=False),
        lambda: kwargs.pop("mask", None),
        lambda: kwargs.update(mask=torch.zeros(3)),
        lambda: kwargs.update(mask=torch.zeros(2)),
        lambda: kwargs.update(extra=1),
        lambda: kwargs.update(scale=float("2.0")),
        lambda: kwargs.__setitem__("mask", kwargs.pop("mask", None)),
    )


@row(2)
def roots(w: World) -> Iterator[Change]:
    """Another object in the place of a root, or two that changed places."""
    for group, make in ((w.layers, w.classes.Layer), (w.things, w.classes.Thing), (w.inlines, w.classes.Inline)):
        back = refill(group)
        if make is not w.classes.Layer:  # one that costs little to make
            yield Change(lambda group=group, make=make: group.__setitem__(3, make()), back)
        yield Change(lambda group=group: group.reverse(), back)
        yield Change(lambda group=group: group.__setitem__(0, None), back)


# -- tensors -----------------------------------------------------------------------------------------------------------


def scratch(w: World) -> Iterator[tuple[torch.Tensor, Do]]:
    """Tensors that are changed in place, each with what makes it as it was."""
    for tensor in w.space.scratch:

        def back(tensor: Any = tensor) -> None:
            if type(tensor) is not torch.Tensor:
                tensor.__class__ = torch.Tensor
            tensor.requires_grad_(False)
            tensor.data = torch.ones(2, 3)
            tensor.grad = None

        yield tensor, back


@row(3, anywhere=False)
def tensor_data(w: World) -> Iterator[Change]:
    for tensor, back in scratch(w):
        yield Change(setter(tensor, "data", lambda: torch.zeros(2, 3)), back)
        yield Change(setter(tensor, "data", lambda: torch.ones(3, 3)), back)
        yield Change(setter(tensor, "data", lambda: torch.ones(2, 3, dtype=torch.float64)), back)
        yield Change(setter(tensor, "data", lambda: torch.ones(3, 2).t()), back)
        yield Change(setter(tensor, "data", lambda: torch.ones(1, 2, 3)), back)
        yield Change(setter(tensor, "data", lambda: torch.ones(12)[6:].view(2, 3)), back)


@row(3, anywhere=False)
def tensor_metadata_in_place(w: World) -> Iterator[Change]:
    for tensor, back in scratch(w):
        yield Change(lambda tensor=tensor: tensor.detach().resize_(4, 3) is tensor.resize_(4, 3), back)
        yield Change(lambda tensor=tensor: tensor.t_() if tensor.dim() <= 2 else None, back)
        yield Change(lambda tensor=tensor: tensor.unsqueeze_(0), back)
        yield Change(lambda tensor=tensor: tensor.set_(torch.ones(2, 3)), back)
        yield Change(lambda tensor=tensor: tensor.set_(torch.ones(3)), back)
        yield Change(lambda tensor=tensor: tensor.set_(torch.ones(12).untyped_storage(), 2, (2, 3), (3, 1)), back)
        yield Change(lambda tensor=tensor: tensor.as_strided_((2, 2), (1, 1)), back)
        yield Change(lambda tensor=tensor: tensor.untyped_storage().resize_(0), back)
        yield Change(lambda tensor=tensor: tensor.requires_grad_(not tensor.requires_grad), back)
        yield Change(lambda tensor=tensor: tensor.swapaxes_(0, 1) if tensor.dim() > 1 else None, back)


@row(2, anywhere=False, neutral=True)
def tensor_values(w: World) -> Iterator[Change]:
    """Only the numbers in it: no guard reads them."""
    for tensor in w.space.scratch:
        # Another row may have taken its memory away.
        yield Change(lambda tensor=tensor: tensor.untyped_storage().nbytes() > 0 and tensor.detach().add_(1))
        yield Change(lambda tensor=tensor: tensor.untyped_storage().nbytes() > 0 and tensor.detach().zero_())


@row(anywhere=False)
def tensor_class(w: World) -> Iterator[Change]:
    for tensor, back in scratch(w):
        yield Change(put(tensor, "__class__", w.classes.Subclass), back)
    param = w.space.param
    yield Change(put(param, "__class__", torch.nn.Buffer), put(param, "__class__", nn.Parameter))


@row(anywhere=False)
def tensors_swapped(w: World) -> Iterator[Change]:
    """``swap_tensors``: two objects exchange what they stand for."""
    one, two = w.space.scratch[:2]
    other = torch.ones(3, 4, dtype=torch.float64)
    same = torch.ones(2, 3)
    backs = {id(tensor): back for tensor, back in scratch(w)}

    def swap(first: Any, second: Any) -> None:
        try:
            torch.utils.swap_tensors(first, second)
        except RuntimeError:
            pass  # somebody holds a weak reference, or autograd its accumulator

    def back() -> None:
        for tensor in (other, same):
            if tensor.requires_grad:
                tensor.requires_grad_(False)
            tensor.__class__ = torch.Tensor
        other.data, same.data = torch.ones(3, 4, dtype=torch.float64), torch.ones(2, 3)
        backs[id(one)]()
        backs[id(two)]()

    yield Change(lambda: swap(one, other), back)
    yield Change(lambda: swap(one, same), back)
    yield Change(lambda: swap(one, two), back)


@row(anywhere=False)
def tensor_grad(w: World) -> Iterator[Change]:
    graded = w.space.graded
    before = graded.grad
    back = lambda: (graded.requires_grad_(True), setattr(graded, "grad", before))  # noqa: E731
    yield Change(put(graded, "grad", None), back)
    yield Change(setter(graded, "grad", lambda: torch.zeros(2)), back)
    yield Change(lambda: graded.sum().backward(), back)
    for one in w.space.groups[0]["params"]:
        kept = one.grad
        yield Change(put(one, "grad", None), put(one, "grad", kept))
        yield Change(setter(one, "grad", lambda: torch.ones(3)), put(one, "grad", kept))
        yield Change(lambda one=one: one.requires_grad_(False), lambda one=one: one.requires_grad_(True))


@row(anywhere=False)
def gradient_swapped(w: World) -> Iterator[Change]:
    """The gradient is the same to C++, and another object to Python."""
    for one in w.space.groups[0]["params"]:
        kept, other = one.grad, torch.ones(3)

        def swap(one: Any = one, kept: Any = kept, other: Any = other) -> None:
            if one.grad is kept:
                torch._C._swap_tensor_impl(kept, other)  # swap_tensors() refuses what autograd holds

        yield Change(swap, put(one, "grad", kept))


@row(anywhere=False)
def tensor_attributes(w: World) -> Iterator[Change]:
    noted, marked = w.space.noted, w.space.marked
    before = dict(vars(marked))
    refills = [refill(value) for value in before.values() if isinstance(value, (set, dict))]

    def unmarked() -> None:
        vars(marked).clear()
        vars(marked).update(before)
        for fill in refills:
            fill()

    plain = w.space.scratch[3]
    yield from attribute(noted, "note", lambda: {"k": 1}, number)
    yield from in_place(noted.note, lambda: noted.note.update(k=number()))
    yield Change(setter(noted, "extra", number), lambda: vars(noted).pop("extra", None))
    yield Change(lambda: torch._dynamo.mark_dynamic(marked, 1), unmarked)
    yield Change(lambda: torch._dynamo.mark_static(marked, 1), unmarked)
    yield Change(lambda: torch._dynamo.maybe_mark_dynamic(marked, 1), unmarked)
    yield Change(lambda: vars(marked).pop("_has_dynamo_dim_marking", None), unmarked)
    yield Change(lambda: vars(marked).clear(), unmarked)
    yield Change(lambda: torch._dynamo.mark_dynamic(plain, 0), lambda: vars(plain).clear())
    yield Change(lambda: torch._dynamo.mark_static(plain, 0), lambda: vars(plain).clear())


@row()
def tensors_replaced(w: World) -> Iterator[Change]:
    space = w.space
    yield from attribute(space, "view", lambda: torch.ones(2, 3), lambda: space.base[:6].view(2, 3), lambda: space.base)
    yield from attribute(space, "same_again", lambda: torch.arange(12.0), lambda: space.base.view(12))
    yield from attribute(space, "conj", lambda: space.conj.conj(), lambda: torch.ones(2, dtype=torch.complex128))
    yield from attribute(space, "meta", lambda: torch.ones(2, 3), lambda: torch.ones(2, 3, device="meta"))
    yield from attribute(space, "sparse", lambda: torch.eye(3), lambda: torch.eye(3).to_sparse())
    yield from attribute(
        space, "subclass", lambda: torch.ones(2, 3), lambda: torch.ones(2, 3).as_subclass(w.classes.Subclass)
    )
    yield from attribute(space, "param", lambda: torch.ones(2, 3), lambda: nn.Parameter(torch.ones(2, 3), False))
    yield from in_place(
        space.ranks,
        lambda: space.ranks.__setitem__(3, torch.ones(2, 3, 4)),
        lambda: space.ranks.__setitem__(3, torch.ones(2, 3, 5)),
        lambda: space.ranks.__setitem__(0, torch.tensor(2.0)),
        lambda: space.ranks.__setitem__(6, torch.ones(2, 3, 4, 5, 6, 7).transpose(0, 1)),
        lambda: space.ranks.__setitem__(5, torch.ones(2, 3, 4, 5, 6)),
        lambda: space.ranks.reverse(),
    )


@row()
def optimizer_state(w: World) -> Iterator[Change]:
    groups, state = w.space.groups, w.space.state
    one = groups[0]["params"][0]
    yield from in_place(
        groups[0],
        lambda: groups[0].update(lr=0.2),
        lambda: groups[0].update(lr=torch.tensor(0.1)),
        lambda: groups[0].update(betas=(0.9, 0.98)),
        lambda: groups[0].update(maximize=True),
        lambda: groups[0].update(params=list(groups[0]["params"])),
    )
    yield from in_place(groups[0]["params"], lambda: groups[0]["params"].reverse())
    yield from in_place(
        state[one],
        lambda: state[one].update(step=torch.zeros(())),
        lambda: state[one].update(step=torch.zeros(1)),
        lambda: state[one].update(step=1.0),
        lambda: state[one].pop("exp_avg", None),
        lambda: state[one].update(extra=1),
    )
    yield Change(lambda: state.pop(one, None), refill(state))


@row(2)
def a_tensor_for_every_call(w: World) -> Iterator[Change]:
    yield from in_place(w.inputs, lambda: w.inputs.update(x=torch.ones(2, 3)))
    yield from in_place(w.kwargs, lambda: w.kwargs.update(mask=torch.zeros(3)))


# -- every kind of tensor ----------------------------------------------------------------------------------------------


def _graded() -> torch.Tensor:
    return torch.ones((), requires_grad=True)


def _data(tensor: Any, other: Any) -> None:
    tensor.data = other


#: What may happen to a tensor; `make` makes another of its kind.
_OF_TENSORS: dict[str, Callable[[Any, Any], object]] = {
    "t_": lambda tensor, make: tensor.t_(),
    "unsqueeze_": lambda tensor, make: tensor.unsqueeze_(0),
    "resize_": lambda tensor, make: tensor.resize_(3, 4),
    "requires_grad_": lambda tensor, make: tensor.requires_grad_(not tensor.requires_grad),
    "detach_": lambda tensor, make: tensor.detach_(),
    "times_graded": lambda tensor, make: tensor.mul_(_graded()),
    "base_times_graded": lambda tensor, make: tensor._base.mul_(_graded()),
    "data": lambda tensor, make: _data(tensor, make(1)),
    "set_": lambda tensor, make: tensor.set_(make(1)),
    "as_strided_": lambda tensor, make: tensor.as_strided_((2, 2), (1, 2)),
    "no_storage": lambda tensor, make: tensor.untyped_storage().resize_(0),
    "marked": lambda tensor, make: torch._dynamo.mark_dynamic(tensor, 0),
    "renamed": lambda tensor, make: tensor.rename_(None),
    "sparse_resize_": lambda tensor, make: tensor.sparse_resize_((5, 5), 2, 0),
}
#: Where torch crashes: the level of a batched one is over, others have no memory or, now and then, no mode.
_NEVER = {
    "batched": tuple(_OF_TENSORS),
    "zero": ("resize_",),
    "emptied": ("times_graded",),
    "functional": ("times_graded",),
}


def _may(change: Do) -> bool:
    try:
        change()
    except Exception:
        return False
    return True


class _Kinds:
    """The tensors of every kind, each changed once at most before it is put back: torch crashes where one change meets
    what another left."""

    def __init__(self, w: World) -> None:
        self.held, self.makers = w.space.kinds, w.kinds()
        self.changed: dict[str, None] = w.changed_kinds

    def change(self, names: tuple[str, ...], do: Callable[..., object]) -> Change:
        return Change(functools.partial(self._do, names, do), functools.partial(self._back, names))

    def _do(self, names: tuple[str, ...], do: Callable[..., object]) -> None:
        if not any(name in self.changed for name in names):
            self.changed.update(dict.fromkeys(names))
            with torch.inference_mode(False):
                do(*(getattr(self.held, name) for name in names))

    def _back(self, names: tuple[str, ...]) -> None:
        for name in names:
            with torch.inference_mode(False):
                born_again(self.held, name, self.makers[name], 0, most=2)
            self.changed.pop(name, None)

    def born_again(self, name: str, make: Callable[[int], Any], variant: int) -> Change:
        # The object is not handed on: it is to die.
        return Change(functools.partial(self._reborn, name, make, variant), functools.partial(self._back, (name,)))

    def _reborn(self, name: str, make: Callable[[int], Any], variant: int) -> None:
        self.changed[name] = None
        with torch.inference_mode(False):
            born_again(self.held, name, make, variant, most=2)


@row(3, anywhere=False)
def tensor_kinds_in_place(w: World) -> Iterator[Change]:
    """Whatever a tensor of that kind takes."""
    kinds = _Kinds(w)
    for name, make in kinds.makers.items():
        for what, change in _OF_TENSORS.items():
            if "base" in what or what in _NEVER.get(name, ()):
                continue
            if _may(lambda make=make, change=change: change(make(0), make)):
                yield kinds.change((name,), lambda tensor, make=make, change=change: change(tensor, make))


@row(2, anywhere=False)
def base_comes_to_require_grad(w: World) -> Iterator[Change]:
    """A view's own fields stay as they are."""
    kinds, change = _Kinds(w), _OF_TENSORS["base_times_graded"]
    for name, make in kinds.makers.items():
        if name != "batched" and _may(lambda make=make: change(make(0), make)):
            yield kinds.change((name,), lambda tensor, make=make: change(tensor, make))


@row(anywhere=False)
def tensor_kinds_swapped(w: World) -> Iterator[Change]:
    """A tensor comes to stand for one of another kind, at its own address."""
    kinds = _Kinds(w)
    names = list(kinds.makers)
    for pair in [*((name, "plain") for name in names if name != "plain"), *zip(names, names[7:], strict=False)]:
        first, second = (kinds.makers[name](0) for name in pair)
        if _may(lambda first=first, second=second: torch.utils.swap_tensors(first, second)):
            yield kinds.change(pair, torch.utils.swap_tensors)


@row(2)
def tensor_kinds_replaced(w: World) -> Iterator[Change]:
    """Another of the same kind, of which something may differ, where the first was; one of another kind."""
    kinds = _Kinds(w)
    names = list(kinds.makers)
    for at, (name, make) in enumerate(kinds.makers.items()):
        yield kinds.born_again(name, make, 1)
        yield kinds.born_again(name, kinds.makers[names[(at + 5) % len(names)]], 0)


# -- what answers for itself -------------------------------------------------------------------------------------------


@row(2)
def foreign_descriptors(w: World) -> Iterator[Change]:
    """The descriptor of another class's field, which has nothing to say about objects of this one."""
    made = w.strange
    for name in ("a", "b"):
        own = vars(made.Borrower)[name]
        yield Change(put(made.Borrower, name, vars(made.Lender)[name]), put(made.Borrower, name, own))
        yield Change(put(made.Borrower, name, vars(types.FunctionType)["__code__"]), put(made.Borrower, name, own))
    slot = vars(w.classes.Slotted)["a"]
    yield Change(put(w.classes.Slotted, "a", vars(made.Lender)["a"]), put(w.classes.Slotted, "a", slot))
    yield Change(put(w.classes.Thing, "own", vars(made.Lender)["a"]), without(w.classes.Thing, "own"))
    borrower = w.space.borrower
    yield from attribute(borrower, "a", number)


@row(2)
def overriding_containers(w: World) -> Iterator[Change]:
    space = w.space
    one, two, three = space.over_dict, space.over_list, space.over_set
    yield from in_place(
        one,
        lambda: one.__setitem__("a", number()),
        lambda: dict.__setitem__(one, "a", number()),
        lambda: one.pop("b", None),
        lambda: one.__setitem__("extra", 1),
        lambda: one.clear(),
    )
    yield from in_place(two, lambda: two.append(3), lambda: two.__setitem__(0, number()), lambda: two.clear())
    yield from in_place(three, lambda: three.add("absent"), lambda: three.discard(1), lambda: three.clear())
    yield from attribute(space, "over_tuple", lambda: w.strange.OverTuple([1]), lambda: (1, [2]))
    yield from attribute(space, "over_dict", lambda: {"a": 1, "b": [1]})
    yield from attribute(space, "over_list", lambda: [1, [2]])


@row()
def overriding_methods(w: World) -> Iterator[Change]:
    """What the overrides say, or whether there is one."""
    made = w.strange
    for kind, name in (
        *((made.OverDict, "__getitem__"), (made.OverDict, "keys"), (made.OverDict, "__len__")),
        *((made.OverList, "__getitem__"), (made.OverList, "__len__"), (made.OverSet, "__iter__")),
        *((made.OverTuple, "__getitem__"), (made.OverTuple, "__len__"), (made.OverSet, "__len__")),
    ):
        before = vars(kind)[name]
        yield Change(put(kind, name, lambda *_: 7), put(kind, name, before))
        yield Change(put(kind, name, getattr(kind.__base__, name)), put(kind, name, before))
    yield Change(put(w.classes.PlainList, "__len__", lambda self: 7), without(w.classes.PlainList, "__len__"))
    for name in ("__getitem__", "__len__"):
        yield Change(put(w.classes.Attributes, name, lambda *_: 7), without(w.classes.Attributes, name))


@row(2)
def mro_of_its_own(w: World) -> Iterator[Change]:
    """A class that is found in the mro and is no base: what happens to it moves no version."""
    # The interpreter's own cache of attributes is not told either, and keeps nothing alive.
    made = w.strange
    found, other = made.Extra.extra_scale, property(lambda self: 77)
    kept = w.kept.setdefault("of Extra", [object(), object(), found, other])

    def tell(do: Do) -> Do:
        return then(do, sys._clear_type_cache)

    for value in kept[:2]:
        yield Change(tell(put(made.Extra, "extra_scale", value)), tell(put(made.Extra, "extra_scale", found)))
    yield Change(put(made.Extra, "extra_scale", kept[1]), tell(put(made.Extra, "extra_scale", found)))
    yield Change(setter(made.MroMade, "extra_scale", number), without(made.MroMade, "extra_scale"))
    yield Change(tell(put(made.Extra, "extra", kept[0])), tell(without(made.Extra, "extra")))
    yield Change(tell(put(made.Extra, "own", other)), tell(without(made.Extra, "own")))
    yield from attribute(w.space.mro_made, "own", number)
    before = vars(made.MroMeta)["mro"]
    again = lambda: setattr(made.MroMade, "__bases__", made.MroMade.__bases__)  # noqa: E731
    yield Change(
        then(put(made.MroMeta, "mro", lambda cls: type.mro(cls)), again), then(put(made.MroMeta, "mro", before), again)
    )


@row()
def metaclass_that_answers(w: World) -> Iterator[Change]:
    made = w.strange
    yield from attribute(made.Answered, "shared", number)
    before = vars(made.Answering)["__getattribute__"]
    yield Change(
        put(made.Answering, "__getattribute__", lambda cls, name: 77 if name == "shared" else before(cls, name)),
        put(made.Answering, "__getattribute__", before),
    )


@row(2)
def instance_dict_of_another_kind(w: World) -> Iterator[Change]:
    """A subclass of dict as ``__dict__``; then it changes, by way of the object and past it."""
    made = w.strange
    for thing in (w.things[0], w.things[2], w.layers[0].inner, w.layers[1].norm):
        before = vars(thing)
        yield Change(
            lambda thing=thing: setattr(thing, "__dict__", made.SlyDict(vars(thing))), put(thing, "__dict__", before)
        )
        yield Change(
            lambda thing=thing: setattr(thing, "__dict__", made.SlyDict(vars(thing), own=number(), training=False)),
            put(thing, "__dict__", before),
        )
    sneaky = w.space.sneaky
    held = vars(sneaky)
    yield from in_place(
        held,
        lambda: dict.__setitem__(held, "own", number()),
        lambda: held.pop("own", None),
        lambda: held.__setitem__("extra", 1),
    )
    yield from attribute(sneaky, "own", number)
    yield Change(lambda: setattr(sneaky, "__dict__", dict(vars(sneaky))), put(sneaky, "__dict__", held))


@row()
def class_level_dict(w: World) -> Iterator[Change]:
    """What a property shows as the ``__dict__``, and the one that is there."""
    masked = w.space.masked
    stash = w.strange.Masked.stash
    yield from in_place(stash, lambda: stash.update(shown=number()), lambda: stash.update(own=number(), extra=1))
    yield Change(lambda: object.__setattr__(masked, "own", number()), lambda: object.__setattr__(masked, "own", 1))
    yield from attribute(w.strange.Masked, "stash", lambda: {"shown": number()})


@row()
def modules_with_a_class(w: World) -> Iterator[Change]:
    module = w.space.own_module
    back = put(module, "_level", 3)
    yield Change(setter(module, "_level", number), back)
    yield Change(lambda: vars(module).__setitem__("_level", number()), back)
    yield Change(put(module, "__class__", w.strange.OtherModule), put(module, "__class__", w.strange.OwnModule))
    yield Change(put(module, "__class__", types.ModuleType), put(module, "__class__", w.strange.OwnModule))
    yield Change(lambda: vars(module).__setitem__("made", number()), lambda: vars(module).pop("made", None))


@row(2)
def keys_with_a_python_eq(w: World) -> Iterator[Change]:
    """Beside the guarded key, one of the same hash whose equality is Python code."""
    keys, kind = w.space.equal_keys, w.strange.EqualKey
    yield from in_place(
        keys,
        lambda: keys.__setitem__("kk", number()),
        lambda: keys.pop("kk", None),
        lambda: keys.__setitem__("kk", keys.pop("kk", 2)),
        lambda: keys.__setitem__("k" + "k", 2),
    )
    before = vars(kind)["__eq__"]
    yield Change(put(kind, "__eq__", lambda self, other: True), put(kind, "__eq__", before))
    words = w.space.words
    sly = kind()
    yield from in_place(words, lambda: words.__setitem__(sly, 1))


@row()
def proxies(w: World) -> Iterator[Change]:
    things = w.things
    yield from attribute(
        w.space, "proxy", lambda: weakref.proxy(things[0]), lambda: things[1], lambda: weakref.proxy(w.classes.Inline())
    )
    yield from attribute(things[1], "own", number)
    target = w.classes.Thing()
    kept = [target]

    def dies() -> None:
        made = w.classes.Thing()
        w.space.proxy = weakref.proxy(made)

    yield Change(dies, put(w.space, "proxy", w.space.proxy))
    yield Change(lambda: setattr(w.space, "proxy", weakref.proxy(kept[0])), put(w.space, "proxy", w.space.proxy))


@row()
def behind_code_of_the_users(w: World) -> Iterator[Change]:
    """What properties and ``__bool__`` read."""
    posted, fleeting = w.space.posted, w.space.fleeting
    yield from attribute(posted, "_price", number)
    yield Change(put(w.strange.Posted, "price", 5), put(w.strange.Posted, "price", vars(w.strange.Posted)["price"]))
    yield from attribute(fleeting, "own", number)
    yield Change(
        put(w.strange.Fleeting, "dying", property(lambda self: 3)),
        put(w.strange.Fleeting, "dying", vars(w.strange.Fleeting)["dying"]),
    )


@row(0.2, neutral=True)
def type_cache_cleared(w: World) -> Iterator[Change]:
    yield Change(sys._clear_type_cache)


# -- memory ------------------------------------------------------------------------------------------------------------


def born_again(owner: Any, name: str, make: Callable[[int], Any], variant: int, most: int = 12) -> None:
    """Lets an attribute's object die and has another one made, at the same address where that can be had."""
    address = id(getattr(owner, name, None))
    setattr(owner, name, None)
    kept = []
    for _ in range(most):
        made = make(variant)
        if id(made) == address:
            break
        kept.append(made)
    setattr(owner, name, made)


@row(6)
def freed_and_made_again(w: World) -> Iterator[Change]:
    mortal = w.space.mortal
    for name, make in w.mortals().items():
        restore = functools.partial(born_again, mortal, name, make, 0)
        yield Change(functools.partial(born_again, mortal, name, make, 1), restore)
        yield Change(restore, restore)


@row(0.005)
def class_freed_and_made_again(w: World) -> Iterator[Change]:
    """A class refers to itself, so that it takes a collection to free it."""
    mortal, make = w.space.mortal, w.mortals()["klass"]

    def again(variant: int) -> None:
        address, mortal.klass = id(getattr(mortal, "klass", None)), None
        gc.collect()
        mortal.klass = make(variant)
        kept = []
        while id(mortal.klass) != address and len(kept) < 20:
            kept.append(mortal.klass)
            mortal.klass = make(variant)

    yield Change(functools.partial(again, 1), functools.partial(again, 0))


@row(2)
def mortals_in_place(w: World) -> Iterator[Change]:
    """Changes of what was freed and made again; it is another object each time."""
    mortal, makers = w.space.mortal, w.mortals()

    def of(name: str, change: Callable[[Any], object]) -> Change:
        return Change(
            lambda: change(getattr(mortal, name)), functools.partial(born_again, mortal, name, makers[name], 0)
        )

    yield of("thing", lambda one: setattr(one, "a", number()))
    yield of("thing", vars)  # its values move into a dict
    yield of("slotted", lambda one: setattr(one, "a", number()))
    yield of("function", lambda one: setattr(one, "__defaults__", (number(),)))
    yield of("klass", lambda one: setattr(one, "number", number()))
    yield of("module", lambda one: setattr(one, "limit", number()))
    yield of("dict", lambda one: one.update(k=number()))
    yield of("list", lambda one: one.append(1))
    yield of("set", lambda one: one.add(1))
    yield of("cell", lambda one: setattr(one, "cell_contents", number()))
    yield of("name_space", lambda one: setattr(one, "k", number()))
    yield of("tensor", lambda one: torch._dynamo.mark_dynamic(one, 0))
    yield of("over_dict", lambda one: one.update(k=number()))
    yield of("over_list", lambda one: one.append(1))
    yield of("mro_class", lambda one: setattr(one, "number", number()))
    yield of("borrower", lambda one: setattr(one, "a", number()))
    yield of("own_module", lambda one: vars(one).update(_level=number()))
    yield of("sneaky", lambda one: setattr(one, "own", number()))

    def method_of(function: Callable[[], Any]) -> Change:
        """A bound method where one was that is over another function, or over no function at all."""

        def change() -> None:
            born_again(mortal, "method", lambda _: types.MethodType(function(), w.inlines[0]), 1)

        return Change(change, functools.partial(born_again, mortal, "method", makers["method"], 0))

    yield method_of(lambda: w.classes.Inline)
    yield method_of(lambda: functools.partial(len))
    yield method_of(lambda: lambda self: 3)


@row(0.5, neutral=True)
def garbage(w: World) -> Iterator[Change]:
    """Memory is taken and given back all around."""

    def churn() -> None:
        for _ in range(20):
            [object() for _ in range(20)], [{"a": 1} for _ in range(10)], [[1] for _ in range(10)]

    yield Change(churn)
    yield Change(functools.partial(gc.collect, 0))


@row(0.002, neutral=True)
def full_collection(w: World) -> Iterator[Change]:
    yield Change(gc.collect)


# -- the state of the thread -------------------------------------------------------------------------------------------


def _here(do: Do) -> Do:
    """Only in the thread that the world was made in: the state belongs to a thread, and the restore runs there."""
    thread = threading.get_ident()
    return lambda: do() if threading.get_ident() == thread else None


def _enter(w: World, make: Callable[[], Any]) -> Change:
    """Each of these puts back what it came into, so that all are left, in order, when one is to be."""

    def enter() -> None:
        made = make()
        made.__enter__()
        w.entered.append(made)

    return Change(_here(enter), _here(functools.partial(_leave, w)))


def _leave(w: World) -> None:
    while w.entered:
        w.entered.pop().__exit__(None, None, None)


@row(anywhere=False)
def state_of_the_thread(w: World) -> Iterator[Change]:
    def pair(change: Do, back: Do) -> Change:
        return Change(_here(change), _here(back))

    leave = functools.partial(_leave, w)
    yield pair(lambda: torch.set_grad_enabled(False), then(leave, lambda: torch.set_grad_enabled(True)))
    yield pair(lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32))
    yield pair(lambda: torch.use_deterministic_algorithms(True), lambda: torch.use_deterministic_algorithms(False))
    yield pair(lambda: torch.set_autocast_enabled("cpu", True), lambda: torch.set_autocast_enabled("cpu", False))
    yield _enter(w, lambda: torch._C._InferenceMode(True))
    yield pair(lambda: setattr(forward_ad, "_current_level", 0), lambda: setattr(forward_ad, "_current_level", -1))
    yield pair(
        lambda: setattr(_device, "CURRENT_DEVICE", torch.device("cpu")),
        lambda: setattr(_device, "CURRENT_DEVICE", None),
    )


@row(anywhere=False)
def modes_and_hooks(w: World) -> Iterator[Change]:
    for make in (Function, Hidden, Visible, torch._C.DisableTorchFunctionSubclass):
        yield _enter(w, make)
    yield _enter(w, lambda: torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: x))
