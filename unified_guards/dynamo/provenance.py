"""Which guards exist only because the backend traced, and the line that caused each.

Dynamo builds guards after the backend has returned, and by then nothing says which of them the backend asked for. So
the state of the ShapeEnv is noted when Dynamo calls the backend and again when it returns (:func:`backend_call`).
When the shape guards are printed, they are printed for both states too, and what only the second has is the backend's.
Comparing texts is the one way that holds for every form in which a guard comes out: ``s0 > 4`` as a tightened range,
``Eq(s0, s1)`` as an equality of two inputs, ``Eq(s0, 4)`` as a size in a tensor's own guard. The :class:`ShapeGuard`
objects are gone by then. Entry points: :class:`Watch`, :func:`backend_call`, :func:`collecting`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import operator
import os
import re
import sys
import sysconfig
import threading
import traceback
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch._guards as torch_context
from torch._dynamo.output_graph import OutputGraph
from torch._dynamo.source import TensorPropertySource
from torch._guards import DuplicateInputs, StorageOverlap, TracingContext
from torch.fx.experimental import symbolic_shapes
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from unified_guards.dynamo import compat

Stack = traceback.StackSummary


@dataclasses.dataclass
class Origins:
    """What is known of the guards of one frame beyond what torch passes on; all texts are torch's.

    Attributes:
        from_backend: shape guards, relations of inputs included, that exist only because the backend traced.
        lines: where guards come from, by text; the last entry of a stack is the line that caused the guard. A range
            that the backend narrowed on both sides has two.
        sources: what shape guards read, by the text that stands for it: sources of torch.
        tensors: sizes that the backend made constant, by the tensor's name: what torch would print, and from where.
    """

    from_backend: set[str] = dataclasses.field(default_factory=set)
    lines: dict[str, list[Stack]] = dataclasses.field(default_factory=dict)
    sources: dict[str, Any] = dataclasses.field(default_factory=dict)
    tensors: dict[str, list[tuple[str, Stack | None]]] = dataclasses.field(default_factory=dict)


class _State(NamedTuple):
    """What of a ShapeEnv decides which guards are printed: its containers, or shallow copies of them."""

    guards: list[Any]
    replacements: dict[Any, Any]
    var_to_range: dict[Any, Any]
    divisible: set[Any]

    @staticmethod
    def of(shape_env: Any) -> _State:
        return _State._make(type(value)(value) for value in _State.held(shape_env))

    @staticmethod
    def held(shape_env: Any) -> _State:
        return _State._make(getattr(shape_env, name) for name in _State._fields)


class _Location(NamedTuple):
    stack: Stack
    from_backend: bool


class _Known:
    """What was noted of one ShapeEnv."""

    def __init__(self) -> None:
        self.calls: list[tuple[_State, _State]] = []  # before and after each call of a backend that changed something
        self.locations: dict[str, _Location] = {}  # by the text of torch's SLoc
        self.relations: dict[str, Stack] = {}


class _Call(NamedTuple):
    """A backend that is running."""

    shape_env: Any
    # Relations of inputs that were made meanwhile, each with the compiler's frames and the file whose code made it.
    made: list[tuple[Any, list[tuple[str, int, str]], str]]


class _Thread(threading.local):
    call: _Call | None = None
    origins: Origins | None = None


_thread = _Thread()
_known: weakref.WeakKeyDictionary[Any, _Known] = weakref.WeakKeyDictionary()


# -- lines ---------------------------------------------------------------------------------------------------------

_LIBRARIES = tuple(
    os.path.join(folder, "")
    for folder in (os.path.dirname(torch.__file__), os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
)
_STANDARD = os.path.join(sysconfig.get_path("stdlib"), "")
_INSTALLED = re.compile(r"[/\\](site|dist)-packages[/\\]")


@functools.lru_cache(maxsize=4096)
def _is_users(file: str) -> bool:
    """Whether a file belongs to the user's program or compiler: not torch, sympy, the standard library or this."""
    if not file or file.startswith(("<", *_LIBRARIES)) or f"{os.sep}sympy{os.sep}" in file:
        return False
    return not file.startswith(_STANDARD) or _INSTALLED.search(file) is not None


def _summary(frames: Iterable[tuple[str, int, str]]) -> Stack:
    return Stack.from_list([traceback.FrameSummary(*frame, lookup_line=False) for frame in frames])


def _compiler_frames() -> list[tuple[str, int, str]]:
    """The user's frames on the Python stack below the call of the backend, outermost first."""
    found = []
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code not in _BARRIERS:
        if _is_users(frame.f_code.co_filename):
            found.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        frame = frame.f_back
    return found[::-1]


_FRAME = re.compile(r'File "(.+?)", line (\d+), in (.+)')


def _model_frames(text: str | None) -> list[tuple[str, int, str]]:
    """The frames of a stack trace that Dynamo wrote on a node of the graph."""
    return [(file, int(line), name) for file, line, name in _FRAME.findall(text or "")]


def _both(model: list[tuple[str, int, str]], compiler: list[tuple[str, int, str]], file: str) -> Stack:
    """The model's frames and the compiler's in one stack, which ends with the line that caused the guard.

    Where the guard was made in a file of the compiler, it is a line of the compiler. Else torch's code made it, for the
    model, and it is a line of the model.
    """
    return _summary(model + compiler if _is_users(file) else compiler + model)


def _stack_of_backend(framework: Any) -> Stack:
    """Where a running backend is, given the frame that torch takes for the one that guards."""
    if not isinstance(framework, traceback.FrameSummary):
        framework = traceback.FrameSummary("", 0, "")
    node: dict[str, Any] = torch.fx.traceback.get_current_meta() or {}
    found = _both(_model_frames(node.get("stack_trace")), _compiler_frames(), framework.filename)
    return found or _summary([(framework.filename, framework.lineno or 0, framework.name)])


def _users_stack() -> Stack:
    """The stack that Dynamo is tracing, down to the last line of the user's."""
    stack = TracingContext.extract_stack()
    own = [at for at, frame in enumerate(stack) if _is_users(frame.filename)]
    return Stack.from_list(list(stack)[: own[-1] + 1]) if own else stack


def _changes_in_place(node: torch.fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return bool(schema.is_mutable)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    in_place = getattr(operator, name, None) is node.target and name.startswith("i") and hasattr(operator, name[1:])
    return in_place or name == "setitem" or (name.endswith("_") and not name.endswith("__"))


def _line_of_inputs(graph: torch.fx.Graph, names: set[str]) -> list[tuple[str, int, str]]:
    """The model's line that changes one of these inputs in place, else the first that uses one."""
    users = [
        user
        for node in graph.find_nodes(op="placeholder")
        if getattr(getattr(node, "_dynamo_source", None), "name", None) in names
        for user in node.users
        if user.meta.get("stack_trace")
    ]
    users.sort(key=lambda user: not _changes_in_place(user))
    return _model_frames(users[0].meta["stack_trace"]) if users else []


# -- while the backend runs ----------------------------------------------------------------------------------------


def _changed(before: _State, after: _State) -> bool:
    """Whether a guard may have been added. New symbols do not count: no input has them, so no guard is about them."""
    return (
        len(before.guards) != len(after.guards)
        or before.replacements != after.replacements
        or any(after.var_to_range.get(symbol) != range_ for symbol, range_ in before.var_to_range.items())
    )


def _relation(item: Any) -> tuple[str, set[str]]:
    """The text that torch makes of a relation of inputs, as in ``CheckFunctionManager.compile_check_fn``."""
    if isinstance(item, DuplicateInputs):
        names = [item.input_source_a.name, item.input_source_b.name]
        return " is ".join(names), set(names)
    sides = [[source.name for source in side] for side in (item.overlapping_sources, item.non_overlapping_sources)]
    text = f"check_overlapping(overlapping=[{', '.join(sides[0])}], non_overlapping=[{', '.join(sides[1])}])"
    return text, {*sides[0], *sides[1]}


def _note_relations(known: _Known, call: _Call, added: list[Any], graph: torch.fx.Graph) -> None:
    for item in added:
        if not isinstance(item, DuplicateInputs | StorageOverlap):
            continue  # torch will refuse it
        text, names = _relation(item)
        frames, file = next(((frames, file) for other, frames, file in call.made if other is item), ([], ""))
        known.relations[text] = _both(_line_of_inputs(graph, names), frames, file)


@contextlib.contextmanager
def backend_call(context: TracingContext | None, graph: torch.fx.Graph) -> Iterator[None]:
    """Around a call of a backend: notes what it adds to the guards of the frame that ``context`` belongs to.

    Does nothing inside another one for the same frame. An exception leaves nothing behind.
    """
    shape_env = getattr(getattr(context, "fake_mode", None), "shape_env", None)
    outer = _thread.call
    if context is None or shape_env is None or (outer is not None and outer.shape_env is shape_env):
        yield
        return
    relations = context.guards_context.aotautograd_guards
    before, count = _State.of(shape_env), len(relations)
    _thread.call = call = _Call(shape_env, [])
    try:
        yield
    except BaseException:
        _known.pop(shape_env, None)
        raise
    finally:
        _thread.call = outer
    after = _State.held(shape_env)
    known = _known.setdefault(shape_env, _Known())
    if _changed(before, after):
        known.calls.append((before, _State.of(shape_env)))
    if len(relations) > count:
        _note_relations(known, call, relations[count:], graph)


# -- when guards are printed ---------------------------------------------------------------------------------------

#: Switches of a ShapeEnv that are off while it is put into an earlier state: torch must not record or validate that.
_SILENT = ("_translation_validation_enabled", "check_recorded_events", "should_record_events")


@contextlib.contextmanager
def _as_it_was(shape_env: Any, state: _State) -> Iterator[None]:
    """The ShapeEnv in a state that it had. The state is copied, because simplifying writes to ``replacements``."""
    put_back = {name: getattr(shape_env, name) for name in (*_State._fields, *_SILENT, "dim_constraints")}
    earlier = {**dict.fromkeys(_SILENT, False), **_State._make(type(part)(part) for part in state)._asdict()}
    vars(shape_env).update(earlier)
    compat.shape_env_changed(shape_env)
    try:
        yield
    finally:
        vars(shape_env).update(put_back)
        compat.shape_env_changed(shape_env)


def _constants(shape_env: Any) -> dict[Any, Any]:
    """The symbols of inputs that have a value now."""
    found = {symbol: shape_env.replace(symbol) for symbol in shape_env.var_to_sources}
    return {symbol: value for symbol, value in found.items() if value.is_number}


def _compared(
    shape_env: Any, known: _Known, parts: Callable[[], Iterable[str]]
) -> Iterator[tuple[set[str], dict[Any, Any]]]:
    """For each call of a backend: the guards that it added, and the symbols that it gave a value."""
    for before, after in known.calls:
        with _as_it_was(shape_env, before):
            old, fixed = set(parts()), _constants(shape_env)
        with _as_it_was(shape_env, after):
            new, now = set(parts()), _constants(shape_env)
        yield new - old, {symbol: value for symbol, value in now.items() if symbol not in fixed}


def _note_constants(origins: Origins, shape_env: Any, known: _Known, values: dict[Any, Any]) -> None:
    for symbol, value in values.items():
        location = known.locations.get(str(shape_env.replacements_slocs.get(symbol)))
        for source in shape_env.var_to_sources[symbol]:
            if isinstance(source, TensorPropertySource):
                found = (f"{source.name} == {value}", location.stack if location else None)
                origins.tensors.setdefault(source.base.name, []).append(found)


def _located(comment: str, known: _Known, asked: bool) -> list[Stack]:
    """The lines that torch's comment names. A range may have two lines; of these, the one of the wanted maker.

    Torch's comment has shortened file names, and no code: it only serves to find what was noted under its text.
    """
    exact = known.locations.get(comment)
    if exact is not None:
        return [exact.stack]
    return [
        location.stack
        for text, location in known.locations.items()
        if location.from_backend is asked and (comment.startswith(f"{text} and ") or comment.endswith(f" and {text}"))
    ]


def _line_of_guard(shape_env: Any, known: _Known, part: str) -> list[Stack]:
    """Where the backend guarded on the inputs that ``part`` is about: for an equality torch may name no line."""
    for before, after in known.calls:
        for item in after.guards[len(before.guards) :]:
            location = known.locations.get(str(item.sloc))
            sources = [shape_env.var_to_sources.get(symbol, ()) for symbol in item.expr.free_symbols]
            if location is not None and all(any(source.name in part for source in either) for either in sources):
                return [location.stack]
    return []


def _note_printed(origins: Origins, shape_env: Any, known: _Known, printed: dict[str, Any]) -> None:
    """Notes the guards of the backend, and the lines of all, under the texts that the records have."""
    plain, verbose = printed.get("python"), printed.get("verbose_python")
    if plain is None or verbose is None:
        return
    for part, verbose_part in zip(plain.exprs, verbose.exprs, strict=False):
        asked = part in origins.from_backend
        if asked:
            origins.from_backend.add(verbose_part)
        lines = _located(verbose_part.partition("  # ")[2], known, asked)
        if asked and not lines:
            lines = _line_of_guard(shape_env, known, part)
        if lines:
            origins.lines[part] = origins.lines[verbose_part] = lines


def _noting(source_ref: Callable[[Any], str], sources: dict[str, Any]) -> Callable[[Any], str]:
    """``source_ref``, which gives a source its text, wrapped so that it also notes each source by its text."""

    def noting(source: Any) -> str:
        text = source_ref(source)
        sources[text] = source
        return text

    return noting


def _printing(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps ``ShapeEnv.produce_guards_verbose``: it also prints the guards before and after the backend's call."""

    def produce_guards_verbose(self: Any, *args: Any, **kwargs: Any) -> Any:
        origins, known = _thread.origins, _known.get(self)
        if origins is not None and "source_ref" in kwargs:
            kwargs["source_ref"] = _noting(kwargs["source_ref"], origins.sources)
        # With equalities (export) printing adds guards of its own; such a frame is never looked up.
        if origins is None or known is None or kwargs.get("equalities_inputs") is not None:
            return original(self, *args, **kwargs)
        plain = {**kwargs, "langs": ("python",)}
        try:
            for asked, values in _compared(self, known, lambda: original(self, *args, **plain)[0].exprs):
                origins.from_backend |= asked
                _note_constants(origins, self, known, values)
        except Exception:
            origins.from_backend.clear()  # a violated constraint: the call below says so
        printed = original(self, *args, **kwargs)
        _note_printed(origins, self, known, dict(zip(kwargs.get("langs", ()), printed, strict=False)))
        return printed

    produce_guards_verbose.__doc__ = original.__doc__
    return produce_guards_verbose


@contextlib.contextmanager
def collecting(output_graph: Any) -> Iterator[Origins]:
    """Entered while the guards of a frame are built: gives what is known of them, filled by the time they are built."""
    outer, origins = _thread.origins, Origins()
    shape_env = getattr(output_graph, "shape_env", None)
    known = _known.get(shape_env) if shape_env is not None else None
    if known is not None:
        origins.from_backend |= known.relations.keys()
        origins.lines.update({text: [stack] for text, stack in known.relations.items() if stack})
    _thread.origins = origins
    try:
        yield origins
    finally:
        _thread.origins = outer
        if known is not None:
            _known.pop(shape_env, None)


# -- what is changed in torch --------------------------------------------------------------------------------------


def _calling(original: Callable[..., Any]) -> Callable[..., Any]:
    def call_user_compiler(self: Any, gm: Any, *args: Any, **kwargs: Any) -> Any:
        with backend_call(self.tracing_context, gm.graph):
            return original(self, gm, *args, **kwargs)

    is_barrier(call_user_compiler)
    call_user_compiler.__doc__ = original.__doc__
    return call_user_compiler


def _locating(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps ``ShapeEnv._get_stack_summary``, which torch calls once for each guard and symbol, to note whole stacks."""

    def _get_stack_summary(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        sloc = result[0]
        call = _thread.call
        from_backend = call is not None and call.shape_env is self
        stack = _stack_of_backend(sloc.framework_loc) if from_backend else _users_stack()
        known = _known.setdefault(self, _Known())
        known.locations.setdefault(str(sloc), _Location(stack, from_backend))
        return result

    # Torch names the first frame outside of its own files: that must not become this one.
    _get_stack_summary.__code__ = _get_stack_summary.__code__.replace(co_filename=symbolic_shapes.__file__)
    return _get_stack_summary


def _relating(original: Callable[..., None]) -> Callable[..., None]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if _thread.call is not None:
            _thread.call.made.append((self, _compiler_frames(), sys._getframe(1).f_code.co_filename))

    return __init__


#: Code of the functions that call a backend. Frames further out on the stack called the compiled function.
_BARRIERS: set[types.CodeType] = set()


def is_barrier(function: Callable[..., Any]) -> None:
    """Says that ``function`` calls backends; the user's frames below it on the stack are the compiler's."""
    _BARRIERS.add(function.__code__)


class Watch:
    """Puts the wrappers above into torch. ``put`` is ``setattr`` that remembers what was there."""

    def __init__(self, put: Callable[[Any, str, Any], None]) -> None:
        put(OutputGraph, "call_user_compiler", _calling(vars(OutputGraph)["call_user_compiler"]))
        put(ShapeEnv, "_get_stack_summary", _locating(vars(ShapeEnv)["_get_stack_summary"]))
        put(ShapeEnv, "produce_guards_verbose", _printing(vars(ShapeEnv)["produce_guards_verbose"]))
        for relation in (torch_context.DuplicateInputs, torch_context.StorageOverlap):
            put(relation, "__init__", _relating(vars(relation)["__init__"]))
