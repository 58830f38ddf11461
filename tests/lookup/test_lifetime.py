"""What a lookup and its entries keep alive."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from unified_guards.guards.ir import Access, Source, Test, guard

from .making import CONSTANT, Lookup, first_is, put


class Model:
    """What holds a lookup."""

    lookup: Lookup


def held_by_a_constant(model: Model) -> None:
    put(model.lookup, "all", guard(Test.EXISTS, (Source.frame().child(Access.CONSTANT, model),)))


def held_by_a_value(model: Model) -> None:
    put(model.lookup, "all", first_is([model]))


def held_by_a_key(model: Model) -> None:
    put(model.lookup, model)


def held_by_the_compiled_function(model: Model) -> None:
    put(model.lookup, "all", compiled=lambda flat: [model])


def held_by_the_rebuild(model: Model) -> None:
    put(model.lookup, "all", rebuild=[(CONSTANT, 0, model)])


def held_by_the_oracle(model: Model) -> None:
    put(model.lookup, "all", observer=lambda frame, verdict: model)


@pytest.mark.parametrize(
    "hold",
    [
        held_by_a_constant,
        held_by_a_value,
        held_by_a_key,
        held_by_the_compiled_function,
        held_by_the_rebuild,
        held_by_the_oracle,
    ],
)
def test_a_cycle_through_an_entry_is_collected(hold: Callable[[Model], None]) -> None:
    model = Model()
    model.lookup = Lookup()
    hold(model)
    model.lookup(1)
    model.lookup.missed.clear()
    watched = weakref.ref(model), weakref.ref(model.lookup)
    del model
    gc.collect()
    assert [found() for found in watched] == [None, None]


def test_an_entry_keeps_what_it_holds_alive() -> None:
    model = Model()
    watched = weakref.ref(model)
    lookup = Lookup()
    put(lookup, "all", rebuild=[(CONSTANT, 0, model)])
    del model
    gc.collect()
    assert lookup() is watched()


@pytest.mark.parametrize("drop", [lambda lookup: lookup._drop("all"), lambda lookup: lookup._clear()])
def test_what_is_dropped_is_freed_at_once(drop: Callable[[Lookup], Any]) -> None:
    model, lookup = Model(), Lookup()
    watched = weakref.ref(model)
    put(lookup, "all", rebuild=[(CONSTANT, 0, model)])
    del model
    drop(lookup)
    assert watched() is None


def test_a_destructor_may_change_the_lookup() -> None:
    lookup = Lookup()

    class Adding:
        def __del__(self) -> None:
            put(lookup, "added")
            lookup._drop("other")

    put(lookup, "other")
    put(lookup, "all", rebuild=[(CONSTANT, 0, Adding())])
    lookup._drop("all")
    assert lookup._keys() == ["added"]
