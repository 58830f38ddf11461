"""How the property tests run: the same examples every time, nothing kept on disk."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


def repeatable(examples: int) -> settings:
    """A decorator for a test that is given so many examples."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        print_blob=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
