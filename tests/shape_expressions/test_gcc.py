"""Torch's gcc-built guard on shapes agrees, and is called natively."""

from __future__ import annotations

import contextlib
import ctypes
import random
import shutil
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch._dynamo.source import ConstantSource
from torch._inductor.codecache import CppCodeCache
from torch.fx.experimental.symbolic_shapes import _ShapeGuardCppPrinter

import unified_guards
from unified_guards.guards.expressions import (
    expression,
)
from unified_guards.guards.ir import Test
from unified_guards.lower.rows import lower, make_checker

from ..shapes import Random
from .making import PRINTED, F, S, parsed, printed, typed

#: What torch's C++ printer writes is no C++ for these, or, for want of parentheses, means something else.
WRONG_IN_CPP = ("sin", "IsNonOverlappingAndDenseIndicator", "BitwiseFn_bitwise_and", "BitwiseFn_bitwise_or")


def in_cpp() -> dict[str, str]:
    """The conditions that torch's C++ printer prints."""
    printer = _ShapeGuardCppPrinter(
        {symbol: [ConstantSource(symbol.name)] for symbol in (*S.values(), *F.values())}, str, {}
    )
    found = {}
    for name, condition in PRINTED.items():
        with contextlib.suppress(NotImplementedError, AttributeError, AssertionError):
            found[name] = printer.doprint(condition)
    return {name: text for name, text in found.items() if name not in WRONG_IN_CPP}


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_native_code_agrees_with_torchs_gcc_built_guard() -> None:
    """On sizes: the C++ guard has no rules for negative numbers, for overflow, or for what raises."""
    texts = in_cpp()
    assert len(texts) > 20
    ints = ", ".join(f"{name} = ints[{at}]" for at, name in enumerate(Random.INTS))
    floats = ", ".join(f"{name} = floats[{at}]" for at, name in enumerate(Random.FLOATS))
    functions = "\n".join(
        f'extern "C" int8_t guard_{name.replace(" ", "_")}(int64_t* ints, double* floats) '
        f"{{ int64_t {ints}; double {floats}; return {text}; }}"
        for name, text in texts.items()
    )
    headers = "#include <algorithm>\n#include <cstdint>\n#include <cmath>\n#include <c10/util/generic_math.h>\n"
    library = CppCodeCache.load(headers + functions)
    choose = random.Random(0)
    for name in texts:
        function = getattr(library, f"guard_{name.replace(' ', '_')}")
        function.restype = ctypes.c_int8
        checker = make_checker(lower(typed(expression(parsed(printed(PRINTED[name]))))))
        for _ in range(100):
            values: dict[str, Any] = {name: choose.randrange(1, 9) for name in Random.INTS}
            values |= {name: choose.choice([0.25, 0.5, 0.75, 1.0]) for name in Random.FLOATS}
            numbers = (ctypes.c_int64 * 3)(*(values[each] for each in Random.INTS))
            reals = (ctypes.c_double * 2)(*(values[each] for each in Random.FLOATS))
            assert checker.check(values) is bool(function(numbers, reals)), (name, texts[name], values)
        assert checker.counts[3] == 0


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.usefixtures("installed")
def test_with_torchs_gcc_built_guards_switched_on_torchs_code_is_called_natively() -> None:
    def halve(x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[0] % 4 == 0 else x - 1

    with torch._dynamo.config.patch(enable_cpp_symbolic_shape_guards=True):
        compiled = torch.compile(halve, backend="eager", dynamic=True)
        for rows in (8, 12, 9, 16, 11):
            assert compiled(torch.ones(rows)).shape == (rows,)
    newest, oldest = unified_guards.explain(compiled).frames
    assert [item.test for item in oldest.guard_set if item.test in (Test.SHAPE_CALL, Test.EXPRESSION)] == [
        Test.SHAPE_CALL
    ]
    assert newest.python_callbacks == oldest.python_callbacks == 0
    assert newest.counts[1] + oldest.counts[1] == 3
