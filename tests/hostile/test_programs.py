"""Every hostile program, in every variant (see ``protocol.py`` and ``judge.py``)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from unified_guards.dynamo import compat

from . import judge
from .protocol import all_programs

_STALE = "torch 2.11 hits by what it remembers of dicts where its guard fails, and its Dynamo fails where it misses"
_NO_METACLASS = "Dynamo of torch 2.11 does not ask a metaclass"
#: Programs in which torch 2.11 alone is not followed.
OF_TORCH_2_11 = {
    **dict.fromkeys((f"one_mode_then_all_others[{mode}]" for mode in ("visible", "vmap_level")), _STALE),
    **dict.fromkeys((f"tables_of_a_module[{name}]" for name in ("_parameters", "_buffers", "_modules")), _STALE),
    "dict_of_a_module": _STALE,
    "in_a_guard[cfg_changes]": "torch does not survive a reset inside a guard, and here it is asked for a reason",
    "guard_changes_another_fact[metaclass]": _NO_METACLASS,
    "the_call_itself[metaclass]": _NO_METACLASS,
}
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
    if compat.TORCH < (2, 13) and name in OF_TORCH_2_11:
        pytest.skip(OF_TORCH_2_11[name])
    found = judge.complaints(kind, name, variant)
    assert not found, "\n".join(found)
