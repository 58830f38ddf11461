"""Inputs of a graph on the short way: they come from the check where it vouches for them. Else they are read."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
import torch

from unified_guards import _C

from ..harness import Watched, assert_same, ones
from .watching import Model, dispatcher_of, short, watched


class Stack(torch.nn.Module):
    """Layers in a list, each with parameters and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.BatchNorm1d(3, affine=True).eval() for _ in range(3))
        for at, layer in enumerate(self.layers):
            torch.nn.init.constant_(layer.weight, at + 1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x) + layer.bias
        return x


def inputs(made: Watched) -> tuple[int, int]:
    """How many inputs the only plan has, and how many of them came from the last check."""
    (found,) = dispatcher_of(made.compiled).inputs
    return found


def need_version(type: type) -> None:
    if not _C.has_version(type):
        pytest.skip(f"{type.__name__} has no version: it was changed too often in this process, or this is Python 3.10")


def taking(module: torch.nn.Module, x: torch.Tensor) -> Watched:
    """Compiled, and called until parameters are taken from the check."""
    need_version(torch.nn.Module)
    made = watched(module, x)
    for _ in range(4):
        made(x)
    assert inputs(made)[1] > 0
    return made


def same(made: Watched, module: Any, x: torch.Tensor, calls: int = 3) -> None:
    for _ in range(calls):
        assert torch.equal(made(x), module(x))


# -- what the check vouches for ----------------------------------------------------------------------------------------


def test_parameters_and_buffers_come_from_the_check() -> None:
    made = taking(Stack(), ones(2, 3))
    count, taken = inputs(made)
    assert taken == count - 1  # x is read: it may be another tensor in each call


def test_a_parameter_that_is_replaced_is_used_at_once() -> None:
    module, x = Model(), ones(2, 3)
    made = taking(module, x)
    graphs = made.graphs
    for at in range(4):
        module.layer.weight = torch.nn.Parameter(torch.full((3, 3), float(at)))
        same(made, module, x, calls=1 + at % 2)
    assert made.graphs == graphs


def test_a_parameter_that_is_freed_and_made_again_is_used_at_once() -> None:
    module, x = Model(), ones(2, 3)
    made = taking(module, x)
    for at in range(20):
        del module.layer.weight
        gc.collect(0)
        module.layer.weight = torch.nn.Parameter(torch.full((3, 3), float(at)))
        same(made, module, x, calls=1)


def test_layers_that_are_exchanged_are_used_at_once() -> None:
    module, x = Stack(), ones(2, 3)
    made = taking(module, x)
    first, second = module.layers[0], module.layers[1]
    with torch.no_grad():
        second.bias.fill_(2.0)
    module.layers[0], module.layers[1] = second, first
    same(made, module, x)


def test_a_buffer_written_past_the_module_is_used_at_once() -> None:
    module, x = Stack(), ones(2, 3)
    made = taking(module, x)
    vars(module.layers[1])["_buffers"]["running_mean"] = torch.full((3,), 5.0)
    same(made, module, x)


def test_each_module_of_a_class_has_its_own() -> None:
    modules, x = [Model() for _ in range(5)], ones(2, 3)
    for module in modules:
        module.compile(backend="eager")
    for _ in range(8):
        for module in modules:
            assert torch.equal(module(x), torch.nn.functional.linear(x, module.layer.weight, module.layer.bias))


@pytest.mark.parametrize("name", ["_parameters", "_modules"])
def test_a_property_that_the_class_gets_is_asked(name: str) -> None:
    class Own(torch.nn.Linear):
        pass

    class Holder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Own(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    module, x, other = Holder(), ones(2, 3), Own(3, 3)
    made = taking(module, x)
    kind, owner = (Own, module.inner) if name == "_parameters" else (Holder, module)
    held = vars(owner)[name]
    replaced = dict(vars(other)["_parameters"]) if name == "_parameters" else {"inner": other}
    setattr(kind, name, property(lambda self: replaced if self is owner else vars(self)[name]))
    expected = torch.nn.functional.linear(x, other.weight, other.bias)
    graphs = made.graphs
    found = made.compiled(x)
    if made.graphs == graphs:  # no guard looks at the property, and torch's code asks it
        assert torch.equal(found, expected)
    delattr(kind, name)
    vars(owner)[name] = held
    same(made, module, x)


def test_a_class_that_gets_a_getattribute_is_asked() -> None:
    class Own(torch.nn.Linear):
        pass

    module, x = torch.nn.Sequential(Own(3, 3)), ones(2, 3)
    made = taking(module, x)
    seen = []

    def spy(self: Any, name: str) -> Any:
        if name == "_parameters":
            seen.append(name)
        return object.__getattribute__(self, name)

    Own.__getattribute__ = spy  # type: ignore[method-assign]
    made.compiled(x)
    assert seen  # as torch's own code would ask it
    del Own.__getattribute__
    same(made, module, x)


def test_a_key_that_only_equals_the_name_is_looked_up() -> None:
    class Name(str):
        __slots__ = ()

    module, x = Model(), ones(2, 3)
    made = taking(module, x)
    parameters = vars(module.layer)["_parameters"]
    bias = parameters.pop("bias")
    parameters[Name("bias")] = bias
    same(made, module, x)


def test_a_call_in_the_middle_of_a_call_has_inputs_of_its_own() -> None:
    modules, x = [Model(), Model()], ones(2, 3)
    made: list[Watched] = []

    class Calls(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if made and func is torch.nn.functional.linear:
                assert torch.equal(made[1](x), modules[1](x))
            return super().__torch_function__(func, types, args, kwargs or {})

    both = [taking(module, x) for module in modules]
    one = x.as_subclass(Calls)
    for _ in range(3):
        both[0](one)
    made += both
    for _ in range(3):
        assert torch.equal(both[0](one).as_subclass(torch.Tensor), modules[0](x))


# -- what is left of the code after the graph --------------------------------------------------------------------------


class Box:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Box)
        assert_same(self.value, other.value)
        return True

    __hash__ = object.__hash__


def test_an_object_that_the_code_makes() -> None:
    need_version(torch.nn.Module)
    module = Model()
    made = watched(lambda x: Box(module(x)), ones(2, 3))
    with short(made.compiled, calls=3):
        for _ in range(3):
            made(ones(2, 3))
    assert inputs(made)[1] == 2  # the graph was called by the plan, with what the check has found


def test_side_effects_happen_once_in_each_call() -> None:
    def function(x: torch.Tensor, into: list[Any], box: Box) -> torch.Tensor:
        y = x + 1
        into.append(y)
        box.value = y
        return y * 2

    compiled = torch.compile(function, backend="eager")
    compiled(ones(), [], Box(0))
    for at in range(3):
        into: list[Any] = []
        box = Box(0)
        with short(compiled):
            assert torch.equal(compiled(ones() * at, into, box), (ones() * at + 1) * 2)
        assert len(into) == 1 and box.value is into[0] and torch.equal(into[0], ones() * at + 1)


def test_keywords_and_defaults_reach_the_rest() -> None:
    def function(x: torch.Tensor, *more: Any, scale: float = 2.0, **named: Any) -> Any:
        return Box((x * scale, more, sorted(named)))

    made = Watched(function)
    for _ in range(2):
        made(ones(), 1, "a", other=3)
    with short(made.compiled, calls=2):
        for _ in range(2):
            made(ones(), 1, "a", other=3)


def test_a_free_variable_reaches_the_rest() -> None:
    factor = 2

    def function(x: torch.Tensor) -> Any:
        return Box(x * factor)

    made = watched(function, ones())
    with short(made.compiled):
        made(ones())


def test_an_exception_after_the_graph_leaves_as_before() -> None:
    class Refuses(list[Any]):
        def append(self, item: Any) -> None:
            raise ValueError("no")

    def function(x: torch.Tensor, into: list[Any]) -> torch.Tensor:
        into.append(x + 1)
        torch._dynamo.graph_break()
        return x * 2

    made = Watched(function)
    for _ in range(3):
        made(ones(), [])
    with pytest.raises(ValueError, match="no"):
        made(ones(), Refuses())
    assert torch.equal(made(ones(), []), ones() * 2)


def test_nothing_is_kept_alive_by_the_plan_while_the_rest_runs() -> None:
    found: list[int] = []

    @torch._dynamo.disable
    def look(y: torch.Tensor) -> None:
        found.append(sys.getrefcount(y))

    def function(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        torch._dynamo.graph_break()
        look(y)
        return y * 2

    made = watched(function, ones())
    found.clear()
    made.compiled(ones())
    with torch.autograd.profiler.profile():  # the long way
        made.compiled(ones())
    assert found[0] == found[-1]
