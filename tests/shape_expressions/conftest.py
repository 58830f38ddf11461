"""What tests of shape expressions may ask for: unified guards installed."""

from __future__ import annotations

from typing import Any

import pytest

import unified_guards


@pytest.fixture
def installed() -> Any:
    with unified_guards.installed():
        yield
