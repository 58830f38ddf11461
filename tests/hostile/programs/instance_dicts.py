"""Instance dicts that are no plain dicts, not the real ones, shared or swapped; modules of a class of their own."""

from __future__ import annotations

import collections
import types
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ...guards import attr, checker, equals
from ..protocol import Holder, Run, direct, program, recorded


class Sneaky(dict):
    """Says, once armed, that it has what its own table has not."""

    armed = False

    def __contains__(self, key: Any) -> bool:
        return (type(self).armed and key == "scale") or dict.__contains__(self, key)

    def __getitem__(self, key: Any) -> Any:
        return 9 if type(self).armed and key == "scale" else dict.__getitem__(self, key)

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self else default


class Missing(dict):
    armed = False

    def __missing__(self, key: Any) -> Any:
        if type(self).armed:
            return 9
        raise KeyError(key)


class Hashed(str):
    armed = False

    def __hash__(self) -> int:
        return str.__hash__(self)

    def __eq__(self, other: Any) -> bool:
        return not Hashed.armed and str.__eq__(self, other)


DICTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "sneaky": Sneaky,
    "missing": Missing,
    "ordered": collections.OrderedDict,
    "default": lambda content: collections.defaultdict(lambda: 9, content),
    "counter": collections.Counter,
    "strange_keys": lambda content: {Hashed(key): value for key, value in content.items()},
}


def _scaled(x: Any, s: Any) -> Any:
    return x * (s.scale if hasattr(s, "scale") else 2)


@program(kind=tuple(DICTS))
def dict_of_an_object(run: Run, kind: str) -> None:
    for attribute in (True, False):
        torch._dynamo.reset()
        for armed in (Sneaky, Missing, Hashed):
            armed.armed = False
        s, x = Holder(), torch.ones(2)
        s.other = 1
        if attribute:
            s.scale = 3
        s.__dict__ = DICTS[kind](dict(s.__dict__))
        compiled = run.compile(_scaled)
        run.warm(lambda: run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "before"))
        for armed in (Sneaky, Missing, Hashed):
            armed.armed = True
        for _ in range(2):
            run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "armed")
        vars(s)["scale"] = 4
        run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "set")
        vars(s).clear()
        run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "cleared")


@program()
def dict_of_a_module(run: Run) -> None:
    """The first program of this kind: ``_parameters`` is found by the dict's own ``__getitem__``."""
    found: dict[str, Any] = {}

    class Sneakier(dict):
        def __contains__(self, key: Any) -> bool:
            return key == "_parameters" or dict.__contains__(self, key)

        def __getitem__(self, key: Any) -> Any:
            return found if key == "_parameters" else dict.__getitem__(self, key)

    net, x = nn.ReLU(), torch.ones(2)
    net.__dict__ = Sneakier(net.__dict__)

    def function(x: Any, net: Any) -> Any:
        return x * 3 if hasattr(net, "extra") else x * 2

    compiled = run.compile(function)
    run.warm(lambda: compiled(x, net))
    found["extra"] = nn.Parameter(torch.ones(1))
    run.step(lambda: compiled(x, net), lambda: function(x, net))


@program(name=("_parameters", "_buffers", "_modules"))
def tables_of_a_module(run: Run, name: str) -> None:
    """The tables that ``nn.Module.__getattr__`` looks in: a subclass of dict, another dict, a property of the class."""

    def function(x: Any, net: Any) -> Any:
        return x * 3 if hasattr(net, "extra") else x * 2

    class Table(dict):
        armed = False

        def __contains__(self, key: Any) -> bool:
            return (Table.armed and key == "extra") or dict.__contains__(self, key)

        def __getitem__(self, key: Any) -> Any:
            return torch.ones(1) if key == "extra" else dict.__getitem__(self, key)

    class Net(nn.ReLU):
        pass

    net, x = Net(), torch.ones(2)
    net.__dict__[name] = Table(net.__dict__[name])
    compiled = run.compile(function)
    run.warm(lambda: compiled(x, net))
    Table.armed = True
    run.step(lambda: compiled(x, net), lambda: function(x, net), "armed")
    Table.armed = False
    net.__dict__[name] = {}
    run.step(lambda: compiled(x, net), lambda: function(x, net), "plain")
    run.warm(lambda: compiled(x, net), 4)
    net.__dict__[name] = {"extra": torch.ones(1)}
    run.step(lambda: compiled(x, net), lambda: function(x, net), "another")
    net.__dict__[name] = {}
    run.warm(lambda: compiled(x, net), 4)
    setattr(Net, name, property(lambda self: {"extra": torch.ones(1)}))
    run.step(lambda: compiled(x, net), lambda: function(x, net), "a property of the class")


@program()
def two_objects_one_dict(run: Run) -> None:
    s, other, x = Holder(), Holder(), torch.ones(2)
    s.scale = 3
    other.__dict__ = s.__dict__
    compiled = run.compile(_scaled)
    run.warm(lambda: compiled(x, s))
    other.scale = 4
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "through the other")
    s.__dict__ = {"scale": 5}
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "another dict")
    other.scale = 6
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "no longer shared")
    del s.__dict__
    run.step(lambda: compiled(x, s), lambda: _scaled(x, s), "deleted")


@program()
def dict_looked_at_as_a_value(run: Run) -> None:
    s, x = Holder(), torch.ones(2)
    s.scale = 3

    def function(x: Any, s: Any) -> Any:
        return x * s.__dict__["scale"] + len(vars(s))

    compiled = run.compile(function)
    run.warm(lambda: compiled(x, s))
    s.scale = 4
    run.step(lambda: compiled(x, s), lambda: function(x, s), "value")
    s.more = 1
    run.step(lambda: compiled(x, s), lambda: function(x, s), "length")
    kind = type("Own", (Holder,), {})
    s.__class__ = kind
    run.step(lambda: compiled(x, s), lambda: function(x, s), "class")
    s.__class__ = type("Shown", (Holder,), {"__dict__": property(lambda self: {"scale": 7})})
    run.step(lambda: compiled(x, s), lambda: function(x, s), "a property named __dict__")


@direct
def class_level_dict(run: Run) -> None:
    """A known ``__getattribute__`` looks in ``__dict__``, which is a property that gives another dict."""
    from unified_guards.dynamo import attribute_getters

    class Cfg:
        stash: dict[str, Any] = {}

        def __init__(self) -> None:
            object.__setattr__(self, "flag", True)
            for index in range(40):
                object.__setattr__(self, f"a{index}", index)

        @property
        def __dict__(self) -> Any:
            return Cfg.stash

        def __getattribute__(self, name: str) -> Any:
            other = super().__getattribute__("__dict__").get("delegate")
            if other is not None:
                return getattr(other, name)
            return super().__getattribute__(name)

    class Thing:
        flag = False

    cfg = Cfg()
    attribute_getters.learn([cfg])
    made = recorded(checker(equals(attr("flag"), True)), {"x": cfg})
    Cfg.stash["delegate"] = Thing()
    run.expect(made, {"x": cfg}, False, "delegated")


@program()
def modules_of_python(run: Run) -> None:
    """Attributes of a Python module: replaced, absent, given by the module's ``__getattr__``, by its class."""
    name = "hostile_module_of_python"
    import sys

    module, x = types.ModuleType(name), torch.ones(2)
    sys.modules[name] = module
    module.scale = 3
    compiled = run.compile(_scaled)
    run.warm(lambda: compiled(x, module))
    module.scale = 4
    run.step(lambda: compiled(x, module), lambda: _scaled(x, module), "replaced")
    del module.scale
    run.step(lambda: compiled(x, module), lambda: _scaled(x, module), "absent")
    run.warm(lambda: compiled(x, module), 4)

    class Own(types.ModuleType):
        scale = 6

    module.__class__ = Own
    run.step(lambda: compiled(x, module), lambda: _scaled(x, module), "of its class")
    Own.scale = property(lambda self: 7)
    run.step(lambda: compiled(x, module), lambda: _scaled(x, module), "a property of its class")
    vars(module)["scale"] = 8
    run.step(lambda: compiled(x, module), lambda: _scaled(x, module), "hidden by that property")
    del Own.scale
    run.step(lambda: compiled(x, module), lambda: _scaled(x, module), "no longer hidden")


@program()
def proxies(run: Run) -> None:
    inner: dict[str, Any] = {"scale": 3}
    proxy, x = types.MappingProxyType(inner), torch.ones(2)

    def function(x: Any, proxy: Any) -> Any:
        return x * proxy["scale"]

    compiled = run.compile(function)
    run.warm(lambda: run.step(lambda: compiled(x, proxy), lambda: function(x, proxy), "before"))
    inner["scale"] = 4
    run.step(lambda: compiled(x, proxy), lambda: function(x, proxy), "changed behind the proxy")


@program(kind=("ordered", "default", "missing", "own_getitem", "counter", "user_dict"))
def dicts_as_values(run: Run, kind: str) -> None:
    class Own(dict):
        factor = 1

        def __getitem__(self, key: Any) -> Any:
            return dict.__getitem__(self, key) * type(self).factor

    class Missed(dict):
        given = 5

        def __missing__(self, key: Any) -> Any:
            return type(self).given

    makes: dict[str, Callable[[dict[str, Any]], Any]] = {
        "ordered": collections.OrderedDict,
        "default": lambda content: collections.defaultdict(lambda: 5, content),
        "missing": Missed,
        "own_getitem": Own,
        "counter": collections.Counter,
        "user_dict": collections.UserDict,
    }
    values, x = makes[kind]({"scale": 3, "other": 2}), torch.ones(2)

    def function(x: Any, values: Any) -> Any:
        return x * (values["scale"] if "scale" in values else 7) + len(values)

    compiled = run.compile(function)
    run.warm(lambda: run.step(lambda: compiled(x, values), lambda: function(x, values), "before"))
    Own.factor, Missed.given = 2, 6
    run.step(lambda: compiled(x, values), lambda: function(x, values), "the class changes")
    values["scale"] = 4
    run.step(lambda: compiled(x, values), lambda: function(x, values), "a value changes")
    del values["scale"]
    run.step(lambda: compiled(x, values), lambda: function(x, values), "a key goes")
    values["scale"] = 4
    run.step(lambda: compiled(x, values), lambda: function(x, values), "and comes back last")
