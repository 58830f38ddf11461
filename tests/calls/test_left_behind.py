"""What a program that looks closely sees: state that is left behind, classes with ways of their own, odd backends."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from torch._C._dynamo import eval_frame

from ..harness import assert_same, collect, ones
from .watching import dispatcher_of, short


class Broken(Exception):
    pass


class Breaking:
    """A backend whose compiled code raises when told to."""

    def __init__(self) -> None:
        self.breaks = False

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            if self.breaks:
                raise Broken
            return graph.forward(*args)

        return run


def frame_count() -> int:
    count = eval_frame.set_fullgraph_compiled_frame_count(-1)
    eval_frame.set_fullgraph_compiled_frame_count(count)
    return count


def test_an_exception_in_a_fullgraph_function_leaves_no_count() -> None:
    backend = Breaking()
    compiled = torch.compile(lambda x: x + 1, backend=backend, fullgraph=True)
    for _ in range(2):
        compiled(ones())
    backend.breaks = True
    try:
        with pytest.raises(Broken):
            compiled(ones())
        assert frame_count() == -1
    finally:
        eval_frame.set_fullgraph_compiled_frame_count(-1)


FAILS = False


@torch.library.custom_op("unified_guards_calls::fails", mutates_args=())
def fails(x: torch.Tensor) -> torch.Tensor:
    if FAILS:
        raise Broken
    return x.clone()


@fails.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@fails.register_vmap
def _(info: Any, dims: Any, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
    return fails(x), dims[0]


def test_an_exception_in_a_transform_leaves_no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.compile(lambda x: torch.func.vmap(lambda y: fails(y) * 2)(x), backend="eager")
    for _ in range(3):
        assert_same(compiled(ones()), ones() * 2)
    monkeypatch.setitem(globals(), "FAILS", True)
    try:
        with pytest.raises(Broken):
            compiled(ones())
        assert torch._C._functorch.get_dynamic_layer_stack_depth() == 0
    finally:
        torch._C._functorch.pop_dynamic_layer_stack_and_undo_to_depth(0)


def test_no_graph_of_a_module_is_kept_after_a_reset() -> None:
    kept: list[weakref.ref[Any]] = []

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(ones())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        kept.append(weakref.ref(graph))
        return graph.forward

    module = Model()
    compiled = torch.compile(module, backend=backend)
    for _ in range(3):
        compiled(ones())
    torch._dynamo.reset()
    collect()
    assert kept[0]() is None
    assert_same(compiled(ones()), module(ones()))


# -- classes that look up in ways of their own -------------------------------------------------------------------------


def test_a_module_whose_class_looks_attributes_up_itself() -> None:
    other = False

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

        def forward_otherwise(self, x: torch.Tensor) -> torch.Tensor:
            return x + 100

        def __getattribute__(self, name: str) -> Any:
            return super().__getattribute__("forward_otherwise" if name == "forward" and other else name)

    compiled = torch.compile(Model(), backend="eager")
    for _ in range(3):
        assert_same(compiled(ones()), ones() + 1)
    other = True
    assert_same(compiled(ones()), ones() + 100)


def test_a_module_with_a_static_forward() -> None:
    class Model(torch.nn.Module):
        @staticmethod
        def forward(x: Any, y: Any = None) -> torch.Tensor:
            return torch.ones(3) + 1

    compiled = torch.compile(Model(), backend="eager")
    for _ in range(3):
        assert_same(compiled(ones()), ones() * 2)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        compiled()


def test_a_module_whose_class_has_compiled_calls() -> None:
    class Model(torch.nn.Module):
        _compiled_call_impl = staticmethod(lambda *args: "of the class")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    backend = Breaking()
    forward = torch.compile(Model().forward, backend=backend)
    compiled = torch.compile(Model(), backend=backend)
    for _ in range(3):
        forward(ones())
        assert compiled(ones()) == "of the class"


def test_a_module_whose_class_changes_goes_the_short_way_again() -> None:
    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    compiled = torch.compile(Model(), backend="eager")
    for _ in range(3):
        compiled(ones())
    Model.unrelated = 1  # type: ignore[attr-defined]
    compiled(ones())
    with short(compiled):
        compiled(ones())


# -- what backends return ----------------------------------------------------------------------------------------------

KINDS: dict[str, Callable[[Any], Any]] = {
    "a list": list,
    "a tuple": tuple,
    "a tensor": lambda outputs: torch.stack(tuple(outputs)),
    "a tuple that is too long": lambda outputs: (*outputs, 1),
    "a tuple that is too short": lambda outputs: tuple(outputs)[:-1],
    "a list of another class": lambda outputs: type("Other", (list,), {"__getitem__": lambda self, at: 5})(outputs),
    "None": lambda outputs: None,
}


def outcomes(function: Callable[..., Any], kind: Callable[[Any], Any]) -> list[Any]:
    compiled = torch.compile(function, backend=lambda graph, inputs: lambda *args: kind(graph.forward(*args)))
    found: list[Any] = []
    for _ in range(3):
        try:
            found.append(compiled(ones(), ones()))
        except (TypeError, ValueError, IndexError) as error:
            found.append((type(error), str(error)))
    assert dispatcher_of(compiled).counts[0] == 2
    return found


@pytest.mark.parametrize("function", [lambda x, y: x + y, lambda x, y: (x + y, x - y)], ids=["one output", "two"])
@pytest.mark.parametrize(
    "name",
    KINDS,
)
def test_the_outputs_of_a_graph_are_taken_apart_as_before(name: str, function: Callable[..., Any]) -> None:
    first, *others = outcomes(function, KINDS[name])  # the first call runs Dynamo's code
    for each in others:
        assert_same(each, first)
