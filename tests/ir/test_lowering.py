"""Guards become rows: in which order, and with which operation."""

from __future__ import annotations

from typing import Any

import pytest

from unified_guards import _C
from unified_guards.guards import ir, semantics
from unified_guards.guards.ir import Access, Guard, GuardSet, Source, Test, guard
from unified_guards.lower.rows import CannotLower, lower, make_checker

from ..corpus import ENTRIES
from ..corpus.compiled import Frame
from ..guards import equals, exists, local
from ..shapes import shape
from .making import item, set_of

OP_NAMES = {number: name for name, number in _C.OPS.items()}
ACCESSORS = set(range(_C.OPS["DICT_VALUE_AT"] + 1))


#: Checked on the frame, whatever they are about.
WHOLE_FRAME = (Test.SHAPE, Test.EXPRESSION)


def op_names(guard_set: GuardSet) -> list[str]:
    return [OP_NAMES[row[0]] for row in lower(guard_set).rows]


@pytest.mark.parametrize("name", ENTRIES)
def test_parents_come_before_children(name: str) -> None:
    program = lower(Frame(ENTRIES[name]()).guard_set)
    shapes = program.row_origins[len(program.rows) :]
    assert all(isinstance(item, Guard) and item.test is Test.EXPRESSION for item in shapes)
    registers: list[Source] = [Source.frame()]
    for (op, base, *_), meaning in zip(program.rows, program.row_origins, strict=False):
        assert base < len(registers), "reads a register that nothing wrote"
        if op in ACCESSORS:
            assert isinstance(meaning, Source)
            assert meaning.base is registers[base], "reads another source than the parent"
            registers[base + 1 :] = [meaning]
        elif isinstance(meaning, Guard) and len(meaning.sources) == 1 and meaning.test not in WHOLE_FRAME:
            assert registers[base] is meaning.source or op == _C.OPS["TORCH_FUNCTION_OFF"]


def test_an_accessor_is_emitted_once_for_all_guards_below_it() -> None:
    below = [equals(item(key, item("d")), key) for key in ("a", "b", "c")]
    assert op_names(set_of(*below)) == [
        "TORCH_FUNCTION_OFF",
        "DICT_ITEM",
        "DICT_ITEM",
        *("DICT_ITEM", "EQUALS") * 3,
    ]


def test_guards_on_the_frame_run_under_the_callers_torch_function_state() -> None:
    ambient = guard(Test.DUAL_LEVEL, (Source.frame(),), (-1,))
    assert op_names(set_of(ambient, equals(local(), 3)))[:2] == ["DUAL_LEVEL", "TORCH_FUNCTION_OFF"]


def test_shape_guards_of_one_function_are_one_call() -> None:
    def function(f_locals: dict[str, Any]) -> bool:
        return True

    shapes = [guard(Test.SHAPE, (Source.frame(),), (function, text)) for text in ("a < b", "b < c")]
    assert op_names(set_of(*shapes)).count("PREDICATE") == 1


def test_existence_is_the_accessor_itself() -> None:
    assert op_names(set_of(exists(local()))) == ["TORCH_FUNCTION_OFF", "DICT_ITEM"]


def test_an_opaque_guard_is_refused_with_its_reason() -> None:
    opaque = guard(Test.OPAQUE, (local(),), ("came from far away",))
    with pytest.raises(CannotLower, match="came from far away"):
        lower(set_of(opaque))


def test_every_test_but_the_opaque_one_can_be_lowered_or_is_a_relation() -> None:
    from unified_guards.lower.rows import _ROWS

    elsewhere = ir.RELATIONAL | {Test.EXISTS, Test.SHAPE}
    assert set(_ROWS) | elsewhere == set(Test)


def test_every_access_can_be_lowered() -> None:
    for access in set(Access) - {Access.FRAME}:
        lower(set_of(exists(Source.frame().child(access, 0))))


def test_all_expressions_are_one_code_at_the_end() -> None:
    x, y, z = (local(name) for name in "xyz")
    first, second = shape("v0 < v1", x, y), shape("v0 < v1", y, z)
    program = lower(set_of(first, guard(Test.SAME, (z, x)), second, equals(x, 1)))
    names = [OP_NAMES[row[0]] for row in program.rows]
    assert names.count("SHAPES") == 1
    assert names[-1] == "SHAPES"
    assert program.row_origins[len(names) :] == [first, second]


def test_a_negative_index_is_never_there() -> None:
    guard_set = set_of(equals(local().child(Access.LIST_ITEM, -1), 3))
    assert not make_checker(lower(guard_set)).check({"x": [3]})
    assert not semantics.evaluate(guard_set, {"x": [3]})


def test_the_empty_set_holds() -> None:
    assert make_checker(lower(GuardSet([]))).check({})
    assert semantics.evaluate(GuardSet([]), {})
