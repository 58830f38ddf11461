"""From shape expressions to the straight-line code that checks them.

All EXPRESSION guards of a set become one code over one register file, in which an expression that several of them
share is computed once. It runs in layers: what can be checked on the values alone, then the values of the expressions
one step above, what can be checked on those, and so on; inside a layer instructions of one kind stand together, the
cheapest and most decisive checks first. Entry point: :func:`lower_shapes`.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from unified_guards import _C
from unified_guards.guards.expressions import COMPARISONS, TRANSCENDENTAL, Kind, Op, Term, const, kind_of, term
from unified_guards.guards.ir import Access, Guard, Source, Test

_OPS: dict[str, int] = _C.SHAPE_OPS
_CHECKS = frozenset(number for name, number in _OPS.items() if name.startswith("CHECK"))

#: Registers and guards have 16-bit numbers; what does not fit is left to the exact function.
MOST = 65_535


class NotNative(Exception):
    """An expression has no native form: its value is not always one kind of number, or does not fit in 64 bits."""


class ShapeCode(NamedTuple):
    """The native code of the expressions of one set.

    Attributes:
        leaves: the sources whose values are read, in the order of their registers, and the kind that each must be.
        constants: what the registers after these hold, packed.
        code: the instructions, packed.
        guards: which guard each number in a check stands for.
        not_native: guards that have no native form: an exact function in Python checks them.
    """

    leaves: list[tuple[Source, Kind]]
    constants: bytes
    code: bytes
    guards: list[Guard]
    not_native: list[Guard]


class _Computed(NamedTuple):
    """A value that the code has: its register, and the layer from which on the register holds it."""

    register: int
    layer: int


class _Instruction(NamedTuple):
    layer: int
    op: int
    to: int
    a: int
    b: int

    @property
    def order(self) -> tuple[int, bool, int]:
        return (self.layer, self.op in _CHECKS, self.op)


#: Operations on two integers, and on two doubles; a truth value is an integer.
_INTEGER = {op: _OPS[op.name] for op in (
    Op.ADD, Op.SUB, Op.MUL, Op.FLOORDIV, Op.MOD, Op.POW, Op.MIN, Op.MAX, Op.BITAND, Op.BITOR, Op.BITXOR, Op.LSHIFT,
    Op.RSHIFT, Op.EQ, Op.NE, Op.LT, Op.LE, Op.TRUEDIV,
)}  # fmt: skip
_DOUBLE = {op: _OPS[f"F_{op.name}"] for op in (
    Op.ADD, Op.SUB, Op.MUL, Op.FLOORDIV, Op.MOD, Op.POW, Op.MIN, Op.MAX, Op.EQ, Op.NE, Op.LT, Op.LE, Op.TRUEDIV,
)}  # fmt: skip
_INTEGER |= {Op.SYM_MIN: _OPS["MIN"], Op.SYM_MAX: _OPS["MAX"]}
_DOUBLE |= {Op.SYM_MIN: _OPS["F_MIN"], Op.SYM_MAX: _OPS["F_MAX"]}
#: Operations that compare two numbers exactly, also an integer with a float.
_EXACT = COMPARISONS | {Op.SYM_MIN, Op.SYM_MAX}
_SWAPPED = {Op.GT: Op.LT, Op.GE: Op.LE}
_CHECKED = {op: _OPS[f"CHECK_{op.name}"] for op in (Op.EQ, Op.NE, Op.LT, Op.LE)}
_OF_DOUBLE = {op: _OPS[f"F_{op.name}"] for op in (*TRANSCENDENTAL, Op.ISNAN)}
_ROUNDED = {op: _OPS[f"F_{op.name}"] for op in (Op.FLOOR, Op.CEIL, Op.TRUNC, Op.ROUND)}


def _unswapped(item: Term) -> tuple[Op, tuple[Term, ...]]:
    """The operation and its arguments, a comparison as "less"."""
    if item.op in _SWAPPED:
        return _SWAPPED[item.op], item.args[::-1]
    return item.op, item.args


def _bits(item: Term) -> int | None:
    """The exponent of a constant that is a power of two; None for any other term."""
    if item.op is Op.CONST and type(item.value) is int and item.value > 0 and item.value.bit_count() == 1:
        return item.value.bit_length() - 1
    return None


class _Registers:
    """The register file while it is being laid out, and the instructions so far.

    Where an expression turns out to have no native form, the instructions emitted for its parts stay: they are right,
    and other expressions may share them.
    """

    def __init__(self, kinds: Callable[[Source], Kind]) -> None:
        self.source_kind = kinds
        self.leaves: dict[Source, int] = {}
        self.constants: dict[Term, int] = {}
        self.values: dict[Term, _Computed] = {}
        self.truths: dict[Term, _Computed] = {}
        self.doubles: dict[tuple[int, bool], _Computed] = {}
        self.code: list[_Instruction] = []
        self.count = 0
        self.kinds: dict[Term, Kind | None] = {}

    def kind(self, item: Term) -> Kind:
        if item not in self.kinds:
            self.kinds[item] = kind_of(item, self.source_kind)
        found = self.kinds[item]
        if found is None:
            raise NotNative(f"{item} is not always the same kind of number")
        return found

    def fresh(self) -> int:
        self.count += 1
        if self.count > MOST:
            raise NotNative("there are too many expressions")
        return self.count - 1

    def emit(self, op: int, a: _Computed, b: _Computed | None = None) -> _Computed:
        b = b or a
        place = _Computed(self.fresh(), max(a.layer, b.layer) + 1)
        self.code.append(_Instruction(place.layer, op, place.register, a.register, b.register))
        return place

    # -- values ----------------------------------------------------------------------------------------------------

    def value(self, item: Term) -> _Computed:
        """The register with the value of an expression: an integer's, or a double's when its kind is FLOAT."""
        known = self.values.get(item)
        if known is None:
            known = self.values[item] = self._value(item)
        return known

    def _value(self, item: Term) -> _Computed:
        op = item.op
        if op is Op.SOURCE:
            return _Computed(self.leaves.setdefault(item.value, self.fresh()), 0)
        if op is Op.CONST:
            return self._constant(item)
        make = _VALUES.get(op)
        return make(self, item) if make is not None else self._operator(item)

    def _constant(self, item: Term) -> _Computed:
        if self.kind(item) is not Kind.FLOAT and not -(2**63) <= item.value < 2**63:
            raise NotNative(f"{item} does not fit in 64 bits")
        register = self.constants[item] = self.fresh()
        return _Computed(register, 0)

    def double(self, item: Term, *, exact: bool = False) -> _Computed:
        """The value as a double; ``exact`` when it must not be rounded on the way, as for a comparison."""
        if self.kind(item) is Kind.FLOAT:
            return self.value(item)
        if item.op is Op.CONST and abs(item.value) <= 2**53:
            return self.value(const(float(item.value)))
        place = self.value(item)
        known = self.doubles.get((place.register, exact))
        if known is None:
            known = self.emit(_OPS["TO_FLOAT_EXACT" if exact else "TO_FLOAT"], place)
            self.doubles[place.register, exact] = known
        return known

    def _operator(self, item: Term) -> _Computed:
        op, args = _unswapped(item)
        doubles = Kind.FLOAT in map(self.kind, args)
        table = _DOUBLE if doubles else _INTEGER
        self.kind(item)
        bits = _bits(args[1]) if op is Op.MOD or op is Op.FLOORDIV else None
        if bits is not None and not doubles:  # right for a negative number, too: both ways round down
            number = const((1 << bits) - 1 if op is Op.MOD else bits)
            return self.value(term(Op.BITAND if op is Op.MOD else Op.RSHIFT, args[0], number))
        places = [self.double(arg, exact=op in _EXACT) if doubles else self.value(arg) for arg in args]
        found = places[0]
        for place in places[1:]:
            found = self.emit(table[op], found, place)
        return found

    def unary(self, item: Term) -> _Computed:
        (arg,) = item.args
        if self.kind(arg) is Kind.FLOAT:
            if item.op is Op.INVERT:
                raise NotNative(f"{item} is an error")
            return self.emit(_OPS[f"F_{item.op.name}"], self.value(arg))
        return self.emit(_OPS[item.op.name], self.value(arg))

    def of_double(self, item: Term) -> _Computed:
        self.kind(item.args[0])
        return self.emit(_OF_DOUBLE[item.op], self.double(item.args[0]))

    def rounded(self, item: Term) -> _Computed:
        place = self.value(item.args[0])
        return self.emit(_ROUNDED[item.op], place) if self.kind(item.args[0]) is Kind.FLOAT else place

    def rounded_to(self, item: Term) -> _Computed:
        self.kind(item)
        return self.emit(_OPS["F_ROUND_TO"], self.value(item.args[0]), self.value(item.args[1]))

    def logical(self, item: Term) -> _Computed:
        self.kind(item)  # raises unless all arguments are truth values: else the value is that of an argument
        return self.truth(item)

    def conditional(self, item: Term) -> _Computed:
        condition, *sides = item.args
        self.kind(item)
        copied = self.emit(_OPS["MOVE"], self.truth(condition))
        then, other = map(self.value, sides)
        layer = max(copied.layer, then.layer, other.layer) + 1
        self.code.append(_Instruction(layer, _OPS["SELECT"], copied.register, then.register, other.register))
        return _Computed(copied.register, layer)

    def dense(self, item: Term) -> _Computed:
        if any(self.kind(arg) is Kind.FLOAT for arg in item.args):
            raise NotNative(f"{item} is about sizes that are no integers")
        places = [self.value(arg) for arg in item.args]
        block = [self.emit(_OPS["MOVE"], place) for place in places]  # sorted in place, so copies
        place = _Computed(self.fresh(), max(copy.layer for copy in block) + 1)
        instruction = _Instruction(place.layer, _OPS["DENSE"], place.register, block[0].register, len(block) // 2)
        self.code.append(instruction)
        return place

    # -- truths ----------------------------------------------------------------------------------------------------

    def truth(self, item: Term) -> _Computed:
        """A register with 1 or 0: whether the value counts as true. Not the value's own register: 3 counts as true."""
        known = self.truths.get(item)
        if known is None:
            known = self.truths[item] = self._truth(item)
        return known

    def _truth(self, item: Term) -> _Computed:
        if item.op is Op.NOT:
            return self.emit(_OPS["NOT"], self.truth(item.args[0]))
        if item.op is Op.AND or item.op is Op.OR:
            return self._folded(_OPS[item.op.name], item.args)
        kind, place = self.kind(item), self.value(item)
        if kind is Kind.BOOL:
            return place
        return self.emit(_OPS["F_TRUTH" if kind is Kind.FLOAT else "TRUTH"], place)

    def _folded(self, op: int, args: Iterable[Term]) -> _Computed:
        first, *rest = map(self.truth, args)
        for place in rest:
            first = self.emit(op, first, place)
        return first

    # -- checks ----------------------------------------------------------------------------------------------------

    def check(self, item: Term, number: int) -> None:
        """Fails as guard ``number`` where ``item`` is not true."""
        if item.op is Op.AND:
            for arg in item.args:
                self.check(arg, number)
            return
        op, args = _unswapped(item)
        if op in _CHECKED and Kind.FLOAT not in map(self.kind, args):
            self._comparison(op, args[0], args[1], number)
        else:
            self._check(_OPS["CHECK"], self.truth(item), None, number)

    def _comparison(self, op: Op, left: Term, right: Term, number: int) -> None:
        if op is Op.EQ and left.op is Op.MOD and right.op is Op.CONST and right.value == 0:
            divided, by = left.args
            bits = _bits(by)
            check, other = ("CHECK_DIVISIBLE", by) if bits is None else ("CHECK_CLEAR", const((1 << bits) - 1))
            self._check(_OPS[check], self.value(divided), self.value(other), number)
        else:
            self._check(_CHECKED[op], self.value(left), self.value(right), number)

    def _check(self, op: int, a: _Computed, b: _Computed | None, number: int) -> None:
        b = b or a
        self.code.append(_Instruction(max(a.layer, b.layer), op, number, a.register, b.register))


_VALUES: dict[Op, Callable[[_Registers, Term], _Computed]] = {
    **dict.fromkeys((Op.NEG, Op.ABS, Op.INVERT), _Registers.unary),
    **dict.fromkeys(_OF_DOUBLE, _Registers.of_double),
    **dict.fromkeys(_ROUNDED, _Registers.rounded),
    **dict.fromkeys((Op.AND, Op.OR, Op.NOT), _Registers.logical),
    Op.ROUND_TO: _Registers.rounded_to,
    Op.IF: _Registers.conditional,
    Op.DENSE: _Registers.dense,
    Op.TO_FLOAT: lambda registers, item: registers.double(item.args[0]),
}


def _kinds(guards: Iterable[Guard]) -> Callable[[Source], Kind]:
    """The kind of number at each source, as far as guards say. A wrong guess is found when the number is read."""
    guards = list(guards)
    keys = {item.sources[0]: item.params[0] for item in guards if _is_key(item)}
    typed = (item.source for item in guards if item.test is Test.TYPE_IS and item.params[0] == id(float))
    floats = {_place(source, keys) for source in typed}
    return lambda source: Kind.FLOAT if _place(source, keys) in floats else Kind.INT


def _is_key(item: Guard) -> bool:
    return item.test is Test.EQUALS and item.sources[0].access is Access.DICT_KEY_AT and type(item.params[0]) is str


def _place(source: Source, keys: dict[Source, Any]) -> Any:
    """Where a source reads, however it gets there: torch guards an attribute in the instance dict, and a value of a
    dict by its position, and its shape guards read both by name."""
    base, key = source.base, source.key
    if base is None:
        return source
    if source.access in _ATTRIBUTES:
        return "attribute", _place(base, keys), key
    if source.access is Access.DICT_ITEM and base.access is Access.GENERIC_DICT and base.base is not None:
        return "attribute", _place(base.base, keys), key
    if source.access is Access.DICT_VALUE_AT:
        return "item", _place(base, keys), keys.get(base.child(Access.DICT_KEY_AT, key))
    return ("item", _place(base, keys), key) if source.access in _ITEMS else source


_ATTRIBUTES = {Access.ATTR, Access.GENERIC_ATTR}
_ITEMS = {Access.DICT_ITEM, Access.ITEM, Access.LIST_ITEM, Access.TUPLE_ITEM}


def _packed(constants: Iterable[Term]) -> bytes:
    return b"".join(struct.pack("=d" if type(item.value) is float else "=q", item.value) for item in constants)


def lower_shapes(guards: Iterable[Guard]) -> ShapeCode:
    """The code that checks every EXPRESSION guard of ``guards``. Other guards tell which sources are floats."""
    guards = list(guards)
    registers = _Registers(_kinds(guards))
    checked: list[Guard] = []
    not_native: list[Guard] = []
    for item in guards:
        if item.test is not Test.EXPRESSION:
            continue
        try:
            if len(checked) > MOST:
                raise NotNative("there are too many expressions")
            registers.check(item.params[0], len(checked))
            checked.append(item)
        except NotNative:
            not_native.append(item)
    return _finished(registers, checked, not_native)


def _finished(registers: _Registers, checked: list[Guard], not_native: list[Guard]) -> ShapeCode:
    """Renumbers: leaves first, then constants, then what is computed."""
    given = [*registers.leaves.values(), *registers.constants.values()]
    place = {register: at for at, register in enumerate(given)}
    computed = [register for register in range(registers.count) if register not in place]
    place.update((register, at) for at, register in enumerate(computed, len(given)))
    packed = array("H")
    ordered = sorted(registers.code, key=lambda instruction: instruction.order)
    for _, op, to, a, b in ordered:
        last = b if op == _OPS["DENSE"] else place[b]
        packed.extend((op, to if op in _CHECKS else place[to], place[a], last))
    leaves = [(source, registers.source_kind(source)) for source in registers.leaves]
    return ShapeCode(leaves, _packed(registers.constants), packed.tobytes(), checked, not_native)
