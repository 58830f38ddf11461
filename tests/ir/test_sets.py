"""A GuardSet as a value: its order, who made which guard, and its sources."""

from __future__ import annotations

import pytest

from unified_guards.guards.ir import GuardSet, Provenance, Source

from ..guards import equals, local
from .making import item, set_of


def test_sets_of_the_same_guards_are_equal_whoever_made_them() -> None:
    first = GuardSet([(equals(local(), 3), Provenance("dynamo"))])
    second = GuardSet([(equals(local(), 3), Provenance("aot"))])
    assert first == second
    assert hash(first) == hash(second)


def test_sets_in_another_order_differ() -> None:
    one, two = equals(local("x"), 3), equals(local("y"), 3)
    assert set_of(one, two) != set_of(two, one)


def test_a_set_is_not_equal_to_a_list_of_its_guards() -> None:
    one = equals(local(), 3)
    assert set_of(one) != [one]


def test_a_guard_that_comes_twice_is_kept_once_with_both_provenances() -> None:
    one = equals(local(), 3)
    both = GuardSet([(one, Provenance("dynamo")), (one, Provenance("aot"))])
    assert list(both) == [one]
    assert both.provenance(one) == (Provenance("dynamo"), Provenance("aot"))
    assert both.counts_by_provenance() == {"dynamo": 1, "aot": 1}


def test_entries_rebuild_the_set() -> None:
    one, two = equals(local("x"), 3), equals(local("y"), 3)
    first = GuardSet([(one, Provenance("dynamo")), (two, Provenance("aot")), (one, Provenance("shape_env"))])
    second = GuardSet(first.entries())
    assert second == first
    assert list(second.entries()) == list(first.entries())


def test_the_provenance_of_a_stranger_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        set_of(equals(local(), 3)).provenance(equals(local(), 4))


def test_membership_is_by_guard() -> None:
    assert equals(local(), 3) in set_of(equals(local(), 3))
    assert equals(local(), 4) not in set_of(equals(local(), 3))


def test_sources_include_those_on_the_way() -> None:
    assert set_of(equals(item("b", item("a")), 3)).sources() == {
        Source.frame(),
        local(),
        item("a"),
        item("b", item("a")),
    }
