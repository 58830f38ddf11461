"""What a shape expression may be, and how it is written."""

from __future__ import annotations

import pytest

from unified_guards.guards.expressions import (
    Kind,
    NotAnExpression,
    Op,
    evaluate,
    kind_of,
    parse,
    read,
    replaced,
    written,
)

from ..shapes import Random
from .making import SOURCES, parsed

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
