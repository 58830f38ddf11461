"""What was made of a function's guards, and why it was compiled again. Entry point: :func:`report`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from unified_guards.report.advice import for_entry_point
from unified_guards.report.explain import Report, frame_report

if TYPE_CHECKING:
    from unified_guards.aot.cache import CacheInfo, Recompile, UnifiedCache


@dataclasses.dataclass(frozen=True)
class AotReport(Report):
    """A :class:`Report` with one frame for each version that is kept, most recently used first.

    Attributes:
        info: counts of the cache.
        recompiles: why each version after the first was compiled, oldest first.
    """

    _SORTED: ClassVar[str] = "that which was used last first"

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
        return "\n".join([self._head(), *self._order(), *(frame.summary() for frame in self.frames)])

    def __str__(self) -> str:
        return "\n\n".join([self._head(), *self._order(), *map(str, self.frames)])


def report(cache: UnifiedCache) -> AotReport:
    """The report of a cache."""
    frames = []
    for entry in cache._entries():
        frame = frame_report(cache.name, entry, cache._entries())
        again = tuple(each._replace(advice=for_entry_point(each.advice)) for each in frame.recompilations)
        frames.append(dataclasses.replace(frame, recompilations=again))
    return AotReport(cache.name, tuple(frames), cache.cache_info(), cache.recompiles())
