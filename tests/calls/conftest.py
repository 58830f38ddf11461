"""What every test of calls gets: native guards, and a wrapper of torch's that the dispatcher knows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import unified_guards
from unified_guards.dynamo import compat


def _is_known() -> bool:
    return compat.is_known_wrapper(torch.compile(lambda x: x, backend="eager").__code__)


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    if not _is_known():
        pytest.skip(f"the wrapper of torch {torch.__version__} is not known: every call goes the long way")
    if not unified_guards.config.dispatch:
        pytest.skip("UNIFIED_GUARDS_DISPATCH=0: every call goes the long way")
    with unified_guards.installed():
        yield
