"""What of an entry's code is left to run once its graph was called, where that does more than to build a result.

The code is cut behind the call of the graph. What is left takes the outputs, and runs as Dynamo wrote it: as code of
its own (:func:`rest_of`), or in the frame that runs already (:meth:`Rest.goes_on`).
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
)

from unified_guards.dynamo import compat
from unified_guards.dynamo.symbols import Constant, Global, Local, NotPlain, Read

#: The instructions that call something.
CALLS = ("CALL", "CALL_FUNCTION", "CALL_METHOD")
#: What a frame begins with.
_BEGINNINGS = frozenset({"MAKE_CELL", "COPY_FREE_VARS", "RESUME"})
#: The local of what is left: a list of what is handed over. The code takes all of it out, so that nothing is kept
#: alive longer than Dynamo's own code keeps it.
HANDED = "___unified_guards_handed"


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


class Rest(NamedTuple):
    """What is left to run.

    Attributes:
        code: as code of its own. Its parameters are those of the code that it is the rest of, all by position, and last
            a list: of the outputs, and of the values that the code had put into locals for later.
        calls: how many calls stand in the whole code, up to that of the graph.
        kept: the values for later, by the locals that they are put into.
        constants: the same of constants, which are not handed over.
        dropped: the locals that are not put back. What is left would only delete them first.
    """

    code: types.CodeType
    calls: int
    kept: dict[str, Local | Global | Read]
    constants: dict[str, Constant]
    dropped: frozenset[str]

    def goes_on(self, instructions: list[Bytecode]) -> list[Bytecode]:
        """Takes what is handed over, as the list on top of the stack, and goes on behind the call in the whole code."""
        _, after = _cut(instructions, self.calls, self.dropped)
        return [
            create_instruction("STORE_FAST", argval=HANDED),
            *_takes(self.kept, self.constants),
            create_instruction("JUMP_FORWARD", target=after[0]),
        ]


def rest_of(code: types.CodeType, parameters: tuple[str, ...], at_call: AtCall) -> Rest:
    """What is left to run from behind the call of the graph on.

    Raises:
        NotPlain: what is left cannot stand alone.
    """
    if at_call.stack:
        raise NotPlain("something below the outputs of the graph")
    dropped = frozenset(_dropped_first(at_call.after) - set(parameters))
    kept, constants = _for_later(parameters, at_call, dropped)

    def cut(instructions: list[Bytecode], options: dict[str, Any]) -> None:
        before, after = _cut(instructions, at_call.calls, dropped)
        beginning = [each for each in before if each.opname in _BEGINNINGS]
        start = list(_takes(kept, constants))
        for each in start:
            each.starts_line, each.positions = before[-1].starts_line, before[-1].positions
        if any(each.target is not None and each.target not in after for each in after):
            raise NotPlain("a jump to what comes before the graph")
        instructions[:] = [*beginning, *start, *after]
        count = len(parameters)
        names = options["co_varnames"]
        options["co_varnames"] = (*names[:count], HANDED, *names[count:])
        options["co_argcount"], options["co_posonlyargcount"], options["co_kwonlyargcount"] = count + 1, 0, 0
        options["co_flags"] &= ~(inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)

    try:
        made = compat.transformed(code, cut)
    except (AssertionError, KeyError, TypeError, ValueError) as error:  # torch cannot assemble it
        raise NotPlain(str(error)) from error
    return Rest(made, at_call.calls, kept, constants, dropped)


def _cut(instructions: list[Bytecode], calls: int, dropped: frozenset[str]) -> tuple[list[Bytecode], list[Bytecode]]:
    """The instructions up to the call of the graph, and those that are left. Offsets are others by now."""
    call = [at for at, each in enumerate(instructions) if each.opname in CALLS][calls - 1]
    after = instructions[call + 1 :]
    while after[0].opname == "DELETE_FAST" and after[0].argval in dropped:
        del after[0]
    return instructions[: call + 1], after


def _for_later(
    parameters: tuple[str, ...], at_call: AtCall, dropped: frozenset[str]
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
    return [create_instruction("LOAD_FAST", argval=HANDED), create_load_method("pop"), *create_call_method(0)]


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


__all__ = ["CALLS", "HANDED", "AtCall", "Rest", "rest_of"]
