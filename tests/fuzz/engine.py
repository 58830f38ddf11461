"""Takes the steps: something happens to the world, then checkers are asked, and their two tiers must agree.

An *episode* has a world of its own and guard sets of its own, both of its seed, and is a list of actions that can be
taken again: :func:`replay` does, and :func:`shrink` finds a shorter list that still fails. Entry point:
:class:`Episode`.
"""

from __future__ import annotations

import collections
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import torch

from unified_guards import _C
from unified_guards.guards import semantics
from unified_guards.guards.ir import GuardSet, Source
from unified_guards.lower.rows import Program, lower
from unified_guards.simplify.driver import simplify

from . import oracle
from .guards import Maker, by_type
from .mutations import ROWS, Change
from .world import ROOTS, World

Locals = Callable[[int], dict[str, Any]]

#: Guards of which we say no where torch says yes, and docs/guards.md says why.
STRICTER: frozenset[str] = frozenset()


class Checker(Protocol):
    """What is tested."""

    def check(self, f_locals: dict[str, Any]) -> bool: ...

    def exact(self, f_locals: dict[str, Any]) -> bool: ...


MakeChecker = Callable[[Program], Any]
Evaluate = Callable[[dict[str, Any]], bool]


def native(program: Program) -> _C.Checker:
    return _C.Checker(program.rows)


class Frame:
    """A guard set with its checker.

    Attributes:
        family, roots, f_locals: which calls it is asked about.
        guard_set: as it was made, for the reference.
        meaning: what each row of the checker's program stands for.
        oracle: torch's own verdict, where Dynamo made the set: it has to be the same.
        tree: torch's tree of those of the guards that torch has, otherwise.
        kept: what must live as long as the guards.
    """

    oracle: Evaluate | None = None
    tree: oracle.Tree | None = None
    kept: object = None

    def __init__(
        self, family: str, roots: int, f_locals: Locals, guard_set: GuardSet, checker: Checker, meaning: list[Any]
    ) -> None:
        self.family, self.roots, self.f_locals = family, roots, f_locals
        self.guard_set, self.checker, self.row_origins = guard_set, checker, meaning

    def exact(self, f_locals: dict[str, Any]) -> bool:
        """What ``check()`` must say: what ``exact()`` does, if torch has no objection."""
        found = self.checker.exact(f_locals)
        if self.oracle is not None and self.oracle(f_locals) is not found:
            guard = semantics.explain_failure(self.guard_set, f_locals)
            raise Disagreement(self, f"exact() says {found}, torch {not found}", self.failing() or str(guard))
        return found

    def failed(self) -> Any:
        """What the last miss stopped at: a guard, or a source with nothing there."""
        at = getattr(self.checker, "last_failure", None)
        return None if at is None else self.row_origins[at]

    def failing(self) -> str:
        """The same in words."""
        found = self.failed()
        return "" if found is None else str(found)

    def failing_kind(self) -> str:
        """The kind of what the last miss stopped at."""
        found = self.failed()
        if found is None:
            return "?"
        return f"{found.access.name} is missing" if isinstance(found, Source) else str(found.test.name)


class Probe(NamedTuple):
    """A checker and a call to ask it about."""

    check: Evaluate
    exact: Evaluate
    f_locals: Locals
    root: int
    frame: Frame
    number: int


class Disagreement(Exception):
    """Two evaluators of one guard set gave different verdicts."""

    def __init__(self, frame: Frame, verdicts: str, guard: str) -> None:
        super().__init__(f"{verdicts} of a {frame.family} frame with {len(frame.guard_set)} guards, at: {guard}")


class Statistics:
    """What an episode, or several, came by."""

    def __init__(self) -> None:
        self.steps = self.checks = self.passes = self.referenced = self.sprung = self.remade = 0
        self.asked_torch = self.in_torch = self.guards = 0  # checks; guards that torch's trees have, of all
        self.seconds = 0.0
        self.tests: collections.Counter[str] = collections.Counter()
        self.accesses: collections.Counter[str] = collections.Counter()
        self.flips: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.taken: collections.Counter[str] = collections.Counter()
        self.errors: collections.Counter[str] = collections.Counter()
        self.stricter: collections.Counter[str] = collections.Counter()
        self.done: collections.Counter[str] = collections.Counter()

    def add(self, other: Statistics) -> None:
        for name, value in vars(other).items():
            if isinstance(value, (int, float)):
                setattr(self, name, getattr(self, name) + value)
            elif name == "flips":
                for row, kinds in value.items():
                    self.flips[row].update(kinds)
            else:
                getattr(self, name).update(value)

    def note(self, guard_set: Iterable[Any]) -> None:
        for item in guard_set:
            self.tests[item.test.name] += 1
            for source in item.sources:
                self.accesses[source.access.name] += 1


# An action is (what, arguments); the log of an episode is a list of them.
Action = tuple[Any, ...]
CHANGE, RESTORE, CHECK, REFER, THREAD, TOGETHER, ARM, SETTLE, REMAKE, TORCH = range(10)
_NAMES = ("change", "restore", "check", "refer", "thread", "together", "arm", "settle", "remake", "torch")

#: How much more often a change is drawn that some guard set of the episode notices.
NOTICED = 4
#: How many steps between two sweeps, in which everything is put back and every checker must pass again.
SWEEP = 2000
#: Of how many checks torch is asked, too.
TORCH_SHARE = 0.1
#: What is drawn for a step, and how often.
_KINDS = ("round trip", "there and back", "leave", "settle", "storm", "refer", "thread", "together", "arm", "quiet")
_WEIGHTS = (40, 18, 24, 6, 1.5, 0.4, 0.2, 0.02, 1.0, 6)


Keys = tuple[torch._C.DispatchKeySet, torch._C.DispatchKeySet]
_forced: list[Any] = []


def _keys_of_thread() -> Keys:
    return torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()


def _put_back_keys(before: Keys) -> None:
    """Where an operator fails in Python code of torch's, its frames hold guards on the keys of the thread. When the
    exception dies, the last one puts back what was in the middle of it (torch 2.15, fake tensors)."""
    if [keys.raw_repr() for keys in before] != [keys.raw_repr() for keys in _keys_of_thread()]:
        _forced.append(torch._C._ForceDispatchKeyGuard(*before))
        _forced[-1].__enter__()  # and never left


class Episode:
    """A world, checkers over it, and what happens to both.

    Args:
        seed: of everything random in it.
        make: makes a checker of a program.
        statistics: where to count.
        compiled: adds more frames, on functions that were compiled.
        sets: how many guard sets are made.
        learn: see :meth:`_learn`.
    """

    def __init__(
        self,
        seed: int,
        make: MakeChecker = native,
        statistics: Statistics | None = None,
        compiled: Callable[[World], list[Frame]] | None = None,
        sets: int = 16,
        learn: bool = True,
    ) -> None:
        self.seed, self.made = seed, 0
        self.begun = 0  # how many steps are taken or about to be
        self.choose = random.Random(seed)
        self.statistics = statistics if statistics is not None else Statistics()
        self.make = make
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some kinds of tensors are in beta, and have attributes that warn
            self._build(sets, compiled, learn)

    def _build(self, sets: int, compiled: Callable[[World], list[Frame]] | None, learn: bool) -> None:
        self.world = World(stirs_scope=self.seed % 2 == 1)
        self.known: dict[str, list[list[Source]]] = {}
        self.names: list[str] = []  # of the row that each change belongs to
        self.changes: list[Change] = []
        self.weights: list[float] = []
        self.anywhere: list[int] = []
        for row in ROWS.values():
            made = list(row.changes(self.world))
            for change in made:
                if row.anywhere:
                    self.anywhere.append(len(self.changes))
                self.changes.append(change)
                self.names.append(row.name)
                self.weights.append(row.weight / len(made))
        self.frames: list[Frame] = [self._frame(at) for at in range(sets)]
        for frame in compiled(self.world) if compiled is not None else []:
            self.frames.append(frame)
            self.statistics.note(frame.guard_set)
        self.probes: list[Probe] = []
        self._make_probes()
        self.pending: dict[int, None] = {}
        self.log: list[Action] = []
        self.kept_locals: dict[int, dict[str, Any]] = {}
        self._learn(learn)

    # -- frames --------------------------------------------------------------------------------------------------------

    def _frame(self, at: int) -> Frame:
        # Of its own, so that a log that is taken again makes the same sets.
        choose = random.Random(self.seed * 1_000 + self.made)
        self.made += 1
        family = ("layer", "thing", "space", "inline", "space", "space", "space", "space")[at % 8]
        # A set for all roots of a family, or one for a single root: that one may ask for its identity.
        roots = 1 if family == "space" or at % 5 == 0 else ROOTS
        f_locals = getattr(self.world, f"{family}_locals")
        if family not in self.known:
            self.known[family] = by_type(f_locals(0), self.world.scope)
        maker = Maker(self.world, f_locals, roots, choose, self.known[family])
        made = maker.make(choose.choice((1, 2, 4, 4, 6, 8, 12)), versioned=at % 16 == 15, trapped=self._is_trapped(at))
        lowered = simplify(made)[0] if choose.random() < 0.3 else made
        self.statistics.note(lowered)
        program = lower(lowered)
        asked = 1 if family == "space" else ROOTS
        frame = Frame(family, asked, f_locals, made, self.make(program), program.row_origins)
        frame.tree = oracle.made_for(made, f_locals(0))
        self.statistics.guards += len(made)
        self.statistics.in_torch += len(frame.tree.expressed) if frame.tree is not None else 0
        return frame

    @staticmethod
    def _is_trapped(at: int) -> bool:
        return at % 8 == 4

    def _make_probes(self) -> None:
        self.probes = []
        for frame in self.frames:
            for root in range(frame.roots):
                exact = frame.checker.exact if frame.oracle is None else frame.exact
                self.probes.append(Probe(frame.checker.check, exact, frame.f_locals, root, frame, len(self.probes)))

    def _learn(self, learn: bool) -> None:
        """Which calls each change is noticed by: those are asked about more often. For a replay, it only happens."""
        self.noticed: list[list[Probe]] = []
        self.lasting: list[str] = []
        well = [probe for probe in self.probes if self._passes(probe)] if learn else []
        for number, change in enumerate(self.changes):
            self._do(change.change)
            found = []
            for probe in well:
                if not self._passes(probe):
                    found.append(probe)
                    self.statistics.flips[self.names[number]][probe.frame.failing_kind()] += 1
            self.noticed.append(found)
            if change.restore is not None:
                self._do(change.restore)
            lost = [probe for probe in found if not self._passes(probe)]
            if lost:
                self.lasting += [f"{self.names[number]}: {probe.frame.failing()}" for probe in lost]
                well = [probe for probe in well if probe not in lost]
        for number, found in enumerate(self.noticed):
            if found:
                self.weights[number] *= NOTICED
        self.put_back()
        self.remake()

    def _passes(self, probe: Probe) -> bool:
        return probe.frame.checker.exact(probe.f_locals(probe.root))

    def put_back(self) -> None:
        """Everything as it was when the world was made."""
        self.world.traps.action = None
        for change in self.changes:
            if change.restore is not None:
                self._do(change.restore)

    def remake(self) -> None:
        """Other sets for frames that no mutation can be undone for: those on dict versions."""
        for at, frame in enumerate(self.frames):
            if frame.oracle is None and not frame.checker.exact(frame.f_locals(0)):
                self.statistics.remade += 1
                self.frames[at] = self._frame(at)
        dead = {id(probe.frame) for probe in self.probes} - set(map(id, self.frames))
        if dead:
            self._make_probes()
            by_number = self.probes
            self.noticed = [[by_number[probe.number] for probe in found] for found in self.noticed]

    def _do(self, do: Callable[[], object]) -> None:
        """An earlier mutation may have taken away what this one changes."""
        before, failed = _keys_of_thread(), False
        try:
            do()
        except Exception as error:  # counted by its kind: which one comes depends on what is gone
            self.statistics.errors[type(error).__name__] += 1
            failed = True
        if failed:  # and the frames of the exception are gone
            _put_back_keys(before)

    # -- actions -------------------------------------------------------------------------------------------------------

    def act(self, action: Action) -> None:
        """Takes one action of a log."""
        _ACTIONS[action[0]](self, *action[1:])

    def change(self, number: int) -> None:
        self._do(self.changes[number].change)

    def restore(self, number: int) -> None:
        restore = self.changes[number].restore
        if restore is not None:
            self._do(restore)

    def check(self, number: int) -> None:
        self.ask(self.probes[number])

    def ask(self, probe: Probe) -> bool:
        f_locals = probe.f_locals(probe.root)
        found = probe.check(f_locals)
        if found is not probe.exact(f_locals):
            self.disagree(probe, found, f_locals)
        return found

    def disagree(self, probe: Probe, found: bool, f_locals: dict[str, Any]) -> None:
        failing = probe.frame.failing() if found else ""
        guard = failing or str(semantics.explain_failure(probe.frame.guard_set, f_locals))
        raise Disagreement(probe.frame, f"check() says {found}, exact() {not found} of root {probe.root}", guard)

    def ask_torch(self, number: int) -> None:
        """Asks torch's tree, too: it has to say yes where we do, and may where no guard of it is what we stopped at."""
        probe = self.probes[number]
        tree = probe.frame.tree
        if tree is None:
            return
        f_locals = probe.f_locals(probe.root)
        found = probe.check(f_locals)
        failed = None if found else probe.frame.failed()
        self.statistics.asked_torch += 1
        verdict = tree.holds(f_locals)
        if tree.spoilt:
            probe.frame.tree = None
            return
        if verdict is found:
            return
        if found:
            raise Disagreement(
                probe.frame, f"check() says True, torch False of root {probe.root}", tree.failing(f_locals)
            )
        if failed not in tree.expressed and failed not in tree.sources:
            return
        kind = probe.frame.failing_kind()
        if kind not in STRICTER:
            raise Disagreement(probe.frame, f"check() says False, torch True of root {probe.root}", str(failed))
        self.statistics.stricter[kind] += 1

    def refer(self, number: int) -> None:
        """Asks the evaluator that is slow, too."""
        probe = self.probes[number]
        f_locals = probe.f_locals(probe.root)
        found = probe.check(f_locals)
        failing = semantics.explain_failure(probe.frame.guard_set, f_locals)
        if found is not (failing is None):
            verdicts = f"check() says {found}, the reference {not found} of root {probe.root}"
            raise Disagreement(probe.frame, verdicts, str(failing) if found else probe.frame.failing())
        self.statistics.referenced += 1

    def thread(self, number: int, back: bool) -> None:
        """Something happens in another thread, which ends before anything is checked."""
        change = self.changes[number]
        do = change.restore if back and change.restore is not None else change.change
        other = threading.Thread(target=self._do, args=(do,))
        other.start()
        other.join()

    def together(self, numbers: tuple[int, ...], probes: tuple[int, ...]) -> None:
        """Another thread changes things while this one and a third check. What they say is open until it has ended."""
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        other = threading.Thread(target=self._churn, args=(numbers,))
        asked = [self.probes[at] for at in probes]
        third = threading.Thread(target=self._ask_while, args=(other, asked))
        try:
            other.start()
            third.start()
            self._ask_while(other, asked)
        finally:
            other.join()
            third.join()
            sys.setswitchinterval(interval)
        for probe in asked:
            self.ask(probe)

    def _ask_while(self, other: threading.Thread, asked: list[Probe]) -> None:
        """Nothing is compared: each answer is about a moment of its own, torch's too, which lets go of the GIL."""
        while other.is_alive():
            for probe in asked:
                f_locals = probe.f_locals(probe.root)
                probe.check(f_locals)
                probe.frame.checker.exact(f_locals)

    def _churn(self, numbers: tuple[int, ...]) -> None:
        for number in numbers:
            self.change(number)
            self.restore(number)

    def arm(self, number: int, probe: int) -> None:
        """User code that a guard runs changes things in the middle of a check, the first time that any runs.

        What was read before that is open, in either tier. But a check may not pass where evaluating all, from the same
        state, fails.
        """
        asked = self.probes[probe]
        self.restore(number)
        asked.check(asked.f_locals(asked.root))  # so that there are facts
        verdicts = []
        for evaluate in (asked.exact, asked.check, asked.exact):
            verdicts.append(self._armed(evaluate, asked, number))
            self.restore(number)
        if verdicts == [False, True, False]:
            guard = str(semantics.explain_failure(asked.frame.guard_set, asked.f_locals(asked.root)) or "")
            raise Disagreement(
                asked.frame,
                f"check() says True of root {asked.root} where code of the user's changed something, exact() False",
                guard,
            )

    def _armed(self, evaluate: Evaluate, asked: Probe, number: int) -> bool:
        traps = self.world.traps
        traps.action = lambda: self.change(number)
        try:
            return evaluate(asked.f_locals(asked.root))
        finally:
            traps.action = None

    def settle(self) -> None:
        """Everything is put back, and every call is asked about."""
        self.put_back()
        for probe in self.probes:
            self.ask(probe)

    # -- steps ---------------------------------------------------------------------------------------------------------

    def run(self, steps: int, until: float = float("inf")) -> int:
        """Takes so many steps, or as many as there is time for; returns how many it took."""
        # The rate is by the time that this process had: the machine may do other things.
        start, clock, done = time.process_time(), time.perf_counter, 0
        while done < steps and clock() < until:
            count = min(SWEEP, steps - done)
            self.begun = done + count
            self._batch(count)
            done += count
            self.take(SETTLE)
            self.pending.clear()
            self.take(REMAKE)
        self.statistics.steps += done
        self.statistics.seconds += time.process_time() - start
        self.statistics.sprung = self.world.traps.sprung
        return done

    def _batch(self, count: int) -> None:
        # Drawn all at once, and everything bound to a local: the loop is what limits how much is tried.
        draw, log, pending = self.choose, self.log, self.pending
        kinds = draw.choices(_KINDS, _WEIGHTS, k=count)
        numbers = draw.choices(range(len(self.changes)), self.weights, k=count)
        others = draw.choices(self.probes, k=count)
        chances = [draw.random() for _ in range(count)]
        for_torch = [draw.random() for _ in range(count)]
        self.statistics.done.update(self.names[number] for number in numbers)
        changes, noticed = self.changes, self.noticed
        checks = passes = 0
        for kind, number, other, chance, torch_too in zip(kinds, numbers, others, chances, for_torch, strict=True):
            change, restore = changes[number]
            near = noticed[number]
            probe = near[int(chance * len(near) * 1.1)] if near and chance < 0.9 else other
            if kind == "quiet":
                log.append((CHECK, probe.number))
            elif kind in ("round trip", "there and back", "leave"):
                log.append((CHANGE, number))
                self._do(change)
                if kind != "leave":
                    if kind == "round trip":
                        log.append((CHECK, probe.number))
                        checks += 1
                        f_locals = probe.f_locals(probe.root)
                        found = probe.check(f_locals)
                        if found is not probe.exact(f_locals):
                            self.disagree(probe, found, f_locals)
                        passes += found
                    log.append((RESTORE, number))
                    if restore is not None:
                        self._do(restore)
                elif restore is not None:
                    pending[number] = None
                    if len(pending) > 2:
                        first = next(iter(pending))
                        del pending[first]
                        log.append((RESTORE, first))
                        self.restore(first)
                log.append((CHECK, probe.number))
            else:
                self._rarer(kind, number, probe)
                log.append((CHECK, probe.number))
            for asked in (probe, other):
                f_locals = asked.f_locals(asked.root)
                found = asked.check(f_locals)
                if found is not asked.exact(f_locals):
                    self.disagree(asked, found, f_locals)
                passes += found
            log.append((CHECK, other.number))
            checks += 2
            if torch_too < TORCH_SHARE:
                self.take(TORCH, probe.number)
                self.take(TORCH, other.number)
        self.statistics.checks += checks
        self.statistics.passes += passes

    def take(self, *action: Any) -> None:
        self.log.append(action)
        self.act(action)

    def _rarer(self, kind: str, number: int, probe: Probe) -> None:
        draw = self.choose
        self.statistics.taken[kind] += 1
        if kind == "settle":
            for pending in list(self.pending):
                self.take(RESTORE, pending)
            self.pending.clear()
        elif kind == "storm":
            many = draw.choices(range(len(self.changes)), self.weights, k=draw.randint(4, 16))
            for one in many:
                self.take(CHANGE, one)
            for one in many:
                self.take(RESTORE, one)
        elif kind == "refer":
            self.take(REFER, probe.number)
        elif kind == "thread":
            self.take(THREAD, number, False)
            self.take(CHECK, probe.number)
            self.take(THREAD, number, True)
            self.take(RESTORE, number)
        elif kind == "together":
            numbers = tuple(draw.choices(self.anywhere, k=60))
            self.take(TOGETHER, numbers, tuple(draw.randrange(len(self.probes)) for _ in range(4)))
        elif kind == "arm":
            one, chosen = draw.choice(self.anywhere), draw.random()
            trapped = [each for at, each in enumerate(self.frames) if self._is_trapped(at)]
            near = [each for each in self.probes if each.frame in trapped]
            self.take(ARM, one, near[int(chosen * len(near))].number if near else probe.number)
            self.take(RESTORE, one)

    def close(self) -> None:
        """Puts the state of the process back."""
        self.put_back()
        self.world.close()


_ACTIONS: list[Callable[..., None]] = [
    Episode.change,
    Episode.restore,
    Episode.check,
    Episode.refer,
    Episode.thread,
    Episode.together,
    Episode.arm,
    Episode.settle,
    Episode.remake,
    Episode.ask_torch,
]


# -- failures ----------------------------------------------------------------------------------------------------------


def replay(seed: int, actions: Iterable[Action], **options: Any) -> Disagreement | None:
    """Takes the actions of a log in a fresh episode; returns what it ends with."""
    episode = Episode(seed, **options, learn=False)
    try:
        for action in actions:
            episode.act(action)
    except Disagreement as found:
        return found
    finally:
        episode.close()
    return None


def shrink(seed: int, actions: list[Action], seconds: float = 30, **options: Any) -> list[Action] | None:
    """A shorter list of actions that ends in a disagreement; None when the whole list does not, the second time."""
    until = time.monotonic() + seconds

    def fails(tried: list[Action]) -> bool:
        return replay(seed, tried, **options) is not None

    for last in (4, 16, 64, 256, 1024, 4096, len(actions)):
        if last <= len(actions) and fails(actions[-last:]):
            actions = actions[-last:]
            break
    else:
        return None
    size = max(len(actions) // 2, 1)
    while time.monotonic() < until:
        at = 0
        while at < len(actions) and time.monotonic() < until:
            tried = actions[:at] + actions[at + size :]
            if tried and fails(tried):
                actions = tried
            else:
                at += size
        if size == 1:
            break
        size //= 2
    return actions


def told(episode: Episode, actions: Iterable[Action]) -> list[str]:
    """Actions in words."""
    lines = []
    for kind, *rest in actions:
        words = _NAMES[kind]
        if kind in (CHANGE, RESTORE, THREAD, ARM):
            first = sum(name == episode.names[rest[0]] for name in episode.names[: rest[0]])
            words += f" {episode.names[rest[0]]}[{first}]"
        elif kind == TOGETHER:
            words += f" {sorted({episode.names[number] for number in rest[0]})}"
        if kind in (CHECK, REFER, ARM, TORCH):
            probe = episode.probes[rest[-1]]
            words += f" frame {episode.frames.index(probe.frame)} ({probe.frame.family}), root {probe.root}"
        lines.append(words)
    return lines
