"""What every test of kinds gets: the thread's torch function state as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from unified_guards import _C


@pytest.fixture(autouse=True)
def torch_function_state_is_put_back() -> Iterator[None]:
    """Torch's own tree leaves torch functions switched off when it throws."""
    before = _C.torch_function_state()
    yield
    _C.set_torch_function_state(before)
