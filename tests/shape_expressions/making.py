"""Expressions over sources, and what each evaluator says of one."""

from __future__ import annotations

from typing import Any

import sympy
from torch.fx.experimental.symbolic_shapes import ShapeGuardPythonPrinter
from torch.utils._sympy import functions as torch_sympy

from unified_guards.guards import semantics
from unified_guards.guards.expressions import (
    Term,
    expression,
    parse,
)
from unified_guards.guards.ir import Access, Guard, GuardSet, Provenance, Source, Test, guard
from unified_guards.lower.rows import lower, make_checker

from ..shapes import MATH_FUNCTIONS, Random, torchs_lambda

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
