"""What was made of a function's guards, and why it was compiled again. Entry point: :func:`report`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from unified_guards.lower.discriminators import shared
from unified_guards.report.explain import FrameReport, Report

if TYPE_CHECKING:
    from unified_guards.aot.cache import CacheInfo, Recompile, UnifiedCache
    from unified_guards.aot.entry import AotEntry


@dataclasses.dataclass(frozen=True)
class AotReport(Report):
    """A :class:`Report` with one frame for each version that is kept, most recently used first.

    Attributes:
        info: counts of the cache.
        recompiles: why each version after the first was compiled, oldest first.
    """

    info: CacheInfo
    recompiles: tuple[Recompile, ...]

    def _head(self) -> str:
        info = self.info
        lines = [
            f"{self.name}: {info.entries} versions of at most {info.max_entries}, {info.hits} hits, "
            f"{info.misses} misses, {info.recompiles} recompiles",
            *(f"  {count} calls ran eagerly: {reason}" for reason, count in info.eager.items()),
        ]
        for at, recompile in enumerate(self.recompiles, 1):
            lines += [f"  recompile {at}:", *(f"    {line}" for line in str(recompile).splitlines())]
        return "\n".join(lines)

    def summary(self) -> str:
        """Counts and reasons, without the guards themselves."""
        return "\n".join([self._head(), *(frame.summary() for frame in self.frames)])

    def __str__(self) -> str:
        return "\n\n".join([self._head(), *map(str, self.frames)])


def _frame(cache: UnifiedCache, entry: AotEntry) -> FrameReport:
    siblings = [other for other in cache._keys() if other is not entry]
    return FrameReport(
        cache.name,
        entry.guard_set,
        entry.checked,
        tuple(entry.removed),
        len(entry.checked),
        cache._length(entry),
        cache._nbytes(entry),
        entry.python_callbacks,
        cache._counts(entry),
        siblings=len(siblings),
        shared=shared(entry, siblings),
        discriminators=tuple(entry.discriminators),
        stopped=entry.stopped,
    )


def report(cache: UnifiedCache) -> AotReport:
    """The report of a cache."""
    frames = tuple(_frame(cache, entry) for entry in cache._keys())
    return AotReport(cache.name, frames, cache.cache_info(), cache.recompiles())
