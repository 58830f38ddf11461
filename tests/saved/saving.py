"""Compiles ahead of time, saves and loads, by torch's own calls."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.package import CompilePackage, DiskDynamoStore

import unified_guards


def compiled(function: Callable[..., Any], *args: Any, dynamic: bool = False, **kwargs: Any) -> Any:
    """What ``aot_compile`` returns for these arguments."""
    with torch._dynamo.config.patch(enable_aot_compile=True):
        made = torch.compile(function, fullgraph=True, backend="eager", dynamic=dynamic)
        return made.aot_compile((args, kwargs))


def saved(made: Any) -> bytes:
    return bytes(type(made).serialize(made).serialized_data)


def loaded(data: bytes, function: Callable[..., Any]) -> Any:
    """What is loaded, in the globals of the function."""
    return torch.compiler.load_compiled_function(io.BytesIO(data), f_globals=dict(function.__globals__))


def loaded_again(function: Callable[..., Any], *args: Any, dynamic: bool = False, **kwargs: Any) -> Any:
    """Compiled, saved and loaded; only the last with unified guards."""
    data = saved(compiled(function, *args, dynamic=dynamic, **kwargs))
    torch._dynamo.reset()
    with unified_guards.installed():
        return loaded(data, function)


def manager_of(made: Any) -> Any:
    return made._artifacts.guard_manager


def decisions(made: Any, *args: Any, **kwargs: Any) -> tuple[bool, bool]:
    """What unified guards say of a call, and what torch's tree beside them says."""
    frame = made.prepare_f_locals(*args, **kwargs)
    return made.guard_check(*args, **kwargs), bool(manager_of(made).torch_root.check(frame))


@contextlib.contextmanager
def callbacks() -> Iterator[list[int]]:
    """How many Python functions the checks inside of the block have called: the one item, afterwards."""
    found: list[int] = []
    before = unified_guards.stats().python_callbacks
    yield found
    found.append(unified_guards.stats().python_callbacks - before)


def package_of(function: Callable[..., Any], folder: Path, *calls: tuple[Any, ...]) -> DiskDynamoStore:
    """A store with a package of the function, compiled for these calls. Torch drops guards that it cannot save."""
    store, package = DiskDynamoStore(str(folder)), CompilePackage(function)
    made = torch._dynamo.optimize("eager", package=package)(function)
    with torch._dynamo.config.patch(caching_precompile=True):
        for args in calls:
            made(*args)
    for backend_id, backend in package.cached_backends.items():
        store.record_eager_backend(backend_id, backend)
    store.save_package(package, "package")
    torch._dynamo.reset()
    return store


def installed_package(store: DiskDynamoStore, function: Callable[..., Any]) -> Any:
    """The compiled function, with what the package has installed."""
    package, backends = store.load_package(function, "package")
    made = torch._dynamo.optimize("eager", package=package)(function)
    package.install(backends)
    return made
