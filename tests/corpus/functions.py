"""Functions, methods, partials, and the globals and weak references that they read."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any

import torch

from .example import Example, Locals, entry
from .modules import Block


@entry
def closures() -> Example:
    scale, items = 2, [1]

    def helper(x: torch.Tensor) -> torch.Tensor:
        return x * scale + items[0]

    def function(x: torch.Tensor) -> torch.Tensor:
        return helper(x) + scale

    def rescale(value: Any) -> Callable[[Locals], None]:
        def change(f_locals: Locals) -> None:
            nonlocal scale
            scale = value
            f_locals["scale"] = value

        return change

    example = Example(function, torch.ones(2))
    for label, value in {"scale": 3, "scale_back": 2, "real": 2.0, "none": None}.items():
        example.mutations[label] = rescale(value)

    def other_helper(x: torch.Tensor) -> torch.Tensor:
        return x * scale

    example.rebind("helper", other_helper=lambda: other_helper, helper_back=lambda: helper)
    return example.change(item=lambda: items.__setitem__(0, 5), item_back=lambda: items.__setitem__(0, 1))


@entry
def defaults() -> Example:
    def helper(x: torch.Tensor, a: Any = 2, *, b: Any = 3) -> torch.Tensor:
        return x * a + b

    def other(x: torch.Tensor, a: Any = 2, *, b: Any = 3) -> torch.Tensor:
        return x * a - b

    code = helper.__code__
    return Example(lambda x: helper(x), torch.ones(2)).change(
        default=lambda: setattr(helper, "__defaults__", (4,)),
        default_back=lambda: setattr(helper, "__defaults__", (2,)),
        no_defaults=lambda: setattr(helper, "__defaults__", None),
        longer_defaults=lambda: setattr(helper, "__defaults__", (torch.ones(2), 2)),
        kwdefault=lambda: setattr(helper, "__kwdefaults__", {"b": 4}),
        kwdefault_back=lambda: setattr(helper, "__kwdefaults__", {"b": 3}),
        kwdefault_in_place=lambda: (helper.__kwdefaults__ or {}).update(b=5),
        no_kwdefaults=lambda: setattr(helper, "__kwdefaults__", None),
        code=lambda: setattr(helper, "__code__", other.__code__),
        code_back=lambda: setattr(helper, "__code__", code),
    )


def scaled(x: torch.Tensor, factor: Any, *, offset: Any = 0) -> torch.Tensor:
    return x * factor + offset


@entry
def partials() -> Example:
    def function(x: torch.Tensor, f: Any) -> torch.Tensor:
        return f(x)

    return Example(function, torch.ones(2), functools.partial(scaled, factor=2, offset=1)).rebind(
        "f",
        same=lambda: functools.partial(scaled, factor=2, offset=1),
        other_keyword=lambda: functools.partial(scaled, factor=3, offset=1),
        fewer_keywords=lambda: functools.partial(scaled, factor=2),
        other_function=lambda: functools.partial(torch.add, other=2),
        nested=lambda: functools.partial(functools.partial(scaled, factor=2), offset=1),
        plain=lambda: torch.sin,
    )


class Counter:
    def __init__(self, step: int) -> None:
        self.step = step

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.step


@entry
def bound_methods() -> Example:
    counter = Counter(1)

    def function(x: torch.Tensor, f: Any) -> torch.Tensor:
        return f(x)

    return (
        Example(function, torch.ones(2), counter.apply)
        .change(step=lambda: setattr(counter, "step", counter.step + 1), step_back=lambda: setattr(counter, "step", 1))
        .rebind(
            "f",
            again=lambda: counter.apply,
            same_step=lambda: Counter(1).apply,
            other_step=lambda: Counter(2).apply,
            function=lambda: torch.sin,
        )
    )


GLOBAL_NUMBER: Any = 3
GLOBAL_LIST: Any = [1, 2]
GLOBAL_TENSOR: Any = torch.ones(2)


def global_helper(x: torch.Tensor) -> torch.Tensor:
    return x + GLOBAL_NUMBER


@entry
def module_globals() -> Example:
    scope = globals()
    before = {name: scope[name] for name in ("GLOBAL_NUMBER", "GLOBAL_LIST", "GLOBAL_TENSOR", "global_helper")}

    def function(x: torch.Tensor) -> torch.Tensor:
        return global_helper(x) * GLOBAL_LIST[0] + GLOBAL_TENSOR

    example = Example(function, torch.ones(2))
    example.cleanups.append(lambda: scope.update(before, GLOBAL_LIST=[1, 2]))
    return example.change(
        number=lambda: scope.update(GLOBAL_NUMBER=4),
        number_back=lambda: scope.update(GLOBAL_NUMBER=3),
        real=lambda: scope.update(GLOBAL_NUMBER=3.0),
        item=lambda: scope.update(GLOBAL_LIST=[5, 2]),
        items_back=lambda: scope.update(GLOBAL_LIST=[1, 2]),
        other_tensor=lambda: scope.update(GLOBAL_TENSOR=torch.ones(1)),
        tensor_back=lambda: scope.update(GLOBAL_TENSOR=torch.zeros(2)),
        other_helper=lambda: scope.update(global_helper=torch.sin),
        helper_back=lambda: scope.update(global_helper=before["global_helper"]),
        removed=lambda: scope.pop("GLOBAL_NUMBER", None),
        unrelated=lambda: scope.update(UNRELATED_GLOBAL=object()),
    )


@entry
def weak_references() -> Example:
    block = Block()
    reference = weakref.ref(block)

    def function(x: torch.Tensor, reference: Any) -> torch.Tensor:
        target = reference()
        return x if target is None else x + target.scale

    kept: list[Any] = [block]
    return (
        Example(function, torch.ones(2), reference)
        .change(scale=lambda: setattr(kept[0], "scale", 3), scale_back=lambda: setattr(kept[0], "scale", 2))
        .rebind(
            "reference",
            another=lambda: weakref.ref(kept.append(Block()) or kept[-1]),
            dead=lambda: weakref.ref(Block()),
            same=lambda: weakref.ref(kept[0]),
        )
    )
