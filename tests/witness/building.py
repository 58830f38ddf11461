"""Checkers made of a few guards, and questions about what such a checker remembers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from unified_guards import _C
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, TensorFacts, Test, guard
from unified_guards.lower.rows import Program, lower, make_checker

CHECKOUT = Path(__file__).resolve().parents[2]
X = Source.frame().child(Access.LOCAL, "x")
Y = Source.frame().child(Access.LOCAL, "y")

#: Whether guards on dicts can be answered by facts: without, the same tests hold, by evaluation.
VERSIONED = _C.dicts_are_versioned()
NEEDS_VERSIONS = pytest.mark.skipif(not VERSIONED, reason="no free dict watcher: guards on dicts are evaluated")


class Thing:
    """An object with attributes, as a module is."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Other(Thing):
    """Another class of the same layout."""


def program_of(*guards: Guard) -> Program:
    return lower(GuardSet((item, Provenance("dynamo")) for item in guards))


def checker(*guards: Guard, witness: bool = True) -> _C.Checker:
    return make_checker(program_of(*guards), witness=witness)


def item(name: str, source: Source = X) -> Source:
    """An entry of the instance's dict, as Dynamo reads attributes."""
    return source.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, name)


def attr(name: str, source: Source = X) -> Source:
    return source.child(Access.ATTR, name)


def equals(source: Source, value: object) -> Guard:
    return guard(Test.EQUALS, (source,), (value,))


def same(source: Source, value: object) -> Guard:
    return guard(Test.IS, (source,), (id(value), "the same"))


def is_of(source: Source, kind: type) -> Guard:
    return guard(Test.TYPE_IS, (source,), (id(kind), kind.__name__))


def without(source: Source, name: str) -> Guard:
    return guard(Test.NO_ATTR, (source,), (name,))


def tensor_like(source: Source, value: torch.Tensor) -> Guard:
    keys, dtype, index, requires_grad = _C.tensor_facts(value, None)
    sizes, strides, name = tuple(value.size()), tuple(value.stride()), type(value).__name__
    facts = TensorFacts(
        id(type(value)), keys, dtype, index, requires_grad, sizes, strides, False, name, str(value.dtype)
    )
    return guard(Test.TENSOR, (source,), (facts,))


def says_yes(source: Source, function: Callable[[Any], object]) -> Guard:
    return guard(Test.PREDICATE, (source,), (lambda value: (function(value), True)[1], "it says so"))


def told(made: _C.Checker, name: str) -> Any:
    assert made.witness is not None
    return made.witness[name]


def recorded(made: _C.Checker, shown: dict[str, Any]) -> _C.Checker:
    """The checker after the two checks that it takes to remember."""
    for _ in range(2):
        assert made.check(shown)
    return made


def holds(made: _C.Checker, shown: dict[str, Any]) -> bool:
    """The verdict, which both tiers must agree on."""
    verdict = made.check(shown)
    assert made.exact(shown) is verdict
    return verdict


def held_by(made: _C.Checker, shown: dict[str, Any]) -> bool:
    """Whether one more check passes by what is remembered, and records nothing."""
    held, taken = told(made, "held"), told(made, "recorded")
    assert holds(made, shown)
    return bool(told(made, "held") == held + 1 and told(made, "recorded") == taken)
