"""What every test of the lookup gets: nothing is left to the collector."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def nothing_is_left_uncollected() -> Iterator[None]:
    yield
    gc.collect()
