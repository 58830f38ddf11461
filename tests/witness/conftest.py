"""What every test of the witness gets: no switch of the environment turns the witness off."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNIFIED_GUARDS_WITNESS", raising=False)
