"""Attacks on inputs that come from the check, and on what runs after a graph: who changes things in between."""

from __future__ import annotations

import collections
import gc
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from unified_guards import config

from ..harness import cache_entries, ones
from .watching import in_threads, short


class Scaled(torch.nn.Module):
    """Its graph takes a parameter, a size of the argument, and another parameter, in this order."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Parameter(ones(1))
        self.second = torch.nn.Parameter(ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.first * x.shape[0] * self.second


asked: list[Callable[[], None]] = []  # what Asks.size does, in order


class Asks(torch.Tensor):
    """Runs code where its size is read: the first time in a guard, the second time for the graph."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    def size(self, *args: Any) -> Any:
        if asked:
            asked.pop(0)()
        return torch.Tensor.size(self, *args)


def asks(count: int) -> torch.Tensor:
    return ones(count).as_subclass(Asks)


def nothing() -> None:
    pass


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else reads sizes: not torch's tree, where checks are compared, and no comparison of plans."""
    monkeypatch.setattr(config, "verify", 0.0)


def scaled() -> tuple[Scaled, Any]:
    module = Scaled()
    compiled = torch.compile(Scaled.forward, backend="eager", dynamic=True)
    for count in range(3, 8):
        compiled(module, asks(count))
    return module, compiled


# -- code of a user's between the check and the graph ------------------------------------------------------------------


def test_a_parameter_that_a_read_before_it_replaces_is_read_after_that(alone: None) -> None:
    module, compiled = scaled()

    def replace() -> None:
        module.first = torch.nn.Parameter(ones(1) * 3)
        module.second = torch.nn.Parameter(ones(1) * 5)

    asked[:] = [nothing, replace]
    with short(compiled):
        found = compiled(module, asks(4))
    assert not asked
    # The first one has been read by then, as in Dynamo's own code.
    assert torch.equal(found.as_subclass(torch.Tensor), ones(4) * 1 * 4 * 5)


def test_a_plan_that_learns_in_the_middle_of_its_own_reads(alone: None) -> None:
    module, compiled = scaled()
    other = Scaled()
    for _ in range(4):
        compiled(other, asks(4))
        compiled(module, asks(4))

    def calls() -> None:
        Scaled._parameters = property(lambda self: vars(self)["_parameters"])  # type: ignore[assignment]
        for _ in range(12):
            compiled(other, asks(4))
        del Scaled._parameters

    asked[:] = [nothing, calls]
    found = compiled(module, asks(4))
    assert not asked
    assert torch.equal(found.as_subclass(torch.Tensor), ones(4) * 4)


# -- who looks at a check ----------------------------------------------------------------------------------------------


class Filled(torch.nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)
        for parameter in self.parameters():
            torch.nn.init.constant_(parameter, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.fixture
def verifying(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(config, "verify", 1.0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_threads_that_verify_get_the_inputs_of_their_own_roots(verifying: None) -> None:
    modules, x = [Filled(float(at)) for at in range(4)], ones(1, 3)
    compiled = torch.compile(Filled.forward, backend="eager")
    for _ in range(4):
        for module in modules:
            compiled(module, x)
    expected = [module(x) for module in modules]

    def work(at: int) -> None:
        for _ in range(1500):
            assert torch.equal(compiled(modules[at], x), expected[at])

    in_threads(work, len(modules))


# -- an entry that is dropped while it runs ----------------------------------------------------------------------------

resets: list[bool] = []


@torch.library.custom_op("unified_guards_attacks::reset", mutates_args=())
def reset(x: torch.Tensor) -> torch.Tensor:
    """Drops all entries in the middle of a graph, where it is asked to."""
    if resets:
        resets.clear()
        torch._dynamo.reset()
        gc.collect()
    return x + 1


@reset.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def test_globals_of_an_entry_live_as_long_as_it_runs() -> None:
    def function(x: torch.Tensor) -> Any:
        return collections.deque([reset(x)])  # Dynamo's code finds the class in a global that it has made

    compiled = torch.compile(function, backend="eager")
    for _ in range(3):
        compiled(ones())
    resets.append(True)
    with short(compiled):
        (found,) = compiled(ones())
    assert not resets
    assert torch.equal(found, ones() + 1)


def test_the_code_of_an_entry_goes_when_torch_drops_the_entry() -> None:
    def function(x: torch.Tensor, into: list[Any]) -> torch.Tensor:
        into.append(x + 1)
        return x + 2

    compiled = torch.compile(function, backend="eager")
    for _ in range(3):
        compiled(ones(), [])
    code = weakref.ref(cache_entries(function)[0].code)
    torch._dynamo.reset()
    gc.collect()
    assert code() is None  # and with it what Dynamo has put into globals for it: the graph
