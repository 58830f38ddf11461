"""Expressions over sizes, strides and scalars, as torch's ShapeEnv prints them.

An expression is Python text over the variables ``v0``, ``v1``, …, one for each source of its guard. It is parsed and
checked against the grammar of the ShapeEnv's printer before anything is made of it: text that is not such an expression
never becomes code. Entry points: :func:`function_of`, :func:`with_sources`.
"""

from __future__ import annotations

import ast
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx.experimental.symbolic_shapes import SYMPY_INTERP


class NotAnExpression(ValueError):
    """The text is outside of the grammar; the message names the part."""


#: What an expression may call, by its full name.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "max": max,
    "min": min,
    "round": round,
    "torch.sym_float": torch.sym_float,
    "torch._sym_sqrt": torch._sym_sqrt,
    "IsNonOverlappingAndDenseIndicator": SYMPY_INTERP["IsNonOverlappingAndDenseIndicator"],
    **{f"math.{name}": getattr(math, name) for name in (
        "acos", "asin", "atan", "ceil", "cos", "cosh", "floor", "isnan", "log2", "sin", "sinh", "sqrt", "tan", "tanh",
        "trunc",
    )},
}  # fmt: skip
_CONSTANTS = {"inf": math.inf, "math.inf": math.inf, "math.nan": math.nan}
_NODES = (
    ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
    ast.Load,
)  # fmt: skip
_VARIABLE = re.compile(r"\bv(\d+)\b")


class _Checked(ast.NodeTransformer):
    """Replaces each function and constant that has a name by a variable of the scope, and refuses everything else."""

    def __init__(self, variables: int) -> None:
        self.variables = variables
        self.scope: dict[str, Any] = {"__builtins__": {}}

    def _known(self, value: Any, name: str) -> ast.Name:
        alias = "_" + name.replace(".", "_")
        self.scope[alias] = value
        return ast.Name(alias, ast.Load())

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Call) and not node.keywords:
            name = ast.unparse(node.func)
            if name in _FUNCTIONS:
                return ast.Call(self._known(_FUNCTIONS[name], name), [self.visit(arg) for arg in node.args], [])
        elif isinstance(node, ast.Name | ast.Attribute):
            name = ast.unparse(node)
            if name in _CONSTANTS:
                return self._known(_CONSTANTS[name], name)
            if _VARIABLE.fullmatch(name) and int(name[1:]) < self.variables:
                return node
        elif isinstance(node, ast.Constant):
            if type(node.value) in (int, float, bool):
                return node
        elif isinstance(node, _NODES):
            return self.generic_visit(node)
        raise NotAnExpression(f"{ast.unparse(node)!r} is not part of a shape expression")


@functools.lru_cache(maxsize=4096)
def function_of(text: str, variables: int) -> Callable[..., Any]:
    """The Python function ``v0, …, v<variables - 1> -> value`` of an expression.

    Raises:
        NotAnExpression: the text is outside of the grammar.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError) as error:
        raise NotAnExpression(f"{text!r} is not an expression: {error}") from None
    checked = _Checked(variables)
    body = checked.visit(tree.body)
    names = [ast.arg(f"v{i}") for i in range(variables)]
    arguments = ast.arguments(posonlyargs=names, args=[], kwonlyargs=[], kw_defaults=[], defaults=[])
    made = ast.fix_missing_locations(ast.Expression(ast.Lambda(arguments, body)))
    function: Callable[..., Any] = eval(compile(made, "<shape guard>", "eval"), checked.scope)
    return function


def with_sources(text: str, sources: Sequence[object]) -> str:
    """The expression for reading: each variable replaced by the text of its source."""
    return _VARIABLE.sub(lambda found: str(sources[int(found[1])]), text)


def conjunction(parts: Sequence[tuple[str, Sequence[Any]]]) -> tuple[str, tuple[Any, ...]]:
    """One expression that says all of ``parts``, each an expression with its sources; and the sources of that one."""
    sources: dict[Any, int] = {}
    texts = []
    for text, own in parts:
        places = [sources.setdefault(source, len(sources)) for source in own]
        texts.append(with_sources(text, [f"v{place}" for place in places]))
    return " and ".join(f"({text})" for text in texts), tuple(sources)
