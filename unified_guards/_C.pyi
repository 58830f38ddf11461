"""Mirrors csrc/bindings/module.cpp."""

import types
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypedDict

import torch

# (checks, hits, misses, Python callbacks)
_Counts: TypeAlias = tuple[int, int, int, int]
# (op, base, arg, object, number)
_Rows: TypeAlias = list[tuple[int, int, int, Any, int]]

class _OpTraits(TypedDict):
    """What the table of operations (csrc/program/op.h) says of one."""

    is_accessor: bool
    is_indexed: bool  # its arg is an index, or a dimension
    user_code: Literal["never", "by object", "mostly", "callback"]  # whether it may run code of a user's
    can_be_asked_first: bool  # as a discriminator
    operands: str

TORCH_VERSION: str
OPS: dict[str, int]
OP_TABLE: dict[str, _OpTraits]
SHAPE_OPS: dict[str, int]
REBUILD: dict[str, int]
DICT_SLOTS: bool
DICT_TABLES: bool
TYPE_VERSIONS: bool
MONITORS: bool

class Checker:
    """A lowered GuardSet and its callable."""

    def __init__(
        self,
        rows: _Rows,
        observer: Callable[[dict[str, Any], bool], bool | None] | None = None,  # the verdict to give instead
        witness: bool = True,
        share: float = 1,  # of all checks through callable() of which the observer is told
    ) -> None: ...
    # Answers a bool; where the observer raises, an object with that `exception`, which torch's lookup takes for False.
    def callable(self) -> Callable[[dict[str, Any]], Any]: ...
    def check(self, locals: dict[str, Any]) -> bool: ...
    def exact(self, locals: dict[str, Any]) -> bool: ...  # the exact tier alone: what check() must agree with
    def ask_first(self, rows: _Rows, first_row: int) -> None: ...  # a discriminator, see lower/discriminators.py
    # The least of `passes`, in nanoseconds: a check, one of the exact tier, and each (row, alone).
    def call_before(self, call: Callable[[dict[str, Any]], object]) -> None: ...
    def profile(self, locals: dict[str, Any], passes: int) -> tuple[float, float, list[tuple[int, float]]]: ...
    @property
    def last_ns(self) -> int: ...  # how long the last check took that the observer was told of
    @property
    def counts(self) -> _Counts: ...
    # None without one. roots, facts, tensors, live: how much is remembered, of all roots; live_rows, fact_rows: rows
    # evaluated on every check, and those of its facts, for the root checked last; fact_kinds: of these; nbytes; held,
    # repaired, recorded: checks that passed by facts, that evaluated again what had moved, that took facts anew.
    @property
    def witness(self) -> dict[str, Any] | None: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def last_failure(self) -> int | None: ...

class Dispatcher:
    """The short way of a call to one compiled function; a subclass defines ``_prepare()`` and ``_rescue(error)``."""

    def __init__(
        self,
        callee: Callable[..., Any],  # the function or bound method that torch's wrapper calls
        forward: Callable[..., Any] | None,  # of the class of a module whose whole call was compiled
        whole: bool,  # whether the call of the module begins at __call__
        region: int,  # of recompilation; -1: the common one
        fullgraph: bool,
        callback: Callable[..., Any] | None,  # Dynamo's, for its frame hook
        patches: tuple[Callable[[], Callable[[], None]], ...],  # of Dynamo's config
        own: bool = False,  # whether the calls are those of an AOT entry point
    ) -> None: ...
    def _add(
        self, manager: Any, code: Any, checker: Checker | None, way: object, why: str, comparison: object = None
    ) -> None: ...
    def _forget(self) -> None: ...
    def _forget_entry(self, manager: Any) -> None: ...
    def _find(self, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any: ...  # a guard manager, or None
    def _entries(self) -> list[tuple[Any, Any, Any]]: ...  # (guard manager, code, backend), in torch's order
    def _serve(self, wrapper: Callable[..., Any]) -> None: ...
    @staticmethod
    def _totals() -> tuple[tuple[int, dict[str, int]], int]: ...  # counts, and frames in the middle of a call
    @property
    def _names(self) -> tuple[str, ...]: ...
    @property
    def _function(self) -> Any: ...
    @property
    def counts(self) -> tuple[int, dict[str, int]]: ...
    @property
    def inputs(self) -> list[tuple[int, int]]: ...  # of entries with a plan: how many, and how many the check found

class Gate:
    """Hands a call to its Dispatcher, if that lives."""

    def __init__(self, dispatcher: Dispatcher) -> None: ...
    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any: ...  # LONG_WAY, or the result

class FrameGate:
    """Hands the frame of a cache entry to the entry's plan, which the dispatcher knows."""

    def __init__(self, dispatcher: Dispatcher) -> None: ...
    def __call__(self, *locals: Any) -> Any: ...  # LONG_WAY, or the result
    @property
    def dispatcher(self) -> Dispatcher: ...

class Entrance:
    """Hands calls to a Dispatcher; a subclass defines ``_miss(args, kwargs)`` for the rest."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def _lead_to(self, dispatcher: Dispatcher) -> None: ...

def show_call(type: type, function: Callable[..., Any]) -> None: ...

LONG_WAY: object

def module_gate(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], /) -> Any: ...
def learn_calls(
    flags: list[tuple[str, Any, str, Any]],
    get_callback: Callable[[], Any],
    set_callback: Callable[[Any], Any],
    set_frame_count: Callable[[int], int] | None,
    generations: type,
    global_hooks: tuple[Any, ...],
    optimized: type,
    on_the_way: tuple[str, ...],
    undo_layers: Callable[[int], Any],
    code: Any,
) -> None: ...
def learn_flag(flag: tuple[str, Any, str, Any]) -> None: ...
def dispatch(on: bool) -> bool: ...
def note_order(moves_hits: bool) -> None: ...
def take_miss(frame: types.FrameType, code: types.CodeType) -> tuple[int, list[int]] | None: ...
def has_other_entries(code: types.CodeType, region: int, addresses: list[int]) -> bool: ...
def note_hook(there_is_one: bool) -> None: ...

class GlobalState:
    """What decides what operators do, as it was when this was made."""

    def __init__(self, torchs: Callable[[], bool] | None = None) -> None: ...  # torch's guard on the same state
    def check(self) -> bool: ...

def counts() -> _Counts: ...
def witness_counts() -> tuple[int, int, int]: ...  # held, repaired, recorded; of all checkers
def moved_facts() -> dict[str, int]: ...  # how often a fact of each kind had moved; of all checkers
def apply_dispatch_state(keys: int, state: tuple[int, int, bool] | None = None) -> int: ...
def torch_function_state() -> int: ...
def set_torch_function_state(state: int) -> None: ...
def tensor_facts(
    tensor: torch.Tensor, keys: int | None, state: tuple[int, int, bool] | None = None
) -> tuple[int, int, int, bool]: ...
def read_in_place(tensor: torch.Tensor) -> dict[str, Any]: ...
def asks_python(tensor: torch.Tensor) -> bool: ...
def has_version(type: type) -> bool: ...  # not where it was changed too often: from Python 3.13 on, a thousand times
def know_attribute_hook(code: types.CodeType, form: str, names: tuple[str, ...]) -> None: ...
def knows_attribute_hook(code: types.CodeType) -> bool: ...
def outlive(object: object) -> None: ...  # keeps it until the lookups that are running are over
def outlive_what_code_carries(code: types.CodeType) -> bool: ...  # what torch keeps with code objects, likewise
def dicts_are_versioned() -> bool: ...
def object_at(address: int) -> Any: ...
def python_keys_are_visible() -> bool: ...
def set_visibility_probe(make: Callable[[], Callable[[], bool]]) -> None: ...
