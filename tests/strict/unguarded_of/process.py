"""The environment, modules that are imported, and switches of Python and torch."""

from __future__ import annotations

import os
import sys
import types
from typing import Any

import torch

from ..unguarded import Unguarded, reads, unguarded

NAME = "A_TEST_OF_STRICT"


def _set(held: Any) -> None:
    os.environ[NAME] = "5"


def _unset(held: Any = None) -> None:
    os.environ.pop(NAME, None)


def _of_environ() -> int:
    try:
        return int(os.environ[NAME])
    except KeyError:
        return 1


reads("environ_get", _unset, lambda held: os.environ.get(NAME, "1"), _set, _unset)
reads("environ_item", _unset, lambda held: _of_environ(), _set, _unset)
reads("environ_contains", _unset, lambda held: NAME in os.environ, _set, _unset)
reads("getenv_absent", _unset, lambda held: os.getenv(NAME, "1"), _set, _unset)
reads("getenv_present", lambda: os.environ.__setitem__(NAME, "1"), lambda held: os.getenv(NAME, "1"), _set, _unset)

MODULE = "unified_guards_test_of_strict"


def _module(value: int, **parts: Any) -> Any:
    made: Any = types.ModuleType(MODULE)
    made.value = value
    return made


def _import() -> Any:
    import unified_guards_test_of_strict

    return unified_guards_test_of_strict.value


def _import_from() -> Any:
    from unified_guards_test_of_strict import value

    return value


def _put(value: int) -> Any:
    sys.modules[MODULE] = _module(value)
    return sys.modules[MODULE]


def _remove(held: Any) -> None:
    sys.modules.pop(MODULE, None)


reads("import_of_another", lambda: _put(1), lambda held: _import(), lambda held: _put(5), _remove)
reads("import_from_another", lambda: _put(1), lambda held: _import_from(), lambda held: _put(5), _remove)
reads(
    "import_whose_value_changes",
    lambda: _put(1),
    lambda held: _import(),
    lambda held: setattr(held, "value", 5),
    _remove,
)
reads(
    "recursion_limit",
    sys.getrecursionlimit,
    lambda held: sys.getrecursionlimit(),
    lambda held: sys.setrecursionlimit(held + 1),
    sys.setrecursionlimit,
)


def _autocast_dtype(of: torch.dtype) -> None:
    torch.set_autocast_dtype("cpu", of)


@unguarded
def dtype_of_autocast() -> Unguarded:
    before = torch.get_autocast_dtype("cpu")
    return Unguarded(
        lambda x: x.to(torch.get_autocast_dtype("cpu")),
        lambda: _autocast_dtype(torch.float16 if before is torch.bfloat16 else torch.bfloat16),
        lambda: _autocast_dtype(before),
    )
