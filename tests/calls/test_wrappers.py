"""What torch.compile returns stays what it was: attributes, lifetimes, copies, kinds of modules."""

from __future__ import annotations

import copy
import functools
import gc
import inspect
import pickle
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from torch.nn.utils import parametrizations, prune

import unified_guards

from ..harness import Watched, assert_same, collect, ones, static
from .watching import Model, dispatcher_of, short, shorts, watched, wrapper_of


def add(x: torch.Tensor, y: Any = 1) -> torch.Tensor:
    """Adds."""
    return x + y


def plain(function: Callable[..., Any]) -> Any:
    with unified_guards.config.patch(dispatch=False):
        return torch.compile(function, backend="eager")


# -- what is seen of it ------------------------------------------------------------------------------------------------


def test_attributes_are_torchs_but_one() -> None:
    compiled = torch.compile(add, backend="eager")
    assert set(vars(compiled)) - set(vars(plain(add))) == {"_unified_guards_dispatcher"}
    assert compiled.__doc__ == "Adds." and compiled.__name__ == "add" and compiled.__wrapped__ is add
    assert compiled._torchdynamo_orig_callable is add and compiled._torchdynamo_inline is add


def test_inspect_sees_what_it_saw() -> None:
    compiled = torch.compile(add, backend="eager")
    assert inspect.signature(compiled) == inspect.signature(add)
    assert inspect.unwrap(compiled) is add
    assert inspect.getsource(compiled) == inspect.getsource(add)
    assert inspect.isfunction(compiled)
    for attribute in ("co_name", "co_filename", "co_firstlineno", "co_varnames", "co_freevars", "co_flags"):
        assert getattr(compiled.__code__, attribute) == getattr(plain(add).__code__, attribute)


def test_wraps_copies_what_can_be_copied() -> None:
    compiled = torch.compile(add, backend="eager")

    @functools.wraps(compiled)
    def other(*args: Any) -> Any:
        return compiled(*args) + 1

    for _ in range(3):
        assert_same(other(ones()), ones() * 3)
    assert inspect.signature(other) == inspect.signature(add)


def test_a_wrapper_that_is_compiled_again() -> None:
    made = Watched(add)
    again = torch.compile(made.compiled, backend=made.backend)
    for _ in range(3):
        assert_same(again(ones()), ones() * 2)
    assert made.graphs == 1


def test_a_wrapper_with_a_new_function_of_its_code() -> None:
    made = watched(add, ones())
    code, closure = made.compiled.__code__, made.compiled.__closure__
    other = type(add)(code, made.compiled.__globals__, "other", None, closure)
    assert_same(other(ones()), ones() * 2)
    made.compiled = None
    collect()
    assert_same(other(ones()), ones() * 2)


def test_disable_runs_the_function_itself() -> None:
    made = watched(add, ones())
    disabled = torch.compiler.disable(made.compiled)
    before = shorts(made.compiled)
    assert_same(disabled(ones()), ones() * 2)
    assert shorts(made.compiled) == before


def test_a_disabled_function_may_call_what_is_compiled() -> None:
    made = watched(add, ones())
    with short(made.compiled):
        assert_same(torch.compiler.disable(lambda x: made.compiled(x))(ones()), ones() * 2)


def test_functions_that_are_copied() -> None:
    made = watched(add, ones())
    assert copy.copy(made.compiled) is made.compiled and copy.deepcopy(made.compiled) is made.compiled


def called(compiled: Any, times: int = 3) -> Any:
    for _ in range(times):
        compiled(ones(3))
    return compiled


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_compiled_module_that_is_copied(copied: Callable[[Any], Any]) -> None:
    compiled = called(torch.compile(Model(), backend="eager"))
    other = called(copied(compiled))
    assert_same(other(ones(3)), compiled(ones(3)))
    assert dispatcher_of(other) is not dispatcher_of(compiled)
    with torch.no_grad():
        other._orig_mod.layer.weight.add_(1)
    assert_same(other(ones(3)), other._orig_mod(ones(3)))
    assert_same(compiled(ones(3)), compiled._orig_mod(ones(3)))


def test_a_compiled_module_is_pickled_as_before() -> None:
    def outcome(compiled: Any) -> str:
        try:
            return type(pickle.loads(pickle.dumps(compiled))).__name__
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            return f"{type(error).__name__}: {error}"

    with unified_guards.config.patch(dispatch=False):
        want = outcome(called(torch.compile(Model(), backend="eager")))
    assert outcome(called(torch.compile(Model(), backend="eager"))) == want


def test_a_module_that_compiled_itself_is_copied() -> None:
    module = Model()
    module.compile(backend="eager")
    called(module)
    other = copy.deepcopy(module)
    with torch.no_grad():
        other.layer.weight.add_(1)
    assert_same(called(other)(ones(3)), other.forward(ones(3)))


def test_state_dicts_are_as_before() -> None:
    compiled = called(torch.compile(Model(), backend="eager"))
    assert list(compiled.state_dict()) == ["_orig_mod.layer.weight", "_orig_mod.layer.bias"]


# -- what it keeps alive -----------------------------------------------------------------------------------------------


def test_nothing_of_an_entry_is_kept_after_a_reset() -> None:
    kept: list[weakref.ref[Any]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        kept.append(weakref.ref(graph))

        def run(*args: Any) -> Any:
            return graph.forward(*args)

        kept.append(weakref.ref(run))
        return run

    def function(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    compiled = torch.compile(function, backend=backend)
    for _ in range(3):
        compiled(ones())
    entry = torch._dynamo.eval_frame._debug_get_cache_entry_list(function.__code__)[0]
    kept += [weakref.ref(entry.code), weakref.ref(entry.guard_manager)]
    del entry
    torch._dynamo.reset()
    collect()
    assert [each() for each in kept] == [None] * 4
    assert_same(compiled(ones()), ones() * 2)


def kept_with_a_graph_break(dispatch: bool) -> list[bool]:
    """Which graphs, and whether the code of the entry, outlive a reset: torch keeps some as long as the function."""
    kept: list[weakref.ref[Any]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        kept.append(weakref.ref(graph))
        return graph.forward

    def function(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        return x * 2

    with unified_guards.config.patch(dispatch=dispatch):
        compiled = torch.compile(function, backend=backend)
    for _ in range(3):
        compiled(ones())
    assert not dispatch or shorts(compiled) == 2
    kept.append(weakref.ref(torch._dynamo.eval_frame._debug_get_cache_entry_list(function.__code__)[0].code))
    torch._dynamo.reset()
    collect()
    found = [each() is not None for each in kept]
    del compiled, function
    collect()
    return found + [each() is not None for each in kept]


def test_what_is_kept_of_an_entry_with_a_graph_break_is_what_torch_keeps() -> None:
    assert kept_with_a_graph_break(dispatch=True) == kept_with_a_graph_break(dispatch=False)


def test_nothing_of_a_call_is_kept() -> None:
    made = watched(add, ones(), ones())
    x, y = ones(), ones()
    kept = [weakref.ref(x), weakref.ref(y)]
    with short(made.compiled):
        result = made.compiled(x, y)
    kept.append(weakref.ref(result))
    del x, y, result
    assert [each() for each in kept] == [None] * 3


def test_nothing_of_a_call_that_raised_is_kept() -> None:
    made = watched(lambda x, at: x[at], ones(), torch.tensor([0]))
    x = ones()
    kept = weakref.ref(x)
    with short(made.compiled), pytest.raises(IndexError):
        made.compiled(x, torch.tensor([9]))
    del x
    collect()
    assert kept() is None


def test_a_wrapper_dies_with_what_it_compiled() -> None:
    def make() -> tuple[Any, list[weakref.ref[Any]]]:
        weight = ones()

        def function(x: torch.Tensor) -> torch.Tensor:
            return x + weight

        compiled = torch.compile(function, backend="eager")
        for _ in range(3):
            compiled(ones())
        assert shorts(compiled) == 2
        return compiled, [weakref.ref(each) for each in (compiled, function, weight, dispatcher_of(compiled))]

    compiled, kept = make()
    torch._dynamo.reset()
    del compiled
    collect()
    assert [each() for each in kept] == [None] * 4


def test_a_module_dies_with_what_it_compiled() -> None:
    module = Model()
    compiled = called(torch.compile(module, backend="eager"))
    kept = [weakref.ref(each) for each in (module, compiled, wrapper_of(compiled), dispatcher_of(compiled))]
    torch._dynamo.reset()
    del module, compiled
    collect()
    assert [each() for each in kept] == [None] * 4


def test_a_module_that_dies_invalidates_its_entry_alone() -> None:
    one, other = Model(), Model()
    graphs = Watched(add)
    compiled = [torch.compile(module, backend=graphs.backend) for module in (one, other)]
    for _ in range(2):
        for each in compiled:
            each(ones(3))
    before = graphs.graphs
    del one
    compiled.pop(0)
    collect()
    assert_same(compiled[0](ones(3)), other(ones(3)))
    assert graphs.graphs == before


def test_many_calls_leave_nothing() -> None:
    made = watched(add, ones(), ones())
    x, y = ones(), ones()
    tracemalloc.start()
    try:
        for _ in range(3000):
            made.compiled(x, y=y)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(3000):
            made.compiled(x, y=y)
        assert tracemalloc.get_traced_memory()[0] - before < 3000
    finally:
        tracemalloc.stop()


def test_many_calls_that_raise_leave_nothing() -> None:
    made = watched(lambda x, at: x[at], ones(), torch.tensor([0]))
    x, at = ones(), torch.tensor([9])

    def fail() -> None:
        with pytest.raises(IndexError):
            made.compiled(x, at)

    for _ in range(50):
        fail()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(300):
            fail()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 30_000
    finally:
        tracemalloc.stop()


# -- kinds of modules --------------------------------------------------------------------------------------------------


def agrees(module: torch.nn.Module, *args: Any, times: int = 4, **options: Any) -> Any:
    compiled = torch.compile(module, backend="eager", **options)
    for _ in range(times):
        assert_same(compiled(*args), module(*args))
    return compiled


def test_containers() -> None:
    agrees(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), Model()), ones(3))
    agrees(torch.nn.Linear(3, 3), ones(3))


def test_lazy_modules() -> None:
    class Lazy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.LazyLinear(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    agrees(Lazy(), ones(3))
    agrees(torch.nn.LazyLinear(4), ones(3))


def test_a_parametrization_that_comes_later() -> None:
    module = Model()
    compiled = agrees(module, ones(3))
    parametrizations.weight_norm(module.layer)
    for _ in range(3):
        assert_same(compiled(ones(3)), module(ones(3)))
    torch.nn.utils.parametrize.remove_parametrizations(module.layer, "weight")
    for _ in range(3):
        assert_same(compiled(ones(3)), module(ones(3)))


def test_a_parametrization_of_the_module_itself() -> None:
    module = torch.nn.Linear(3, 3)
    compiled = agrees(module, ones(3))
    parametrizations.orthogonal(module)
    for _ in range(3):
        assert_same(compiled(ones(3)), module(ones(3)))


def test_weights_that_are_pruned_later() -> None:
    module = torch.nn.Linear(3, 3)
    compiled = agrees(module, ones(3))
    prune.l1_unstructured(module, "weight", amount=2)
    for _ in range(3):
        assert_same(compiled(ones(3)), module(ones(3)))


def test_a_module_with_a_call_of_its_own() -> None:
    class Called(Model):
        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return super().__call__(x) + 1

    agrees(Called(), ones(3))


def test_a_module_with_a_call_impl_of_its_own() -> None:
    class Called(Model):
        def _call_impl(self, x: torch.Tensor) -> torch.Tensor:
            return super()._call_impl(x) + 1

        __call__ = torch.nn.Module.__call__

    agrees(Called(), ones(3))


def test_a_module_in_evaluation() -> None:
    class Dropping(Model):
        def __init__(self) -> None:
            super().__init__()
            self.drop = torch.nn.Dropout(1.0)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.drop(self.layer(x))

    module = Dropping()
    compiled = agrees(module, ones(3))
    module.eval()
    for _ in range(3):
        assert_same(compiled(ones(3)), module(ones(3)))
    module.train()
    assert not compiled(ones(3)).any()


def test_data_parallel_on_the_cpu() -> None:
    agrees(torch.nn.DataParallel(Model()), ones(3))


def test_layers_that_are_compiled_one_by_one() -> None:
    layers = torch.nn.ModuleList([Model() for _ in range(3)])
    graphs = static(add)
    for layer in layers:
        layer.compile(backend=graphs.backend)
    x = ones(3)
    for _ in range(3):
        got = want = x
        for layer in layers:
            got, want = layer(got), layer.forward(want)
        assert_same(got, want)
    assert all(shorts(layer) >= 2 for layer in layers)


def test_methods_of_one_class() -> None:
    class Owner:
        def __init__(self, factor: float) -> None:
            self.factor = factor

        @torch.compile(backend="eager")
        def scaled(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.factor

    one, other = Owner(2.0), Owner(3.0)
    for _ in range(3):
        assert_same(one.scaled(ones()), ones() * 2)
        assert_same(other.scaled(ones()), ones() * 3)
    with short(Owner.scaled, calls=2):
        one.scaled(ones())
        other.scaled(ones())


def test_a_bound_method() -> None:
    class Owner:
        factor = 2.0

        def scaled(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.factor

    owner = Owner()
    made = watched(owner.scaled, ones())
    owner.factor = 3.0
    made.expect(2, ones())
    with short(made.compiled):
        made.expect(2, ones())


def test_an_optimizer() -> None:
    parameters = [ones(requires_grad=True) for _ in range(2)]
    steps = []
    for parameter in parameters:
        optimizer = torch.optim.SGD([parameter], lr=0.5)
        steps.append(torch.compile(optimizer.step, backend="eager") if parameter is parameters[0] else optimizer.step)
    for _ in range(4):
        for parameter, step in zip(parameters, steps, strict=True):
            parameter.grad = ones()
            step()
        assert_same(*parameters)
