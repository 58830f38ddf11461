"""What the tests of shape expressions share."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch._dynamo.guards as torch_guards
from torch.fx.experimental.symbolic_shapes import SYMPY_INTERP

from unified_guards.dynamo import compat
from unified_guards.guards.expressions import expression, numbered, parse
from unified_guards.guards.ir import Guard, Source


def shape(text: str, *sources: Source) -> Guard:
    """The guard that ``text`` writes over v0, v1, …, one for each of ``sources``."""
    return expression(parse(text, dict(zip(numbered(len(sources)), sources, strict=True))))


def torchs_lambda(texts: Sequence[str], names: Mapping[str, str] | None = None) -> Callable[[dict[str, Any]], bool]:
    """The Python function that torch makes of the parts of its shape guards, as ``GuardBuilder`` does.

    Args:
        texts: the parts.
        names: what they call something that is found elsewhere in the frame.
    """
    for name, path in (names or {}).items():
        texts = [re.sub(rf"\b{name}\b", path, text) for text in texts]
    scope = {**SYMPY_INTERP, **torch_guards._get_closure_vars()}
    _, code = torch_guards.build_guard_function(list(texts), ", ".join(scope))
    found: dict[str, Any] = {}
    exec(code, {"G": {}}, found)
    made = found["___make_guard_fn"](*scope.values())

    def holds(f_locals: dict[str, Any]) -> bool:
        try:
            return bool(made(f_locals))
        except Exception:  # for a lambda guard an exception means no
            return False

    return holds


class Random:
    """Random expressions over integers v0, v1, … and floats w0, w1, …: every operator that a ShapeEnv prints.

    Exponents and shifts stay small: Python would compute millions of digits.
    """

    INTS, FLOATS = ("v0", "v1", "v2"), ("w0", "w1")

    def __init__(self, seed: int, *, floats: bool = True) -> None:
        self.choose = random.Random(seed)
        self.floats = floats

    def integer(self, depth: int) -> str:
        if depth == 0 or self.choose.random() < 0.1:
            return self.choose.choice(
                [*self.INTS, str(self.choose.choice([-3, -1, 0, 1, 2, 4, 7, 8, 2**31, 2**53, 2**62]))]
            )
        kind = self.choose.randrange(17 if self.floats else 14)
        a, b = self.integer(depth - 1), self.integer(depth - 1)
        small = self.choose.choice(["0", "1", "2", "3", "(v0 % 5)", "-1"])
        if kind < 3:
            return f"({a} {'+-*'[kind]} {b})"
        forms = (
            f"({a} // {b})", f"({a} % {b})", f"({a} ** {small})", f"({a} {self.choose.choice('&|^')} {b})",
            f"({a} {self.choose.choice(['<<', '>>'])} {small})", f"{self.choose.choice(SMALLEST_OR_LARGEST)}({a}, {b})",
            f"abs({a})", f"({self.choose.choice('-~')}({a}))", f"({a} if {self.truth(depth - 1)} else {b})",
            f"{INDICATOR}({a}, {b}, {self.integer(depth - 1)}, 1)",
            f"({a} {self.choose.choice(['and', 'or'])} {b})",
        )  # fmt: skip
        if kind < 14:
            return forms[kind - 3]
        function = self.choose.choice(["math.floor", "math.ceil", "math.trunc", "round"])
        return f"{function}({self.real(depth - 1)})"

    def real(self, depth: int) -> str:
        if depth == 0 or self.choose.random() < 0.1:
            return self.choose.choice(
                [*self.FLOATS, repr(self.choose.choice([0.0, -0.0, 0.5, 1.5, 2.675, 1e16, -7.25])), "math.inf"]
            )
        a, b, n = self.real(depth - 1), self.real(depth - 1), self.integer(depth - 1)
        function = self.choose.choice(
            ["torch.sym_float", "torch._sym_sqrt", *(f"math.{name}" for name in MATH_FUNCTIONS)]
        )
        forms = (
            f"({a} + {b})", f"({a} - {n})", f"({n} * {b})", f"({a} / {b})", f"({n} / {self.integer(depth - 1)})",
            f"({a} // {b})", f"({a} % {b})", f"({a} ** {b})", f"{self.choose.choice(SMALLEST_OR_LARGEST)}({a}, {b})",
            f"abs({a})", f"(-({a}))", f"round({a}, {self.choose.randrange(-1, 4)})", f"{function}({a})",
            f"{function}({n})", f"torch.sym_max({n}, {a})", f"({a} if {self.truth(depth - 1)} else {b})",
        )  # fmt: skip
        return self.choose.choice(forms)

    def truth(self, depth: int) -> str:
        """A condition, of which the value is true or false."""
        sides = [self._side(depth) for _ in range(3)]
        ops = [self.choose.choice(["<", "<=", ">", ">=", "==", "!="]) for _ in range(2)]
        compared = f"({sides[0]} {ops[0]} {sides[1]})"
        if depth == 0:
            return compared
        forms = (
            compared, compared, compared, f"({sides[0]} {ops[0]} {sides[1]} {ops[1]} {sides[2]})",
            f"({self.truth(depth - 1)} and {self.truth(depth - 1)})",
            f"({self.truth(depth - 1)} or {self.truth(depth - 1)})",
            f"(not {self.truth(depth - 1)})", f"math.isnan({sides[0]})", f"({self.integer(depth)} % 4 == 0)",
        )  # fmt: skip
        return self.choose.choice(forms)

    def _side(self, depth: int) -> str:
        return self.real(depth) if self.floats and self.choose.random() < 0.4 else self.integer(depth)

    def values(self) -> dict[str, Any]:
        ints = [-7, -3, -1, 0, 1, 2, 3, 8, 12, 2**31 - 1, 2**53 + 1, 2**62, 2**63 - 1, -(2**63), 2**63, 2**70, -(2**64)]
        floats = [
            0.0,
            -0.0,
            0.5,
            -2.5,
            1.5,
            3.0,
            1e308,
            -1e308,
            5e-324,
            2.0**53,
            2.0**63,
            math.inf,
            -math.inf,
            math.nan,
        ]
        weights = [1] * 9 + [0.3] * 8
        found: dict[str, Any] = {name: self.choose.choices(ints, weights)[0] for name in self.INTS}
        return found | {name: self.choose.choice(floats) for name in self.FLOATS}


INDICATOR = "IsNonOverlappingAndDenseIndicator" if compat.indicator_takes_numbers() else "max"
SMALLEST_OR_LARGEST = ("min", "max", "torch.sym_min", "torch.sym_max")
MATH_FUNCTIONS = ("acos", "asin", "atan", "cos", "cosh", "log2", "sin", "sinh", "tan", "tanh")
