"""What every test of strict guards gets: a fresh Dynamo, and nothing installed at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import unified_guards


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    assert not unified_guards.is_installed()
    torch._dynamo.reset()
