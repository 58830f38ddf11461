"""``make_fx`` traces what Dynamo has captured: the function does not run, and nothing of the caller's changes."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import random
import weakref
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from functorch.compile import nop

import unified_guards
from unified_guards import GuardError
from unified_guards.dynamo import compat

MODES = ("real", "fake", "symbolic")


def traced(function: Callable[..., Any], *args: Any, mode: str = "real", **kwargs: Any) -> Any:
    return unified_guards.make_fx(function, tracing_mode=mode, _allow_non_fake_inputs=mode != "real")(*args, **kwargs)


@pytest.fixture(params=["", "1"], ids=["", "verified"], autouse=True)
def verify(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIFIED_GUARDS_VERIFY", request.param)


# -- the caller's state ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_arguments_are_not_written_to(mode: str) -> None:
    x = torch.ones(3)
    version = x._version
    gm = traced(lambda x: x.add_(1) * 2, x, mode=mode)
    assert x.tolist() == [1, 1, 1] and x._version == version
    assert gm(x).tolist() == [4, 4, 4]
    assert x.tolist() == [2, 2, 2]


def test_views_of_one_tensor_are_copied_as_such() -> None:
    base = torch.zeros(4)

    def function(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        a.add_(1)
        return b * 2

    gm = traced(function, base[:3], base[1:])
    assert base.tolist() == [0, 0, 0, 0]
    assert gm(base[:3], base[1:]).tolist() == [2, 2, 0]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_found_is_not_written_to(mode: str) -> None:
    norm = torch.nn.BatchNorm1d(2)
    before = copy.deepcopy(norm.state_dict())
    versions = [buffer._version for buffer in norm.buffers()]
    traced(lambda x: norm(x), torch.randn(4, 2), mode=mode)
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    assert [buffer._version for buffer in norm.buffers()] == versions


@pytest.mark.parametrize("mode", MODES)
def test_generators_of_random_numbers_are_not_moved(mode: str) -> None:
    torch.manual_seed(5)
    want = torch.rand(1)
    torch.manual_seed(5)
    gm = traced(lambda x: x + torch.rand(3), torch.ones(3), mode=mode)
    assert torch.equal(torch.rand(1), want)
    assert not torch.equal(gm(torch.ones(3)), gm(torch.ones(3)))


def test_random_numbers_of_pythons_are_refused_and_not_drawn() -> None:
    state = random.getstate()
    for function in (lambda x: x * random.randint(1, 5), lambda x: (random.randint(1, 5), x * 2)[1]):
        with pytest.raises(TypeError, match="random numbers"):
            traced(function, torch.ones(2))
    assert random.getstate() == state


# -- what a type is ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 2 if type(x) is torch.Tensor else x * 3,
        lambda x: x * 2 if isinstance(x.shape[0], int) else x * 3,
        pytest.param(
            lambda x: x * 2 if x.shape[0].__class__ is int else x * 3,
            marks=pytest.mark.skipif(compat.TORCH < (2, 13), reason="Dynamo of torch 2.11 takes the class for another"),
        ),
    ],
)
def test_types_are_those_of_eager(function: Callable[..., Any], mode: str) -> None:
    assert traced(function, torch.ones(2), mode=mode)(torch.ones(2)).tolist() == [2, 2]


# -- what becomes a constant of the graph ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_number_of_the_closure_is_a_constant(mode: str) -> None:
    scale = 5

    def function(x: torch.Tensor) -> torch.Tensor:
        return x * scale

    gm = traced(function, torch.ones(2), mode=mode)
    assert gm(torch.ones(2)).tolist() == [5, 5]
    scale = 7
    assert not gm.check(torch.ones(2))


@pytest.mark.parametrize("mode", MODES)
def test_a_float_among_the_arguments_is_a_constant(mode: str) -> None:
    gm = traced(lambda x, by: x * by, torch.ones(2), 1.5, mode=mode)
    assert gm(torch.ones(2), 1.5).tolist() == [1.5, 1.5]
    assert not gm.check(torch.ones(2), 2.5)


@pytest.mark.parametrize("mode", MODES)
def test_an_integer_of_an_object_is_a_constant(mode: str) -> None:
    class Holder:
        def __init__(self) -> None:
            self.value = 5

    holder = Holder()
    gm = traced(lambda x, given: x * given.value, torch.ones(2), holder, mode=mode)
    holder.value = 7
    assert not gm.check(torch.ones(2), holder)


@pytest.mark.parametrize("mode", MODES)
def test_a_tensor_of_an_object_is_a_constant(mode: str) -> None:
    class Holder:
        def __init__(self) -> None:
            self.weight = torch.full((2,), 5.0)

    holder = Holder()
    gm = traced(lambda x, given: x * given.weight, torch.ones(2), holder, mode=mode)
    assert gm(torch.ones(2), holder).tolist() == [5, 5]
    holder.weight = torch.full((2,), 7.0)
    assert not gm.check(torch.ones(2), holder)


def test_an_array_is_refused() -> None:
    array = numpy.array([2.0])
    with pytest.raises(TypeError, match="a tensor is made of"):
        traced(lambda x: x + torch.from_numpy(array), torch.ones(1))
    with pytest.raises(TypeError, match="a tensor is made of"):
        traced(lambda x, given: x + torch.from_numpy(given), torch.ones(1), array)


def test_code_that_nobody_has_seen_is_refused() -> None:
    @torch.compiler.allow_in_graph
    def hidden(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    with pytest.raises(TypeError, match=r"nobody has seen the code of .*hidden"):
        traced(lambda x: hidden(x), torch.ones(1))
    cached = unified_guards.aot_function(lambda x: hidden(x), nop)
    assert cached(torch.ones(1)).tolist() == [2]
    assert len(cached.cache_info().eager) == 1


@pytest.mark.skipif(compat.TORCH < (2, 13), reason="torch 2.11 looks into the dict of a class and guards nothing of it")
def test_guards_that_never_hold_are_refused() -> None:
    kind = type("Kind", (), {})
    with pytest.raises(TypeError, match="it is another each time"):
        traced(lambda x: x * ("value" in kind.__dict__), torch.ones(1))


def test_sizes_of_what_is_found_are_constants() -> None:
    held = torch.ones(3)
    gm = traced(lambda x: x.sum() * held.shape[0] + held.sum(), torch.ones(4), mode="symbolic")
    assert gm.check(torch.ones(6))
    held.resize_(5).fill_(1)
    assert not gm.check(torch.ones(6))


def test_a_shape_that_a_decomposition_asks_for_is_guarded() -> None:
    def sine(x: torch.Tensor) -> torch.Tensor:
        return x.cos() if x.shape[0] > 4 else x.tan()

    make = unified_guards.make_fx(torch.sin, {torch.ops.aten.sin.default: sine}, "symbolic")
    gm = make(torch.ones(3))
    assert gm.check(torch.ones(4)) and not gm.check(torch.ones(8))
    assert torch.equal(gm(torch.ones(4)), torch.ones(4).tan())


def test_what_is_not_read_of_the_arguments_has_its_structure() -> None:
    gm = traced(lambda first, *rest: first + 1, torch.ones(2), {"a": torch.ones(1), "b": [torch.ones(1)]})
    assert gm.check(torch.ones(2), {"a": torch.ones(3), "b": [torch.ones(1)]})
    assert not gm.check(torch.ones(2), {"b": [torch.ones(1)], "a": torch.ones(1)})
    assert not gm.check(torch.ones(2), {"a": torch.ones(1), "b": [torch.ones(1)] * 2})
    assert not gm.check(torch.ones(2), {"a": torch.ones(1), "b": (torch.ones(1),)})


def test_what_dynamo_reads_without_a_guard_is_guarded_here() -> None:
    class Switch:
        pass

    switch = Switch()
    gm = traced(lambda x: x * 2 if switch else x * 3, torch.ones(2))
    assert gm.check(torch.ones(2))
    Switch.__bool__ = lambda self: False  # type: ignore[attr-defined]
    assert not gm.check(torch.ones(2))


def test_parameters_among_the_arguments() -> None:
    module = torch.nn.Linear(2, 2, bias=False)

    def function(parameters: dict[str, torch.Tensor], x: torch.Tensor) -> Any:
        return torch.func.functional_call(module, parameters, (x,))

    gm = traced(function, {"weight": torch.ones(2, 2)}, torch.ones(1, 2))
    assert gm({"weight": torch.full((2, 2), 5.0)}, torch.ones(1, 2)).tolist() == [[10, 10]]
    cached = unified_guards.aot_function(function, nop)
    for value in (1.0, 5.0):
        assert cached({"weight": torch.full((2, 2), value)}, torch.ones(1, 2)).tolist() == [[2 * value] * 2]
    assert cached.cache_info().eager == {} and cached.cache_info().entries == 1


def test_items_that_change_places_are_no_items_put_back() -> None:
    def function(given: dict[str, torch.Tensor]) -> torch.Tensor:
        given["a"], given["b"] = given["b"], given["a"]
        return given["a"] + 1

    with pytest.raises(TypeError, match="changes the container"):
        traced(function, {"a": torch.ones(1), "b": torch.zeros(1)})


# -- keyword arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_keyword_arguments(mode: str) -> None:
    def function(x: torch.Tensor, *, y: torch.Tensor, n: int = 2) -> torch.Tensor:
        return x * n - y

    x, y = torch.ones(3), torch.full((3,), 2.0)
    gm = traced(function, x, y=y, n=5, mode=mode)
    assert gm(x, y=y, n=5).tolist() == [3, 3, 3]
    assert gm.check(x, y=y, n=5)
    assert not gm.check(x, y)
    assert not gm.check(x, y=y)
    with pytest.raises(GuardError):
        gm(x, y=torch.ones(3, dtype=torch.int64), n=5)


def test_defaults_are_constants() -> None:
    gm = traced(lambda x, by=3: x * by, torch.ones(2))
    assert gm(torch.ones(2)).tolist() == [3, 3]


def test_keyword_arguments_are_retraced() -> None:
    def function(x: torch.Tensor, *, by: torch.Tensor) -> torch.Tensor:
        return x * 2 - by if x.shape[0] > 4 else x * 3 - by

    gm = unified_guards.make_fx(function, on_guard_failure="retrace")(torch.ones(3), by=torch.ones(3))
    for size in (3, 8, 3):
        x, by = torch.ones(size), torch.full((size,), 0.5)
        assert torch.equal(gm(x, by=by), function(x, by=by))


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_copy_is_checked_too(how: Callable[[Any], Any]) -> None:
    gm = how(traced(lambda x: x * 2 if x.shape[0] > 4 else x * 3, torch.ones(3)))
    assert gm(torch.ones(3)).tolist() == [3, 3, 3]
    with pytest.raises(GuardError):
        gm(torch.ones(8))


@pytest.mark.parametrize("mode", MODES)
def test_a_pickled_graph_takes_the_guards_of_its_arguments_along(mode: str) -> None:
    scale = 3

    def function(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] > 4 else x * scale

    again = pickle.loads(pickle.dumps(traced(function, torch.ones(3), mode=mode)))
    assert isinstance(again, torch.fx.GraphModule)
    assert again(torch.ones(3)).tolist() == [3, 3, 3]
    assert not again.check(torch.ones(8)) and not again.check(torch.ones(3, dtype=torch.float64))
    with pytest.raises(GuardError):
        again(torch.ones(8))
    assert any("cell_contents" in text for text in again.guards_left_behind)
    assert pickle.loads(pickle.dumps(again)).guards_left_behind == again.guards_left_behind


def test_a_pickled_graph_does_not_hold_in_another_grad_mode() -> None:
    again = pickle.loads(pickle.dumps(traced(lambda x: x * 2 if torch.is_grad_enabled() else x, torch.ones(3))))
    with torch.no_grad():
        assert not again.check(torch.ones(3))


def test_a_graph_whose_arguments_are_guarded_by_address_is_not_pickled() -> None:
    class Holder:
        value = 2

    gm = traced(lambda x, given: x * given.value, torch.ones(2), Holder())
    with pytest.raises(TypeError, match=r"cannot be pickled: .*Holder"):
        pickle.dump(gm, io.BytesIO())


# -- memory ------------------------------------------------------------------------------------------------------------


def calling(module: torch.nn.Module) -> Callable[..., Any]:
    return lambda x: module(x)


def test_a_graph_that_is_dropped_lets_go_of_what_it_was_traced_with() -> None:
    module = torch.nn.Linear(2, 2)
    gone = weakref.ref(module)
    gm = traced(calling(module), torch.ones(1, 2))
    assert gm.check(torch.ones(1, 2))
    del gm, module
    gc.collect()
    assert gone() is None


def test_a_reset_of_dynamo_leaves_the_graph_its_guards() -> None:
    gm = traced(lambda x: x + 1, torch.ones(2))
    torch._dynamo.reset()
    assert gm.check(torch.ones(2)) and not gm.check(torch.ones(3))
