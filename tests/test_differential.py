"""Random mutations of everything in the corpus: the native checker, the reference and torch's tree agree on each.

A failure ends with a program that repeats it.
"""

from __future__ import annotations

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unified_guards.guards import semantics

from .corpus import ENTRIES
from .corpus.compiled import Frame
from .property import repeatable

#: How many sequences of mutations each entry is put through, and how long they are at most.
SEQUENCES, LENGTH = 12, 6


def replay(name: str, mutations: list[str]) -> list[bool]:
    """Compiles an entry, applies the mutations one by one and compares after each.

    Returns:
        The verdicts, that before the first mutation included.
    """
    example = ENTRIES[name]()
    try:
        frame = Frame(example)
        found = [_agreed(frame, name, [])]
        for count, mutation in enumerate(mutations, 1):
            with contextlib.suppress(Exception):  # an earlier mutation may have taken away what this one changes
                example.mutations[mutation](frame.f_locals)
            found.append(_agreed(frame, name, mutations[:count]))
        return found
    finally:
        example.clean_up()
        torch._dynamo.reset()


def _agreed(frame: Frame, name: str, mutations: list[str]) -> bool:
    verdicts = frame.verdicts()
    if len(set(verdicts.values())) > 1:
        failing = semantics.explain_failure(frame.guard_set, frame.f_locals)
        pytest.fail(
            f"the evaluators disagree: {verdicts}\n"
            f"native stops at: {frame.wrapper.entry.last_failure}\n"
            f"reference stops at: {failing}\n"
            f"torch stops at: {frame.wrapper.check_verbose(frame.f_locals)}\n"
            "To repeat it, in the root of the repository:\n\n"
            "from tests.test_differential import replay\n\n"
            f"replay({name!r}, {mutations!r})\n",
            pytrace=False,
        )
    return verdicts["native"]


def test_every_corpus_entry_hits_as_compiled() -> None:
    missing = [name for name in ENTRIES if name != "iterators" and not replay(name, [])[0]]
    assert missing == []  # a frame that never hits would agree about everything


@pytest.mark.parametrize("name", ENTRIES)
def test_every_mutation_alone_is_judged_alike(name: str) -> None:
    verdicts = [replay(name, [mutation])[-1] for mutation in ENTRIES[name]().mutations]
    assert not all(verdicts), "no mutation is noticed"


@pytest.mark.parametrize("name", ENTRIES)
def test_random_mutations_are_judged_alike(name: str) -> None:
    @repeatable(SEQUENCES)
    @given(st.lists(st.sampled_from(sorted(ENTRIES[name]().mutations)), min_size=2, max_size=LENGTH))
    def judged_alike(mutations: list[str]) -> None:
        replay(name, mutations)

    judged_alike()
