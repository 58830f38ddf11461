"""What the code of a cache entry does around its graph: reads inputs, calls the graph, builds a result of its outputs.

Dynamo writes that as bytecode. Where it does nothing else, a :class:`Plan` says the same without bytecode, and the
dispatcher follows it (``csrc/call``). The bytecode is run here on symbols, not on values. Entry point:
:func:`plan_of`.
"""

from __future__ import annotations

import dis
import itertools
import types
from collections.abc import Callable
from dis import Instruction
from typing import Any, NamedTuple

from unified_guards import _C
from unified_guards.dynamo.bytecode import pop_function, pushes_null, with_null
from unified_guards.dynamo.rest import CALLS, AtCall, Rest, rest_of
from unified_guards.dynamo.symbols import (
    Constant,
    Global,
    Items,
    Local,
    NotPlain,
    Output,
    Read,
    Table,
    parameters_of,
)

_UTILS = "__import_torch_dot__dynamo_dot_utils"
#: Of torch/_dynamo/utils.py: they tell a profiler when the inputs are gathered, and do nothing where nobody profiles.
_MARKS = frozenset({"record_pregraph_bytecode_enter", "record_pregraph_bytecode_exit"})
#: Also of torch/_dynamo/utils.py: they call a method of a tensor for what is symbolic in a graph.
_NUMBERS = {"call_size": "size", "call_stride": "stride", "call_storage_offset": "storage_offset"}


class Plan(NamedTuple):
    """What a hit has to do.

    Attributes:
        graph: the name of the global that holds the compiled graph.
        reads: what has to be read first: globals, attributes and items, each behind what it is read from.
        inputs: what the graph is given, in order: each a local or one of the reads.
        unpacked: how many outputs the code unpacks; -1 where it takes them by their index.
        rebuild: the steps that make the result of the graph's outputs (``csrc/call/rebuild.h``).
        rest: what of the code is left to run once the graph was called. Then there are no steps.
        kept: what `rest` is given beside the outputs, in order.
    """

    graph: str
    reads: tuple[Global | Read, ...]
    inputs: tuple[Local | Global | Read, ...]
    rebuild: list[tuple[int, int, Any]]
    unpacked: int = -1
    rest: Rest | None = None
    kept: tuple[Local | Global | Read, ...] = ()


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


class _Symbolic:
    """One run over the code of an entry."""

    def __init__(self, code: types.CodeType) -> None:
        self.parameters = tuple(itertools.chain(*parameters_of(code)))
        self.locals: dict[str, Any] = {name: Local(name) for name in self.parameters}
        self.free = frozenset(code.co_freevars)
        self.stack: list[Any] = []
        self.graph: str | None = None
        self.unpacked = -1
        self.inputs: tuple[Local | Global | Read, ...] = ()
        self.at_call: AtCall | None = None

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
                calls = sum(step.opname in CALLS for step in instructions[:at])
                self.at_call = AtCall(calls, instructions[at:], self.stack[:-1], dict(self.locals))
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
        self.stack.append(self.result(pop_function(self.stack), arguments))

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
    found = Global(each.argval)
    self.stack += with_null(found, _NULL) if pushes_null(each) else [found]


def _load_attribute(self: _Symbolic, each: Instruction) -> None:
    base = self.stack.pop()
    if not isinstance(base, Local | Global | Read):
        raise NotPlain("an attribute of a value")
    found: Any = Read(base, each.argval, "attribute")
    if found == _PROFILER:
        found = Constant(False)
    self.stack += with_null(found, _NULL) if pushes_null(each) else [found]


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


def _to_bool(self: _Symbolic, each: Instruction) -> None:
    tested = self.stack.pop()
    if not isinstance(tested, Constant):
        raise NotPlain("a branch")
    self.stack.append(Constant(bool(tested.value)))


def _is(self: _Symbolic, each: Instruction) -> None:
    one, other = self.pop(2)
    if not isinstance(one, Constant) or not isinstance(other, Constant):
        raise NotPlain("an identity")
    self.stack.append(Constant((one.value is other.value) is not bool(each.arg)))


_OPERATORS: list[tuple[str, str]] = getattr(dis, "_nb_ops", [])
#: The number of the operator that takes an item, from Python 3.14 on.
_SUBSCRIPT = next((at for at, (name, _) in enumerate(_OPERATORS) if name == "NB_SUBSCR"), -1)

_STEPS: dict[str, Callable[[_Symbolic, Instruction], None]] = {
    **dict.fromkeys(("RESUME", "NOP", "CACHE", "EXTENDED_ARG", "PRECALL", "COPY_FREE_VARS"), lambda self, each: None),
    "NOT_TAKEN": lambda self, each: None,  # from 3.14 on behind each branch, for who monitors these
    "TO_BOOL": _to_bool,
    **dict.fromkeys(("LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW"), _load_fast),
    **dict.fromkeys(("LOAD_FAST_LOAD_FAST", "LOAD_FAST_BORROW_LOAD_FAST_BORROW"), _load_fast),
    **dict.fromkeys(("LOAD_ATTR", "LOAD_METHOD"), _load_attribute),
    **dict.fromkeys(("LOAD_CONST", "LOAD_SMALL_INT"), lambda self, each: self.stack.append(Constant(each.argval))),
    **dict.fromkeys(CALLS, lambda self, each: self.call(each.arg or 0)),
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
        if symbolic.at_call is None or symbolic.graph is None:
            raise
        rest = rest_of(code, symbolic.parameters, symbolic.at_call)
        kept = tuple(rest.kept.values())
        reads = _in_order((*symbolic.inputs, *kept))
        return Plan(symbolic.graph, reads, symbolic.inputs, [], rest=rest, kept=kept)
    except (IndexError, AttributeError, TypeError) as error:  # an instruction is used as no version of Python uses it
        raise NotPlain(str(error)) from error
    if symbolic.graph is None:
        raise NotPlain("no graph")
    return Plan(symbolic.graph, _in_order(symbolic.inputs), symbolic.inputs, rebuild.steps, symbolic.unpacked)


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
