"""The public entry points: functorch's, with guards. Entry points: :func:`aot_function`, :func:`aot_module`,
:func:`aot_module_simplified`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._functorch import aot_autograd as torch_aot
from torch._functorch.partitioners import default_partition
from torch._guards import TracingContext

from unified_guards.aot.cache import UnifiedCache, make_policy
from unified_guards.aot.compilers import SIMPLIFIED, Compilers


def _check_callable(name: str, value: object) -> None:
    if not callable(value):
        raise TypeError(
            f"{name} must be a function of a graph module and its example inputs that returns a callable, such as "
            f"functorch.compile.nop; got {type(value).__name__}"
        )


def aot_function(
    fn: Callable[..., Any],
    fw_compiler: Callable[..., Any],
    bw_compiler: Callable[..., Any] | None = None,
    partition_fn: Callable[..., Any] = default_partition,
    decompositions: dict[Any, Callable[..., Any]] | None = None,
    num_params_buffers: int = 0,
    keep_inference_input_mutations: bool = False,
    inference_compiler: Callable[..., Any] | None = None,
    *,
    dynamic: bool | None = False,
    enable_log: bool = True,
    disable_functionalization: bool = False,
    _disable_torch_fn_metadata_mode: bool = False,
    recompile_limit: int | None = None,
    on_recompile_limit: str = "eager",
    max_entries: int | None = None,
    **compiler_options: Any,
) -> UnifiedCache:
    """``functorch.compile.aot_function`` whose compiled code is only used where it is right.

    Every call checks, natively, the guards of the versions compiled so far; when none fits, one more is compiled.

    A version is captured whole by Dynamo, as ``torch.compile(fullgraph=True)`` captures, without running the function,
    and compiled by AOTAutograd. Guarded is what Dynamo has read, what strict mode adds, and what the compilers have
    found out; see docs/guards.md. Versions are the wrapper's own: limits of Dynamo, other wrappers of the function and
    ``torch._dynamo.reset()`` do not count. What Dynamo does not capture whole (a branch on the values of a tensor, an
    iterator), and a function that writes to Python objects that it finds, runs eagerly, counted in
    ``cache_info().eager``. So do calls like it from then on, until ``cache_clear()``, but for a few that are tried
    again: the 16th and the 256th, and the first where the function has written to objects, as it may on its first call
    only.

    The callable binds as a method where it is found in a class. ``copy.deepcopy`` and pickle give one with a cache of
    its own.

    Args:
        fn: a function of tensors, Python values and pytrees of them, by position and by keyword.
        fw_compiler: as torch's: a function of a graph module and its example inputs that returns a callable.
        bw_compiler: as torch's, of the backward graph; by default ``fw_compiler``.
        partition_fn: as torch's.
        decompositions: as torch's.
        num_params_buffers: as torch's.
        keep_inference_input_mutations: as torch's.
        inference_compiler: as torch's.
        enable_log: taken as torch's, and without effect.
        disable_functionalization: as torch's.
        dynamic: True makes all sizes and integers symbolic, False none, None those that changed between calls.
        recompile_limit: how many versions are compiled; by default ``torch._dynamo.config.recompile_limit``.
        on_recompile_limit: what calls that need one more do: ``"eager"`` or ``"error"``.
        max_entries: how many versions are kept, the least recently used leaving first; by default all.
        compiler_options: handed to every compiler as keyword arguments.

    Returns:
        A callable with ``cache_info()``, ``cache_clear()``, ``recompiles()`` and ``explain()``.

    Raises:
        TypeError: a compiler is not callable.
        ValueError: a limit or policy is not one.
        RecompileLimitError: on a call, with ``on_recompile_limit="error"``.
    """
    _check_callable("fw_compiler", fw_compiler)
    compilers = Compilers(
        fw_compiler,
        bw_compiler,
        partition_fn,
        decompositions,
        num_params_buffers,
        keep_inference_input_mutations,
        inference_compiler,
        compiler_options,
        {"disable_functionalization": True} if disable_functionalization else {},
    )
    policy = make_policy(recompile_limit, on_recompile_limit, max_entries)
    return UnifiedCache(fn, compilers, dynamic=dynamic, policy=policy)


class AOTModule(torch.nn.Module):
    """What :func:`aot_module` returns: ``orig_module`` behind a :class:`UnifiedCache`."""

    def __init__(self, module: torch.nn.Module, compiled: UnifiedCache) -> None:
        super().__init__()
        self.orig_module = module
        self.compiled = compiled

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the version that fits."""
        return self.compiled(*args, **kwargs)

    def cache_info(self) -> Any:
        """As :meth:`UnifiedCache.cache_info`."""
        return self.compiled.cache_info()

    def cache_clear(self) -> None:
        """As :meth:`UnifiedCache.cache_clear`."""
        self.compiled.cache_clear()

    def explain(self) -> Any:
        """As :meth:`UnifiedCache.explain`."""
        return self.compiled.explain()


def aot_module(mod: torch.nn.Module, *args: Any, **kwargs: Any) -> AOTModule:
    """``functorch.compile.aot_module`` with guards. Parameters and buffers are read on every call.

    What is guarded beside the arguments, and what is run eagerly, is said of :func:`aot_function`.

    Args:
        mod: a module.
        args: as :func:`aot_function` takes them after the function.
        kwargs: the same.

    Returns:
        A module. Its ``orig_module`` is ``mod``; its ``compiled`` is what :func:`aot_function` returns.

    Raises:
        TypeError: ``mod`` is not a module, or a compiler is not callable.
        AssertionError: a parameter or buffer is fake, as torch has it.
    """
    if not isinstance(mod, torch.nn.Module):
        raise TypeError(f"aot_module takes a torch.nn.Module; got {type(mod).__name__}. For functions: aot_function")
    torch._dynamo.utils.assert_no_fake_params_or_buffers(mod)
    return AOTModule(mod, aot_function(mod, *args, **kwargs))


#: What make_policy() takes, with its defaults.
_POLICY = {"recompile_limit": None, "on_recompile_limit": "eager", "max_entries": None}


def aot_module_simplified(
    mod: torch.nn.Module,
    args: Sequence[Any],
    fw_compiler: Callable[..., Any],
    bw_compiler: Callable[..., Any] | None = None,
    partition_fn: Callable[..., Any] = default_partition,
    decompositions: dict[Any, Callable[..., Any]] | None = None,
    keep_inference_input_mutations: bool = False,
    inference_compiler: Callable[..., Any] | None = None,
    *,
    dynamic: bool | None = False,
    **options: Any,
) -> Callable[..., Any]:
    """``torch._functorch.aot_autograd.aot_module_simplified`` with guards: compiles for ``args`` at once.

    Called by a Dynamo backend, it is torch's: what its tracing guards on becomes part of the frame's guards (see
    :func:`unified_guards.install`). Called on its own, it returns a callable that checks its inputs, as
    :func:`aot_function` does.

    Args:
        mod: a module whose inputs and outputs are flat.
        args: its example inputs.
        fw_compiler: as :func:`aot_function`'s.
        bw_compiler: as :func:`aot_function`'s.
        partition_fn: as torch's.
        decompositions: as torch's.
        keep_inference_input_mutations: as torch's.
        inference_compiler: as torch's.
        dynamic: as :func:`aot_function`'s; on its own only.
        options: what else torch's takes in this version goes to torch's; the rest to every compiler. On its own also
            ``recompile_limit``, ``on_recompile_limit`` and ``max_entries``, as :func:`aot_function`'s.

    Returns:
        Inside of a backend what torch's returns; on its own what :func:`aot_function` returns.

    Raises:
        TypeError: a compiler is not callable.
    """
    _check_callable("fw_compiler", fw_compiler)
    own = {name: value for name, value in options.items() if name in SIMPLIFIED}
    rest = {name: value for name, value in options.items() if name not in SIMPLIFIED}
    if TracingContext.try_get() is not None:
        compilers = Compilers(fw_compiler, bw_compiler, inference_compiler=inference_compiler, options=rest)
        return torch_aot.aot_module_simplified(  # type: ignore[no-any-return]
            mod,
            args,
            compilers.with_options(fw_compiler),
            compilers.with_options(bw_compiler),
            partition_fn,
            decompositions,
            keep_inference_input_mutations,
            compilers.with_options(inference_compiler),
            **own,
        )
    policy = make_policy(*(rest.pop(name, default) for name, default in _POLICY.items()))
    compilers = Compilers(
        fw_compiler,
        bw_compiler,
        partition_fn,
        decompositions,
        0,
        keep_inference_input_mutations,
        inference_compiler,
        rest,
        own,
    )
    forward = UnifiedCache(mod, compilers, dynamic=dynamic, policy=policy)
    forward.compile(*args)
    for name in ("zero_grad", "named_parameters", "named_buffers"):
        setattr(forward, name, getattr(mod, name))
    return forward
