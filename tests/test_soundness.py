"""The contract of docs/soundness.md: every kind of fact has a row, and every change that it names moves such a fact."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from unified_guards import _C

from .fuzz.catalogue import Moved
from .fuzz.mutations import ROWS

PAGE = Path(__file__).parent.parent / "docs" / "soundness.md"
#: Kinds that are no words in a witness's stream of facts.
READ_ANEW = {"anchor", "tensor", "state"}


def table(heading: str) -> Iterator[list[str]]:
    """The rows of the first table below a heading."""
    lines = PAGE.read_text().split(f"# {heading}\n", 1)[1].splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("|---"))
    for line in lines[start + 1 :]:
        if not line.startswith("|"):
            break
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


BELIEVED = {row[0]: row for row in table("What is believed")}
UNNOTICED = {row[0].strip("`"): row[1] for row in table("What no fact notices")}


def named(kind: str) -> list[str]:
    return re.findall(r"`(\w+)`", BELIEVED[kind][-1])


def seen_as(kind: str) -> str:
    """The kind by which a move is seen: another one where a word is compared first that moves with it."""
    found = re.search(r"first seen as: (.+)", BELIEVED[kind][-1])
    return found[1].strip(" |") if found else kind


@pytest.fixture(scope="module")
def moved() -> Moved:
    return Moved()


def test_every_kind_of_fact_has_a_row() -> None:
    assert set(BELIEVED) == set(_C.moved_facts())
    for row in BELIEVED.values():
        assert len(row) == 5 and all(row), row[0]


def test_every_row_names_mutations_that_there_are() -> None:
    for kind in BELIEVED:
        assert named(kind), kind
        assert set(named(kind)) <= set(ROWS), kind
    assert set(UNNOTICED) <= set(ROWS)


def test_the_fuzzers_world_has_every_kind_of_fact(moved: Moved) -> None:
    assert moved.recorded == set(BELIEVED) - READ_ANEW


@pytest.mark.parametrize("kind", BELIEVED)
def test_the_mutations_of_a_row_move_such_a_fact(kind: str, moved: Moved) -> None:
    assert [name for name in named(kind) if seen_as(kind) not in moved.by_row[name]] == []


def test_every_mutation_is_noticed_by_some_fact_or_has_a_reason(moved: Moved) -> None:
    assert {name for name, kinds in moved.by_row.items() if not kinds} == set(UNNOTICED)
    assert all(UNNOTICED.values())
