"""Guarantee: with at least t survivors the result is the plain integer sum, exactly; below t nothing is revealed."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedft.errors import FederationError, QuorumNotReached, StaleUpdate, UpdateError
from fedft.randomness import secure_bytes
from fedft.secagg import graph
from fedft.secagg.coordinator import Coordinator
from fedft.secagg.messages import read_answer, read_upload, revealed, write_answer, write_upload
from fedft.secagg.shamir import PRIME, to_bytes
from tests.secagg.parties import RUN, Cohort, plain_sum, uploads

ROUNDS = itertools.count(1)


@cache
def cohort_of(size: int) -> Cohort:
    return Cohort(size)


@given(
    size=st.integers(3, 10),
    ring_bits=st.sampled_from([16, 17, 21, 24, 31, 32]),
    seed=st.integers(0, 2**32),
    extra=st.integers(0, 3),
    data=st.data(),
)
@settings(max_examples=60)
def test_any_dropouts_give_the_exact_sum_or_an_abandoned_round(
    size: int, ring_bits: int, seed: int, extra: int, data: st.DataObject
) -> None:
    cohort = cohort_of(size)
    names = st.sampled_from(cohort.names)
    lost_before = data.draw(st.sets(names, max_size=size // 2), "lost before the upload")
    late = data.draw(st.sets(names, max_size=1), "uploads too late") - lost_before
    lost_after = data.draw(st.sets(names, max_size=size // 2), "lost after the upload")
    least = 2 * size // 3 + 1
    context = cohort.context(next(ROUNDS), ring_bits=ring_bits, threshold=min(least + extra, size))
    collector = cohort.collector(context)
    sent = uploads(cohort, context, set(cohort.names) - lost_before, seed)
    there = set(sent) - late
    for name in data.draw(st.permutations(sorted(there)), "order"):
        collector.add_upload(name, sent[name])
    if len(there) < context.threshold:
        with pytest.raises(QuorumNotReached):
            collector.name_set()
        return
    questions = collector.name_set()
    for name in late:
        with pytest.raises(StaleUpdate):
            collector.add_upload(name, sent[name])
    answering = set(questions) - lost_after
    for name in answering:
        collector.add_answer(name, cohort.members[name].unmask(RUN, context.round, questions[name]))
    if len(answering) < context.threshold:
        with pytest.raises(QuorumNotReached):
            collector.finish()
        return
    found = collector.finish()
    assert np.array_equal(found.values, plain_sum(context, there, seed))
    assert set(found.uploaded) == there
    assert set(found.dropped) == set(cohort.names) - there
    assert (set(found.answered), found.lied) == (answering, ())


@pytest.mark.parametrize("survivors", [7, 6])
def test_exactly_t_survivors_are_enough_and_one_less_is_not(survivors: int) -> None:
    cohort = cohort_of(10)
    context = cohort.context(next(ROUNDS))
    collector = cohort.collector(context)
    for name, data in uploads(cohort, context, cohort.names[:survivors]).items():
        collector.add_upload(name, data)
    if survivors < context.threshold:
        with pytest.raises(QuorumNotReached):
            collector.name_set()
        return
    for name, question in collector.name_set().items():
        collector.add_answer(name, cohort.members[name].unmask(RUN, context.round, question))
    assert np.array_equal(collector.finish().values, plain_sum(context, cohort.names[:survivors]))


def test_a_sparse_graph_with_dropouts_gives_the_exact_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "SPARSE", ((4096, 14, 16),))
    cohort = Cohort(40)
    context = cohort.context(next(ROUNDS), size=3)
    assert (context.shape.neighbours, context.shape.holders, context.threshold) == (14, 16, 12)
    dropped = {context.graph.holders[0], context.cohort[3]}
    silent = set(context.graph.holders[1:3])
    collector = cohort.collector(context)
    there = set(cohort.names) - dropped
    for name, data in uploads(cohort, context, there).items():
        collector.add_upload(name, data)
    for name, question in collector.name_set().items():
        if name not in silent:
            collector.add_answer(name, cohort.members[name].unmask(RUN, context.round, question))
    assert np.array_equal(collector.finish().values, plain_sum(context, there))


def test_a_cut_out_member_of_a_sparse_graph_ends_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "SPARSE", ((4096, 14, 16),))
    cohort = Cohort(40)
    context = cohort.context(next(ROUNDS), size=3)
    dropped = set(context.graph.neighbours(cohort.names[0])[: 15 - context.shape.least_around + 1])
    collector = cohort.collector(context)
    for name, data in uploads(cohort, context, set(cohort.names) - dropped).items():
        collector.add_upload(name, data)
    with pytest.raises(QuorumNotReached, match="neighbours"):
        collector.name_set()


def collected(cohort: Cohort, lost: int = 1) -> tuple[Coordinator, dict[str, bytes]]:
    context = cohort.context(next(ROUNDS))
    collector = cohort.collector(context)
    for name, data in uploads(cohort, context, cohort.names[lost:]).items():
        collector.add_upload(name, data)
    return collector, collector.name_set()


def altered_answer(cohort: Cohort, collector: Coordinator, name: str, answer: bytes, places: list[int]) -> bytes:
    """What a holder sends that lies about the secrets at ``places``, under its own signature."""
    context, uploaded = collector.context, cohort.names[1:]
    shares = read_answer(answer, context, name, uploaded, cohort.identities[name])
    for place in places:
        shares[place] = (shares[place] + int.from_bytes(secure_bytes(32), "big")) % PRIME
    return write_answer(context, name, uploaded, b"".join(map(to_bytes, shares)), cohort.identity[name])


@pytest.mark.parametrize("liars", [1, 2])
@pytest.mark.parametrize("places", [[0], [1], [0, 5, 17]])
def test_holders_that_lie_are_left_out_and_named_while_t_others_answer(liars: int, places: list[int]) -> None:
    cohort = cohort_of(10)
    collector, questions = collected(cohort)
    lying = cohort.names[1 : 1 + liars]
    for name, question in questions.items():
        answer = cohort.members[name].unmask(RUN, collector.context.round, question)
        if name in lying:
            answer = altered_answer(cohort, collector, name, answer, places)
        collector.add_answer(name, answer)
    found = collector.finish()
    assert np.array_equal(found.values, plain_sum(collector.context, cohort.names[1:]))
    assert list(found.lied) == lying


def test_too_many_that_lie_end_the_round_and_no_other_number_comes_out() -> None:
    cohort = cohort_of(10)
    collector, questions = collected(cohort)
    for name, question in questions.items():
        answer = cohort.members[name].unmask(RUN, collector.context.round, question)
        if name in cohort.names[1:4]:
            answer = altered_answer(cohort, collector, name, answer, [2])
        collector.add_answer(name, answer)
    with pytest.raises(FederationError):
        collector.finish()


def test_a_member_that_commits_to_another_common_mask_ends_the_round() -> None:
    cohort = cohort_of(5)
    context = cohort.context(next(ROUNDS))
    collector = cohort.collector(context)
    for name, data in uploads(cohort, context, cohort.names).items():
        if name == cohort.names[2]:
            read = read_upload(data, context, name, cohort.identities[name])
            commitments = (*read.commitments[:-1], bytes(32))
            data = write_upload(context, name, read.vector, commitments, read.packages, cohort.identity[name])
        collector.add_upload(name, data)
    with pytest.raises(FederationError, match="m002.*m004|m004.*m002"):
        collector.name_set()


def test_a_vector_that_was_altered_by_its_sender_is_out_of_range() -> None:
    """A wrong value within the range would go unseen: docs/SPEC.md says so."""
    cohort = cohort_of(5)
    context = cohort.context(next(ROUNDS), size=64, ring_bits=32)
    collector = cohort.collector(context)
    for name, data in uploads(cohort, context, cohort.names[1:]).items():
        if name == cohort.names[2]:
            read = read_upload(data, context, name, cohort.identities[name])
            vector = read.vector + read.vector.dtype.type(2**31)
            data = write_upload(context, name, vector, read.commitments, read.packages, cohort.identity[name])
        collector.add_upload(name, data)
    for name, question in collector.name_set().items():
        collector.add_answer(name, cohort.members[name].unmask(RUN, context.round, question))
    with pytest.raises(UpdateError, match="out of its range"):
        collector.finish()


def test_what_a_holder_reveals_is_b_of_who_uploaded_and_its_masks_with_who_did_not() -> None:
    cohort = cohort_of(5)
    context = cohort.context(next(ROUNDS))
    shown = revealed(context, cohort.names[:4])
    assert shown == dict.fromkeys(cohort.names[:4], (cohort.names[4],))


def test_second_uploads_and_answers_are_refused() -> None:
    cohort = cohort_of(5)
    context = cohort.context(next(ROUNDS))
    collector = cohort.collector(context)
    sent = uploads(cohort, context, cohort.names)
    for name, data in sent.items():
        collector.add_upload(name, data)
        with pytest.raises(StaleUpdate):
            collector.add_upload(name, data)
    questions = collector.name_set()
    assert collector.name_set() == questions
    for name, question in questions.items():
        answer = cohort.members[name].unmask(RUN, context.round, question)
        collector.add_answer(name, answer)
        with pytest.raises(StaleUpdate):
            collector.add_answer(name, answer)
    collector.finish()
    with pytest.raises(QuorumNotReached):
        collector.finish()
