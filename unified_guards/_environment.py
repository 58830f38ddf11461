"""Refuses, in one sentence, to work where it cannot: the first thing that ``import unified_guards`` runs."""

from __future__ import annotations

import os
import re
import sys
from typing import NamedTuple

#: First Python that is supported, and first that is not.
FIRST_PYTHON, AFTER_LAST_PYTHON = (3, 10), (3, 16)


class Problem(NamedTuple):
    """Something that does not fit.

    Attributes:
        what: what was expected, and what was found.
        remedy: what to do, with the command.
    """

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}"


NOT_BUILT = Problem(
    "the extension of unified_guards is not built in this environment",
    "Run: pip install --no-build-isolation . (in a checkout: make build)",
)


def is_set(name: str, default: str = "") -> bool:
    """Whether an environment variable switches something on. Empty, ``0``, ``off``, ``false`` and ``no`` do not."""
    return os.environ.get(name, default).lower() not in ("", "0", "off", "false", "no")


def share_to_verify() -> float | Problem:
    """The share of all checks that ``UNIFIED_GUARDS_VERIFY`` has compared: from 0 to 1, or what is wrong with it."""
    text = os.environ.get("UNIFIED_GUARDS_VERIFY", "")
    try:
        share = float(text or 0)
    except ValueError:
        share = -1.0
    if 0 <= share <= 1:
        return share
    return Problem(
        f"UNIFIED_GUARDS_VERIFY is {text!r} and should be a number from 0 to 1, the share of checks that are compared; "
        "none is compared now",
        "Run: export UNIFIED_GUARDS_VERIFY=1 (every check), =0.01 (one in a hundred), or unset it (none)",
    )


def wrong_python() -> Problem | None:
    """What to tell a user whose Python is not supported; None when it is."""
    if FIRST_PYTHON <= sys.version_info[:2] < AFTER_LAST_PYTHON:
        return None
    return Problem(
        f"unified_guards supports Python 3.10 to 3.15 and this is {sys.version.split()[0]}",
        "Make an environment with a supported one: python3.11 -m venv .venv",
    )


def is_command_line() -> bool:
    """Whether ``python -m unified_guards`` is looking for its ``__main__``, which is when it imports the package."""
    # Until it is found, sys.argv[0] is "-m"; sys.orig_argv has the name before the same arguments.
    name = "".join(getattr(sys, "orig_argv", [])[-len(sys.argv) :][:1])  # Python 3.9 is told what is wrong with it
    return sys.argv[:1] == ["-m"] and re.fullmatch(r"(-\w*m)?unified_guards(\.__main__)?", name) is not None


def check() -> None:
    """Raises ImportError, with the command that mends it, on a wrong Python, torch or build."""
    problem = wrong_python() or _wrong_torch() or _wrong_build()
    if problem is not None:
        raise ImportError(str(problem))


def _wrong_torch() -> Problem | None:
    import torch  # noqa: F401  (loads the libraries that the extension is linked to)

    # Imported here: compat.py imports torch, and says what is wrong in terms of this module.
    from unified_guards.dynamo import compat

    return compat.wrong_torch()


def _wrong_build() -> Problem | None:
    from unified_guards.dynamo import compat

    try:
        from unified_guards._build import TORCH_VERSION
    except ModuleNotFoundError:
        return NOT_BUILT
    return compat.built_for_another_torch(TORCH_VERSION)
