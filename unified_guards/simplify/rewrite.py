"""Puts other terms in the place of an expression's sources, and folds what has become constant.

Entry points: :func:`with_leaves`, :func:`folded`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unified_guards.guards.expressions import Op, Term, const, evaluate, expression, replaced, term
from unified_guards.guards.ir import Guard, Source


def folded(op: Op, *args: Term) -> Term:
    """The operation, simplified: its value where that is a cheap constant, and ``source`` for ``1 * source``."""
    if op is Op.MUL and {arg.op for arg in args} == {Op.SOURCE, Op.CONST}:
        number, source = sorted(args, key=lambda arg: arg.op is Op.SOURCE)
        if number.value == 1 and type(number.value) is int:
            return source
    made = term(op, *args)
    if made.sources or op in _COSTLY or any(arg.op is not Op.CONST for arg in args):
        return made
    try:
        value = evaluate(made, _no_value)
    except (ArithmeticError, ValueError, TypeError):
        return made
    return const(value) if type(value) in (int, float, bool) else made


_COSTLY = frozenset({Op.POW, Op.LSHIFT})


def _no_value(source: Source) -> Any:
    raise TypeError(f"{source} has no value here")


def with_leaves(item: Guard, leaves: Mapping[Source, Term]) -> Guard:
    """The guard with other terms for some of its sources; the guard itself where no source would be left in it."""
    found, asked = item.params
    made = replaced(found, leaves.get, folded)
    return item if made is found or not made.sources else expression(made, asked)
