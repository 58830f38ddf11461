"""Every hostile program, in every variant (see ``protocol.py`` and ``judge.py``)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import judge
from .protocol import all_programs

CASES = [
    pytest.param(kind, program.name, variant, id=f"{kind}-{program.name}-{variant}")
    for kind, program in all_programs()
    for variant in program.variants
    if variant != "torch"
]


@pytest.fixture(scope="session", autouse=True)
def _server() -> Iterator[None]:
    yield
    judge.stop()


@pytest.mark.parametrize(("kind", "name", "variant"), CASES)
def test_program(kind: str, name: str, variant: str) -> None:
    found = judge.complaints(kind, name, variant)
    assert not found, "\n".join(found)
