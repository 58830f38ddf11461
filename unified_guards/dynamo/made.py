"""What is known of each cache entry that was made while unified guards were installed, and of each frame without one.

Many entries hang on code that is not the user's: torch puts one wrapper around all modules of its own, and what a graph
break calls is compiled apart. So it is noted in whose call an entry was made, by a look at the stack, which only a
compilation takes. Nothing is kept alive. Entry points: :func:`note`, :func:`of`, :func:`uncompiled`, :func:`watch`.
"""

from __future__ import annotations

import functools
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from torch._dynamo import convert_frame
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch._guards import CompileContext

from unified_guards.dynamo import compat, measure
from unified_guards.guards.names import place

if TYPE_CHECKING:
    from unified_guards.dynamo.entry import DynamoEntry

#: Why torch's guards of an entry were left in place.
BEFORE_INSTALL = "it was compiled before install() or after uninstall(): torch._dynamo.reset() has it compiled anew"
WITHOUT_GUARDS = "it has no guards: there is nothing to check"


class GraphBreak(NamedTuple):
    """Where the graph of an entry ended before its function did.

    Attributes:
        where: the line of the program: "file:line in function".
        reason: torch's reason, in one line.
        hints: what torch says can be done about it.
    """

    where: str
    reason: str
    hints: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"at {self.where}: {self.reason}", *(f"  hint: {hint}" for hint in self.hints)])


class Callee(NamedTuple):
    """What a wrapper of ``torch.compile`` calls: a function, and the object that it is a method of or stands for."""

    function: Any
    owner: Any = None


class _Held(NamedTuple):
    """A :class:`Callee`, by weak references."""

    function: Callable[[], Any]
    owner: Callable[[], Any]


class Made(NamedTuple):
    """What is known of one cache entry.

    Attributes:
        name: of what was compiled, with its file and line.
        left: why its guards are torch's; None where they are checked natively.
        graph_break: where its graph ended; None where the function did.
        callers: what torch's wrappers had called when it was made, the innermost first.
        compile_id: torch's name for the compilation, as in its logs: "0/1"; None outside of one.
    """

    name: str
    left: str | None
    graph_break: GraphBreak | None
    callers: tuple[_Held, ...]
    compile_id: str | None = None


class Uncompiled(NamedTuple):
    """A frame that torch runs without compiled code where no entry fits.

    Attributes:
        name: of the code, with its file and line.
        reason: torch's, in one line.
        where: the line of the program, if there is one: "file:line in function".
        failed: whether torch has tried: what it leaves out by a rule of its own is left out every time.
        callers: as in :class:`Made`.
    """

    name: str
    reason: str
    where: str | None
    failed: bool
    callers: tuple[_Held, ...]


#: How torch's error begins where it makes no more entries.
_LIMIT = "Dynamo recompile limit exceeded"
#: What becomes of nn.Linear and the like.
_OF_TORCHS_OWN = "torch.compile(module) compiles a module of torch's own, module.compile() does not"

_made: weakref.WeakKeyDictionary[Any, Made] = weakref.WeakKeyDictionary()
#: By the ``id`` of the code. What torch has forgotten since (torch._dynamo.reset()) is not in its own list of code.
_uncompiled: dict[int, tuple[weakref.ref[types.CodeType], Uncompiled]] = {}


# -- whose call it was -------------------------------------------------------------------------------------------------


def callee_of(function: Any) -> Callee:
    """What torch's wrapper calls, taken apart: a method, or torch's wrapper around what it cannot compile by itself."""
    if isinstance(function, types.MethodType):
        return Callee(function.__func__, function.__self__)
    if isinstance(function, types.FunctionType) and function.__code__ is compat.inliner():
        return Callee(function, function.__closure__[0].cell_contents if function.__closure__ else None)
    return Callee(function)


def is_of(known: Made | Uncompiled, callees: list[Callee], owners: list[Any]) -> bool:
    """Whether it was in a call of one of these, or of anything that is a method of these objects or stands for them."""
    for held in known.callers:
        function, owner = held.function(), held.owner()
        if any(function is each.function and owner is each.owner for each in callees):
            return True
        if owner is not None and any(owner is each for each in owners):
            return True
    return False


def _weakly(item: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(item)
    except TypeError:  # None, or an object that has no room for weak references
        return lambda: None


def _callers() -> list[Callee]:
    """What the wrappers of ``torch.compile`` that are running in this thread call, the innermost first."""
    found = []
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        if compat.is_compile_wrapper(frame.f_code):
            found.append(callee_of(frame.f_locals.get("fn")))
        frame = frame.f_back
    return found


def _held(callers: list[Callee]) -> tuple[_Held, ...]:
    return tuple(_Held(_weakly(each.function), _weakly(each.owner)) for each in callers)


def short_name_of(item: Any) -> str:
    """A function, a class, or an object by its class; of a partial what it calls."""
    if isinstance(item, functools.partial):
        return f"partial({short_name_of(item.func)})"
    return str(getattr(item, "co_name", None) or getattr(item, "__name__", None) or type(item).__name__)


def name_of(code: types.CodeType, callers: list[Callee] | None = None) -> str:
    """The function, with the file and line where it starts. What torch has wrapped goes by its own name."""
    name = code.co_name
    if code is compat.inliner():
        name = short_name_of(callers[0].owner) if callers else "what torch wraps"
    return f"{name} ({place(code.co_filename, code.co_firstlineno)})"


# -- why and where -----------------------------------------------------------------------------------------------------


def _place(stack: Any) -> str | None:
    """The innermost line of the user's."""
    lines = [line for line in stack or () if line.filename != compat.inliner().co_filename]
    return f"{place(lines[-1].filename, lines[-1].lineno)} in {lines[-1].name}" if lines else None


def _said(text: str) -> tuple[str, tuple[str, ...]]:
    """(what torch says in one line, its hints)."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    explained = [line.removeprefix("Explanation: ") for line in lines if line.startswith("Explanation: ")]
    hints = tuple(line.removeprefix("Hint: ") for line in lines if line.startswith("Hint: "))
    return ". ".join(part.rstrip(".") for part in [*lines[:1], *explained]), hints


def graph_break_of(output_graph: Any) -> GraphBreak | None:
    """Where a graph ended before its function did."""
    found = getattr(output_graph, "compile_subgraph_reason", None)
    if found is None or not found.graph_break:
        return None
    return GraphBreak(_place(found.user_stack) or "no known line", *_said(found.reason))


# -- noting ------------------------------------------------------------------------------------------------------------


def note(manager: Any, code: types.CodeType, output_graph: Any, left: str | None, entry: DynamoEntry | None) -> None:
    """Called when the guards of an entry are finished.

    Args:
        manager: torch's guard manager of the entry.
        code: of the frame.
        output_graph: Dynamo's of the frame.
        left: why the guards stayed torch's; None where ``entry`` has them.
        entry: ours.
    """
    callers = _callers()
    compile_id = CompileContext.current_compile_id()
    told = None if compile_id is None else str(compile_id)
    made = Made(name_of(code, callers), left, graph_break_of(output_graph), _held(callers), told)
    _made[manager] = made
    measure.note(code, entry, made)


def of(manager: Any) -> Made | None:
    """What is known of the entry with this guard manager; None of one that was made without unified guards."""
    return _made.get(manager)


def compile_id_of(manager: Any) -> str | None:
    """Torch's name for the compilation that made an entry, whoever was installed then; None of one that was loaded."""
    compile_id = getattr(getattr(manager, "cache_entry", None), "compile_id", None)
    return None if compile_id is None else str(compile_id)


def watch(put: Callable[[Any, str, Any], None]) -> None:
    """From now on, frames that torch does not compile are noted with torch's reason.

    Args:
        put: is ``setattr`` that remembers what was there.
    """
    described = vars(convert_frame)["format_error_msg"]

    def format_error_msg(error: Exception, code: types.CodeType, *args: Any, **kwargs: Any) -> Any:
        text, where = str(error), _place(getattr(error, "real_stack", None))
        if text.startswith(_LIMIT):
            text, where = "torch's limit of entries is reached", None
        _note_uncompiled(code, _said(text)[0], where, failed=True)
        return described(error, code, *args, **kwargs)

    put(convert_frame, "format_error_msg", format_error_msg)
    skipped = vars(convert_frame).get("add_skip_reason")  # from 2.13
    if skipped is None:
        return

    def add_skip_reason(reason: str, frame: Any) -> Any:
        text = f"{reason}: {_OF_TORCHS_OWN}" if "skipfiles" in reason else _said(reason)[0]
        _note_uncompiled(frame.f_code, text, None, failed=False)
        return skipped(reason, frame)

    put(convert_frame, "add_skip_reason", add_skip_reason)


def _note_uncompiled(code: types.CodeType, reason: str, where: str | None, *, failed: bool) -> None:
    key = id(code)
    known = _uncompiled.get(key)
    if known is not None and known[0]() is code and known[1].failed and not failed:
        return  # torch repeats in general words what the error has said
    callers = _callers()
    _uncompiled[key] = (
        weakref.ref(code, lambda _: _uncompiled.pop(key, None)),
        Uncompiled(name_of(code, callers), reason, where, failed, _held(callers)),
    )


# -- asking ------------------------------------------------------------------------------------------------------------


def seen() -> Iterator[types.CodeType]:
    """The code that torch has looked at since it was last reset, in this order."""
    for reference in list(convert_frame.input_codes.seen):
        code = reference()
        if code is not None:
            yield code


def entry_count(code: types.CodeType) -> int:
    """How many entries torch counts against its limit: those that were loaded are none of them."""
    return len(_debug_get_cache_entry_list(code))


def uncompiled(code: types.CodeType) -> Uncompiled | None:
    """Why torch runs a code without compiling it, or without compiling it again; None where it does not."""
    reference, found = _uncompiled.get(id(code), (lambda: None, None))
    return found if reference() is code and code in convert_frame.input_codes else None


class _Left:
    """Counts entries that torch has made while unified guards were not installed. The count only grows.

    An entry that torch dropped before anybody asked is not known.
    """

    def __init__(self) -> None:
        self._count = 0
        self._counted: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()

    def count(self, *, is_installed: bool) -> int:
        """How many there have been, whenever somebody asked while unified guards were installed."""
        with self._lock:
            for _, manager in _without() if is_installed else ():
                if manager not in self._counted:
                    self._counted.add(manager)
                    self._count += 1
            return self._count


left_before_install = _Left().count


def compiled_without() -> list[types.CodeType]:
    """For each entry that torch has made while unified guards were not installed, its code."""
    return [code for code, _ in _without()]


def _without() -> Iterator[tuple[types.CodeType, Any]]:
    """The code and the guard manager of each such entry."""
    for code in seen():
        managers = (entry.guard_manager for entry in _debug_get_cache_entry_list(code))
        yield from ((code, manager) for manager in managers if manager not in _made)


__all__ = [
    "Callee",
    "GraphBreak",
    "Made",
    "Uncompiled",
    "callee_of",
    "compile_id_of",
    "compiled_without",
    "entry_count",
    "graph_break_of",
    "is_of",
    "left_before_install",
    "name_of",
    "note",
    "of",
    "seen",
    "short_name_of",
    "uncompiled",
    "watch",
]
