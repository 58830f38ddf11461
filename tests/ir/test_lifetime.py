"""What a guard set, and a checker made of it, keeps alive."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import nn

from unified_guards.guards import ir
from unified_guards.lower.rows import lower, make_checker

from ..guards import equals, local
from .making import item, lifted, set_of


def test_nodes_die_with_their_set() -> None:
    guard_set = set_of(equals(item("only here"), 3))
    nodes = [weakref.ref(next(iter(guard_set))), weakref.ref(item("only here"))]
    assert all(node() is not None for node in nodes)
    del guard_set
    gc.collect()
    assert [node() for node in nodes] == [None, None]


def test_the_tables_of_nodes_do_not_grow() -> None:
    gc.collect()
    before = len(ir._sources), len(ir._guards)
    for count in range(100):
        set_of(equals(item(f"unlike any other {count}"), count))
    gc.collect()
    assert (len(ir._sources), len(ir._guards)) == before


def test_a_base_lives_as_long_as_what_is_below_it() -> None:
    below = item("b", item("a", local("held by its child")))
    gc.collect()
    assert str(below) == "L['held by its child']['a']['b']"


def test_a_set_pins_no_model() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())

    def function(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return m(x)

    guard_set = lifted(function, model, torch.ones(1, 2))
    watched = weakref.ref(model)
    del model
    torch._dynamo.reset()
    gc.collect()
    assert len(guard_set) > 5
    assert watched() is None


def test_a_checker_pins_no_model() -> None:
    class Own(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + 1

    model = Own()
    guard_set = lifted(lambda m, x: m(x), model, torch.ones(2))
    checker = make_checker(lower(guard_set))
    watched = weakref.ref(model)
    checker.check({"m": model, "x": torch.ones(2)})
    del model
    torch._dynamo.reset()
    gc.collect()
    assert watched() is None
    assert not checker.check({"m": Own(), "x": torch.ones(3)})
