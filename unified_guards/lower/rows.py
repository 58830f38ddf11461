"""From a :class:`GuardSet` to the rows of a native program.

A row is ``(op, base register, arg, object, number)``; what the last three mean to each op is listed in
``csrc/program/op.h``. The set is walked in order with the path to the current source as a stack, so that an
accessor is emitted once for all guards below it and parents come before children. Entry point: :func:`lower`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch._C._dynamo import guards as native

from unified_guards import _C
from unified_guards.guards.expressions import Kind
from unified_guards.guards.ir import RELATIONAL, Access, Guard, GuardSet, Provenance, Source, Test
from unified_guards.lower.shape_code import ShapeCode, lower_shapes

Row = tuple[int, int, int, Any, int]
_OPS: dict[str, int] = _C.OPS


class CannotLower(Exception):
    """A guard of the set has no native form; the message says which and why."""


class Program(NamedTuple):
    """What the native checker runs.

    Attributes:
        rows: the instructions.
        row_origins: for each row the guard that it checks; for an accessor the source that it reads. The
            shape expressions follow: where one fails, its number counts on from the rows.
    """

    rows: list[Row]
    row_origins: list[Guard | Source]

    @property
    def meaning(self) -> list[Guard | Source]:
        """The old name of `row_origins`, until 0.2."""
        warnings.warn("Program.meaning is now Program.row_origins", DeprecationWarning, stacklevel=2)
        return self.row_origins

    @property
    def python_callbacks(self) -> int:
        """How many Python functions one full check calls, as long as every number of an expression fits a register."""
        return sum(op in _PYTHON or (op == _SHAPES and arg == 1) for op, _, arg, _, _ in self.rows)


_DIRECT = {access: _OPS[access.name] for access in Access if access.name in _OPS}
_INDEXED = frozenset(access for access in _DIRECT if _C.OP_TABLE[access.name]["is_indexed"])
_DICT_ITEM, _CONSTANT = _OPS["DICT_ITEM"], _OPS["CONSTANT"]
_SAVE, _SHAPES = _OPS["SAVE"], _OPS["SHAPES"]
_PYTHON = frozenset(_OPS[name] for name, traits in _C.OP_TABLE.items() if traits["user_code"] == "callback")
#: How a number of a shape expression is read: sizes and strides from the tensor itself.
_READ_OF_TENSOR = {
    Access.TENSOR_SIZE: _OPS["READ_SIZE"],
    Access.TENSOR_STRIDE: _OPS["READ_STRIDE"],
    Access.TENSOR_OFFSET: _OPS["READ_OFFSET"],
}
_READ = {Kind.INT: _OPS["READ_INT"], Kind.FLOAT: _OPS["READ_FLOAT"]}
#: Relations within a group of sources, and those of the second of two sources to the first.
_GROUPED = {Test.UNIQUE: _OPS["UNIQUE"], Test.UNIQUE_STORAGE: _OPS["UNIQUE_STORAGE"]}
_PAIRED = {Test.SAME: _OPS["SAME_AS"], Test.SHARES_STORAGE: _OPS["SHARES_STORAGE"]}

#: The deepest path a program can hold.
MAX_DEPTH = 65_000


def _accessor(source: Source) -> Row:
    access, key, base = source.access, source.key, source.depth - 1
    if access is Access.DICT_ITEM or access is Access.LOCAL:
        return (_DICT_ITEM, base, 0, key, 0)
    if access is Access.GLOBALS:
        return (_CONSTANT, base, 0, key, 0)
    if access in _INDEXED:
        if not 0 <= key < 2**32:
            # Torch reads an item of a list or tuple by its raw index: a negative one is never there.
            return (_DIRECT[access], base, 2**32 - 1, None, 0)
        return (_DIRECT[access], base, key, None, 0)
    return (_DIRECT[access], base, 0, key, 0)


class _Lowering:
    def __init__(self, guard_set: GuardSet) -> None:
        self.rows: list[Row] = []
        self.row_origins: list[Guard | Source] = []
        self.path: list[Source] = [Source.frame()]
        self.visits: dict[Source, list[tuple[Callable[[int], Row], Guard | Source]]] = {}
        self.slots: dict[Source, int] = {}
        self.guard_set = guard_set
        self.expressions = [item for item in guard_set if item.test is Test.EXPRESSION]
        self.torch_function_off = False
        self.shape_functions: set[int] = set()
        self.groups = 0  # of objects of which no two may be the same, or share memory

    def run(self) -> Program:
        of_one_source: list[Guard] = []
        shapes = lower_shapes(self.guard_set) if self.expressions else None
        if shapes is not None:
            self._plan_shapes(shapes)
        for item in self.guard_set:
            if item.test in RELATIONAL:
                self._plan(item)
            else:
                of_one_source.append(item)
        for item in of_one_source:
            self._of_one_source(item)
        for item in self.guard_set:
            if item.test in RELATIONAL:
                self._finish(item)
        if shapes is not None:
            self._finish_shapes(shapes)
        return Program(self.rows, self.row_origins)

    def emit(self, row: Row, origin: Guard | Source) -> None:
        self.rows.append(row)
        self.row_origins.append(origin)

    def emit_on_frame(self, row: Row, origin: Guard) -> None:
        """Emits the row of a guard on the frame as a whole. The walk goes back to the frame for it."""
        del self.path[1:]
        self.emit(row, origin)

    # -- walking ---------------------------------------------------------------------------------------------------

    def reach(self, source: Source) -> None:
        """Emits the accessors to ``source`` that are not on the stack: those below the last step that both share."""
        path = self.path
        missing = []
        step = source
        while step.depth >= len(path) or path[step.depth] is not step:
            missing.append(step)
            if step.base is None:
                raise CannotLower("a source does not start at the frame")
            step = step.base
        del path[step.depth + 1 :]
        for step in reversed(missing):
            if step.depth > MAX_DEPTH:
                raise CannotLower("a path is too deep")
            if not self.torch_function_off:
                self._turn_torch_function_off(step)
            self.emit(_accessor(step), step)
            path.append(step)

    def _turn_torch_function_off(self, origin: Guard | Source) -> None:
        # Torch checks the guards on the frame itself under the caller's torch-function state, all others without.
        self.torch_function_off = True
        self.emit((_OPS["TORCH_FUNCTION_OFF"], 0, 0, None, 0), origin)

    def _of_one_source(self, item: Guard) -> None:
        source = item.sources[0]
        if item.test is Test.SHAPE:
            self._shape(item)
            return
        if source is not self.path[-1]:
            self._leave()
            self.reach(source)
        if item.test is not Test.EXISTS:
            self.emit(_ROWS[item.test](item, source.depth), item)

    def _leave(self) -> None:
        """Emits what relational guards ask of the source that the walk leaves, after all other guards on it."""
        if not self.visits:
            return
        source = self.path[-1]
        for row, item in self.visits.pop(source, ()):
            self.emit(row(source.depth), item)

    def _shape(self, item: Guard) -> None:
        function = item.params[0]
        if id(function) in self.shape_functions:
            return  # one function evaluates all shape guards of a frame
        self.shape_functions.add(id(function))
        self._leave()
        if not self.torch_function_off:
            self._turn_torch_function_off(item)
        self.emit_on_frame((_OPS["PREDICATE"], 0, 0, function, 0), item)

    # -- relations -------------------------------------------------------------------------------------------------

    def _plan(self, item: Guard) -> None:
        if item.test in _GROUPED:
            group = self.groups
            self.groups += 1
            for source in item.sources:
                self._visit(source, item, _collect(_GROUPED[item.test], group))
        elif item.test is Test.SHAPE_CALL:
            ints = item.params[0]
            for index, source in enumerate(item.sources):
                op, at = ("SHAPE_INT", index) if index < ints else ("SHAPE_FLOAT", index - ints)
                self._visit(source, item, _collect(_OPS[op], at))
        elif item.test is not Test.EXPRESSION:
            self._save(item)

    def _save(self, item: Guard) -> None:
        for source in item.sources:
            if source not in self.slots:
                slot = self.slots[source] = len(self.slots)
                self._visit(source, item, _collect(_SAVE, slot))

    def _visit(self, source: Source, item: Guard | Source, row: Callable[[int], Row]) -> None:
        self.visits.setdefault(source, []).append((row, item))

    def _finish_visits(self, sources: Sequence[Source]) -> None:
        self._leave()
        for source in sources:
            if source in self.visits:
                self.reach(source)
                self._leave()

    def _finish(self, item: Guard) -> None:
        if item.test is Test.EXPRESSION:
            return  # one piece of code checks all expressions, at the end: _finish_shapes
        self._finish_visits(item.sources)
        if item.test in _PAIRED:
            first, second = item.sources
            self.reach(second)
            self.emit((_PAIRED[item.test], second.depth, self.slots[first], None, 0), item)
        elif item.test is Test.OVERLAP:
            slots = tuple(self.slots[source] for source in item.sources)
            self.emit_on_frame(
                (_OPS["OVERLAP"], 0, item.params[0], (native.compute_overlapping_tensors, slots), 0), item
            )
        elif item.test is Test.SHAPE_CALL:
            self.emit_on_frame((_OPS["SHAPE_CALL"], 0, 0, item.params[4], item.params[2]), item)

    # -- shapes ----------------------------------------------------------------------------------------------------

    def _plan_shapes(self, shapes: ShapeCode) -> None:
        classes = {item.source: item.params[0].type_id for item in self.guard_set if item.test is Test.TENSOR}
        for at, (source, kind) in enumerate(shapes.leaves):
            if source.access in _READ_OF_TENSOR and source.base is not None:
                known = _C.object_at(classes.get(source.base, id(torch.Tensor)))
                row = _collect(_READ_OF_TENSOR[source.access], at, known, source.key or 0)
                self._visit(source.base, source, row)
            else:
                self._visit(source, source, _collect(_READ[kind], at))

    def _finish_shapes(self, shapes: ShapeCode) -> None:
        for source, _ in shapes.leaves:
            self._finish_visits([source, source.base] if source.base is not None else [source])
        code = (len(shapes.leaves), shapes.constants, shapes.code, _exact(self.expressions))
        after = len(self.rows) + 1
        self.emit_on_frame((_SHAPES, 0, int(bool(shapes.not_native)), code, after), self.expressions[0])
        self.row_origins += shapes.guards


def _exact(expressions: list[Guard]) -> Callable[[dict[str, Any]], bool]:
    """The function that decides where a number does not fit a register: torch's own, or the slow evaluator."""
    asked = list(dict.fromkeys(item.params[1] for item in expressions))
    if len(asked) == 1 and asked[0] is not None:
        found: Callable[[dict[str, Any]], bool] = asked[0]
        return found
    guard_set = GuardSet((item, Provenance("exact")) for item in expressions)
    return functools.partial(_evaluate, guard_set)


def _evaluate(guard_set: GuardSet, f_locals: dict[str, Any]) -> bool:
    # Imported here: few programs have numbers that do not fit the registers of the native code.
    from unified_guards.guards.semantics import evaluate

    return evaluate(guard_set, f_locals)


def _collect(op: int, arg: int, known: object = None, number: int = 0) -> Callable[[int], Row]:
    return lambda depth: (op, depth, arg, known, number)


def _address(name: str) -> Callable[[Guard, int], Row]:
    op = _OPS[name]
    return lambda item, depth: (op, depth, 0, None, item.params[0])


def _object(name: str) -> Callable[[Guard, int], Row]:
    op = _OPS[name]
    return lambda item, depth: (op, depth, 0, item.params[0], 0)


def _count(name: str) -> Callable[[Guard, int], Row]:
    op = _OPS[name]
    return lambda item, depth: (op, depth, item.params[0], None, 0)


def _bare(name: str) -> Callable[[Guard, int], Row]:
    op = _OPS[name]
    return lambda item, depth: (op, depth, 0, None, 0)


def _contains(name: str) -> Callable[[Guard, int], Row]:
    op = _OPS[name]
    return lambda item, depth: (op, depth, int(item.params[1]), item.params[0], 0)


def _length(item: Guard, depth: int) -> Row:
    return (_OPS["LENGTH_OR_SET" if item.params[1] else "LENGTH"], depth, item.params[0], None, 0)


def _saved_hooks(item: Guard, depth: int) -> Row:
    return (_OPS["SAVED_HOOKS"], depth, int(item.params[0] is None), item.params[1], 0)


def _dual_level(item: Guard, depth: int) -> Row:
    from torch.autograd import forward_ad

    return (_OPS["DUAL_LEVEL"], depth, 0, (vars(forward_ad), "_current_level", item.params[0]), 0)


def _default_device(item: Guard, depth: int) -> Row:
    from torch.utils import _device

    return (_OPS["DEFAULT_DEVICE"], depth, 0, (vars(_device), "CURRENT_DEVICE", item.params[0]), 0)


def _global_state(item: Guard, depth: int) -> Row:
    state = item.params[0]
    if isinstance(state, _C.GlobalState):
        return (_OPS["GLOBAL_STATE"], depth, 0, state, 0)
    # The bound method of torch's own object: a C function that reads the state of this thread.
    return (_OPS["TORCH_CALL"], depth, 0, state.check, 0)


def _marking(item: Guard, depth: int) -> Row:
    expected, absent, dependent = item.params
    flag = "_has_dynamo_dim_marking"
    return (_OPS["DIM_MARKING"], depth, 0, (flag, expected, absent, dependent, [flag]), 0)


def _opaque(item: Guard, depth: int) -> Row:
    raise CannotLower(f"a guard came from JSON and cannot be checked here: {item}")


_ROWS: dict[Test, Callable[[Guard, int], Row]] = {
    Test.TYPE_IS: _address("TYPE_IS"),
    Test.IS: _address("IS"),
    Test.IS_NOT: _address("IS_NOT"),
    Test.IS_TARGET: _object("IS_TARGET"),
    Test.EQUALS: _object("EQUALS"),
    Test.DEEP_EQUALS: _object("DEEP_EQUALS"),
    Test.SAME_BITS: _object("SAME_BITS"),
    Test.LENGTH: _length,
    Test.DICT_LENGTH: _count("DICT_LENGTH"),
    Test.TUPLE_ITER_LEN: lambda item, depth: (_OPS["TUPLE_ITER_LEN"], depth, item.params[0], None, item.params[1]),
    Test.RANGE_ITER: lambda item, depth: (_OPS["RANGE_ITER"], depth, 0, item.params[:3], item.params[3]),
    Test.KEYS: _object("KEYS"),
    Test.MAPPING_KEYS: lambda item, depth: (_OPS["MAPPING_KEYS"], depth, 0, list(item.params[0]), 0),
    Test.DICT_CONTAINS: _contains("DICT_CONTAINS"),
    Test.SET_CONTAINS: _contains("SET_CONTAINS"),
    Test.NO_ATTR: _object("NO_ATTR"),
    Test.FLOAT_NAN: _bare("FLOAT_NAN"),
    Test.COMPLEX_NAN: _bare("COMPLEX_NAN"),
    Test.DUAL_LEVEL: _dual_level,
    Test.INFERENCE_MODE: lambda item, depth: (_OPS["INFERENCE_MODE"], depth, int(item.params[0]), None, 0),
    Test.DEFAULT_DEVICE: _default_device,
    Test.GLOBAL_STATE: _global_state,
    Test.MODE_STACK: _object("MODE_STACK"),
    Test.SAVED_HOOKS: _saved_hooks,
    Test.DICT_VERSION: lambda item, depth: (_OPS["DICT_VERSION"], depth, 0, native.dict_version, item.params[0]),
    Test.DISPATCH_KEYS: lambda item, depth: (_OPS["DISPATCH_KEYS"], depth, 0, "raw_repr", item.params[0]),
    Test.SCRIPT_TYPE: lambda item, depth: (
        _OPS["SCRIPT_TYPE"],
        depth,
        0,
        (item.params[2], "real_obj"),
        item.params[0],
    ),
    Test.DIM_MARKING: _marking,
    Test.DYNAMIC_INDICES: lambda item, depth: (_OPS["DYNAMIC_INDICES"], depth, 0, item.params, 0),
    Test.TENSOR: lambda item, depth: (_OPS["TENSOR"], depth, 0, tuple(item.params[0][:8]), 0),
    Test.PREDICATE: _object("PREDICATE"),
    Test.TORCH_LEAF: _object("TORCH_LEAF"),
    Test.OPAQUE: _opaque,
}


def lower(guard_set: GuardSet) -> Program:
    """The program that checks ``guard_set``.

    Args:
        guard_set: what must hold. The types whose addresses are in tensor guards must be alive.

    Raises:
        CannotLower: a guard has no native form.
    """
    return _Lowering(guard_set).run()


def make_checker(
    program: Program,
    observer: Callable[[dict[str, Any], bool], bool | None] | None = None,
    *,
    witness: bool = True,
    share: float = 1,
) -> _C.Checker:
    """A native checker for ``program``.

    Args:
        program: what it runs.
        observer: is told the frame and the verdict of a check. It answers None, or the verdict to give instead, or
            raises.
        witness: whether to remember what a check that passed has read. Otherwise every check evaluates every guard.
        share: which share of all checks the observer is told of, from 0 to 1.
    """
    return _C.Checker(program.rows, observer, witness, share)


def _visibility_probe() -> Callable[[], bool]:
    """Lets the extension ask torch whether dispatch modes see Python keys (python_keys_are_visible in module.cpp)."""
    root = native.RootGuardManager()
    root.add_dispatch_key_set_guard(torch._C.DispatchKeySet.from_raw_repr(0), ["no Python keys"], None)
    python = torch._C.DispatchKeySet(torch._C.DispatchKey.Python)
    return lambda: bool(root.check(python))


# Before anything is lifted: what a tensor guard expects depends on the answer.
_C.set_visibility_probe(_visibility_probe)
