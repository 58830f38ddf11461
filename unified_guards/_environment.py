"""Refuses, in one sentence, to work where it cannot: the first thing that ``import unified_guards`` runs."""

from __future__ import annotations

import os
import re
import sys
import types
import warnings
from collections.abc import Callable, Sequence
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


#: Says for which torch a wheel is built; wheels/torch_metadata.py reads it.
FOR_BUILDING = "UNIFIED_GUARDS_FOR_TORCH"


def unknown_variables(known: Sequence[str]) -> list[Problem]:
    """Environment variables that look like ours and that nothing reads, each with the nearest that there is.

    Args:
        known: those that something reads (``config.variables()``).
    """
    found = sorted(name for name in os.environ if name.startswith(known[0].rstrip("S")) and name not in known)
    return [Problem(f"nothing reads the environment variable {name}", _instead(name, known)) for name in found]


def _instead(name: str, known: Sequence[str]) -> str:
    import difflib  # only where something is wrong

    nearest = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {nearest[0]}?" if nearest else f"There are {', '.join(known)}."


#: What switches something off, as empty does.
_OFF = ("", "0", "off", "false", "no")


def is_set(name: str, default: str = "") -> bool:
    """Whether an environment variable switches something on. Empty, ``0``, ``off``, ``false`` and ``no`` do not."""
    return os.environ.get(name, default).lower() not in _OFF


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


#: What ``UNIFIED_GUARDS_LOG`` can ask for.
LOGS = ("recompiles",)


def logs() -> str | Problem:
    """What ``UNIFIED_GUARDS_LOG`` asks for, with commas between several, or what is wrong with it."""
    text = os.environ.get("UNIFIED_GUARDS_LOG", "")
    wanted = [name for part in text.lower().split(",") if (name := part.strip()) not in _OFF]
    unknown = [name for name in wanted if name not in LOGS]
    if not unknown:
        return ",".join(wanted)
    return Problem(
        f"UNIFIED_GUARDS_LOG is {text!r}, and {', '.join(map(repr, unknown))} is nothing that can be logged; nothing "
        "is logged now",
        f"Run: export UNIFIED_GUARDS_LOG={LOGS[0]}, or unset it",
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


def tell_of_unknown_variables(tell: Callable[[str], None]) -> None:
    """Tells once of each environment variable that looks like ours and that nothing reads."""
    # Imported here: config.py is written in terms of this module.
    from unified_guards import config

    for problem in unknown_variables(config.variables()):
        if problem not in _told:
            _told.add(problem)
            tell(f"unified_guards: {problem}")


_told: set[Problem] = set()


def warn(message: str) -> None:
    """Warns at the line of the user's program that led here: neither in this package nor in torch.

    It never raises: where warnings are errors, neither an import nor a check may fail by one.
    """
    frame = _users_frame()
    try:
        if frame is None:
            warnings.warn(message, stacklevel=2)
            return
        names = frame.f_globals
        registry = names.setdefault("__warningregistry__", {})
        line = frame.f_code.co_filename, frame.f_lineno
        warnings.warn_explicit(message, UserWarning, *line, names.get("__name__"), registry)
    except Warning:
        print(message, file=sys.stderr)


def _users_frame() -> types.FrameType | None:
    """The innermost frame that is neither of this package, of torch, nor of an import."""
    files = [__file__, getattr(sys.modules.get("torch"), "__file__", None)]
    inside = tuple(os.path.dirname(file) + os.sep for file in files if file)
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        is_ours = file.startswith(inside) or os.path.basename(file) == "_unified_guards_autoload.py"
        if not is_ours and not file.startswith("<frozen "):
            return frame
        frame = frame.f_back
    return None


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
