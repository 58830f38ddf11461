"""Refuses, in one sentence, to work where it cannot: the first thing that ``import unified_guards`` runs."""


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
