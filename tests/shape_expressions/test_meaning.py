"""What shape expressions mean: native code, the reference and torch agree."""

from __future__ import annotations

import math
from typing import Any

import pytest

from unified_guards.dynamo import compat
from unified_guards.guards.expressions import (
    expression,
)
from unified_guards.lower.rows import lower, make_checker

from ..shapes import Random
from .making import assert_agreed, parsed, typed


@pytest.mark.parametrize("floats", [False, True], ids=["integers", "integers and floats"])
@pytest.mark.parametrize("seed", range(60))
def test_native_reference_and_torch_agree_on_random_expressions(seed: int, floats: bool) -> None:
    made = Random(seed, floats=floats)
    for _ in range(12):
        text = made.truth(made.choose.randrange(1, 5))
        for _ in range(3):
            assert_agreed(text, made.values())


def test_random_expressions_hold_about_half_the_time_and_stay_native() -> None:
    """A corpus that always fails, or that is always left to Python, would agree about everything."""
    made = Random(0, floats=False)
    held = native = total = 0
    for _ in range(300):
        checker = make_checker(lower(typed(expression(parsed(made.truth(2))))))
        held += checker.check(made.values())
        native += checker.counts[3] == 0
        total += 1
    assert 0.3 * total < held < 0.7 * total
    assert native > 0.5 * total


EDGES = [
    ("v0 // v1 == -4", {"v0": 7, "v1": -2}, True),
    ("v0 % v1 == -1", {"v0": 7, "v1": -2}, True),
    ("v0 % v1 == 1", {"v0": -7, "v1": 2}, True),
    ("v0 % v1 == 0 or True", {"v0": 7, "v1": 0}, False),
    ("True or v0 % v1 == 0", {"v0": 7, "v1": 0}, True),
    ("v1 == 0 or v0 % v1 == 0", {"v0": 7, "v1": 0}, True),
    ("(v0 if v1 == 0 else v0 // v1) == 7", {"v0": 7, "v1": 0}, True),
    ("v0 + 1 > v0", {"v0": 2**63 - 1}, True),
    ("v0 - 1 < v0", {"v0": -(2**63)}, True),
    ("v0 * v0 == 2**126", {"v0": 2**63}, True),
    ("v0 * 2 == 18446744073709551614", {"v0": 2**63 - 1}, True),
    ("abs(v0) > 0", {"v0": -(2**63)}, True),
    ("-(v0) > 0", {"v0": -(2**63)}, True),
    ("v0 // v1 > 0", {"v0": -(2**63), "v1": -1}, True),
    ("v0 == w0", {"v0": 2**53 + 1, "w0": 2.0**53}, False),
    ("v0 > w0", {"v0": 2**53 + 1, "w0": 2.0**53}, True),
    ("v0 / v1 == 1.0", {"v0": 2**62 + 1, "v1": 2**62}, True),
    ("v0 / 3 < 0.34", {"v0": 1}, True),
    ("v0 ** v1 < 1", {"v0": 2, "v1": -1}, True),
    ("v0 << v1 > 0", {"v0": 1, "v1": -1}, False),
    ("v0 >> v1 == -1", {"v0": -5, "v1": 200}, True),
    ("w0 == w0", {"w0": math.nan}, False),
    ("not (w0 < 1.0)", {"w0": math.nan}, True),
    ("max(w0, 1.0) == 1.0", {"w0": math.nan}, False),
    ("max(1.0, w0) == 1.0", {"w0": math.nan}, True),
    ("torch.sym_max(v0, w0) / 2 == 1.5", {"v0": 3, "w0": 2.0}, True),
    ("torch.sym_max(v0, w0) == v0", {"v0": 2**53 + 1, "w0": 2.0}, False),
    ("torch.sym_min(w0, v0) < 1", {"v0": 0, "w0": math.nan}, False),
    ("w0 // 1.0 == -1.0", {"w0": -0.5}, True),
    ("w0 % 3.0 == 3.0", {"w0": -1e-17}, True),
    ("w0 % math.inf == 1.0", {"w0": 1.0}, True),
    ("round(w0) == 2", {"w0": 2.5}, True),
    ("round(w0) == -2", {"w0": -1.5}, True),
    ("round(w0, 2) == 2.67", {"w0": 2.675}, True),
    ("round(w0, 1) == -0.0", {"w0": -0.01}, True),
    ("math.floor(w0) < 0", {"w0": -math.inf}, False),
    ("math.trunc(w0) == 10**300", {"w0": 1e300}, False),
    ("torch._sym_sqrt(v0) == 3.0", {"v0": 9}, True),
    ("torch._sym_sqrt(v0) == 3.0", {"v0": -9}, False),
    ("math.acos(w0) > 0", {"w0": 2.0}, False),
    ("math.cosh(w0) > 0", {"w0": 1e5}, False),
    ("w0 ** 0.5 == 2.0", {"w0": 4.0}, True),
    ("w0 ** w1 == 1.0", {"w0": math.nan, "w1": 0.0}, True),
    ("(1 if v0 > 2 else 0) & 1 == 1", {"v0": 3}, True),
    ("IsNonOverlappingAndDenseIndicator(3, v0, v0, 1)", {"v0": 4}, True),
    ("IsNonOverlappingAndDenseIndicator(3, v0, 5, 1)", {"v0": 4}, False),
    ("IsNonOverlappingAndDenseIndicator(v0, 2)", {"v0": 1}, True),
]


@pytest.mark.parametrize(("text", "values", "holds"), EDGES, ids=[text for text, _, _ in EDGES])
def test_edges_are_pythons(text: str, values: dict[str, Any], holds: bool) -> None:
    if "Indicator" in text and not compat.indicator_takes_numbers():
        pytest.skip("this torch cannot evaluate the indicator of dense memory on numbers")
    rest = dict.fromkeys(Random.INTS, 1) | dict.fromkeys(Random.FLOATS, 1.0)
    assert assert_agreed(text, rest | values) is holds
