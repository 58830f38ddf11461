"""What of an entry's code is left to run once its graph was called, where that does more than to build a result.

The code is cut behind the call of the graph. What is left takes the outputs, and runs as Dynamo wrote it. Entry point:
:func:`rest_of`.
"""

from __future__ import annotations

import inspect
import itertools
import types
from collections.abc import Iterator
from dis import Instruction
from typing import Any, NamedTuple

from torch._dynamo.bytecode_transformation import Instruction as Bytecode
from torch._dynamo.bytecode_transformation import (
    create_call_method,
    create_instruction,
    create_load_method,
    transform_code_object,
)

from unified_guards.dynamo.symbols import Constant, Global, Local, NotPlain, Read

#: The instructions that call something.
CALLS = ("CALL", "CALL_FUNCTION", "CALL_METHOD")
#: What a frame begins with.
_BEGINNINGS = frozenset({"MAKE_CELL", "COPY_FREE_VARS", "RESUME"})
#: The parameter of what is left: a list of what is handed over. The code takes all of it out, so that nothing is kept
#: alive longer than Dynamo's own code keeps it.
_HANDED = "___unified_guards_handed"


class AtCall(NamedTuple):
    """Where the graph is called.

    Attributes:
        calls: how many calls stand in the code up to it.
        after: the instructions behind it.
        stack: what lies below the outputs.
        locals: what is in the locals.
    """

    calls: int
    after: list[Instruction]
    stack: list[Any]
    locals: dict[str, Any]


def rest_of(
    code: types.CodeType, parameters: tuple[str, ...], at_call: AtCall
) -> tuple[types.CodeType, tuple[Local | Global | Read, ...]]:
    """The code from behind the call of the graph on, and what it is given beside the outputs.

    Its parameters are those of the code, all by position, and last a list: of the outputs, and of the values that the
    code had put into locals for later.

    Raises:
        NotPlain: what is left cannot stand alone.
    """
    if at_call.stack:
        raise NotPlain("something below the outputs of the graph")
    dropped = _dropped_first(at_call.after) - set(parameters)
    kept, constants = _for_later(parameters, at_call, dropped)

    def cut(instructions: list[Bytecode], options: dict[str, Any]) -> None:
        # Offsets are others by now.
        call = [at for at, each in enumerate(instructions) if each.opname in CALLS][at_call.calls - 1]
        beginning = [each for each in instructions[:call] if each.opname in _BEGINNINGS]
        start = list(_takes(kept, constants))
        for each in start:
            each.starts_line, each.positions = instructions[call].starts_line, instructions[call].positions
        after = instructions[call + 1 :]
        while after[0].opname == "DELETE_FAST" and after[0].argval in dropped:
            del after[0]
        if any(each.target is not None and each.target not in after for each in after):
            raise NotPlain("a jump to what comes before the graph")
        instructions[:] = [*beginning, *start, *after]
        count = len(parameters)
        names = options["co_varnames"]
        options["co_varnames"] = (*names[:count], _HANDED, *names[count:])
        options["co_argcount"], options["co_posonlyargcount"], options["co_kwonlyargcount"] = count + 1, 0, 0
        options["co_flags"] &= ~(inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)

    try:
        # A copy: torch remembers the codes that it took apart, and what Dynamo has made for a code lives as long as it.
        return transform_code_object(code.replace(), cut)[0], tuple(kept.values())
    except (AssertionError, KeyError, TypeError, ValueError) as error:  # torch cannot assemble it
        raise NotPlain(str(error)) from error


def _for_later(
    parameters: tuple[str, ...], at_call: AtCall, dropped: set[str]
) -> tuple[dict[str, Local | Global | Read], dict[str, Constant]]:
    """What the code has put into locals that it names behind the call: what has to be handed over, and constants."""
    kept: dict[str, Local | Global | Read] = {}
    constants: dict[str, Constant] = {}
    used = _locals_of(at_call.after)
    for name, value in at_call.locals.items():
        if name not in used or name in dropped or value == Local(name):
            continue
        if isinstance(value, Constant):
            constants[name] = value
        elif isinstance(value, Local | Global | Read):
            kept[name] = value
        else:
            raise NotPlain("a value that the code makes before the graph, and uses after it")
    if any(name in used and name not in at_call.locals for name in parameters):
        raise NotPlain("a parameter that was deleted, or became a cell")
    return kept, constants


def _takes(kept: dict[str, Local | Global | Read], constants: dict[str, Constant]) -> Iterator[Bytecode]:
    """Puts what was for later into its locals again, and the outputs of the graph onto the stack."""
    for name in reversed(kept):
        yield from _take()
        yield create_instruction("STORE_FAST", argval=name)
    for name, constant in constants.items():
        yield create_instruction("LOAD_CONST", argval=constant.value)
        yield create_instruction("STORE_FAST", argval=name)
    yield from _take()


def _take() -> list[Bytecode]:
    """Takes the last of what is handed over."""
    return [create_instruction("LOAD_FAST", argval=_HANDED), create_load_method("pop"), *create_call_method(0)]


def _dropped_first(after: list[Instruction]) -> set[str]:
    """The locals that are deleted right away. Dynamo's code keeps there what it has read more than once."""
    return {each.argval for each in itertools.takewhile(lambda each: each.opname == "DELETE_FAST", after)}


def _locals_of(instructions: list[Instruction]) -> set[str]:
    """The locals that instructions name."""
    found: set[str] = set()
    for each in instructions:
        if "_FAST" in each.opname:
            found.update(each.argval if isinstance(each.argval, tuple) else (each.argval,))
    return found


__all__ = ["CALLS", "AtCall", "rest_of"]
