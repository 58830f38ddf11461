"""Metaclasses that compute the mro or answer for their classes, bases that are assigned, abstract classes."""

from __future__ import annotations

import abc
import sys
from typing import Any

import torch
from torch import nn

from ...guards import attr, checker, equals
from ..protocol import Run, direct, program


def _scaled(x: Any, s: Any) -> Any:
    return x * s.scale


def _strange(where: str) -> tuple[Any, Any]:
    class Extra:
        scale = 3

    class Meta(type):
        def mro(cls) -> Any:
            found = super().mro()
            if where == "last":
                return [*found[:-1], Extra, *found[-1:]]
            if where == "first":
                return [found[0], Extra, *found[1:]]
            return [found[0], *Extra.__mro__[:-1], *found[1:]]

    class Strange(metaclass=Meta):
        def __init__(self) -> None:
            self.other = 1

    if where == "inherited":
        return Extra, type("Below", (Strange,), {})
    return Extra, Strange


@program(where=("last", "first", "whole", "inherited"))
def class_put_into_the_mro(run: Run, where: str) -> None:
    extra, kind = _strange(where)
    s, x = kind(), torch.ones(2)
    compiled = run.compile(_scaled)
    run.warm(lambda: compiled(x, s))
    extra.scale = 4
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "changed")
    sys._clear_type_cache()
    for _ in range(4):
        run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "type cache cleared")
    extra.scale = 5
    sys._clear_type_cache()
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "again")
    kind.scale = 6
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "its own")


@direct
def class_put_into_the_mro_of_a_checker(run: Run) -> None:
    for where in ("last", "first", "whole", "inherited"):
        extra, kind = _strange(where)
        s = kind()
        made = checker(equals(attr("scale"), 3))
        for _ in range(4):
            run.expect(made, {"x": s}, s.scale == 3, where)
        extra.scale = 4
        run.expect(made, {"x": s}, s.scale == 3, f"{where} changed")
        sys._clear_type_cache()
        run.expect(made, {"x": s}, s.scale == 3, f"{where}, type cache cleared")


@program()
def bases_assigned(run: Run) -> None:
    class First:
        scale = 3

    class Second:
        scale = 4

    class Third:
        pass

    class Middle(First):
        pass

    class Child(Middle):
        pass

    def function(x: Any, s: Any) -> Any:
        return x * getattr(s, "scale", 9) if isinstance(s, First) else x * 100

    s, x = Child(), torch.ones(2)
    for used in (_scaled, function):
        torch._dynamo.reset()
        Middle.__bases__ = (First,)
        compiled = run.compile(used)
        run.warm(lambda: compiled(x, s))
        for base in (Second, First, Third, First):
            Middle.__bases__ = (base,)
            for _ in range(3):
                run.step(lambda: compiled(x, s), lambda: used(x, s), base.__name__)


@program()
def attribute_of_a_far_base(run: Run) -> None:
    kind: Any = type("Base", (), {"scale": 3})
    base = kind
    for index in range(60):
        kind = type(f"K{index}", (kind,), {})
    s, x = kind(), torch.ones(2)
    compiled = run.compile(_scaled)
    run.warm(lambda: compiled(x, s))
    base.scale = 4
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "far")
    run.warm(lambda: compiled(x, s), 4)
    kind.__mro__[20].scale = 5
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "half way")
    del kind.__mro__[20].scale
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "back")


@program()
def metaclass_answers(run: Run) -> None:
    given = {"scale": 3}

    class Meta(type):
        def __getattr__(cls, name: str) -> Any:
            if name in given:
                return given[name]
            raise AttributeError(name)

    class Kind(metaclass=Meta):
        other = 1

    def function(x: Any, kind: Any) -> Any:
        return x * kind.scale

    x = torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: run.step(lambda: compiled(x, Kind), lambda: function(x, Kind), "before"))
    given["scale"] = 4
    run.step(lambda: compiled(x, Kind), lambda: function(x, Kind), "another answer")
    Kind.scale = 5
    run.step(lambda: compiled(x, Kind), lambda: function(x, Kind), "the class's own")
    Meta.scale = property(lambda cls: 6)
    run.step(lambda: compiled(x, Kind), lambda: function(x, Kind), "a property of the metaclass")


@program()
def metaclass_attributes(run: Run) -> None:
    class Meta(type):
        scale = 3

    class Kind(metaclass=Meta):
        pass

    def function(x: Any, kind: Any) -> Any:
        return x * kind.scale

    x = torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: run.step(lambda: compiled(x, Kind), lambda: function(x, Kind), "before"))
    Meta.scale = 4
    run.step(lambda: compiled(x, Kind), lambda: function(x, Kind), "of the metaclass")
    Kind.scale = 5
    run.step(lambda: compiled(x, Kind), lambda: function(x, Kind), "of the class")
    Meta.__getattribute__ = lambda cls, name: 6 if name == "scale" else type.__getattribute__(cls, name)
    run.step(lambda: compiled(x, Kind), lambda: function(x, Kind), "of a hook")
    del Meta.__getattribute__
    run.step(lambda: compiled(x, Kind), lambda: function(x, Kind), "without the hook")


@program()
def instance_checks(run: Run) -> None:
    yes = [True]

    class Meta(type):
        def __instancecheck__(cls, instance: Any) -> bool:
            return yes[0]

    class Kind(metaclass=Meta):
        pass

    Abstract = abc.ABCMeta("Abstract", (), {})

    class Plain:
        pass

    def function(x: Any, s: Any) -> Any:
        return x * 2 if isinstance(s, Kind) else x * 3

    def registered(x: Any, s: Any) -> Any:
        return x * 2 if isinstance(s, Abstract) else x * 3

    s, x = Plain(), torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: run.step(lambda: compiled(x, s), lambda: function(x, s), "before"))
    yes[0] = False
    run.step(lambda: compiled(x, s), lambda: function(x, s), "the metaclass says no")
    compiled = run.compile(registered)
    run.warm(lambda: compiled(x, s))
    Abstract.register(Plain)
    run.step(lambda: compiled(x, s), lambda: registered(x, s), "registered")


@program()
def class_of_a_module_changes(run: Run) -> None:
    class Meta(type):
        def mro(cls) -> Any:
            return super().mro()

    class Net(nn.Module, metaclass=Meta):
        factor = 2

        def forward(self, x: Any) -> Any:
            return x * self.factor

    class Other(Net):
        factor = 3

    net, x = Net(), torch.ones(2)
    compiled = run.compile(net)
    run.warm(lambda: compiled(x))
    Net.factor = 4
    run.step(lambda: compiled(x), lambda: net(x), "class attribute")
    net.__class__ = Other
    run.step(lambda: compiled(x), lambda: net(x), "class")
    Other.forward = lambda self, x: x * 7
    run.step(lambda: compiled(x), lambda: net(x), "forward")
    net.factor = 8
    net.__class__ = Net
    run.step(lambda: compiled(x), lambda: net(x), "shadowed")


@program()
def class_pretends(run: Run) -> None:
    """``__class__`` is a property: ``isinstance`` believes it, the type does not change."""
    shown = [int]

    class Pretender:
        @property
        def __class__(self) -> Any:
            return shown[0]

    def function(x: Any, s: Any) -> Any:
        return x * 2 if isinstance(s, int) else x * 3

    s, x = Pretender(), torch.ones(2)
    compiled = run.compile(function)
    run.warm(lambda: run.step(lambda: compiled(x, s), lambda: function(x, s), "before"))
    shown[0] = str
    run.step(lambda: compiled(x, s), lambda: function(x, s), "another class")
