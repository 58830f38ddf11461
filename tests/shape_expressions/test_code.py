"""Shape expressions become straight-line code, which reads the sizes of tensors in place."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo.testing

from unified_guards import _C
from unified_guards.guards import semantics
from unified_guards.guards.expressions import (
    expression,
    parse,
)
from unified_guards.guards.ir import Access
from unified_guards.lower.rows import lower, make_checker
from unified_guards.lower.shape_code import lower_shapes

from ..shapes import shape
from .making import SOURCES, X, parsed, set_of, typed

# -- code --------------------------------------------------------------------------------------------------------------


def ops(*texts: str) -> list[str]:
    """The names of the instructions for these expressions."""
    code = lower_shapes(list(typed(*(expression(parsed(text)) for text in texts)))).code
    numbers = {number: name for name, number in _C.SHAPE_OPS.items()}
    return [numbers[number] for number in memoryview(code).cast("H")[::4]]


def test_what_expressions_share_is_computed_once() -> None:
    assert ops("v0 * v1 < 10", "v0 * v1 + 1 > v2", "v2 + v0 * v1 == 3").count("MUL") == 1


def test_simple_checks_are_one_instruction() -> None:
    assert ops("v0 <= 7", "2 <= v0", "v0 == v1", "v1 > v0", "v0 != 3", "v0 % 8 == 0", "v0 % 6 == 0") == [
        "CHECK_EQ", "CHECK_LE", "CHECK_LE", "CHECK_LT", "CHECK_NE", "CHECK_CLEAR", "CHECK_DIVISIBLE",
    ]  # fmt: skip


def test_powers_of_two_are_not_divided_by() -> None:
    assert ops("v0 // 8 + v1 % 4 == 3") == ["BITAND", "RSHIFT", "ADD", "CHECK_EQ"]


def test_what_needs_no_computing_is_checked_first() -> None:
    assert ops("v0 * v1 < 10", "v0 == v1") == ["CHECK_EQ", "MUL", "CHECK_LT"]


def test_the_parts_of_a_conjunction_are_checked_one_by_one() -> None:
    assert ops("2 <= v0 and v0 <= 7") == ["CHECK_LE", "CHECK_LE"]


def test_a_number_beyond_64_bits_has_no_native_form() -> None:
    code = lower_shapes([expression(parsed(f"v0 < {2**64}")), expression(parsed("v0 < 3"))])
    assert [str(item) for item in code.not_native] == [f"L['v0'] < {2**64}"]
    assert [str(item) for item in code.guards] == ["L['v0'] < 3"]


def test_a_value_that_is_an_int_or_a_float_has_no_native_form() -> None:
    assert lower_shapes(list(typed(expression(parsed("max(v0, w0) < 3"))))).not_native


def test_a_guard_without_native_form_is_asked_of_python_beside_the_native_ones() -> None:
    checker = make_checker(lower(set_of(expression(parsed(f"v0 < {2**64}")), expression(parsed("v0 > 1")))))
    assert checker.check({"v0": 2})
    assert checker.counts == (1, 1, 0, 1)
    assert not checker.check({"v0": 1})  # found natively
    assert checker.counts == (2, 1, 1, 1)


def test_the_program_says_how_often_it_calls_python() -> None:
    assert lower(set_of(expression(parsed("v0 < 3")))).python_callbacks == 0
    assert lower(set_of(expression(parsed(f"v0 < {2**64}")))).python_callbacks == 1


def test_there_may_be_more_expressions_than_registers() -> None:
    many = [shape(f"v0 * {i} + v1 != -1", SOURCES["v0"], SOURCES["v1"]) for i in range(2, 36_000)]
    code = lower_shapes(many)
    assert code.not_native and len(code.guards) + len(code.not_native) == len(many)
    checker = make_checker(lower(set_of(*many)))
    assert checker.check({"v0": 1, "v1": 1})
    assert not checker.check({"v0": 1, "v1": -35_999 - 1})  # the last one


def test_the_failing_expression_is_named() -> None:
    guards = [shape(text, SOURCES["v0"], SOURCES["v1"]) for text in ("v0 < 9", "v1 % 4 == 0", "v0 + v1 < 20")]
    program = lower(set_of(*guards))
    checker = make_checker(program)
    for values, failing in (((9, 4), 0), ((8, 5), 1), ((8, 16), 2)):
        assert not checker.check(dict(zip(("v0", "v1"), values, strict=True)))
        assert checker.last_failure is not None
        assert program.row_origins[checker.last_failure] is guards[failing]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ((1, b"1234567", b"", None), "cut off"),
        ((1, b"", b"123", None), "cut off"),
        ((1, b"", b"\xff\xff" * 4, None), "no such instruction"),
        ((1, b"", bytes([_C.SHAPE_OPS["ADD"], 0, 1, 0, 5, 0, 0, 0]), None), "reads what nothing wrote"),
        ((1, b"", bytes([_C.SHAPE_OPS["ADD"], 0, 0, 0, 0, 0, 0, 0]), None), "writes to what it is given"),
        ((0, b"", b"", None), "no shape code for what was read"),
    ],
)
def test_code_that_is_not_legal_is_refused(code: Any, message: str) -> None:
    read_int, shapes = _C.OPS["READ_INT"], _C.OPS["SHAPES"]
    with pytest.raises(ValueError, match=message):
        _C.Checker([(read_int, 0, 0, None, 0), (shapes, 0, 0, code, 0)])


# -- sizes of tensors --------------------------------------------------------------------------------------------------

SIZE, STRIDE, OFFSET = X.child(Access.TENSOR_SIZE, 0), X.child(Access.TENSOR_STRIDE, 0), X.child(Access.TENSOR_OFFSET)


@pytest.mark.parametrize(
    ("name", "tensor", "holds"),
    [
        ("strided", torch.ones(4, 3), True),
        ("a view", torch.ones(8, 3)[::2], False),
        ("an offset", torch.ones(5, 3)[1:], False),
        ("no dimension", torch.ones(()), False),
        ("meta", torch.ones(4, 3, device="meta"), True),
        ("no tensor", 3, False),
    ],
)
def test_numbers_of_a_tensor_are_read_in_place(name: str, tensor: Any, holds: bool) -> None:
    guard_set = set_of(shape("v0 == 4 and v1 == 3 and v2 == 0", SIZE, STRIDE, OFFSET))
    checker = make_checker(lower(guard_set))
    assert checker.check({"x": tensor}) is holds
    assert semantics.evaluate(guard_set, {"x": tensor}) is holds
    assert checker.counts[3] == (name == "no tensor")


def test_sizes_that_are_symbols_are_torchs_to_judge() -> None:
    asked: list[Any] = []
    mode = torch._subclasses.FakeTensorMode(shape_env=torch.fx.experimental.symbolic_shapes.ShapeEnv())
    fake = mode.from_tensor(torch.ones(4, 3), static_shapes=False)
    answer = True
    made = expression(parse("x0 == 9", {"x0": SIZE}), lambda frame: asked.append(frame) or answer)
    checker = make_checker(lower(set_of(made)))
    assert checker.check({"x": fake})
    answer = False
    assert not checker.check({"x": fake})
    assert asked == [{"x": fake}] * 2
    assert checker.counts == (2, 1, 1, 2)
    assert not mode.shape_env.guards


def test_a_tensor_that_computes_its_sizes_is_asked_for_them() -> None:
    nested = torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])
    guard_set = set_of(shape("v0 == 2", SIZE))
    checker = make_checker(lower(guard_set))
    assert checker.check({"x": nested}) is semantics.evaluate(guard_set, {"x": nested})
    assert checker.counts[3] == 1
