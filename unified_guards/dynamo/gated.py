"""Code that asks a gate first: the gate gives a result, or says that the code is to go on as it would without.

Entry points: :func:`gated` and :func:`with_gate` for the code of torch's wrappers, :func:`gated_frame` and
:func:`own_code` for the code of a cache entry.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch._dynamo.bytecode_transformation import (
    Instruction,
    InstructionExnTabEntry,
    add_push_null,
    create_call_function,
    create_dup_top,
    create_instruction,
    create_jump_absolute,
    transform_code_object,
)

from unified_guards import _C
from unified_guards.dynamo import compat
from unified_guards.dynamo.bytecode import JUMP_IF_FALSE, JUMP_IF_TRUE
from unified_guards.dynamo.plan import Plan, plan_of
from unified_guards.dynamo.rest import HANDED
from unified_guards.dynamo.single_flight import AskAgain
from unified_guards.dynamo.symbols import NotPlain

_GATE = object()  # stands for the gate of a wrapper in the code that all of them share


@functools.cache
def gated(code: types.CodeType, arguments: tuple[str, ...], begins_anew: bool = False) -> types.CodeType:
    """The code of a wrapper that asks its gate first. Where the gate says so, it goes on as before.

    Args:
        code: of the wrapper.
        arguments: the locals that the gate is given.
        begins_anew: whether it asks its gate again on :class:`AskAgain`.
    """

    def insert(instructions: list[Instruction], options: dict[str, Any]) -> None:
        at = _beginning(instructions)
        asked = _asks(create_instruction("LOAD_CONST", argval=_GATE), arguments)
        handler = _asks_again(asked[0], instructions[at:]) if begins_anew else []
        _place([*asked, *handler], _call(instructions))
        instructions[at:] = [*asked, *instructions[at:], *handler]

    made: types.CodeType = transform_code_object(code, insert)[0]
    return made


def with_gate(shared: types.CodeType, gate: Any) -> types.CodeType:
    """The code that :func:`gated` gives, with the gate of one wrapper."""
    return shared.replace(co_consts=tuple(gate if value is _GATE else value for value in shared.co_consts))


class _Own(NamedTuple):
    """The last constant of code that :func:`gated_frame` gives."""

    code: types.CodeType
    plan: Plan


def gated_frame(code: types.CodeType, gate: str, arguments: tuple[str, ...], plan: Plan) -> types.CodeType:
    """The code of a cache entry that asks its gate first.

    Args:
        code: as Dynamo wrote it. It lives as long as what is returned.
        gate: the name of the gate among the globals.
        arguments: the locals that the gate is given.
        plan: of the code. A traceback shows the gate where the graph is called.
    """

    def insert(instructions: list[Instruction], options: dict[str, Any]) -> None:
        at = _beginning(instructions)
        options["co_names"] = (*options["co_names"], gate)
        goes_on = []
        if plan.rest is not None:
            options["co_varnames"] = (*options["co_varnames"], HANDED)
            goes_on = plan.rest.goes_on(instructions)
        load = create_instruction("LOAD_GLOBAL", arg=False, argval=gate)
        asked = _asks(load, arguments, goes_on, frozenset(code.co_cellvars))
        _place(asked, next(each for each in instructions if each.argval == plan.graph))
        instructions[at:at] = asked

    made = compat.transformed(code, insert)
    return made.replace(co_consts=(*made.co_consts, _Own(code, plan)))


def own_code(code: types.CodeType) -> tuple[types.CodeType, Plan | None]:
    """The code of a cache entry as Dynamo wrote it, and its plan, where there is one."""
    last = code.co_consts[-1] if code.co_consts else None
    if type(last) is _Own:
        return last
    try:
        return code, plan_of(code)
    except NotPlain:
        return code, None


def _beginning(instructions: list[Instruction]) -> int:
    """Where code begins that is no prologue of the interpreter's."""
    return next((at for at, each in enumerate(instructions) if each.opname == "RESUME"), -1) + 1


def _asks(
    load: Instruction,
    arguments: tuple[str, ...],
    goes_on: Sequence[Instruction] = (),
    cells: frozenset[str] = frozenset(),
) -> list[Instruction]:
    """Calls what ``load`` loads, and returns what it gives, or goes on behind.

    Args:
        load: loads it.
        arguments: the locals that it is given.
        goes_on: what is done with what it gives, if that is not to be returned.
        cells: the locals that are in cells.
    """
    drop = create_instruction("POP_TOP")
    return [
        *add_push_null([load]),
        *(create_instruction("LOAD_DEREF" if name in cells else "LOAD_FAST", argval=name) for name in arguments),
        *create_call_function(len(arguments), False),
        create_dup_top(),
        create_instruction("LOAD_CONST", argval=_C.LONG_WAY),
        create_instruction("IS_OP", arg=0),
        create_instruction(JUMP_IF_TRUE, target=drop),
        *(goes_on or [create_instruction("RETURN_VALUE")]),
        drop,
    ]


def _place(instructions: list[Instruction], where: Instruction) -> None:
    for each in instructions:
        each.starts_line, each.positions = where.starts_line, where.positions


def _asks_again(start: Instruction, body: list[Instruction]) -> list[Instruction]:
    """Puts the body into a ``try``. Gives its handler: AskAgain goes to the start, all else is raised on."""
    handler, raises_on = create_instruction("PUSH_EXC_INFO"), create_instruction("RERAISE", arg=0)
    handling = [
        create_instruction("LOAD_CONST", argval=AskAgain),
        create_instruction("CHECK_EXC_MATCH"),
        create_instruction(JUMP_IF_FALSE, target=raises_on),
        create_instruction("POP_TOP"),
        create_instruction("POP_EXCEPT"),
        create_jump_absolute(start),
        raises_on,
    ]
    ending = [create_instruction("COPY", arg=3), create_instruction("POP_EXCEPT"), create_instruction("RERAISE", arg=1)]
    for each in body:
        if each.exn_tab_entry is None:
            each.exn_tab_entry = InstructionExnTabEntry(body[0], body[-1], handler, 0, False)
    for each in handling:
        each.exn_tab_entry = InstructionExnTabEntry(handling[0], handling[-1], ending[0], 1, True)
    return [handler, *handling, *ending]


def _call(instructions: list[Instruction]) -> Instruction:
    """Where the wrapper calls the function: a traceback names the line."""
    return ([each for each in instructions if each.opname == "CALL_FUNCTION_EX"] or instructions)[-1]


__all__ = ["gated", "gated_frame", "own_code", "with_gate"]
