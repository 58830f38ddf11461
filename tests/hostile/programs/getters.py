"""Getters of properties: where their names come from, what they are, and hooks for attributes."""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable
from typing import Any

import torch

from ..protocol import Run, program


class Box:
    def __init__(self, scale: int) -> None:
        self._scale = scale


def _in_globals(source: str, **names: Any) -> tuple[Any, dict[str, Any]]:
    space: dict[str, Any] = {"torch": torch, **names}
    exec(source, space)
    return space["scale"], space


def _global() -> tuple[Any, Callable[[], None]]:
    box = Box(3)
    found, _space = _in_globals("def scale(this):\n    return self._scale", self=box)
    return found, lambda: setattr(box, "_scale", 4)


def _global_replaced() -> tuple[Any, Callable[[], None]]:
    found, space = _in_globals("def scale(this):\n    return self._scale", self=Box(3))
    return found, lambda: space.update(self=Box(4))


def _cell() -> tuple[Any, Callable[[], None]]:
    self = Box(3)

    def scale(this: Any) -> Any:
        return self._scale

    return scale, lambda: setattr(self, "_scale", 4)


def _default() -> tuple[Any, Callable[[], None]]:
    box = Box(3)

    def scale(this: Any, self: Any = box) -> Any:
        return self._scale

    return scale, lambda: setattr(box, "_scale", 4)


def _keyword_default() -> tuple[Any, Callable[[], None]]:
    box = Box(3)

    def scale(this: Any, *, self: Any = box) -> Any:
        return self._scale

    return scale, lambda: scale.__kwdefaults__.update(self=Box(4))


def _varargs() -> tuple[Any, Callable[[], None]]:
    def scale(*self: Any) -> Any:
        return self[0]._scale

    return scale, lambda: None


def _assigned() -> tuple[Any, Callable[[], None]]:
    box = Box(3)

    def scale(self: Any) -> Any:
        self = box
        return self._scale

    return scale, lambda: setattr(box, "_scale", 4)


def _comprehension() -> tuple[Any, Callable[[], None]]:
    boxes = [Box(3)]

    def scale(self: Any) -> Any:
        return next(self._scale for self in boxes)

    return scale, lambda: setattr(boxes[0], "_scale", 4)


def _generator() -> tuple[Any, Callable[[], None]]:
    boxes = [Box(3)]

    def scale(this: Any) -> Any:
        return sum(self._scale for self in boxes)

    return scale, lambda: boxes.append(Box(1))


def _argument_cell() -> tuple[Any, Callable[[], None]]:
    """The argument itself is a cell, which an inner function changes."""
    box = Box(3)

    def scale(self: Any) -> Any:
        def change() -> None:
            nonlocal self
            self = box

        change()
        return self._scale

    return scale, lambda: setattr(box, "_scale", 4)


def _code_replaced() -> tuple[Any, Callable[[], None]]:
    def scale(self: Any) -> Any:
        return self._scale

    return scale, lambda: setattr(scale, "__code__", (lambda self: 4).__code__)


def _partial() -> tuple[Any, Callable[[], None]]:
    box = Box(3)
    return functools.partial(lambda self, this: self._scale, box), lambda: setattr(box, "_scale", 4)


def _attrgetter() -> tuple[Any, Callable[[], None]]:
    return operator.attrgetter("_scale"), lambda: None


def _builtin() -> tuple[Any, Callable[[], None]]:
    table = {}

    class Table(dict):
        def __missing__(self, key: Any) -> Any:
            return table.get("scale", 3)

    return Table().__getitem__, lambda: table.update(scale=4)


def _bound_method() -> tuple[Any, Callable[[], None]]:
    class Other:
        _scale = 3

        def scale(self, this: Any) -> Any:
            return self._scale

    other = Other()
    return other.scale, lambda: setattr(other, "_scale", 4)


def _callable_object() -> tuple[Any, Callable[[], None]]:
    class Call:
        number = 3

        def __call__(self, this: Any) -> Any:
            return self.number

    return Call(), lambda: setattr(Call, "number", 4)


def _wrapped() -> tuple[Any, Callable[[], None]]:
    box = Box(3)

    def inner(self: Any) -> Any:
        return self._scale

    @functools.wraps(inner)
    def outer(self: Any) -> Any:
        return inner(box)

    return outer, lambda: setattr(box, "_scale", 4)


def _other_globals() -> tuple[Any, Callable[[], None]]:
    """The same code over other globals."""
    found, _ = _in_globals("def scale(self):\n    return self._scale + number", number=0)
    space = {"number": 0}
    return types.FunctionType(found.__code__, space), lambda: space.update(number=1)


def _shadowed_builtin() -> tuple[Any, Callable[[], None]]:
    found, space = _in_globals("def scale(self):\n    return len(self.layers) + all(self.layers)")
    return found, lambda: space.update(len=lambda values: 40)


def _all_of_layers() -> tuple[Any, Callable[[], None]]:
    found, space = _in_globals("def scale(self):\n    return 2 + all(layer.on for layer in self.layers)")
    return found, lambda: space.update(all=lambda values: 40)


def _conditional() -> tuple[Any, Callable[[], None]]:
    space: dict[str, Any] = {}
    found, space = _in_globals("def scale(self):\n    return self._scale if flag else self.other", flag=True)
    return found, lambda: space.update(flag=False)


GETTERS = {
    name.lstrip("_"): make
    for name, make in list(globals().items())
    if isinstance(make, types.FunctionType) and name.startswith("_") and name not in ("_in_globals",)
}


class Layer:
    on = True


class Has:
    def __init__(self) -> None:
        self._scale, self.other, self.layers = 3, 8, [Layer(), Layer()]


def _function(x: Any, s: Any, p: Any) -> Any:
    return x * s.scale * p.other


@program(getter=tuple(GETTERS))
def property_from_the_start(run: Run, getter: str) -> None:
    found, change = GETTERS[getter]()
    kind = type("S", (Has,), {"scale": property(found)})
    s, p, x = kind(), Has(), torch.ones(2)
    p.other = 1
    compiled = run.compile(_function)
    for _ in range(6):
        run.step(lambda: compiled(x, s, p), lambda: _function(x, s, p), "before")
    change()
    for _ in range(3):
        run.step(lambda: compiled(x, s, p), lambda: _function(x, s, p), "changed")
    s._scale = 5
    run.step(lambda: compiled(x, s, p), lambda: _function(x, s, p), "the attribute of the object")
    s.layers.append(Layer())
    run.step(lambda: compiled(x, s, p), lambda: _function(x, s, p), "one layer more")
    s.layers[0].on = False
    run.step(lambda: compiled(x, s, p), lambda: _function(x, s, p), "one layer off")


@program(getter=tuple(GETTERS))
def property_put_over_a_slot(run: Run, getter: str) -> None:
    """``p`` has the property before, so that its getter may be known."""
    found, change = GETTERS[getter]()

    class Slotted:
        __slots__ = ("_scale", "layers", "other", "scale")

    s, x = Slotted(), torch.ones(2)
    s.scale, s._scale, s.layers, s.other = 3, 3, [Layer()], 8
    p = type("P", (Has,), {"scale": property(found)})()
    p.other = 1
    compiled = run.compile(_function)
    run.warm(lambda: compiled(x, s, p))
    Slotted.scale = type(p).__dict__["scale"]
    for _ in range(4):
        run.step(lambda: compiled(x, s, p), lambda: _function(x, s, p), "put")
    change()
    for _ in range(2):
        run.step(lambda: compiled(x, s, p), lambda: _function(x, s, p), "changed")


@program()
def property_of_itself(run: Run) -> None:
    class Slotted:
        __slots__ = ("layers", "ready")

    class Known:
        def __init__(self) -> None:
            self.other = 1

        @property
        def ready(self) -> bool:
            return all(layer.on for layer in self.ready)

    def function(x: Any, s: Any, p: Any) -> Any:
        return x + (1 if s.ready else 2) + p.other

    s, p, x = Slotted(), Known(), torch.zeros(2)
    s.ready, s.layers = True, []
    compiled = run.compile(function)
    run.warm(lambda: compiled(x, s, p))
    Slotted.ready = Known.__dict__["ready"]
    run.step(lambda: compiled(x, s, p), lambda: function(x, s, p))


@program(length=(2, 50, 400))
def ring_of_properties(run: Run, length: int) -> None:
    """Each property asks the next object's, the last the first's; then long chains without an end in themselves."""

    class Link:
        __slots__ = ("next", "ready", "value")

    class Known:
        other = 1

        @property
        def ready(self) -> Any:
            return self.next.ready

    def function(x: Any, s: Any, p: Any) -> Any:
        return x + (1 if s.ready else 2) + p.other

    links = [Link() for _ in range(length)]
    for index, link in enumerate(links):
        link.ready, link.next = True, links[(index + 1) % length]
    s, p, x = links[0], Known(), torch.zeros(2)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x, s, p))
    Link.ready = Known.__dict__["ready"]
    run.step(lambda: compiled(x, s, p), lambda: function(x, s, p))


@program(hook=("__getattr__", "__getattribute__"))
def hooks_come_and_change(run: Run, hook: str) -> None:
    class Cfg:
        def __init__(self) -> None:
            self.__dict__["scale"] = 3

    given = {"scale": 3, "extra": 1}

    def asked(self: Any, name: str) -> Any:
        if name in given:
            return given[name]
        return object.__getattribute__(self, name)

    def function(x: Any, cfg: Any) -> Any:
        return x * cfg.scale if hasattr(cfg, "extra") else x * cfg.scale * 10

    cfg, x = Cfg(), torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: compiled(x, cfg))
    setattr(Cfg, hook, asked)
    for _ in range(5):
        run.step(lambda: compiled(x, cfg), lambda: function(x, cfg), "a hook")
    given["scale"] = 4
    run.step(lambda: compiled(x, cfg), lambda: function(x, cfg), "gives another value")
    del given["extra"]
    run.step(lambda: compiled(x, cfg), lambda: function(x, cfg), "does not know it")
    given["extra"] = 1
    run.step(lambda: compiled(x, cfg), lambda: function(x, cfg), "knows it again")
    delattr(Cfg, hook)
    run.step(lambda: compiled(x, cfg), lambda: function(x, cfg), "no hook")


@program()
def hook_through_a_cell(run: Run) -> None:
    """A wrapper whose ``__getattr__`` asks an object in a cell, later another one."""
    inner = Box(3)

    class Wrapper:
        def __getattr__(self, name: str) -> Any:
            return getattr(inner, name)

    def function(x: Any, w: Any) -> Any:
        return x * w._scale

    w, x = Wrapper(), torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: run.step(lambda: compiled(x, w), lambda: function(x, w), "before"))
    inner._scale = 4
    run.step(lambda: compiled(x, w), lambda: function(x, w), "its attribute")
    inner = Box(5)
    run.step(lambda: compiled(x, w), lambda: function(x, w), "another object")
