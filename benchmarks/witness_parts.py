"""The tables and plots of `benchmarks.witness`. A part is which children it needs, and what becomes of the samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import contenders
from benchmarks.contenders import EXACT, OPTIONS, TORCH, UNIFIED
from benchmarks.witness_children import CALLED, EMPTY, EMPTY_AGAIN, LAYERS, layers_workload
from unified_guards.bench import plots
from unified_guards.bench.runner import Summary, format_number, markdown

#: workload -> contender -> summary
Results = dict[str, dict[str, Summary]]
Panels = list["plots.Lines | plots.Bars"]
TIERS = (TORCH.name, UNIFIED.name, EXACT.name)

# ---- cells and series ------------------------------------------------------------------------------------------------


def _value(sides: dict[str, Summary], contender: str, key: str) -> float | None:
    """None where nothing was measured."""
    return sides[contender].median(key) if contender in sides else None


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x" if value < 100 else f"{value:,.0f}x"


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _tiers(sides: dict[str, Summary], key: str) -> list[str]:
    """The three figures, and what they are to each other."""
    values = {name: _value(sides, name, key) for name in TIERS}
    ratios = [_ratio(values["torch"], values["unified"]), _ratio(values["unified"], values["exact"])]
    return [*map(format_number, values.values()), *map(_times, ratios)]


def _tier_header(what: str) -> list[str]:
    return [f"{what}: torch (µs)", "unified (µs)", "exact (µs)", "torch / unified", "unified / exact"]


def _series(results: Results, x: Callable[[str], float], key: str) -> dict[str, list[tuple[float, float]]]:
    found = {
        name: [(x(workload), value) for workload, sides in results.items() if (value := _value(sides, name, key))]
        for name in TIERS
    }
    return {name: points for name, points in found.items() if points}


# ---- depth -----------------------------------------------------------------------------------------------------------


def _layers_of(workload: str) -> int:
    return int(workload.removeprefix("qwen3_"))


def _depth_table(results: Results) -> str:
    rows = []
    for workload, sides in results.items():
        guards = _count(next(iter(sides.values())).median("leaf_guards"))
        rows.append([str(_layers_of(workload)), guards, *_tiers(sides, "lookup_us"), *_tiers(sides, "hot_us")])
    return markdown(["layers", "guards", *_tier_header("in place"), *_tier_header("hot")], rows)


def _depth_panels(results: Results) -> Panels:
    ticks = [_layers_of(workload) for workload in results]
    return [
        plots.Lines(f"lookup {title}", "layers of Qwen3", "µs", _series(results, _layers_of, key), ticks)
        for title, key in (("in place", "lookup_us"), ("hot", "hot_us"))
    ]


# ---- mutated ---------------------------------------------------------------------------------------------------------


def _modules_of(workload: str) -> int:
    return int(workload.removeprefix("all "))


def _mutated_table(results: Results) -> str:
    rows = []
    for workload, sides in results.items():
        row = [workload]
        for key, ratio in (("lookup_us", "in_place_ratio"), ("hot_us", "hot_ratio")):
            row += [*_tiers(sides, key), _times(_value(sides, UNIFIED.name, ratio))]
        rows.append(row)
    paired = "the same, paired"
    return markdown(["modules", *_tier_header("in place"), paired, *_tier_header("hot"), paired], rows)


def _mutated_verdict(results: Results) -> list[str]:
    """Whether the promise of ten percent held where every module changed."""
    last = list(results)[-1]
    found = [_value(results[last], UNIFIED.name, key) for key in ("in_place_ratio", "hot_ratio")]
    if None in found:
        return []
    kept = "yes" if all(ratio is not None and ratio <= 1.1 for ratio in found) else "NO"
    in_place, hot = map(_times, found)
    return [
        f"Everything changes on every call: {in_place} the exact tier in place, {hot} hot (paired). "
        f"At most 10 % above it: {kept}."
    ]


def _mutated_panels(results: Results) -> Panels:
    ticks = [_modules_of(workload) for workload in results]
    x = "modules written to before each call"
    return [
        plots.Lines(f"lookup {title}", x, "µs", _series(results, _modules_of, key), ticks, has_zero=True)
        for title, key in (("in place", "lookup_us"), ("hot", "hot_us"))
    ]


# ---- entries ---------------------------------------------------------------------------------------------------------


def _split(workload: str) -> tuple[str, int]:
    name, _, number = workload.rpartition(", ")
    return name, int(number)


def _entries_table(results: Results) -> str:
    rows = []
    for workload, sides in results.items():
        name, number = _split(workload)
        rows.append([name, str(number), *_tiers(sides, "lookup_us"), *_tiers(sides, "step_us")])
    return markdown(["function", "entries", *_tier_header("lookup"), *_tier_header("whole call")], rows)


def _entries_panels(results: Results) -> Panels:
    panels: Panels = []
    for name in dict.fromkeys(_split(workload)[0] for workload in results):
        mine = {workload: sides for workload, sides in results.items() if _split(workload)[0] == name}
        numbers = [_split(workload)[1] for workload in mine]
        series = _series(mine, lambda workload: _split(workload)[1], "lookup_us")
        panels.append(plots.Lines(f"{name}: a lookup", "live entries", "µs", series, numbers))
    return panels


# ---- options ---------------------------------------------------------------------------------------------------------


def _kept(sides: dict[str, Summary], contender: contenders.Contender) -> list[str]:
    """Guards in torch's tree, and those that are checked natively."""
    native = _value(sides, contender.name, "checks")
    return [_count(_value(sides, contender.name, "leaf_guards")), _count(native)]


def _options_row(workload: str, sides: dict[str, Summary], contender: contenders.Contender) -> list[str]:
    row = [workload, contender.name, contender.unchecked, *_kept(sides, contender)]
    for key in ("lookup_us", "hot_us", "step_us"):
        value = _value(sides, contender.name, key)
        row += [format_number(value), _times(_ratio(_value(sides, TORCH.name, key), value))]
    return row


def _options_table(results: Results) -> str:
    header = ["workload", "option", "not checked any more", "guards in torch's tree", "checked natively"]
    for what in ("in place", "hot", "whole step"):
        header += [f"{what} (µs)", "torch / this"]
    rows = [_options_row(name, sides, one) for name, sides in results.items() for one in OPTIONS]
    return markdown(header, rows)


def _options_verdict(results: Results) -> list[str]:
    """The aim: every guard for less than what it costs to skip those of modules."""
    lines = []
    for workload, sides in results.items():
        ours, theirs = (_value(sides, one.name, "lookup_us") for one in (UNIFIED, contenders.SKIP_MODULES))
        if ours is None or theirs is None:
            continue
        guards, fewer = (_value(sides, one.name, "leaf_guards") for one in (UNIFIED, contenders.SKIP_MODULES))
        lines.append(
            f"- {workload}: all {_count(guards)} guards for {format_number(ours)} µs in place; torch without "
            f"those of modules checks {_count(fewer)} for {format_number(theirs)} µs "
            f"({_times(_ratio(theirs, ours))})."
        )
    return lines


def _options_panels(results: Results) -> Panels:
    panels: Panels = []
    for workload, sides in results.items():
        for title, key in (("in place", "lookup_us"), ("hot", "hot_us")):
            values = {one.name: _value(sides, one.name, key) for one in OPTIONS}
            rows = {name: {"": value} for name, value in values.items() if value is not None}
            panels.append(plots.Bars(f"{workload}: lookup {title}", "µs", rows, log=True))
    return panels


# ---- call ------------------------------------------------------------------------------------------------------------


def _call_table(results: Results) -> str:
    rows = []
    for workload, sides in results.items():
        torchs = _value(sides, TORCH.name, "share_us")
        for name in (*TIERS, EMPTY_AGAIN, EMPTY):
            call, share, low, high = (
                _value(sides, name, key) for key in ("call_us", "share_us", "share_low", "share_high")
            )
            guards = _value(sides, name, "leaf_guards") if name in TIERS else 0
            row = [workload, name, _count(guards), _two(call)]
            if name == EMPTY:
                row += ["-"] * 4
            else:
                part = _ratio(share, call)
                times = _times(_ratio(torchs, share)) if name in TIERS else "-"
                row += [_two(share), f"{_two(low)} to {_two(high)}", "-" if part is None else f"{part:.1%}", times]
            rows.append(row)
    shares = ["guard share (µs)", "middle half (µs)", "of the call", "torch / this"]
    return markdown(["function", "guards checked by", "guards", "whole call (µs)", *shares], rows)


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _call_panels(results: Results) -> Panels:
    panels: Panels = []
    for workload, sides in results.items():
        names = [name for name in (*TIERS, EMPTY_AGAIN) if name in sides]
        rows = {name: {"": sides[name].median("share_us") or 0.0} for name in names}
        ranges = {
            name: (sides[name].median("share_low") or 0.0, sides[name].median("share_high") or 0.0) for name in names
        }
        panels.append(plots.Bars(f"{workload}: call less one with an empty root", "µs", rows, ranges))
    return panels


# ---- memory ----------------------------------------------------------------------------------------------------------

_PARTS = ("torch's tree", "unified, Python objects", "unified, native program", "unified, witness")


def _memory_parts(sides: dict[str, Summary]) -> dict[str, float] | None:
    """Bytes of each part of what a process with unified guards holds; None where a child is missing."""
    tree, held = (_value(sides, name, "held_bytes") for name in (TORCH.name, UNIFIED.name))
    if tree is None or held is None:
        return None
    keys = ("built_bytes", "program_bytes", "witness_bytes")
    built, native, witness = (_value(sides, UNIFIED.name, key) or 0.0 for key in keys)
    # Held is what there was when the guards were built; the checker has grown since, and its size includes the witness.
    return dict(zip(_PARTS, (tree, held - tree - built, native - witness, witness), strict=True))


def _memory_table(results: Results) -> str:
    rows = []
    for workload, sides in results.items():
        parts, guards = _memory_parts(sides), _value(sides, TORCH.name, "leaf_guards")
        if parts is None or not guards:
            rows.append([workload, *["-"] * 10])
            continue
        total = sum(parts.values())
        kilobytes = [format_number(value / 1000) for value in (*parts.values(), total)]
        explained = _value(sides, UNIFIED.name, "explained_bytes")
        kilobytes.insert(2, format_number(None if explained is None else explained / 1000))
        per_guard = [format_number(value / guards) for value in (parts[_PARTS[0]], total)]
        rows.append([workload, _count(guards), *kilobytes, *per_guard, _times(total / parts[_PARTS[0]])])
    split = ["torch's tree (kB)", "our Python objects (kB)", "of which for explain() (kB)", "native program (kB)"]
    split += ["witness (kB)", "together (kB)", "a guard: torch (bytes)", "together (bytes)", "together / torch"]
    return markdown(["workload", "guards", *split], rows)


def _memory_panels(results: Results) -> Panels:
    rows = {}
    for workload, sides in results.items():
        parts, guards = _memory_parts(sides), _value(sides, TORCH.name, "leaf_guards")
        if parts is not None and guards:
            rows[workload] = {name: max(0.0, value) / guards for name, value in parts.items() if value}
    return [plots.Bars("memory that guards hold", "bytes a guard", rows)]


# ---- parts -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """One table.

    Attributes:
        what: a line for --help.
        about: what the reader of the table has to know.
        kind: of the child processes.
        cases: which children there are for each contender; --cases picks some.
        verdict: lines below the table.
        rounds: as many as these at most; what does not vary needs one.
    """

    what: str
    about: str
    kind: str
    cases: tuple[str, ...]
    contenders: tuple[contenders.Contender, ...]
    table: Callable[[Results], str]
    panels: Callable[[Results], Panels]
    verdict: Callable[[Results], list[str]] = lambda _: []
    rounds: int | None = None
    columns: int = 2


THREE = (TORCH, UNIFIED, EXACT)
_TIER_WORDS = (
    "*Unified* is what a program gets; *exact* is the same with `UNIFIED_GUARDS_WITNESS=0`: every guard is evaluated "
    "on every call. "
)
_PLACE_WORDS = (
    "*In place*: Dynamo's own lookup, between runs of the model, which push the guards out of the caches. *Hot*: "
    "checks one after the other. "
)
PARTS = {
    "depth": Part(
        "lookups against the number of layers",
        "Qwen3 with tiny widths and more and more layers. " + _TIER_WORDS + _PLACE_WORDS,
        "workload",
        tuple(map(layers_workload, LAYERS)),
        THREE,
        _depth_table,
        _depth_panels,
    ),
    "mutated": Part(
        "lookups while modules change between calls",
        "Qwen3 with 36 layers. Before each lookup, and not timed, an attribute that no guard reads is set on so many "
        "of its modules: the dicts change that the guards read, what the guards say does not. "
        + _TIER_WORDS
        + _PLACE_WORDS
        + "*Paired*: both tiers of one checker in one process, in turn.",
        "mutated",
        ("qwen3_36",),
        THREE,
        _mutated_table,
        _mutated_panels,
        _mutated_verdict,
    ),
    "entries": Part(
        "lookups of functions with several live entries",
        "Every call hits the entry that was used longest ago, so that Dynamo asks all others first (see "
        "`benchmarks/entries.py`). " + _TIER_WORDS + "Figures are those of one call of the function.",
        "entries",
        ("all",),
        THREE,
        _entries_table,
        _entries_panels,
    ),
    "options": Part(
        "torch's own options that check less, beside ours that check everything",
        "*Torch / this*: how many times this option's figure torch's default takes. " + _PLACE_WORDS + "A dash: this "
        "torch or this unified_guards does not have the option. An entry without any guard is not looked up at all.",
        "workload",
        ("qwen3_36", "qwen3_36_decode", "mlp"),
        OPTIONS,
        _options_table,
        _options_panels,
        _options_verdict,
    ),
    "call": Part(
        "what guards add to a whole compiled call",
        "Copies of one function, compiled in one process and called in turn, a few calls at a time in an order that "
        "changes. The *guard share* is a call less the call of the copy whose guard root is empty, taken a few "
        "milliseconds apart: median and middle half of these differences. Everything is hot. *Another empty root* "
        "shows how far the method can be trusted. " + _TIER_WORDS,
        "call",
        CALLED,
        (TORCH,),  # in name: the child measures all of them
        _call_table,
        _call_panels,
    ),
    "memory": Part(
        "bytes that guards hold",
        "Bytes of malloc, Python's objects included. *Torch's tree*: what a compilation with torch's guards leaves; it "
        "is kept under unified guards, too. *Our Python objects*: what is left of the rest when the native program is "
        "subtracted; of it, *for explain()* is freed when a frame forgets all but its checker. The *native program* "
        "and the *witness* are as large as the checker says after three calls.",
        "memory",
        (
            "x_plus_y", "mlp", "qwen3_36", "qwen3_36_decode", "bert_24_training", "qwen3_36_regional", "adamw_200",
            "dynamic_50", "entries_8",
        ),
        (TORCH, UNIFIED),
        _memory_table,
        _memory_panels,
        rounds=1,
        columns=1,
    ),
}  # fmt: skip
