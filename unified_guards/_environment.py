"""Refuses, in one sentence, to work where it cannot: the first thing that ``import unified_guards`` runs."""

import re
import sys


def is_command_line() -> bool:
    """Whether ``python -m unified_guards`` is looking for its ``__main__``, which is when it imports the package."""
    # Until it is found, sys.argv[0] is "-m"; sys.orig_argv has the name before the same arguments.
    name = "".join(sys.orig_argv[-len(sys.argv) :][:1])
    return sys.argv[:1] == ["-m"] and re.fullmatch(r"(-\w*m)?unified_guards(\.__main__)?", name) is not None


def check() -> None:
    """Raises ImportError, with the command that mends it, on a wrong Python, torch or build."""
    import torch  # noqa: F401  (loads the libraries that the extension is linked to)

    from unified_guards.dynamo import compat

    problem = compat.unsupported()
    if problem is None:
        try:
            from unified_guards._build import TORCH_VERSION
        except ModuleNotFoundError:
            problem = (
                "the extension of unified_guards is not built in this environment. "
                "Run: pip install --no-build-isolation . (in a checkout: make build)"
            )
        else:
            problem = compat.built_for_another_torch(TORCH_VERSION)
    if problem is not None:
        raise ImportError(problem)
