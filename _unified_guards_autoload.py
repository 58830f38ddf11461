"""``UNIFIED_GUARDS=1``: torch calls :func:`autoload` at the end of every ``import torch``.

Unset, it reads one environment variable. Set, it waits for two imports, because neither may happen inside of
``import torch``: when ``torch._dynamo`` has been imported, it imports ``unified_guards``; when
``unified_guards.dynamo.install`` has been imported, whoever asked for it, it installs. The second is a rule of its own
because a program may import ``unified_guards`` first, which imports ``torch._dynamo`` half-way through.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


def autoload() -> None:
    """Installs unified guards once Dynamo has been imported, if ``UNIFIED_GUARDS`` says so."""
    if os.environ.get("UNIFIED_GUARDS", "").lower() in ("", "0", "off", "false", "no"):
        return
    try:
        _watch()
    except Exception as error:
        _warn(error)


def _watch() -> None:
    import sys

    for name, act in (("torch._dynamo", _import), ("unified_guards.dynamo.install", _install)):
        if name in sys.modules:
            act(sys.modules[name])
        else:
            sys.meta_path.insert(0, _AfterImport(name, act))


def _import(_dynamo: ModuleType) -> None:
    import unified_guards  # noqa: F401


def _install(module: Any) -> None:
    module.install()


def _warn(error: Exception) -> None:
    import sys
    import warnings

    message = (
        f"UNIFIED_GUARDS is set, but unified_guards could not be installed: {error} "
        "Torch's own guards are used, so results are not affected."
    )
    try:
        warnings.warn(message, stacklevel=2)
    except Warning:  # warnings are errors here, and torch must be imported all the same
        print(message, file=sys.stderr)


class _AfterImport:
    """A finder that finds nothing itself: it has the loader of one module call ``act`` when the module is ready."""

    def __init__(self, name: str, act: Callable[[Any], None]) -> None:
        self.name = name
        self.act = act

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        import sys

        if name != self.name or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        for finder in list(sys.meta_path):
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                try:
                    self._hook(spec.loader)
                except Exception as error:
                    _warn(error)
                return spec
        return None

    def _hook(self, loader: Any) -> None:
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            del loader.exec_module  # the loader is as it was from here on
            execute(module)
            try:
                self.act(module)
            except Exception as error:
                _warn(error)

        loader.exec_module = exec_module
