"""What torch prints is native and means the same."""

from __future__ import annotations

import pytest

from unified_guards.dynamo import compat
from unified_guards.guards.expressions import (
    expression,
)
from unified_guards.lower.shape_code import lower_shapes

from ..shapes import Random
from .making import PRINTED, assert_agreed, parsed, printed, typed


@pytest.mark.parametrize("name", PRINTED)
def test_what_torch_prints_is_native_and_means_the_same(name: str) -> None:
    if name == "IsNonOverlappingAndDenseIndicator" and not compat.indicator_takes_numbers():
        pytest.skip("this torch cannot evaluate the indicator of dense memory on numbers")
    try:
        text = printed(PRINTED[name])
    except NotImplementedError:
        pytest.skip("this torch cannot print this expression as Python")
    assert not lower_shapes(list(typed(expression(parsed(text))))).not_native, text
    seen = set()
    made = Random(len(name))
    for _ in range(200):
        values = made.values()
        if name == "PowByNatural":
            values["v1"] %= 7  # Python would compute millions of digits
        seen.add(assert_agreed(text, values))
    assert seen == {True, False}, text
