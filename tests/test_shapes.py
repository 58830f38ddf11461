"""Shape expressions: what they may be, what they mean, and that native code, the reference and torch agree on it."""

from __future__ import annotations

import contextlib
import ctypes
import math
import random
import shutil
from typing import Any

import pytest
import sympy
import torch
import torch._dynamo.testing
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.source import ConstantSource
from torch._inductor.codecache import CppCodeCache
from torch.fx.experimental.symbolic_shapes import ShapeGuardPythonPrinter, _ShapeGuardCppPrinter
from torch.utils._sympy import functions as torch_sympy

import unified_guards
from unified_guards import _C
from unified_guards.dynamo import compat
from unified_guards.guards import semantics
from unified_guards.guards.expressions import (
    Kind,
    NotAnExpression,
    Op,
    Term,
    evaluate,
    expression,
    kind_of,
    parse,
    read,
    replaced,
    written,
)
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.lower.rows import lower, make_checker
from unified_guards.lower.shape_code import lower_shapes

from .shapes import MATH_FUNCTIONS, Random, shape, torchs_lambda

MADE = Provenance("shape_env")
NAMES = (*Random.INTS, *Random.FLOATS)
SOURCES = {name: Source.frame().child(Access.LOCAL, name) for name in NAMES}
PATHS = {name: f"L['{name}']" for name in NAMES}
X = Source.frame().child(Access.LOCAL, "x")


def set_of(*guards: Guard) -> GuardSet:
    return GuardSet((item, MADE) for item in guards)


def parsed(text: str) -> Term:
    return parse(text, SOURCES)


def typed(*guards: Guard) -> GuardSet:
    """With the guards on types that Dynamo makes for the scalars."""
    kinds = [guard(Test.TYPE_IS, (SOURCES[name],), (id(float), "float")) for name in Random.FLOATS]
    return set_of(*kinds, *guards)


# -- grammar -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "v0 + v1 - v2 * 2",
        "v0 - (v1 - v2)",
        "(v0 + v1) * v2",
        "v0 // v1 % 8",
        "v0 // (v1 % 8)",
        "(-2) ** v0",
        "v0 ** 2",
        "v0 & v1 | v2 ^ 3",
        "v0 << 2 >> v1",
        "~(v0) == -(v1)",
        "(v0 < v1 and v1 <= 7) or (not (v2 == 0))",
        "v0 if v1 > 2 else v2",
        "min(v0, v1, 3) >= max(v1, 2)",
        "torch.sym_min(v0, torch.sym_max(v1, w0)) < 3",
        "round(w0, 2) == torch.sym_float(v0)",
        "math.floor(w0) + math.ceil(w1) + math.trunc(w0) + round(w0)",
        "not math.isnan(w0)",
        "w0 < math.inf and -math.inf < w1",
        "IsNonOverlappingAndDenseIndicator(v0, v1, v1, 1)",
        "abs(v0) == 1e-05",
    ],
)
def test_what_is_parsed_is_written_so_that_it_is_parsed_the_same(text: str) -> None:
    made = parsed(text)
    assert written(made, lambda source: str(source.key)) == text
    assert parsed(written(made, lambda source: str(source.key))) is made


@pytest.mark.parametrize("seed", range(50))
def test_random_expressions_survive_being_written(seed: int) -> None:
    made = parsed(Random(seed).truth(4))
    assert parsed(written(made, lambda source: str(source.key))) is made


@pytest.mark.parametrize(
    "text",
    [
        "exit()",
        "v0 <",
        "unknown < 3",
        "v0.real",
        "v0[0]",
        "__import__('os')",
        "math.factorial(v0)",
        "math.floor(v0, v1)",
        "round(number=w0)",
        "min(v0)",
        "v0 is v1",
        "v0 in (1, 2)",
        "v0 @ v1",
        "'a' < 'b'",
        "None",
        "1j",
        "[v0]",
        "lambda: v0",
        "(v0 := 3)",
        "IsNonOverlappingAndDenseIndicator(v0, v1, v2)",
    ],
)
def test_other_text_is_refused_and_the_part_is_named(text: str) -> None:
    with pytest.raises(NotAnExpression, match=r"not part of a shape expression|is not an expression"):
        parsed(text)


def test_text_that_is_too_deep_is_refused() -> None:
    with pytest.raises(NotAnExpression):
        parsed("(" * 5000 + "v0" + ")" * 5000)


def test_a_source_may_be_any_text() -> None:
    leaves = {"L['é'].size()[0]": SOURCES["v0"], "G['min'](3).x": SOURCES["v1"]}
    assert parse("L['é'].size()[0] <= G['min'](3).x", leaves) is parsed("v0 <= v1")


def test_equal_terms_are_one_object_and_die_together() -> None:
    from unified_guards.guards import expressions

    before = len(expressions._terms)
    made = parsed("v0 + 12345 < v1 * 54321")
    assert parsed("v0 + 12345 < v1 * 54321") is made
    assert len(expressions._terms) > before
    del made
    assert len(expressions._terms) == before


def test_numbers_of_different_types_are_different_terms() -> None:
    assert (
        len({parsed(text) for text in ("v0 == 1", "v0 == 1.0", "v0 == True", "v0 == -1", "v0 == -0.0", "v0 == 0.0")})
        == 6
    )


def test_sources_come_in_the_order_in_which_they_are_named() -> None:
    assert parsed("v1 + v0 < v2 * v1").sources == (SOURCES["v1"], SOURCES["v0"], SOURCES["v2"])


def test_a_source_is_replaced_everywhere() -> None:
    made = replaced(parsed("v0 + v1 < v0 * 2"), lambda source: read(SOURCES["v2"]) if source is SOURCES["v0"] else None)
    assert made is parsed("v2 + v1 < v2 * 2")
    assert replaced(made, lambda source: None) is made


def test_a_term_is_immutable_and_is_not_pickled() -> None:
    made = parsed("v0 < 3")
    with pytest.raises(AttributeError):
        made.op = Op.GT  # type: ignore[misc]
    with pytest.raises(TypeError, match="to_json"):
        made.__reduce__()


# -- kinds -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(40))
def test_a_value_is_of_the_kind_that_was_foretold(seed: int) -> None:
    made = Random(seed)
    for _ in range(20):
        item = parsed(made.choose.choice([made.integer, made.real, made.truth])(3))
        kind = kind_of(item, lambda source: Kind.FLOAT if source.key in Random.FLOATS else Kind.INT)
        values = made.values()
        try:
            value = evaluate(item, lambda source: values[source.key])
        except (ArithmeticError, ValueError, TypeError):
            continue
        if kind is Kind.INT and "**" in item.text and not isinstance(value, int):
            continue  # a negative exponent: whoever computes has to see to that
        assert (
            kind is None
            or isinstance(value, {"int": int, "float": float, "bool": bool}[kind.value])
            or isinstance(value, complex)
        ), item


# -- meaning -----------------------------------------------------------------------------------------------------------


def verdicts(text: str, values: dict[str, Any]) -> dict[str, bool]:
    torchs = torchs_lambda([text], PATHS)
    made = parsed(text)
    found = {"torch": torchs(values)}
    for name, asked in (("on its own", None), ("with torch's function", torchs)):
        guard_set = typed(expression(made, asked))
        found[f"native, {name}"] = make_checker(lower(guard_set)).check(values)
        found[f"reference, {name}"] = semantics.evaluate(guard_set, values)
    found["native, kinds unknown"] = make_checker(lower(set_of(expression(made)))).check(values)
    return found


def assert_agreed(text: str, values: dict[str, Any]) -> bool:
    found = verdicts(text, values)
    assert len(set(found.values())) == 1, f"{text}\non {values}: {found}"
    return found["torch"]


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


# -- what torch prints -------------------------------------------------------------------------------------------------

S = {name: sympy.Symbol(name, integer=True) for name in Random.INTS}
F = {name: sympy.Symbol(name, real=True) for name in Random.FLOATS}
S0, S1, S2 = S.values()
F0, F1 = F.values()

#: One condition for each function of torch's that a shape guard may hold.
PRINTED = {
    "FloorDiv": sympy.Eq(torch_sympy.FloorDiv(S0, S1), 2),
    "ModularIndexing": sympy.Eq(torch_sympy.ModularIndexing(S0, S1, S2), 1),
    "Mod": sympy.Eq(torch_sympy.Mod(S0, S1), 1),
    "PythonMod": sympy.Eq(torch_sympy.PythonMod(S0, S1), -1),
    "CleanDiv": sympy.Le(torch_sympy.CleanDiv(S0, S1), 2),
    "CeilToInt": sympy.Gt(torch_sympy.CeilToInt(F0), S0),
    "CeilDiv": sympy.Le(torch_sympy.CeilDiv(S0, S1), 3),
    "IntTrueDiv": sympy.Lt(torch_sympy.IntTrueDiv(S0, S1), F0),
    "FloatTrueDiv": sympy.Lt(torch_sympy.FloatTrueDiv(F0, F1), 2.0),
    "PowByNatural": sympy.Lt(torch_sympy.PowByNatural(S0, S1), 100),
    "FloatPow": sympy.Lt(torch_sympy.FloatPow(F0, F1), 100.0),
    "LShift": sympy.Lt(torch_sympy.LShift(S0, sympy.Integer(2)), 100),
    "Max": sympy.Lt(torch_sympy.Max(S0, S1), S2),
    "Min": sympy.Lt(torch_sympy.Min(S0, S1), S2),
    "Abs": sympy.Gt(sympy.Abs(S0), 2),
    "FloorToInt": sympy.Gt(torch_sympy.FloorToInt(F0), S0),
    "TruncToInt": sympy.Gt(torch_sympy.TruncToInt(F0), S0),
    "RoundToInt": sympy.Eq(torch_sympy.RoundToInt(F0), S0),
    "RoundDecimal": sympy.Lt(torch_sympy.RoundDecimal(F0, 1), F1),
    "ToFloat": sympy.Lt(torch_sympy.ToFloat(S0), F0),
    "BitwiseFn_bitwise_and": sympy.Gt(torch_sympy.BitwiseFn_bitwise_and(S0, S1), 0),
    "BitwiseFn_bitwise_or": sympy.Gt(torch_sympy.BitwiseFn_bitwise_or(S0, S1), 2),
    "Not": sympy.Not(sympy.Eq(torch_sympy.Mod(S0, 4), 0), evaluate=False),
    "And": sympy.And(S0 > 1, S1 < 3),
    "Or": sympy.Or(S0 > 1, S1 < 3),
    "sum of products": sympy.Lt(2 * S0**2 - 3 * S1 * S2 + 1, 5),
    "Piecewise": sympy.Gt(sympy.Piecewise((S0, S0 > S1), (S2, True), evaluate=False), 1),
    **{name: sympy.Lt(getattr(torch_sympy, f"OpaqueUnaryFn_{name}")(F0), F1) for name in (*MATH_FUNCTIONS, "sqrt")},
    "IsNonOverlappingAndDenseIndicator": sympy.Eq(
        torch_sympy.IsNonOverlappingAndDenseIndicator(S0, S1, S1, sympy.Integer(1)), 1
    ),
}


def printed(condition: Any) -> str:
    """As ``ShapeEnv.produce_guards_verbose`` prints it, over the names of the symbols."""
    sources = {symbol: [symbol] for symbol in (*S.values(), *F.values())}
    return str(ShapeGuardPythonPrinter(sources, lambda symbol: symbol.name, sources).doprint(condition))


@pytest.mark.parametrize("name", PRINTED)
def test_what_torch_prints_is_native_and_means_the_same(name: str) -> None:
    if name == "IsNonOverlappingAndDenseIndicator" and not compat.indicator_takes_numbers():
        pytest.skip("this torch cannot evaluate the indicator of dense memory on numbers")
    try:
        text = printed(PRINTED[name])
    except NotImplementedError:
        pytest.skip("this torch cannot print this expression as Python")
    assert not lower_shapes(list(typed(expression(parsed(text))))).asked, text
    seen = set()
    made = Random(len(name))
    for _ in range(200):
        values = made.values()
        if name == "PowByNatural":
            values["v1"] %= 7  # Python would compute millions of digits
        seen.add(assert_agreed(text, values))
    assert seen == {True, False}, text


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
    assert [str(item) for item in code.asked] == [f"L['v0'] < {2**64}"]
    assert [str(item) for item in code.guards] == ["L['v0'] < 3"]


def test_a_value_that_is_an_int_or_a_float_has_no_native_form() -> None:
    assert lower_shapes(list(typed(expression(parsed("max(v0, w0) < 3"))))).asked


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
    assert code.asked and len(code.guards) + len(code.asked) == len(many)
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
        assert program.meaning[checker.last_failure] is guards[failing]


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


# -- lifted from Dynamo ------------------------------------------------------------------------------------------------


@pytest.fixture
def installed() -> Any:
    with unified_guards.installed():
        yield


def shapes_of(compiled: Any, at: int = 0) -> list[str]:
    checked = unified_guards.explain(compiled).frames[at].guard_set
    return [str(item) for item in checked if item.test is Test.EXPRESSION]


@pytest.mark.usefixtures("installed")
class TestDynamo:
    def test_shape_guards_are_expressions_and_call_no_python(self) -> None:
        def halve(x: torch.Tensor, n: int) -> torch.Tensor:
            return x * 2 if x.shape[0] % 4 == 0 and x.shape[0] > n else x

        compiled = torch.compile(halve, backend="eager", dynamic=True)
        for rows in (8, 12, 16):
            compiled(torch.ones(rows), 5)
        (frame,) = unified_guards.explain(compiled).frames
        assert {"L['x'].size()[0] % 4 == 0", "L['x'].size()[0] > L['n']"} <= set(shapes_of(compiled))
        assert frame.python_callbacks == 0
        assert frame.counts[1:] == (2, 0, 0)

    def test_a_range_is_two_guards(self) -> None:
        def between(x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.shape[0] > 4 and x.shape[0] < 9 else x

        compiled = torch.compile(between, backend="eager", dynamic=True)
        compiled(torch.ones(6))
        assert {"5 <= L['x'].size()[0]", "L['x'].size()[0] <= 8"} <= set(shapes_of(compiled))

    def test_floats_are_read_natively(self) -> None:
        def scale(x: torch.Tensor, by: float) -> torch.Tensor:
            return x * by if by > 1.5 else x - 1

        compiled = torch.compile(scale, backend="eager", dynamic=True)
        for by in (2.5, 3.5, 4.5):
            compiled(torch.ones(3), by)
        assert unified_guards.explain(compiled).frames[0].counts[1:] == (2, 0, 0)
        compiled(torch.ones(3), float("nan"))
        assert len(unified_guards.explain(compiled).frames) == 2

    def test_numbers_are_read_where_the_tree_has_them(self) -> None:
        def fits(x: torch.Tensor, limits: dict[str, list[int]]) -> torch.Tensor:
            return x + 1 if x.shape[0] < limits["rows"][1] else x - 1

        compiled = torch.compile(fits, backend="eager", dynamic=True)
        compiled(torch.ones(4, 3), {"rows": [2, 5]})
        compiled(torch.ones(6, 3), {"rows": [2, 9]})
        assert "L['x'].size()[0] < L['limits']['rows'][1]" in shapes_of(compiled)
        assert unified_guards.explain(compiled).frames[0].counts[1:] == (1, 0, 0)

    def test_a_class_with_its_own_size_keeps_torchs_function(self) -> None:
        class Sized(torch.Tensor):
            def size(self, *args: Any) -> Any:
                return super().size(*args)

        before = unified_guards.stats().shapes_left_to_torch
        x = torch.ones(4, 3).as_subclass(Sized)
        compiled = torch.compile(lambda x: x * 2 if x.size(0) > 2 else x, backend="eager", dynamic=True)
        compiled(x)
        after = unified_guards.stats().shapes_left_to_torch
        left = {why for why in after if after[why] != before.get(why)}
        if any(item.test is Test.SHAPE for item in unified_guards.explain(compiled).frames[0].guard_set):
            assert left == {"a shape guard reads a tensor whose class has a size() of its own"}
            assert "shape guards stayed Python" in str(unified_guards.stats())

    def test_a_subclass_without_its_own_size_is_read_natively(self) -> None:
        class Named(torch.Tensor):
            pass

        compiled = torch.compile(lambda x: x * 2 if x.shape[0] > 2 else x, backend="eager", dynamic=True)
        compiled(torch.ones(4, 3).as_subclass(Named))
        assert "3 <= L['x'].size()[0]" in shapes_of(compiled)
        compiled(torch.ones(5, 3).as_subclass(Named))
        assert unified_guards.explain(compiled).frames[0].counts == (1, 1, 0, 0)

    def test_jagged_tensors_decide_as_with_torch(self) -> None:
        def double(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x * 2 + y

        def nested(*lengths: int) -> torch.Tensor:
            rows = [torch.ones(length, 4) for length in lengths]
            return torch.nested.nested_tensor(rows, layout=torch.jagged)

        counts = {}
        for name, context in (("unified", unified_guards.installed), ("torch", torch.no_grad)):
            torch._dynamo.reset()
            unified_guards.uninstall()
            with context():
                counter = torch._dynamo.testing.CompileCounter()
                compiled = torch.compile(double, backend=counter, dynamic=True)
                for lengths in ((2, 3), (2, 3), (4, 5, 6), (1, 2)):
                    x = nested(*lengths)
                    compiled(x, x)
                counts[name] = counter.frame_count
        assert counts["unified"] == counts["torch"]

    def test_the_recompile_is_explained_by_the_expression(self) -> None:
        def pick(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.shape[0] * 2 > y.shape[0] else x

        compiled = torch.compile(pick, backend="eager", dynamic=True)
        compiled(torch.ones(8), torch.ones(4))
        compiled(torch.ones(8), torch.ones(24))
        first = unified_guards.explain(compiled).frames[-1]
        (miss,) = first.misses
        assert miss.startswith(
            "2 * L['x'].size()[0] > L['y'].size()[0] (found L['x'].size()[0] = 8, L['y'].size()[0] = 24)  # shape_env, "
        )
        line = pick.__code__.co_firstlineno + 1
        assert miss.endswith(f"{__file__}:{line}")
        assert f"compiled again because of: {miss}" in first.summary()

    def test_a_recompile_of_a_backends_making_names_the_backend(self) -> None:
        def tiling(graph: torch.fx.GraphModule, inputs: Any) -> Any:
            sizes = [size for x in inputs if isinstance(x, torch.Tensor) for size in x.shape]
            if sizes[0] % 16 == 0:
                made.append("tiles of 16 rows")
            return make_boxed_func(graph.forward)

        made: list[str] = []
        compiled = torch.compile(lambda x: x + 1, backend=aot_autograd(fw_compiler=tiling), dynamic=True)
        compiled(torch.ones(32))
        compiled(torch.ones(33))
        (miss,) = unified_guards.explain(compiled).frames[-1].misses
        assert made == ["tiles of 16 rows"]
        assert miss.startswith("L['x'].size()[0] % 16 == 0 (found 33)  # aot, ")

    def test_other_guards_say_what_they_found_too(self) -> None:
        compiled = torch.compile(lambda x, flag: x + 1 if flag else x - 1, backend="eager")
        compiled(torch.ones(3), True)
        compiled(torch.ones(3), False)
        compiled(torch.ones(3, dtype=torch.float64), True)
        newest, middle, oldest = unified_guards.explain(compiled).frames
        assert oldest.misses[0].startswith("L['flag'] is True (found False)  # dynamo")
        assert "(found Tensor float64[3] on cpu)" in oldest.misses[1]
        assert len(middle.misses) == 1
        assert newest.misses == ()

    def test_only_the_last_misses_are_kept(self) -> None:
        with torch._dynamo.config.patch(recompile_limit=20):
            compiled = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
            for rows in range(2, 16):
                compiled(torch.ones(rows))
        misses = unified_guards.explain(compiled).frames[-1].misses
        assert len(misses) == 8
        assert "[15]" in misses[-1]


# -- torch's gcc-built guard -------------------------------------------------------------------------------------------


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
