"""What the code of a cache entry does around its graph: reads inputs, calls the graph, builds a result of its outputs.

Dynamo writes that as bytecode. Where it does nothing else, a :class:`Plan` says the same without bytecode, and the
dispatcher follows it (``csrc/call``). The bytecode is run here on symbols, not on values. Entry point:
:func:`plan_of`.
"""

from __future__ import annotations

import dataclasses
import dis
import itertools
import sys
import types
from collections.abc import Callable
from dis import Instruction
from typing import Any, NamedTuple

from torch._dynamo.bytecode_transformation import Instruction as Bytecode
from torch._dynamo.bytecode_transformation import (
    create_call_method,
    create_instruction,
    create_load_method,
    transform_code_object,
)

from unified_guards import _C

_UTILS = "__import_torch_dot__dynamo_dot_utils"
#: Of torch/_dynamo/utils.py: they tell a profiler when the inputs are gathered, and do nothing where nobody profiles.
_MARKS = frozenset({"record_pregraph_bytecode_enter", "record_pregraph_bytecode_exit"})
#: Also of torch/_dynamo/utils.py: they call a method of a tensor for what is symbolic in a graph.
_NUMBERS = {"call_size": "size", "call_stride": "stride", "call_storage_offset": "storage_offset"}


class NotPlain(Exception):
    """The code does something that a plan cannot say."""


class Plan(NamedTuple):
    """What a hit has to do.

    Attributes:
        graph: the name of the global that holds the compiled graph.
        reads: what has to be read first: globals, attributes and items, each behind what it is read from.
        inputs: what the graph is given, in order: each a local or one of the reads.
        unpacked: how many outputs the code unpacks; -1 where it takes them by their index.
        rebuild: the steps that make the result of the graph's outputs (``csrc/lookup/rebuild.h``).
        rest: what of the code is left to run once the graph was called. Then there are no steps.
        kept: what `rest` is given beside the outputs, in order.
    """

    graph: str
    reads: tuple[Global | Read, ...]
    inputs: tuple[Local | Global | Read, ...]
    rebuild: list[tuple[int, int, Any]]
    unpacked: int = -1
    rest: types.CodeType | None = None
    kept: tuple[Local | Global | Read, ...] = ()


# The symbols. They are no tuples: a global with the name of a local would be equal to it.


@dataclasses.dataclass(frozen=True)
class Local:
    """A local as the frame begins with it."""

    name: str


@dataclasses.dataclass(frozen=True)
class Global:
    """A global of the function."""

    name: str


@dataclasses.dataclass(frozen=True)
class Read:
    """An attribute, an item with a constant key, or a number of a tensor.

    Attributes:
        base: what it is read from.
        key: the name of the attribute, the key of the item, or the dimension; None for a storage offset.
        kind: "attribute", "item", or the method of the tensor.
    """

    base: Local | Global | Read
    key: Any
    kind: str


@dataclasses.dataclass(frozen=True)
class Constant:
    """A constant of the code."""

    value: Any


@dataclasses.dataclass(frozen=True)
class Output:
    """What the graph returns, or the item of it at an index."""

    at: int | None = None


class Items(list[Any]):
    """A list or tuple that the code builds. Not compared by value: the code may add to one that it has twice."""

    def __init__(self, kind: type, items: list[Any]) -> None:
        super().__init__(items)
        self.kind = kind


class Table(NamedTuple):
    """A dict that the code builds with constant keys."""

    keys: tuple[Any, ...]
    values: list[Any]


_NULL = Constant(None)
#: Whether somebody profiles: from 2.15 on the code asks before it calls the marks. Then no call goes the short way.
_PROFILER = Read(Global("__import_torch_dot_autograd_dot_profiler"), "_is_profiler_enabled", "attribute")

_TESTS: dict[str, Callable[[Any], bool]] = {
    f"POP_JUMP_{way}IF_{what}": test
    for way in ("", "FORWARD_")
    for what, test in (
        ("TRUE", bool),
        ("FALSE", lambda value: not value),
        ("NONE", lambda value: value is None),
        ("NOT_NONE", lambda value: value is not None),
    )
}


class _AtCall(NamedTuple):
    """Where the graph is called.

    Attributes:
        offset: of the instruction.
        calls: how many calls stand in the code up to it.
        stack: what lies below the outputs.
        locals: what is in the locals.
    """

    offset: int
    calls: int
    stack: list[Any]
    locals: dict[str, Any]


class _Symbolic:
    """One run over the code of an entry."""

    def __init__(self, code: types.CodeType) -> None:
        count = code.co_argcount + code.co_kwonlyargcount
        count += bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)
        self.parameters = code.co_varnames[:count]
        self.locals: dict[str, Any] = {name: Local(name) for name in self.parameters}
        self.free = frozenset(code.co_freevars)
        self.stack: list[Any] = []
        self.graph: str | None = None
        self.unpacked = -1
        self.inputs: tuple[Local | Global | Read, ...] = ()
        self.at_call: _AtCall | None = None

    def run(self, instructions: list[Instruction]) -> Any:
        """What the code returns. Jumps go forward, so this ends."""
        places = {each.offset: at for at, each in enumerate(instructions)}
        at = 0
        while at < len(instructions):
            each = instructions[at]
            at += 1
            if each.opname in ("RETURN_VALUE", "RETURN_CONST"):
                return Constant(each.argval) if each.opname == "RETURN_CONST" else self.stack.pop()
            if "JUMP" in each.opname:
                if self.jumps(each):
                    if places[each.argval] < at:
                        raise NotPlain("a loop")
                    at = places[each.argval]
                continue
            step = _STEPS.get(each.opname)
            if step is None:
                raise NotPlain(each.opname)
            knew = self.graph
            step(self, each)
            if self.graph != knew:
                calls = sum(step.opname in _CALLS for step in instructions[:at])
                self.at_call = _AtCall(each.offset, calls, self.stack[:-1], dict(self.locals))
        raise NotPlain("no return")

    def jumps(self, each: Instruction) -> bool:
        """Whether a jump is taken: it has to be known."""
        if each.opname == "JUMP_FORWARD":
            return True
        tested = self.stack.pop() if each.opname in _TESTS else None
        if not isinstance(tested, Constant):
            raise NotPlain("a branch")
        return _TESTS[each.opname](tested.value)

    def pop(self, count: int) -> list[Any]:
        """The topmost symbols, the lowest of them first."""
        if count == 0:
            return []
        found = self.stack[-count:]
        del self.stack[-count:]
        return found

    def call(self, count: int) -> None:
        """A call by position: below the arguments lie the callable and a null, or on top of each other as of 3.13."""
        arguments = self.pop(count)
        if sys.version_info >= (3, 13):
            self.stack.pop()
            function = self.stack.pop()
        else:
            function = self.stack.pop()
            if sys.version_info >= (3, 11):
                self.stack.pop()
        self.stack.append(self.result(function, arguments))

    def result(self, function: Any, arguments: list[Any]) -> Any:
        if isinstance(function, Read) and function.base == Global(_UTILS) and function.key in _MARKS:
            return Constant(None)
        if isinstance(function, Read) and function.base == Global(_UTILS) and function.key in _NUMBERS:
            tensor, *dims = arguments
            if isinstance(tensor, Local | Global | Read) and all(isinstance(dim, Constant) for dim in dims):
                return Read(tensor, dims[0].value if dims else None, _NUMBERS[function.key])
        if not isinstance(function, Global) or not function.name.startswith("__compiled_fn") or self.graph is not None:
            raise NotPlain(f"a call of {function}")
        if not all(isinstance(item, Local | Global | Read) for item in arguments):
            raise NotPlain("an input that the code makes")
        self.graph, self.inputs = function.name, tuple(arguments)
        return Output()


def _load_global(self: _Symbolic, each: Instruction) -> None:
    if sys.version_info >= (3, 11) and each.arg is not None and each.arg & 1:
        both = [_NULL, Global(each.argval)]
        self.stack += both if sys.version_info < (3, 13) else both[::-1]
    else:
        self.stack.append(Global(each.argval))


def _load_attribute(self: _Symbolic, each: Instruction) -> None:
    base = self.stack.pop()
    if not isinstance(base, Local | Global | Read):
        raise NotPlain("an attribute of a value")
    found: Any = Read(base, each.argval, "attribute")
    if found == _PROFILER:
        found = Constant(False)
    if each.opname == "LOAD_METHOD" or (sys.version_info >= (3, 12) and each.arg is not None and each.arg & 1):
        self.stack += [_NULL, found] if sys.version_info < (3, 13) else [found, _NULL]
    else:
        self.stack.append(found)


def _load_fast(self: _Symbolic, each: Instruction) -> None:
    names = each.argval if isinstance(each.argval, tuple) else (each.argval,)
    for name in names:
        if name not in self.locals:
            raise NotPlain("a local that is not set")
        self.stack.append(self.locals[name])


def _load_free(self: _Symbolic, each: Instruction) -> None:
    if each.argval not in self.free:
        raise NotPlain("a cell of the frame's own")
    self.stack.append(Local(each.argval))


def _store_fast(self: _Symbolic, each: Instruction) -> None:
    self.locals[each.argval] = self.stack.pop()


def _store_two(self: _Symbolic, each: Instruction) -> None:
    for name in each.argval:
        self.locals[name] = self.stack.pop()


def _store_and_load(self: _Symbolic, each: Instruction) -> None:
    stored, loaded = each.argval
    self.locals[stored] = self.stack.pop()
    self.stack.append(self.locals[loaded])


def _subscript(self: _Symbolic, each: Instruction) -> None:
    if each.opname == "BINARY_OP" and each.arg != _SUBSCRIPT:
        raise NotPlain("an operator")
    base, key = self.pop(2)
    if not isinstance(key, Constant) or type(key.value) not in (int, str):
        raise NotPlain("an item with a key that is no constant")
    if isinstance(base, Local | Global | Read):
        self.stack.append(Read(base, key.value, "item"))
    elif base == Output() and type(key.value) is int and key.value >= 0:
        self.stack.append(Output(key.value))
    else:
        raise NotPlain("an item of a value")


def _build(kind: type) -> Callable[[_Symbolic, Instruction], None]:
    def step(self: _Symbolic, each: Instruction) -> None:
        self.stack.append(Items(kind, self.pop(each.arg or 0)))

    return step


def _extend(self: _Symbolic, each: Instruction) -> None:
    more = self.stack.pop()
    target = self.stack[-(each.arg or 0)]
    if isinstance(more, Constant) and type(more.value) is tuple:
        more = [Constant(value) for value in more.value]
    elif not isinstance(more, Items):
        raise NotPlain("a list of unknown length")
    target += more


def _append(self: _Symbolic, each: Instruction) -> None:
    item = self.stack.pop()
    self.stack[-(each.arg or 0)].append(item)


def _build_map(self: _Symbolic, each: Instruction) -> None:
    if each.opname == "BUILD_CONST_KEY_MAP":
        keys = [Constant(key) for key in self.stack.pop().value]
        values = self.pop(each.arg or 0)
    else:
        both = self.pop(2 * (each.arg or 0))
        keys, values = both[::2], both[1::2]
    if not all(isinstance(key, Constant) for key in keys):
        raise NotPlain("a dict with keys that are no constants")
    self.stack.append(Table(tuple(key.value for key in keys), values))


def _unpack(self: _Symbolic, each: Instruction) -> None:
    value, count = self.stack.pop(), each.arg or 0
    if isinstance(value, Items) and len(value) == count:
        self.stack += reversed(value)
    elif value == Output():
        if self.unpacked >= 0:
            raise NotPlain("outputs that are unpacked twice")
        self.unpacked = count
        self.stack += [Output(at) for at in reversed(range(count))]
    else:
        raise NotPlain("a value that is unpacked")


def _swap(self: _Symbolic, each: Instruction) -> None:
    at = -(each.arg or 0)
    self.stack[at], self.stack[-1] = self.stack[-1], self.stack[at]


def _rotate(self: _Symbolic, each: Instruction) -> None:
    depth = {"ROT_TWO": 2, "ROT_THREE": 3, "ROT_FOUR": 4}.get(each.opname, each.arg or 0)
    self.stack.insert(len(self.stack) - depth, self.stack.pop())


def _is(self: _Symbolic, each: Instruction) -> None:
    one, other = self.pop(2)
    if not isinstance(one, Constant) or not isinstance(other, Constant):
        raise NotPlain("an identity")
    self.stack.append(Constant((one.value is other.value) is not bool(each.arg)))


_OPERATORS: list[tuple[str, str]] = getattr(dis, "_nb_ops", [])
#: The number of the operator that takes an item, from Python 3.14 on.
_SUBSCRIPT = next((at for at, (name, _) in enumerate(_OPERATORS) if name == "NB_SUBSCR"), -1)

_CALLS = ("CALL", "CALL_FUNCTION", "CALL_METHOD")

_STEPS: dict[str, Callable[[_Symbolic, Instruction], None]] = {
    **dict.fromkeys(("RESUME", "NOP", "CACHE", "EXTENDED_ARG", "PRECALL", "COPY_FREE_VARS"), lambda self, each: None),
    **dict.fromkeys(("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW"), _load_fast),
    **dict.fromkeys(("LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"), _load_fast),
    **dict.fromkeys(("LOAD_ATTR", "LOAD_METHOD"), _load_attribute),
    **dict.fromkeys(("LOAD_CONST", "LOAD_SMALL_INT"), lambda self, each: self.stack.append(Constant(each.argval))),
    **dict.fromkeys(_CALLS, lambda self, each: self.call(each.arg or 0)),
    **dict.fromkeys(("BINARY_SUBSCR", "BINARY_OP"), _subscript),
    **dict.fromkeys(("BUILD_MAP", "BUILD_CONST_KEY_MAP"), _build_map),
    **dict.fromkeys(("ROT_TWO", "ROT_THREE", "ROT_FOUR", "ROT_N"), _rotate),
    "IS_OP": _is,
    "LOAD_GLOBAL": _load_global,
    "LOAD_DEREF": _load_free,
    "STORE_FAST": _store_fast,
    "STORE_FAST_STORE_FAST": _store_two,
    "STORE_FAST_LOAD_FAST": _store_and_load,
    # The local is a cell from here on, and what the frame began with is in the cell.
    "MAKE_CELL": lambda self, each: self.locals.pop(each.argval, None),
    "DELETE_FAST": lambda self, each: self.locals.pop(each.argval, None),
    "PUSH_NULL": lambda self, each: self.stack.append(_NULL),
    "POP_TOP": lambda self, each: self.stack.pop(),
    "COPY": lambda self, each: self.stack.append(self.stack[-(each.arg or 0)]),
    "DUP_TOP": lambda self, each: self.stack.append(self.stack[-1]),
    "SWAP": _swap,
    "BUILD_LIST": _build(list),
    "BUILD_TUPLE": _build(tuple),
    "LIST_EXTEND": _extend,
    "LIST_APPEND": _append,
    "UNPACK_SEQUENCE": _unpack,
}


class _Rebuild:
    """The steps that make a result, from the symbols that it is made of."""

    def __init__(self, names: list[str]) -> None:
        self.names = names  # of the locals, in the order in which they are bound
        self.steps: list[tuple[int, int, Any]] = []
        self.seen: set[int] = set()

    def add(self, value: Any) -> None:
        if isinstance(value, Output) and value.at is not None:
            self.steps.append((_C.REBUILD["LEAF"], value.at, None))
        elif isinstance(value, Local):
            self.steps.append((_C.REBUILD["GIVEN"], self.names.index(value.name), None))
        elif isinstance(value, Constant):
            self.steps.append((_C.REBUILD["CONSTANT"], 0, value.value))
        elif isinstance(value, Items):
            self._once(value)
            self.steps.append((_C.REBUILD["TUPLE" if value.kind is tuple else "LIST"], len(value), None))
            for item in value:
                self.add(item)
        elif isinstance(value, Table):
            self._once(value)
            self.steps.append((_C.REBUILD["DICT"], len(value.keys), value.keys))
            for item in value.values:
                self.add(item)
        else:
            raise NotPlain(f"a result that holds {type(value).__name__}")

    def _once(self, value: Any) -> None:
        """One object that is in the result twice would become two."""
        if id(value) in self.seen:
            raise NotPlain("a container that is in the result twice")
        self.seen.add(id(value))


def plan_of(code: types.CodeType) -> Plan:
    """The plan of an entry's code.

    Raises:
        NotPlain: the code does something that a plan cannot say.
    """
    if getattr(code, "co_exceptiontable", b""):
        raise NotPlain("a try or a with")
    symbolic = _Symbolic(code)
    rebuild = _Rebuild([*symbolic.parameters, *code.co_freevars])
    try:
        rebuild.add(symbolic.run(list(dis.get_instructions(code))))
    except NotPlain:
        if symbolic.at_call is None:
            raise
        return _up_to_the_graph(code, symbolic, symbolic.at_call)
    except (IndexError, AttributeError, TypeError) as error:  # an instruction is used as no version of Python uses it
        raise NotPlain(str(error)) from error
    if symbolic.graph is None:
        raise NotPlain("no graph")
    return Plan(symbolic.graph, _in_order(symbolic.inputs), symbolic.inputs, rebuild.steps, symbolic.unpacked)


# -- code that does more than to build a result ------------------------------------------------------------------------


def _up_to_the_graph(code: types.CodeType, symbolic: _Symbolic, at_call: _AtCall) -> Plan:
    """A plan that calls the graph; the rest of the code then runs as Dynamo wrote it."""
    assert symbolic.graph is not None
    if at_call.stack:
        raise NotPlain("something below the outputs of the graph")
    found = _rest_of(code, symbolic, at_call)
    if found is None:
        raise NotPlain("code after the graph that cannot stand alone")
    rest, kept = found
    return Plan(symbolic.graph, _in_order((*symbolic.inputs, *kept)), symbolic.inputs, [], -1, rest, kept)


#: The parameter of the rest of a code: a list of what is handed over. The code takes all of it out, so that nothing
#: is kept alive longer than Dynamo's own code keeps it.
_HANDED = "___unified_guards_handed"
_KINDS_OF_PARAMETERS = 0x04 | 0x08  # CO_VARARGS, CO_VARKEYWORDS
#: What a frame begins with.
_BEGINNINGS = frozenset({"MAKE_CELL", "COPY_FREE_VARS", "RESUME"})


def _rest_of(
    code: types.CodeType, symbolic: _Symbolic, at_call: _AtCall
) -> tuple[types.CodeType, tuple[Local | Global | Read, ...]] | None:
    """The code from behind the call of the graph on, and what it is given beside the outputs; None where it needs more.

    Its parameters are those of the code, all by position, and last a list: of the outputs, and of the values that the
    code had put into locals for later.
    """
    kept: dict[str, Local | Global | Read] = {}
    constants: dict[str, Constant] = {}
    dropped = _dropped_first(code, at_call.offset) - set(symbolic.parameters)
    used = _locals_after(code, at_call.offset)
    for name, value in at_call.locals.items():
        if name not in used or name in dropped or value == Local(name):
            continue
        if isinstance(value, Constant):
            constants[name] = value
        elif isinstance(value, Local | Global | Read):
            kept[name] = value
        else:
            return None
    if any(name in used and name not in at_call.locals for name in symbolic.parameters):
        return None  # it was deleted, or became a cell

    def cut(instructions: list[Bytecode], options: dict[str, Any]) -> None:
        # Offsets are others by now.
        call = [at for at, each in enumerate(instructions) if each.opname in _CALLS][at_call.calls - 1]
        beginning = [each for each in instructions[:call] if each.opname in _BEGINNINGS]
        start = [
            *(step for name in reversed(kept) for step in (*_take(), create_instruction("STORE_FAST", argval=name))),
            *(
                step
                for name, constant in constants.items()
                for step in (
                    create_instruction("LOAD_CONST", argval=constant.value),
                    create_instruction("STORE_FAST", argval=name),
                )
            ),
            *_take(),
        ]
        for each in start:
            each.starts_line, each.positions = instructions[call].starts_line, instructions[call].positions
        after = instructions[call + 1 :]
        while after[0].opname == "DELETE_FAST" and after[0].argval in dropped:
            del after[0]
        if any(each.target is not None and each.target not in after for each in after):
            raise NotPlain("a jump to what comes before the graph")
        instructions[:] = [*beginning, *start, *after]
        count = len(symbolic.parameters)
        names = options["co_varnames"]
        options["co_varnames"] = (*names[:count], _HANDED, *names[count:])
        options["co_argcount"], options["co_posonlyargcount"], options["co_kwonlyargcount"] = count + 1, 0, 0
        options["co_flags"] &= ~_KINDS_OF_PARAMETERS

    try:
        # A copy: torch remembers the codes that it took apart, and what Dynamo has made for a code lives as long as it.
        return transform_code_object(code.replace(), cut)[0], tuple(kept.values())
    except (AssertionError, KeyError, ValueError) as error:  # torch cannot assemble it
        raise NotPlain(str(error)) from error


def _take() -> list[Bytecode]:
    """Takes the last of what is handed over."""
    return [create_instruction("LOAD_FAST", argval=_HANDED), create_load_method("pop"), *create_call_method(0)]


def _dropped_first(code: types.CodeType, offset: int) -> set[str]:
    """The locals that are deleted right behind an offset. Dynamo's code keeps there what it has read more than once."""
    after = (each for each in dis.get_instructions(code) if each.offset > offset)
    return {each.argval for each in itertools.takewhile(lambda each: each.opname == "DELETE_FAST", after)}


def _locals_after(code: types.CodeType, offset: int) -> set[str]:
    """The locals that the instructions behind an offset name."""
    found: set[str] = set()
    for each in dis.get_instructions(code):
        if each.offset > offset and "_FAST" in each.opname:
            found.update(each.argval if isinstance(each.argval, tuple) else (each.argval,))
    return found


def _in_order(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Every global and every read on the way to an input, once, each behind its base."""
    found: dict[Any, None] = {}

    def add(value: Any) -> None:
        if isinstance(value, Local) or value in found:
            return
        if isinstance(value, Read):
            add(value.base)
        found[value] = None

    for item in inputs:
        add(item)
    return tuple(found)
