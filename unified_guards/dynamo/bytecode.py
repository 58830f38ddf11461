"""In what the bytecode of the supported interpreters differs. No other module on Python's side asks for the version."""

from __future__ import annotations

import dis
import sys
import types
from dis import Instruction
from typing import Any

#: Whether a ``try`` is a table beside the code.
TRY_IS_TABLE = sys.version_info >= (3, 11)
_JUMP = "POP_JUMP_FORWARD_IF" if sys.version_info[:2] == (3, 11) else "POP_JUMP_IF"
JUMP_IF_TRUE, JUMP_IF_FALSE = f"{_JUMP}_TRUE", f"{_JUMP}_FALSE"


def numbers_in(code: types.CodeType) -> list[int]:
    """The integers that code loads. From 3.14 on small ones are not among its constants."""
    loaded = (each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_CONST", "LOAD_SMALL_INT"))
    return [value for value in (*code.co_consts, *loaded) if type(value) is int]


def pushes_null(each: Instruction) -> bool:
    """Whether an instruction that loads something to be called also pushes a null."""
    if each.opname == "LOAD_METHOD":
        return True
    first = {"LOAD_GLOBAL": (3, 11), "LOAD_ATTR": (3, 12)}[each.opname]
    return sys.version_info >= first and each.arg is not None and bool(each.arg & 1)


def with_null(function: Any, null: Any) -> list[Any]:
    """What is to be called and its null, the lower one first."""
    return [function, null] if sys.version_info >= (3, 13) else [null, function]


def pop_function(stack: list[Any]) -> Any:
    """What is called, when its arguments are off the stack. Its null goes, too, where the interpreter has one."""
    if sys.version_info >= (3, 13):
        stack.pop()
        return stack.pop()
    function = stack.pop()
    if sys.version_info >= (3, 11):
        stack.pop()
    return function
