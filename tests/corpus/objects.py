"""Instances: dataclasses, attributes, hierarchies of classes, containers of the user's."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import torch

from .example import Example, entry


@dataclasses.dataclass
class Config:
    width: int = 2
    name: str = "a"
    inner: Any = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    width: int = 2
    items: tuple[int, ...] = (1, 2)


@entry
def dataclass_instances() -> Example:
    config, frozen = Config(inner=Config(3)), Frozen()

    def function(x: torch.Tensor, config: Config, frozen: Frozen) -> torch.Tensor:
        return x * config.width + config.inner.width + frozen.items[0] + (config.name == "a") + frozen.width

    example = Example(function, torch.ones(2), config, frozen)
    example.change(
        width=lambda: setattr(config, "width", config.width + 1),
        width_back=lambda: setattr(config, "width", 2),
        name=lambda: setattr(config, "name", "b"),
        inner=lambda: setattr(config, "inner", Config(3, "other")),
        other_inner=lambda: setattr(config, "inner", Config(4)),
        no_inner=lambda: setattr(config, "inner", None),
        extra=lambda: setattr(config, "extra", 1),
        thawed=lambda: object.__setattr__(frozen, "items", (5, 6)),
    )
    return example.rebind(
        "frozen", equal=Frozen, other=lambda: Frozen(3), longer=lambda: Frozen(2, (1, 2, 3)), config=lambda: Config(2)
    )


class Computed:
    """Attributes of every origin."""

    shared = 1
    __slots__ = ("__dict__", "slot")

    def __init__(self) -> None:
        self.own = 2
        self.slot = 3
        self._value = 4

    @property
    def value(self) -> int:
        return self._value

    def method(self) -> int:
        return self.own


class Dynamic:
    """Attributes that only ``__getattr__`` has."""

    def __init__(self) -> None:
        self.table = {"a": 1}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["table"][name]
        except KeyError:
            raise AttributeError(name) from None


@entry
def attributes() -> Example:
    computed, dynamic = Computed(), Dynamic()

    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + computed.shared + computed.own + computed.slot + computed.value + computed.method()
        x = x + dynamic.a
        return x + 1 if hasattr(computed, "optional") else x

    example = Example(function, torch.ones(2))
    example.cleanups.append(lambda: setattr(Computed, "shared", 1))
    return example.change(
        own=lambda: setattr(computed, "own", computed.own + 1),
        own_back=lambda: setattr(computed, "own", 2),
        slot=lambda: setattr(computed, "slot", 30),
        value=lambda: setattr(computed, "_value", 40),
        of_the_class=lambda: setattr(Computed, "shared", Computed.shared + 1),
        shadowed=lambda: setattr(computed, "shared", 1),
        optional=lambda: setattr(computed, "optional", 1),
        not_optional=lambda: vars(computed).pop("optional", None),
        dynamic_value=lambda: dynamic.table.update(a=dynamic.table["a"] + 1),
        dynamic_back=lambda: dynamic.table.update(a=1),
        found_directly=lambda: setattr(dynamic, "a", 1),
    )


@entry
def class_hierarchies() -> Example:
    class Base:
        level = 1

    class Other:
        level = 1

    class Derived(Base):
        own = 2

    thing = Derived()

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + thing.level + Derived.own + Derived.level

    return Example(function, torch.ones(2)).change(
        base=lambda: setattr(Base, "level", Base.level + 1),
        base_back=lambda: setattr(Base, "level", 1),
        overridden=lambda: setattr(Derived, "level", 1),
        own=lambda: setattr(Derived, "own", 3),
        other_bases=lambda: setattr(Derived, "__bases__", (Other,)),
        bases_back=lambda: setattr(Derived, "__bases__", (Base,)),
        unrelated=lambda: setattr(Base, "unrelated", 1),
        on_the_instance=lambda: setattr(thing, "level", 1),
        other_class=lambda: setattr(thing, "__class__", type("Third", (Derived,), {})),
        class_back=lambda: setattr(thing, "__class__", Derived),
    )


@entry
def namespaces() -> Example:
    config = types.SimpleNamespace(heads=2, inner=types.SimpleNamespace(eps=0.5), unused=1)

    def function(x: torch.Tensor, config: Any) -> torch.Tensor:
        return x * config.heads + config.inner.eps + getattr(config, "optional", 0)

    return (
        Example(function, torch.ones(2), config)
        .change(
            heads=lambda: setattr(config, "heads", config.heads + 1),
            heads_back=lambda: setattr(config, "heads", 2),
            eps=lambda: setattr(config.inner, "eps", 0.25),
            inner=lambda: setattr(config, "inner", types.SimpleNamespace(eps=0.5)),
            unused=lambda: setattr(config, "unused", 2),
            optional=lambda: setattr(config, "optional", 3),
            removed=lambda: vars(config).pop("optional", None),
        )
        .rebind("config", copied=lambda: types.SimpleNamespace(heads=2, inner=types.SimpleNamespace(eps=0.5)))
    )


class Sized:
    def __init__(self, items: list[int]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, at: int) -> int:
        return self.items[at]

    def __contains__(self, item: object) -> bool:
        return item in self.items


@entry
def own_containers() -> Example:
    sized = Sized([1, 2])

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + len(sized) + sized[0] + (5 in sized)

    return Example(function, torch.ones(2)).change(
        first=lambda: sized.items.__setitem__(0, 3),
        first_back=lambda: sized.items.__setitem__(0, 1),
        longer=lambda: sized.items.append(5),
        shorter=lambda: sized.items.pop() if len(sized.items) > 2 else None,
        replaced=lambda: setattr(sized, "items", [1, 2]),
        tupled=lambda: setattr(sized, "items", (1, 2)),
    )
