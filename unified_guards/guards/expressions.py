"""Expressions over sizes, strides and scalars: what a ShapeEnv guards on.

A :class:`Term` is an immutable, interned tree whose leaves are sources and numbers. Text becomes a term only through
:func:`parse`, which knows the grammar of torch's printers (torch/utils/_sympy/printers.py) and refuses everything else:
no text is ever run as code. Values have Python's meaning; :func:`evaluate` is that meaning. Entry points:
:func:`expression`, :func:`parse`, :func:`evaluate`, :func:`kind_of`.
"""

from __future__ import annotations

import ast
import enum
import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from unified_guards.guards.ir import Frozen, Guard, Nodes, Source, Test, guard, write


class NotAnExpression(ValueError):
    """The text is outside of the grammar; the message names the part."""


class Op(enum.Enum):
    """What a term computes from its arguments. The value is how Python writes it."""

    SOURCE = "source"  # value: a Source
    CONST = "const"  # value: an int, float or bool
    ADD = "+"
    SUB = "-"
    MUL = "*"
    TRUEDIV = "/"
    FLOORDIV = "//"
    MOD = "%"
    POW = "**"
    BITAND = "&"
    BITOR = "|"
    BITXOR = "^"
    LSHIFT = "<<"
    RSHIFT = ">>"
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    EQ = "=="
    NE = "!="
    AND = "and"
    OR = "or"
    NOT = "not"
    NEG = "neg"
    INVERT = "~"
    IF = "if"  # condition, then, else
    ABS = "abs"
    MIN = "min"
    MAX = "max"
    SYM_MIN = "torch.sym_min"  # a float if either argument is one; torch 2.15 prints these
    SYM_MAX = "torch.sym_max"
    ROUND = "round"
    ROUND_TO = "round_to"  # number, digits
    FLOOR = "math.floor"
    CEIL = "math.ceil"
    TRUNC = "math.trunc"
    ISNAN = "math.isnan"
    TO_FLOAT = "torch.sym_float"
    SQRT = "torch._sym_sqrt"
    COS = "math.cos"
    COSH = "math.cosh"
    ACOS = "math.acos"
    SIN = "math.sin"
    SINH = "math.sinh"
    ASIN = "math.asin"
    TAN = "math.tan"
    TANH = "math.tanh"
    ATAN = "math.atan"
    LOG2 = "math.log2"
    DENSE = "IsNonOverlappingAndDenseIndicator"  # sizes, then as many strides

    __hash__ = object.__hash__  # members are singletons; Enum's own hashes the name, in Python


COMPARISONS = frozenset({Op.LT, Op.LE, Op.GT, Op.GE, Op.EQ, Op.NE})
LOGICAL = frozenset({Op.AND, Op.OR, Op.NOT})
TRANSCENDENTAL = frozenset(
    {Op.COS, Op.COSH, Op.ACOS, Op.SIN, Op.SINH, Op.ASIN, Op.TAN, Op.TANH, Op.ATAN, Op.LOG2, Op.SQRT}
)
#: Operators, those first that bind least; those that bind alike are one set. ``and`` within ``or`` gets parentheses.
_BINDING = (
    {Op.IF}, LOGICAL, COMPARISONS, {Op.BITOR}, {Op.BITXOR}, {Op.BITAND}, {Op.LSHIFT, Op.RSHIFT}, {Op.ADD, Op.SUB},
    {Op.MUL, Op.TRUEDIV, Op.FLOORDIV, Op.MOD}, {Op.POW},
)  # fmt: skip
_STRENGTH = {op: strength for strength, ops in enumerate(_BINDING) for op in ops}
_INFIX = frozenset(_STRENGTH) - {Op.IF, Op.NOT}


class Term(Frozen):
    """An expression. Interned: compare with ``is``."""

    __slots__ = ("__weakref__", "_text", "args", "op", "sources", "value")
    op: Op
    args: tuple[Term, ...]
    value: Any
    sources: tuple[Source, ...]  # in the order in which the text names them first
    _text: str | None

    @property
    def text(self) -> str:
        """The expression as Python would write it, over the texts of its sources."""
        if self._text is None:
            write(self, "_text", written(self, str))
        found: str = self._text  # type: ignore[assignment]
        return found

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Term {self.text}>"

    def __deepcopy__(self, _: Any) -> Term:
        return self

    def __reduce__(self) -> Any:
        raise TypeError("a Term is not picklable; use GuardSet.to_json")


_terms = Nodes()


def _interned(identity: Any, op: Op, args: tuple[Term, ...], value: Any, sources: tuple[Source, ...]) -> Term:
    found: Term | None = _terms.alive(identity)
    if found is not None:
        return found
    made = Term.__new__(Term)
    write(made, "op", op)
    write(made, "args", args)
    write(made, "value", value)
    write(made, "sources", sources)
    write(made, "_text", None)
    _terms.keep(identity, made)
    return made


def term(op: Op, *args: Term) -> Term:
    """The term that applies ``op`` to ``args``."""
    sources = args[0].sources
    for arg in args[1:]:
        if arg.sources:
            sources = tuple(dict.fromkeys(sources + arg.sources)) if sources else arg.sources
    return _interned((op, *map(id, args)), op, args, None, sources)


def read(source: Source) -> Term:
    """The term that is the value of ``source``."""
    return _interned((Op.SOURCE, id(source)), Op.SOURCE, (), source, (source,))


def const(value: float) -> Term:
    """The term that is a number: an int, a float or a bool."""
    return _interned((Op.CONST, type(value), repr(value)), Op.CONST, (), value, ())


# -- text --------------------------------------------------------------------------------------------------------------


def _part(inner: Term, outer: Op, name: Callable[[Source], str], first: bool = False) -> str:
    """An argument of an operator, in parentheses where it binds no stronger."""
    text = written(inner, name)
    strength = _STRENGTH.get(inner.op)
    if strength is None:
        return f"({text})" if outer is Op.POW and text.startswith(("-", "~")) else text
    goes_on = first and outer not in COMPARISONS and outer not in LOGICAL and outer is not Op.POW  # a - b - c
    bare = strength > _STRENGTH[outer] or (goes_on and strength == _STRENGTH[outer])
    return text if bare and outer is not Op.NOT else f"({text})"


def written(item: Term, name: Callable[[Source], str]) -> str:
    """The expression with ``name(source)`` for each of its sources."""
    op = item.op
    if op is Op.SOURCE:
        return name(item.value)
    if op is Op.CONST:
        text = repr(item.value)
        return f"math.{text.lstrip('-')}" if text in ("inf", "nan") else "-math.inf" if text == "-inf" else text
    if op in _INFIX:
        return f" {op.value} ".join(_part(arg, op, name, at == 0) for at, arg in enumerate(item.args))
    if op is Op.NEG or op is Op.INVERT:
        return f"{'-' if op is Op.NEG else '~'}({written(item.args[0], name)})"
    if op is Op.NOT:
        return f"not {_part(item.args[0], op, name)}"
    if op is Op.IF:
        condition, then, other = (_part(arg, op, name) for arg in item.args)
        return f"{then} if {condition} else {other}"
    function = "round" if op is Op.ROUND_TO else op.value
    return f"{function}({', '.join(written(arg, name) for arg in item.args)})"


_BINARY = {
    ast.Add: Op.ADD, ast.Sub: Op.SUB, ast.Mult: Op.MUL, ast.Div: Op.TRUEDIV, ast.FloorDiv: Op.FLOORDIV,
    ast.Mod: Op.MOD, ast.Pow: Op.POW, ast.BitAnd: Op.BITAND, ast.BitOr: Op.BITOR, ast.BitXor: Op.BITXOR,
    ast.LShift: Op.LSHIFT, ast.RShift: Op.RSHIFT, ast.Lt: Op.LT, ast.LtE: Op.LE, ast.Gt: Op.GT, ast.GtE: Op.GE,
    ast.Eq: Op.EQ, ast.NotEq: Op.NE, ast.And: Op.AND, ast.Or: Op.OR,
}  # fmt: skip
_CALLS: dict[str, tuple[Op, range]] = {
    **{op.value: (op, range(1, 2)) for op in (
        *TRANSCENDENTAL, Op.ABS, Op.ROUND, Op.FLOOR, Op.CEIL, Op.TRUNC, Op.ISNAN, Op.TO_FLOAT,
    )},
    "math.sqrt": (Op.SQRT, range(1, 2)),
    "round": (Op.ROUND, range(1, 3)),
    "torch.sym_min": (Op.SYM_MIN, range(2, 3)),
    "torch.sym_max": (Op.SYM_MAX, range(2, 3)),
    "min": (Op.MIN, range(2, 1000)),
    "max": (Op.MAX, range(2, 1000)),
    "IsNonOverlappingAndDenseIndicator": (Op.DENSE, range(2, 1000, 2)),
}  # fmt: skip
_CONSTANTS = {"inf": math.inf, "math.inf": math.inf, "math.nan": math.nan, "nan": math.nan}


class _Parser:
    """Recursive descent over Python's own syntax tree."""

    def __init__(self, text: str, leaves: Mapping[str, Source]) -> None:
        self.text = text
        self.raw = text if text.isascii() else text.encode()  # columns count bytes
        self.leaves = leaves

    def _segment(self, node: ast.expr) -> str:
        found = self.raw[node.col_offset : node.end_col_offset]
        return found if isinstance(found, str) else found.decode()

    def run(self, node: ast.expr) -> Term:
        kind = type(node)
        if kind in _NAMED:
            source = self.leaves.get(self._segment(node))
            if source is not None:
                return read(source)
        make = _NODES.get(kind)
        if make is None:
            raise self.refused(node)
        return make(self, node)

    def refused(self, node: ast.expr) -> NotAnExpression:
        return NotAnExpression(f"{self._segment(node)!r} is not part of a shape expression")

    def named(self, node: ast.expr) -> Term:
        value = _CONSTANTS.get(self._segment(node))
        if value is None:
            raise self.refused(node)
        return const(value)

    def number(self, node: ast.Constant) -> Term:
        if type(node.value) not in (int, float, bool):
            raise self.refused(node)
        return const(node.value)  # type: ignore[arg-type]

    def operator(self, node: ast.BinOp) -> Term:
        op = _BINARY.get(type(node.op))
        if op is None:
            raise self.refused(node)
        return term(op, self.run(node.left), self.run(node.right))

    def logical(self, node: ast.BoolOp) -> Term:
        return term(_BINARY[type(node.op)], *map(self.run, node.values))

    def unary(self, node: ast.UnaryOp) -> Term:
        inner = self.run(node.operand)
        if isinstance(node.op, ast.USub):
            number = inner.op is Op.CONST and type(inner.value) is not bool
            return const(-inner.value) if number else term(Op.NEG, inner)
        if isinstance(node.op, ast.UAdd):
            return term(Op.MUL, const(1), inner)
        return term(Op.NOT if isinstance(node.op, ast.Not) else Op.INVERT, inner)

    def comparison(self, node: ast.Compare) -> Term:
        sides = [self.run(side) for side in (node.left, *node.comparators)]
        ops = [_BINARY.get(type(op)) for op in node.ops]
        if None in ops:
            raise self.refused(node)
        links = [term(op, *pair) for op, *pair in zip(ops, sides, sides[1:], strict=False)]  # type: ignore[arg-type]
        return links[0] if len(links) == 1 else term(Op.AND, *links)

    def call(self, node: ast.Call) -> Term:
        op, counts = _CALLS.get(self._segment(node.func), (None, range(0)))
        if op is None or node.keywords or len(node.args) not in counts:
            raise self.refused(node)
        args = [self.run(arg) for arg in node.args]
        return term(Op.ROUND_TO if op is Op.ROUND and len(args) == 2 else op, *args)

    def conditional(self, node: ast.IfExp) -> Term:
        return term(Op.IF, self.run(node.test), self.run(node.body), self.run(node.orelse))


#: Nodes that may be the text of a source.
_NAMED = frozenset({ast.Name, ast.Attribute, ast.Subscript, ast.Call})
_NODES: dict[type, Callable[[_Parser, Any], Term]] = {
    ast.Name: _Parser.named,
    ast.Attribute: _Parser.named,
    ast.Constant: _Parser.number,
    ast.BinOp: _Parser.operator,
    ast.BoolOp: _Parser.logical,
    ast.UnaryOp: _Parser.unary,
    ast.Compare: _Parser.comparison,
    ast.Call: _Parser.call,
    ast.IfExp: _Parser.conditional,
}


def parse(text: str, leaves: Mapping[str, Source]) -> Term:
    """The term that ``text`` writes.

    Args:
        text: Python, as a ShapeEnv's printer writes it.
        leaves: the sources that it may read, by the text that stands for each.

    Raises:
        NotAnExpression: the text is outside of the grammar, or reads something else.
    """
    text = text.strip()
    try:
        tree = ast.parse(text, mode="eval")
        return _Parser(text, leaves).run(tree.body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        if isinstance(error, NotAnExpression):
            raise
        raise NotAnExpression(f"{text!r} is not an expression: {error}") from None


def expression(made: Term, asked: Callable[[dict[str, Any]], Any] | None = None) -> Guard:
    """The guard that holds when ``made`` is true.

    Args:
        made: the expression.
        asked: torch's own function of the frame's locals, which decides when a value is no exact int or float (a
            ``SymInt``); without one the guard then fails.
    """
    return guard(Test.EXPRESSION, made.sources or (Source.frame(),), (made, asked))


def parts_of(made: Term) -> tuple[Term, ...]:
    """The terms that are all true exactly when ``made``, the term of a guard, is true."""
    return made.args if made.op is Op.AND else (made,)


def replaced(item: Term, leaf: Callable[[Source], Term | None], make: Callable[..., Term] = term) -> Term:
    """The term with each source replaced by ``leaf(source)``, unless that is None. ``make`` builds what changes."""
    if not item.sources:
        return item
    if item.op is Op.SOURCE:
        return leaf(item.value) or item
    args = [replaced(arg, leaf, make) for arg in item.args]
    return item if all(map(operator.is_, args, item.args)) else make(item.op, *args)


# -- meaning -----------------------------------------------------------------------------------------------------------


def _is_dense(*numbers: Any) -> bool:
    """Mirrors ``_eval_is_non_overlapping_and_dense`` of torch/fx/experimental/symbolic_shapes.py."""
    rank = len(numbers) // 2
    sizes, strides = numbers[:rank], numbers[rank:]
    if rank == 1:
        return bool(strides[0] == 1 or sizes[0] < 2)
    expected = 1
    for size, stride in sorted(zip(sizes, strides, strict=True), key=operator.itemgetter(1)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


def _promoting(choose: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    """Mirrors ``torch.sym_max`` and ``torch.sym_min`` for numbers that are no symbols."""

    def chosen(one: Any, other: Any) -> Any:
        found = choose(one, other)
        return float(found) if isinstance(one, float) or isinstance(other, float) else found

    return chosen


_PLAIN: dict[Op, Callable[..., Any]] = {
    Op.ADD: operator.add, Op.SUB: operator.sub, Op.MUL: operator.mul, Op.TRUEDIV: operator.truediv,
    Op.FLOORDIV: operator.floordiv, Op.MOD: operator.mod, Op.POW: operator.pow, Op.BITAND: operator.and_,
    Op.BITOR: operator.or_, Op.BITXOR: operator.xor, Op.LSHIFT: operator.lshift, Op.RSHIFT: operator.rshift,
    Op.LT: operator.lt, Op.LE: operator.le, Op.GT: operator.gt, Op.GE: operator.ge, Op.EQ: operator.eq,
    Op.NE: operator.ne, Op.NOT: operator.not_, Op.NEG: operator.neg, Op.INVERT: operator.invert, Op.ABS: abs,
    Op.MIN: min, Op.MAX: max, Op.SYM_MIN: _promoting(min), Op.SYM_MAX: _promoting(max),
    Op.ROUND: round, Op.ROUND_TO: round, Op.TO_FLOAT: float, Op.SQRT: math.sqrt,
    Op.DENSE: _is_dense,
    **{op: getattr(math, op.value.removeprefix("math.")) for op in Op if op.value.startswith("math.")},
}  # fmt: skip


def evaluate(item: Term, value_of: Callable[[Source], Any]) -> Any:
    """The value of an expression over exact ints and floats.

    Args:
        item: the expression.
        value_of: gives the value of a source.

    Raises:
        ArithmeticError, ValueError, TypeError: what Python raises for the expression.
    """
    op = item.op
    if op is Op.SOURCE:
        return value_of(item.value)
    if op is Op.CONST:
        return item.value
    if op is Op.IF:
        condition, then, other = item.args
        return evaluate(then if evaluate(condition, value_of) else other, value_of)
    if op is Op.AND or op is Op.OR:
        found: Any = None
        for arg in item.args:
            found = evaluate(arg, value_of)
            if bool(found) is (op is Op.OR):
                return found
        return found
    return _PLAIN[op](*[evaluate(arg, value_of) for arg in item.args])


# -- kinds -------------------------------------------------------------------------------------------------------------


class Kind(enum.Enum):
    """What an expression's value is, whenever it has one."""

    INT = "int"
    FLOAT = "float"
    BOOL = "bool"


_KIND_OF = {int: Kind.INT, float: Kind.FLOAT, bool: Kind.BOOL}
_TO_INT = frozenset({Op.FLOOR, Op.CEIL, Op.TRUNC, Op.ROUND})
_BITWISE = frozenset({Op.BITAND, Op.BITOR, Op.BITXOR, Op.LSHIFT, Op.RSHIFT, Op.INVERT})


def _joined(kinds: list[Kind | None]) -> Kind | None:
    """The kind of an arithmetic result; a bool counts as an int."""
    if None in kinds:
        return None
    return Kind.FLOAT if Kind.FLOAT in kinds else Kind.INT


def kind_of(item: Term, leaf: Callable[[Source], Kind | None]) -> Kind | None:
    """The kind of an expression's value; None when it depends on the values (or is no real number).

    An integer to the power of an integer is an INT here. With a negative exponent it is a float: whoever computes with
    kinds has to handle that case.
    """
    op = item.op
    if op is Op.SOURCE:
        return leaf(item.value)
    if op is Op.CONST:
        return _KIND_OF[type(item.value)]
    if op in COMPARISONS or op is Op.NOT or op is Op.ISNAN or op is Op.DENSE:
        return Kind.BOOL
    if op in TRANSCENDENTAL or op is Op.TO_FLOAT or op is Op.TRUEDIV:
        return Kind.FLOAT
    if op in _TO_INT:
        return Kind.INT
    kinds = [kind_of(arg, leaf) for arg in item.args]
    if op in _BITWISE:
        return None if None in kinds or Kind.FLOAT in kinds else Kind.INT
    if op is Op.AND or op is Op.OR:
        return Kind.BOOL if set(kinds) == {Kind.BOOL} else None
    if op is Op.IF:
        kinds = kinds[1:]
    if op is Op.IF or op is Op.MIN or op is Op.MAX:
        both = Kind.FLOAT in kinds and set(kinds) != {Kind.FLOAT}  # it depends on which one: 1 or 1.0
        return kinds[0] if len(set(kinds)) == 1 else None if both else _joined(kinds)
    if op is Op.ROUND_TO:
        return kinds[0] if kinds[0] is Kind.FLOAT and kinds[1] is Kind.INT else None
    return _joined(kinds)


@functools.cache
def numbered(count: int) -> tuple[str, ...]:
    """Names for sources where they are told apart by number: v0, v1, …"""
    return tuple(f"v{at}" for at in range(count))
