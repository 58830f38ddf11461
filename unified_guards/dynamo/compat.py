"""Everything that differs between the supported versions of torch, and nothing else."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import inspect
import re
import types
from collections.abc import Callable
from typing import Any, NoReturn, cast

import torch

from unified_guards._environment import Problem

#: First torch that is supported, and first that is not (major, minor).
FIRST_TORCH, AFTER_LAST_TORCH = (2, 11), (2, 16)


def version_of(text: str) -> tuple[int, int]:
    """(major, minor) of a torch version such as ``"2.13.0+cpu"``."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


TORCH = version_of(torch.__version__)


#: The methods of a VariableTracker with which Dynamo looks an attribute up; the second from torch 2.14 on.
ATTRIBUTE_LOOKUPS = ("var_getattr", "tp_getattro_impl")


def wrong_torch() -> Problem | None:
    """What to tell a user whose torch is not supported; None when it is."""
    if FIRST_TORCH <= TORCH < AFTER_LAST_TORCH:
        return None
    return Problem(
        f"unified_guards supports torch 2.11 to 2.15 and found {torch.__version__}",
        "Run: pip install 'torch==2.13.0' && pip install --no-build-isolation --force-reinstall unified_guards",
    )


def built_for_another_torch(built_for: str) -> Problem | None:
    """What to tell a user whose extension was built for another torch; None when it fits.

    Releases of one minor version fit one another, for CPU or CUDA; what is no release fits only itself.
    """
    releases = _is_release(built_for) and _is_release(torch.__version__)
    if built_for == torch.__version__ or (releases and version_of(built_for) == TORCH):
        return None
    return Problem(
        f"the extension of unified_guards was built for torch {built_for} and this is torch {torch.__version__}",
        "Build it again: pip install --no-build-isolation --force-reinstall --no-deps unified_guards "
        "(in a checkout: make build)",
    )


def _is_release(text: str) -> bool:
    return re.fullmatch(r"\d+\.\d+\.\d+(\+(cpu|cu\d+|rocm[\d.]+|xpu))?", text) is not None


def nan_guard_value(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The value that a NaN guard compares bit by bit: () where any NaN will do (before 2.15)."""
    return args[:1] if len(args) == 3 else ()


def tensor_guard(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``add_tensor_match_guard`` by name, whichever way they came."""
    names = ("value", "sizes", "strides", "tensor_name", "verbose_code_parts", "user_stack", "pytype", "dispatch_keys")
    given = dict(zip(names, args, strict=False))
    given.update(kwargs)
    return given


#: The keys that a dispatch state includes and excludes, and whether guards made in it see those of Python.
DispatchState = tuple[int, int, bool]

#: How a guard manager is given the state in which its guards were made, when they are loaded; torch before 2.14 makes
#: them in the state of the thread that loads.
SETS_STATE = "set_local_state"


def dispatch_state(saved: Any) -> DispatchState | None:
    """What is in a state that torch saved with guards; None where torch keeps it in another form than is known."""
    if not _knows_dispatch_states():
        return None
    included, excluded, overriding, _, hides_python = saved.__getstate__()
    return None if overriding else (included, excluded, not hides_python)


@functools.cache
def _knows_dispatch_states() -> bool:
    """Whether that of this thread, as torch would save it, says what this thread includes and excludes."""
    from torch.utils import _python_dispatch as modes

    included, excluded = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    hides_python = not modes.is_in_any_mode_without_ignore_compile_internals()
    expected = (included.raw_repr(), excluded.raw_repr(), 0, torch.is_grad_enabled(), hides_python)
    state: Any = vars(torch._C._dynamo.guards)["LocalState"]()
    return bool(state.__getstate__() == expected)


class _LyingSet(set):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 7


def _accepts(method: str, value: object, shown: object) -> bool:
    """Whether a guard of torch made by ``method`` for ``value`` accepts ``shown``."""
    root = torch._C._dynamo.guards.RootGuardManager()
    getattr(root, method)(value, ["probe"], None)
    return bool(root.check(shown))


@functools.cache
def compares_float_bits() -> bool:
    """Whether equality guards tell 0.0 from -0.0 (from 2.15)."""
    return not _accepts("add_equals_match_guard", 0.0, -0.0)


@functools.cache
def measures_sets() -> bool:
    """Whether length guards measure subclasses of set without calling their ``__len__`` (from 2.15)."""
    return not _accepts("add_length_check_guard", 7, _LyingSet())


@functools.cache
def indicator_takes_numbers() -> bool:
    """Whether shape guards on density can be evaluated: torch 2.11 prints numbers and binds a function of two lists."""
    from torch.fx.experimental.symbolic_shapes import SYMPY_INTERP

    try:
        return bool(SYMPY_INTERP["IsNonOverlappingAndDenseIndicator"](2, 1))
    except TypeError:
        return False


@functools.cache
def inliner() -> types.CodeType:
    """The one code of all the functions that torch wraps around what Dynamo would not look at by itself."""
    from torch._dynamo.external_utils import wrap_inline

    return next(each for each in wrap_inline.__code__.co_consts if isinstance(each, types.CodeType))


def is_compile_wrapper(code: types.CodeType) -> bool:
    """Whether this is the code, with a gate or without, of what ``torch.compile`` returns for a function."""
    from torch._dynamo import eval_frame

    return code.co_name == "compile_wrapper" and code.co_filename == eval_frame.__file__


def maker_of_wrappers() -> type:
    """The class whose ``__call__`` makes what ``torch.compile`` returns (from 2.13 its context has one of its own)."""
    from torch._dynamo.eval_frame import OptimizeContext

    kinds: tuple[type, ...] = OptimizeContext.__mro__
    return next(kind for kind in kinds if "__call__" in vars(kind))


def region_of(context: Any) -> int:
    """The region of recompilation in which this context compiles; -1, as always before 2.13, where it has none."""
    return int(getattr(context, "_isolate_recompiles_id", -1))


def recompile_limits(wrapper: Any) -> tuple[int, int]:
    """How many entries torch makes of one code at most: as this wrapper compiles it, and in all."""
    from torch._dynamo import config

    cells = zip(wrapper.__code__.co_freevars, wrapper.__closure__ or (), strict=True) if wrapper is not None else ()
    callback = next((cell.cell_contents for name, cell in cells if name == "callback"), None)
    convert = getattr(callback, "_torchdynamo_orig_backend", None)
    own = getattr(convert, "_recompile_limit", None)  # from 2.13: torch.compile(recompile_limit=…)
    return own or config.recompile_limit, config.accumulated_recompile_limit


def is_loaded(arguments: dict[str, Any]) -> bool:
    """Whether a CheckFunctionManager is being made from saved guards."""
    return arguments.get("shape_code_parts") is not None or arguments.get("runtime_global_scope") is not None


def is_ahead_of_time(arguments: dict[str, Any]) -> bool:
    """Whether a CheckFunctionManager is being made for ``aot_compile``: only that asks for errors in saving."""
    return bool(arguments.get("strict_error"))


def code_with_extra_state() -> types.CodeType:
    """A new code object with torch's extra state on it, as code has that torch compiles."""
    from torch._dynamo.eval_frame import skip_code

    code = compile("", "<unified_guards>", "exec")
    skip_code(code)
    return code


#: What torch does around compiled code, by digests of its source. Whatever is not in these sets runs as torch wrote it:
#: dynamo/dispatch.py and graphs.py leave out what was read here, and nothing else.
_KNOWN_WRAPPERS = frozenset({"2.13:366d1bcf9e17272c", "2.14:6445571b53abc0d5", "2.15:6445571b53abc0d5"})

_KNOWN_GRAPH_CALLS = frozenset({"2.13:f6f583a9898d14ed", "2.14:dcde85211d46d3d7", "2.15:dcde85211d46d3d7"})
_KNOWN_AOT_FORWARDS = frozenset({"2.13:8511280d270389d8", "2.14:8511280d270389d8", "2.15:8511280d270389d8"})
_KNOWN_RUNTIME_WRAPPERS = frozenset({"2.13:c8245e89c0186892", "2.14:c8245e89c0186892", "2.15:c8245e89c0186892"})
_KNOWN_CALLBACKS = frozenset({"2.13:20392b45983115b0", "2.14:a135bd66e864fe06", "2.15:a135bd66e864fe06"})
_KNOWN_MODULE_CALLS = frozenset({"2.13:0e07958b95465f0b", "2.14:0e07958b95465f0b", "2.15:0e07958b95465f0b"})


def is_known_wrapper(code: types.CodeType) -> bool:
    """Whether this is the code of the wrapper that ``torch.compile`` puts around a function, as it was read here."""
    return digest_of(code) in _KNOWN_WRAPPERS


def is_known_module_call(code: types.CodeType) -> bool:
    """Whether this is how the modules that ``torch.compile`` returns are called, as it was read here."""
    return digest_of(code) in _KNOWN_MODULE_CALLS


def is_known_callback(code: types.CodeType) -> bool:
    """Whether this is what Dynamo's frame hook calls, under a lock of torch's, as it was read here."""
    return digest_of(code) in _KNOWN_CALLBACKS


def is_known_graph_call(code: types.CodeType) -> bool:
    """Whether this is how a graph of Inductor's is called, as it was read here."""
    return digest_of(code) in _KNOWN_GRAPH_CALLS


def is_known_aot_forward(code: types.CodeType) -> bool:
    """Whether this is the function that AOTAutograd gives to Dynamo, as it was read here."""
    return digest_of(code) in _KNOWN_AOT_FORWARDS


def is_known_runtime_wrapper(code: types.CodeType) -> bool:
    """Whether this is AOTAutograd's outermost wrapper around what was compiled, as it was read here."""
    return digest_of(code) in _KNOWN_RUNTIME_WRAPPERS


def digest_of(code: types.CodeType) -> str:
    """Of the source, comments left out, with torch's version; "" where there is no source."""
    try:
        lines, _ = inspect.getsourcelines(code)
    except OSError:
        return ""
    text = "\n".join(stripped for line in lines if (stripped := line.split("#", 1)[0].strip()))
    return f"{TORCH[0]}.{TORCH[1]}:{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def flags_of_calls() -> list[tuple[str, Any, str, Any]]:
    """What the wrapper looks at: (why the way is long, where it stands, its name, its value when nothing goes on).

    It stands in the dict of a module or in a ``threading.local``. A name that is not there would be a flag that never
    says anything, so torch is asked which it has, and not for its version.

    Raises:
        KeyError: torch keeps one of them elsewhere.
    """
    from torch._dynamo import eval_frame, utils
    from torch._guards import _TLS
    from torch.fx import _symbolic_trace as fx

    flags: list[tuple[str, Any, str, Any]] = [
        ("kTracing", _TLS, "tracing_context", None),
        ("kExporting", vars(torch.compiler), "_is_exporting_flag", False),
        ("kBreaks", vars(utils), "_error_on_graph_break", False),
        ("kStance", vars(eval_frame), "_stance", eval_frame.DynamoStance()),
    ]
    names = vars(fx)
    if "_is_fx_tracing_flag" in names:  # before 2.14
        flags.append(("kFxTracing", names, "_is_fx_tracing_flag", False))
    else:
        flags.append(("kFxTracing", names["_is_fx_tracing_tls"], "flag", False))
    nested = vars(eval_frame).get("_force_eager_nested_compile")  # from 2.14
    return flags if nested is None else [*flags, ("kTracing", nested, "depth", 0)]


def value_of_source(output_graph: Any, source: Any) -> Any:
    """What a source leads to in the frame that is being traced (from 2.13 ``OutputGraph.resolve_source_value``).

    Raises:
        Exception: whatever reading it raises.
    """
    root = output_graph.root_tx
    return source.get_value({"G": root.f_globals, "L": root.f_locals}, {}, {})


#: The variable of torch's comparison of DTensor specs that holds what it compares with.
EXPECTED_SPEC = "expected" if TORCH >= (2, 13) else "value"


def keeps_grad_mode() -> bool:
    """Whether what AOTAutograd makes leaves the grad mode behind that the function does.

    Seen of 2.11 that it does not where an input needs gradients, and of 2.13 that it does.
    """
    return TORCH >= (2, 13)


def has_new_contents(variable: Any, effects: Any) -> bool:
    """Whether Dynamo has noted that what an object holds has changed, beside its attributes."""
    asks = getattr(variable, "is_base_vt_modified", None)  # before 2.15
    return bool(asks(effects)) if asks is not None else bool(getattr(variable.mutation_type, "is_modified", False))


def shape_env_changed(shape_env: Any) -> None:
    """Makes a ShapeEnv forget what it computed from the state that it had before (from 2.13 there are two counts)."""
    for counter in ("_version_counter", "_replacements_version_counter"):
        if hasattr(shape_env, counter):
            setattr(shape_env, counter, getattr(shape_env, counter) + 1)
    shape_env._prev_cache_key = shape_env._get_key()


def slot_queries() -> list[tuple[Any, str]]:
    """The functions that Dynamo asks which operations a class has (from 2.13; more from 2.15 on): module and name."""
    found = []
    for module, name in (("object_protocol", "_get_cached_slots"), ("base", "_tp_type"), ("base", "_compute_slotdefs")):
        with contextlib.suppress(ImportError):
            found.append((importlib.import_module(f"torch._dynamo.variables.{module}"), name))
    return found


def attribute_queries() -> list[tuple[Any, str]]:
    """The function that Dynamo asks for an attribute, in each module that has it by name (from 2.14): module and name.

    It finds what is a slot of the object's type, such as the annotations of a function, before a tracker is asked.
    """
    modules = ("symbolic_convert", "variables.builtin", "variables.object_protocol")
    found = []
    for module in modules:
        with contextlib.suppress(ImportError):
            found.append((importlib.import_module(f"torch._dynamo.{module}"), "generic_getattr"))
    return found


def autograd_is_captured() -> contextlib.AbstractContextManager[Any]:
    """While it is entered, Dynamo captures calls of autograd, where it can."""
    from torch._dynamo import config

    known = hasattr(config, "trace_autograd_ops")
    return config.patch(trace_autograd_ops=True) if known else contextlib.nullcontext()


#: A constant in the text of torch 2.11: ``ConstantVariable(str: 'text')``.
_CONSTANT = re.compile(r"""ConstantVariable\(\w+: ('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^'"()]+)\)""")


def raised_by_function(error: BaseException) -> tuple[str, str] | None:
    """The name and the arguments, as text, of an exception that the function raises while Dynamo runs it.

    Torch 2.11 says the arguments only where the whole function cannot be captured, and as trackers.
    """
    if TORCH >= (2, 13):
        found = re.match(r"raised exception (\w+)\((.*)\)$", str(error))
    else:
        found = re.search(r"^ *Developer debug context: raised exception (\w+)\(\[(.*)\]\)$", str(error), re.MULTILINE)
    return (found[1], _CONSTANT.sub(r"\1", found[2])) if found else None


def end_graph(what: str, where: str) -> NoReturn:
    """Has Dynamo end the graph here, or raise where the whole function must be one graph."""
    from torch._dynamo.exc import unimplemented

    end: Callable[..., NoReturn] = unimplemented
    end(gb_type=what, context=where, explanation="No guard can hold on to it.", hints=[])


def caches_apart(what: str) -> contextlib.AbstractContextManager[Any]:
    """While it is entered, torch's caches find nothing that was compiled for another ``what``.

    It sets a tag that is part of every key of these caches, and that a user may set, too. All versions have the tag so
    far; without it AOTAutograd's cache is switched off.
    """
    config = torch.compiler.config
    if hasattr(config, "cache_key_tag"):
        digest = hashlib.sha256(what.encode()).hexdigest()[:32]
        tag = f"{config.cache_key_tag}:unified_guards:{digest}"
        return cast("contextlib.AbstractContextManager[Any]", config.patch(cache_key_tag=tag))
    from torch._functorch import config as functorch

    return cast("contextlib.AbstractContextManager[Any]", functorch.patch(enable_autograd_cache=False))


def transformed(code: types.CodeType, change: Callable[[list[Any], dict[str, Any]], None]) -> types.CodeType:
    """As torch's ``transform_code_object``, without a trace: that remembers the codes that it took apart and what they
    consist of, and what Dynamo has made for a code lives as long as the code does.

    Raises:
        AssertionError, KeyError, TypeError, ValueError: torch cannot assemble it.
    """
    from torch._dynamo import bytecode_transformation as torchs

    take_apart = getattr(getattr(torchs, "_cached_cleaned_instructions", None), "__wrapped__", None)
    if take_apart is None:
        return cast(types.CodeType, torchs.transform_code_object(code.replace(), change)[0])
    keys = torchs.get_code_keys()
    options = {key: getattr(code, key) for key in keys}
    instructions = list(take_apart(code))
    vars(torchs)["propagate_line_nums"](instructions)
    change(instructions, options)
    return cast(types.CodeType, torchs.clean_and_assemble_instructions(instructions, keys, options)[1])
