"""Guards that tests write by hand, over locals named x and y, and checkers made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from unified_guards import _C
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, TensorFacts, Test, guard
from unified_guards.lower.rows import Program, lower, make_checker


def local(name: str = "x") -> Source:
    return Source.frame().child(Access.LOCAL, name)


X, Y = local("x"), local("y")


def item(name: str, source: Source = X) -> Source:
    """An entry of the instance's dict, as Dynamo reads attributes."""
    return source.child(Access.GENERIC_DICT).child(Access.DICT_ITEM, name)


def attr(name: str, source: Source = X) -> Source:
    return source.child(Access.ATTR, name)


def equals(source: Source, value: object) -> Guard:
    return guard(Test.EQUALS, (source,), (value,))


def exists(source: Source) -> Guard:
    return guard(Test.EXISTS, (source,))


def same(source: Source, value: object) -> Guard:
    return guard(Test.IS, (source,), (id(value), "the same"))


def type_is(source: Source, kind: type) -> Guard:
    return guard(Test.TYPE_IS, (source,), (id(kind), kind.__qualname__))


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


def program_of(*guards: Guard) -> Program:
    return lower(GuardSet((item, Provenance("dynamo")) for item in guards))


def checker(*guards: Guard, witness: bool = True) -> _C.Checker:
    return make_checker(program_of(*guards), witness=witness)
