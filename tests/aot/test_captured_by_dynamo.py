"""``aot_function``: where Dynamo, left alone, would capture something else than what eager does."""

from __future__ import annotations

import functools
import inspect
import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func, nop

import unified_guards

from .helpers import Keywords, check, ones


def numbers(x: torch.Tensor) -> Iterator[torch.Tensor]:
    yield x
    yield x + 1


ITERATORS: dict[str, Callable[[Any], Any]] = {
    "a generator": numbers,
    "an expression": lambda x: (x * at for at in range(2)),
    "enumerate": lambda x: enumerate([x + 1]),
    "reversed": lambda x: reversed([x, x + 1]),
    "map": lambda x: map(torch.sin, [x]),
    "iter": lambda x: iter([x + 1]),
}


@pytest.mark.parametrize("kind", ITERATORS)
def test_an_iterator_comes_out_as_the_iterator_that_it_is(kind: str) -> None:
    function = ITERATORS[kind]
    compiled = unified_guards.aot_function(function, nop)
    for _ in range(2):
        result, expected = compiled(ones(2)), function(ones(2))
        assert type(result) is type(expected)
        torch.testing.assert_close(list(result), list(expected))


DRAWS: dict[str, Callable[[], Any]] = {
    "random": random.random,
    "randint": lambda: random.randint(1, 1000),
    "uniform": lambda: random.uniform(1, 1000),
}


@pytest.mark.parametrize("kind", DRAWS)
def test_a_capture_draws_no_random_numbers(kind: str) -> None:
    draw = DRAWS[kind]
    found = []
    for compiled in (unified_guards.aot_function(lambda x: x * draw(), nop), lambda x: x * draw()):
        random.seed(1)
        found.append([compiled(ones(1, dtype=torch.float64)).item() for _ in range(3)] + [random.random()])
    assert found[0] == found[1]


class Plain(torch.Tensor):
    pass


def test_a_tensor_of_a_class_that_does_nothing() -> None:
    compiled = unified_guards.aot_function(lambda x: x + 1, nop)
    for _ in range(2):
        result = compiled(ones(2).as_subclass(Plain))
        assert type(result) is Plain
        assert result.tolist() == [2.0, 2.0]


def test_the_order_of_keyword_arguments() -> None:
    check(
        lambda x, **rest: (list(rest), [x * value for value in rest.values()]),
        (ones(2), Keywords(a=2, b=3)),
        (ones(2), Keywords(b=3, a=2)),
        compiles=2,
    )


def test_what_is_put_back_is_no_effect() -> None:
    class Mode:
        depth = 0

        def __init__(self) -> None:
            self.depth = 1

    mode = Mode()

    def function(x: torch.Tensor) -> torch.Tensor:
        before, mode.depth = mode.depth, 5
        result = x * mode.depth
        mode.depth = before
        return result

    compiled = check(function, (ones(2),), compiles=1)
    assert mode.depth == 1
    mode.depth = 2
    assert compiled(ones(2)).tolist() == [5.0, 5.0]
    assert mode.depth == 2


def test_a_stance_is_heard() -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2, nop)
    with torch.compiler.set_stance("force_eager"):
        assert compiled(ones(2)).tolist() == [2.0, 2.0]
    assert compiled.cache_info().entries == 0
    compiled(ones(2))
    with torch.compiler.set_stance("force_eager"):
        compiled(ones(2))
    assert sum(compiled.cache_info().eager.values()) == 2


def test_under_torch_fx_the_function_is_seen_through() -> None:
    compiled = unified_guards.aot_function(lambda x: x * 2, nop)

    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return compiled(x) + 1

    graph = torch.fx.symbolic_trace(Module())
    assert "mul" in graph.code
    assert compiled.cache_info().entries == 0


def test_in_a_backend_the_function_is_seen_through() -> None:
    inner = unified_guards.aot_function(lambda x: x * 2, nop)
    seen: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        seen.append(inner(ones(2)))
        return graph.forward

    assert torch.compile(lambda x: x + 1, backend=backend)(ones(2)).tolist() == [2.0, 2.0]
    assert seen[0].tolist() == [2.0, 2.0]
    assert inner.cache_info().entries == 0


@pytest.mark.parametrize("grad", [False, True])
def test_a_compiler_whose_code_returns_its_only_output(grad: bool) -> None:
    def compiler(graph: Any, inputs: Any) -> Any:
        return make_boxed_func(lambda *given: graph(*given)[0] if len(graph(*given)) == 1 else graph(*given))

    check(lambda x: x.sin(), (ones(2, requires_grad=grad),), fw_compiler=compiler, compiles=1)


def test_calls_like_one_that_cannot_be_captured_are_not_captured_again() -> None:
    compiled = unified_guards.aot_function(lambda x, n: x * 2 if x.sum() > n else x * 3, nop, recompile_limit=3)
    for n in (1, 2, 1.5, 2.5):
        for _ in range(3):
            assert compiled(ones(2), n).tolist() == ([2.0, 2.0] if n < 2 else [3.0, 3.0])
    assert compiled.cache_info().misses == 2  # one for each type of argument
    assert sum(compiled.cache_info().eager.values()) == 12


def test_a_warning_is_given_on_every_call() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        warnings.warn("mine", stacklevel=1)
        return x * 2

    compiled = unified_guards.aot_function(function, nop)
    for _ in range(2):
        with pytest.warns(UserWarning, match="mine"):
            compiled(ones(2))


def test_a_compiler_is_given_a_graph_that_is_written() -> None:
    seen: list[Any] = []

    def compiler(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        seen.append((type(graph).forward, graph.forward.__name__))
        return make_boxed_func(graph.forward)

    unified_guards.aot_function(lambda x: x + 1, compiler)(ones(2))
    ((forward, name),) = seen
    assert "_lazy" not in (forward.__name__ + name)


def test_what_is_changed_on_the_first_call_only_is_compiled_on_the_second() -> None:
    kept: dict[int, torch.Tensor] = {}

    def function(x: torch.Tensor) -> torch.Tensor:
        if 2 not in kept:
            kept[2] = torch.full((2,), 3.0)
        return x + kept[2]

    compiled = unified_guards.aot_function(function, nop)
    for _ in range(4):
        assert compiled(ones(2)).tolist() == [4.0, 4.0]
    info = compiled.cache_info()
    assert (info.entries, sum(info.eager.values())) == (1, 1)


def test_a_refused_call_is_tried_again_when_the_reason_may_be_gone() -> None:
    state = {"draws": True}
    numbers = iter(range(1, 100))
    compiled = unified_guards.aot_function(lambda x: x + (next(numbers) if state["draws"] else 5), nop)
    assert compiled(torch.zeros(1)).tolist() == [1.0]
    state["draws"] = False
    for _ in range(20):
        assert compiled(torch.zeros(1)).tolist() == [5.0]
    assert compiled.cache_info().entries == 1


def test_a_coroutine_comes_out_as_one() -> None:
    async def function(x: torch.Tensor) -> torch.Tensor:
        return x

    compiled = unified_guards.aot_function(function, nop)
    made = compiled(ones(2))
    assert inspect.iscoroutine(made)
    made.close()


def _changed(name: str) -> Any:
    """A function, and what changes something that its code reads only where Dynamo does not look."""
    state = {"factor": 2.0}
    change: Callable[[], None] = lambda: state.update(factor=5.0)  # noqa: E731
    unique = f"{name}{next(_numbers)}"
    if name == "backward of an operator":

        @torch.library.custom_op(f"unified_guards_tests::{unique.replace(' ', '_')}", mutates_args=())
        def operator(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        operator.register_fake(torch.empty_like)
        operator.register_autograd(lambda _, grad: grad * state["factor"])
        return lambda x: operator(x), change
    if name == "a composite operator":
        library = torch.library.Library("unified_guards_composite", "FRAGMENT")
        library.define(f"{unique.replace(' ', '_')}(Tensor x) -> Tensor")
        library.impl(unique.replace(" ", "_"), lambda x: x * state["factor"], "CompositeImplicitAutograd")
        call = getattr(torch.ops.unified_guards_composite, unique.replace(" ", "_"))
        _libraries.append(library)
        return lambda x: call(x), change

    @functools.lru_cache
    def factor() -> float:
        return state["factor"]

    return lambda x: x * factor(), change


_numbers = itertools.count()
_libraries: list[torch.library.Library] = []


@pytest.mark.parametrize("name", ["backward of an operator", "a composite operator", "a cache of Python's"])
def test_code_that_nobody_sees_and_that_reads_state_runs_eagerly(name: str) -> None:
    def value_and_gradient(call: Callable[..., Any]) -> Any:
        x = ones(2, requires_grad=True)
        result = call(x)
        result.sum().backward()
        return result.tolist(), x.grad.tolist()

    function, change = _changed(name)
    compiled = unified_guards.aot_function(function, nop)
    assert value_and_gradient(compiled) == value_and_gradient(function)
    change()
    assert value_and_gradient(compiled) == value_and_gradient(function)
    assert compiled.cache_info().entries == 0


def test_an_operator_whose_backward_reads_no_state_is_compiled() -> None:
    @torch.library.custom_op(f"unified_guards_tests::plain{next(_numbers)}", mutates_args=())
    def operator(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    operator.register_fake(torch.empty_like)
    operator.register_autograd(lambda _, grad: torch.mul(grad, 2))
    check(lambda x: operator(x), (ones(2, requires_grad=True),), compiles=1)


def test_an_inference_tensor_comes_out_as_one() -> None:
    @torch.inference_mode()
    def function(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    assert unified_guards.aot_function(function, nop)(ones(2)).is_inference()


def test_a_view_that_was_made_without_a_graph_is_a_leaf() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return x[1:]

    x = ones(3, requires_grad=True)
    view = unified_guards.aot_function(function, nop)(x)
    assert view.is_leaf is function(x).is_leaf


def test_a_leaf_is_written_to_as_in_eager_after_what_is_none() -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        x.detach().mul_(2)
        return x.sin()

    compiled = unified_guards.aot_function(function, nop)
    for leaf in (False, True, False, True):
        x, y = ones(2, requires_grad=True), ones(2, requires_grad=True)
        given, others = (x, y) if leaf else (x * 1, y * 1)
        torch.testing.assert_close(compiled(given), function(others))
        torch.testing.assert_close(given, others)
