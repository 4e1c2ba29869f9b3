"""Guarantees of an institution: one vector and one set in a round, across restarts; masks bound to what was agreed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from fedft.errors import ConfigError, IdentityError, PolicyError, StaleUpdate, StorageError, UpdateError, UpdateTooLarge
from fedft.secagg.context import gather_keys
from fedft.secagg.institution import Institution, MemoryRecorder, Step
from fedft.secagg.key_agreement import AgreementKey, commitment, mask_key, pair_key
from fedft.secagg.masking import add_masks
from fedft.secagg.messages import Question, read_upload, write_question
from tests.secagg.parties import RUN, Cohort, uploads, values_of

COHORT = Cohort(6)
ROUNDS = itertools.count(1)
FIRST = COHORT.names[0]


def test_a_restarted_institution_sends_the_stored_bytes_whatever_it_is_given() -> None:
    context = COHORT.context(next(ROUNDS))
    first = COHORT.members[FIRST].upload(context, values_of(context, FIRST, 0))
    again = COHORT.restarted(FIRST)
    assert again.upload(context, values_of(context, FIRST, 1)) == first
    assert again.upload(context, np.zeros(0, dtype=np.int64)) == first


@pytest.mark.parametrize("changed", ["adapter_digest", "size", "ring_bits", "threshold", "names"])
def test_no_second_context_is_answered_under_one_run_and_round(changed: str) -> None:
    number = next(ROUNDS)
    context = COHORT.context(number)
    COHORT.members[FIRST].upload(context, values_of(context, FIRST, 0))
    other = {
        "adapter_digest": "1" * 64,
        "size": 6,
        "ring_bits": 31,
        "threshold": 6,
        "names": COHORT.names[:5],
    }[changed]
    second = COHORT.context(number, **{changed: other})  # type: ignore[arg-type]
    for member in (COHORT.members[FIRST], COHORT.restarted(FIRST)):
        with pytest.raises(StaleUpdate):
            member.upload(second, values_of(second, FIRST, 0))


class FullDisk(MemoryRecorder):
    """Has what the member's own recorder has, and takes no more of one step."""

    def __init__(self, full: Step) -> None:
        super().__init__()
        self._stored.update(COHORT.recorders[FIRST]._stored)
        self.full = full

    def store(self, run: str, round_number: int, step: Step, content: bytes) -> None:
        if step == self.full:
            raise StorageError("expected to write, found no space")
        super().store(run, round_number, step, content)


def on_a_full_disk(full: Step) -> Institution:
    return Institution(FIRST, COHORT.identity[FIRST], COHORT.identities, COHORT.coordinator.public, FullDisk(full))


def test_an_upload_that_cannot_be_stored_is_not_sent_and_a_new_try_is_free() -> None:
    context = COHORT.context(next(ROUNDS))
    with pytest.raises(StorageError):
        on_a_full_disk("upload").upload(context, values_of(context, FIRST, 0))
    assert COHORT.members[FIRST].upload(context, values_of(context, FIRST, 1))


def test_an_answer_that_cannot_be_stored_is_not_sent_and_a_new_try_is_free() -> None:
    number = next(ROUNDS)
    sent = uploads(COHORT, COHORT.context(number), COHORT.names)
    with pytest.raises(StorageError):
        on_a_full_disk("answer").unmask(RUN, number, asked(COHORT.names, number, FIRST, sent))
    assert COHORT.members[FIRST].unmask(RUN, number, asked(COHORT.names[:5], number, FIRST, sent))


def test_a_key_that_cannot_be_stored_is_not_sent() -> None:
    with pytest.raises(StorageError):
        on_a_full_disk("key").key_message("run-2")
    with pytest.raises(ConfigError):
        COHORT.members[FIRST].key_message("no run")
    assert COHORT.recorders[FIRST].stored("no run", 0, "key") is None


def test_two_uploads_share_no_mask() -> None:
    """Two rounds of the same zeros differ as random numbers do."""
    drawn = []
    for _ in range(2):
        context = COHORT.context(next(ROUNDS), size=4096)
        data = COHORT.members[FIRST].upload(context, np.zeros(4096, dtype=np.int64))
        drawn.append(read_upload(data, context, FIRST, COHORT.identities[FIRST]).vector)
    assert (drawn[0] == drawn[1]).sum() < 3


@pytest.mark.parametrize("ring_bits", [16, 21, 32])
def test_a_masked_upload_is_uniform(ring_bits: int) -> None:
    """Chi-square over bytes, 255 degrees of freedom: below 400 but for once in 10⁸; of zeros, the plainest vector."""
    context = COHORT.context(next(ROUNDS), size=2**17, ring_bits=ring_bits)
    data = COHORT.members[FIRST].upload(context, np.zeros(2**17, dtype=np.int64))
    vector_bytes = 2**17 * ring_bits // 8
    start = 12 + int.from_bytes(data[8:12], "big")
    seen = np.bincount(np.frombuffer(data, np.uint8, vector_bytes, start), minlength=256)
    expected = vector_bytes / 256
    assert ((seen - expected) ** 2 / expected).sum() < 400


def test_what_hides_an_upload_whose_masks_were_all_restored_is_drawn_anew_and_known_to_nobody() -> None:
    """Without the masks it shares, the vector is still uniform under b, which no two rounds have in common."""
    commitments, size = set(), 2**15
    raw = COHORT.recorders[FIRST].stored(RUN, 0, "key")
    assert raw is not None
    for _ in range(3):
        context = COHORT.context(next(ROUNDS), size=size)
        data = COHORT.members[FIRST].upload(context, np.zeros(size, dtype=np.int64))
        read = read_upload(data, context, FIRST, COHORT.identities[FIRST])
        commitments.add(read.commitments[0])
        assert read.commitments[0] != commitment(bytes(32), context.digest)
        pairs = [pair_key(AgreementKey(raw), RUN, FIRST, other, COHORT.keys.keys[other]) for other in COHORT.names[1:]]
        left = read.vector.copy()
        add_masks(left, [], [mask_key(pair, context.digest) for pair in pairs])
        seen = np.bincount(left.view(np.uint8), minlength=256)
        assert ((seen - 4 * size / 256) ** 2 / (4 * size / 256)).sum() < 400
        add_masks(left, [], [bytes(32)])
        assert left.any()
    assert len(commitments) == 3


def test_a_value_beyond_the_limit_is_refused_before_anything_is_stored() -> None:
    context = COHORT.context(next(ROUNDS))
    values = values_of(context, FIRST, 0)
    for sign in (1, -1):
        values[3] = sign * (context.limits[FIRST] + 1)
        with pytest.raises(UpdateTooLarge):
            COHORT.members[FIRST].upload(context, values)
    assert COHORT.recorders[FIRST].stored(RUN, context.round, "upload") is None


def test_a_vector_of_another_length_is_refused() -> None:
    context = COHORT.context(next(ROUNDS))
    with pytest.raises(UpdateError):
        COHORT.members[FIRST].upload(context, np.zeros(context.size + 1, dtype=np.int64))


def test_a_cohort_that_is_too_small_has_strangers_or_leaves_this_member_out_is_refused() -> None:
    member, name = COHORT.restarted(FIRST), FIRST
    member.least_cohort = 5
    small = COHORT.context(next(ROUNDS), names=COHORT.names[:4])
    with pytest.raises(PolicyError):
        member.upload(small, values_of(small, name, 0))
    strange = COHORT.context(next(ROUNDS), names=[*COHORT.names[:5], "xeno"])
    with pytest.raises(IdentityError):
        member.upload(strange, values_of(strange, name, 0))
    without = COHORT.context(next(ROUNDS), names=COHORT.names[1:])
    with pytest.raises(StaleUpdate):
        member.upload(without, np.zeros(5, dtype=np.int64))


def test_a_second_list_of_keys_is_refused_after_a_restart_too() -> None:
    messages = {name: member.key_message(RUN) for name, member in COHORT.members.items()}
    fewer = {name: message for name, message in messages.items() if name != COHORT.names[-1]}
    other = gather_keys(RUN, fewer, COHORT.identities)
    again = COHORT.restarted(FIRST)
    again.accept_keys(RUN, COHORT.key_list)
    with pytest.raises(StaleUpdate):
        again.accept_keys(RUN, other)
    assert again.key_message(RUN) == messages[FIRST]


def test_a_run_that_was_not_set_up_is_not_answered() -> None:
    context = COHORT.context(next(ROUNDS))
    name = FIRST
    fresh = Institution(name, COHORT.identity[name], COHORT.identities, COHORT.coordinator.public, MemoryRecorder())
    with pytest.raises(StaleUpdate):
        fresh.upload(context, values_of(context, name, 0))
    with pytest.raises(StaleUpdate):
        fresh.unmask(RUN, context.round, b"")


def asked(names: list[str], number: int, holder: str, sent: dict[str, bytes]) -> bytes:
    """A signed question about ``names``, honest but for the set."""
    context = COHORT.context(number)
    read = {name: read_upload(sent[name], context, name, COHORT.identities[name]) for name in names}
    place = context.graph.holders.index(holder)
    question = Question(
        holder,
        tuple(names),
        tuple(one.head for one in read.values()),
        tuple(one.packages[place] for one in read.values()),
    )
    return write_question(context, question, COHORT.coordinator)


def test_one_set_is_answered_in_a_round_across_restarts_and_a_repeat_gets_the_stored_bytes() -> None:
    number = next(ROUNDS)
    sent = uploads(COHORT, COHORT.context(number), COHORT.names)
    whole, less = (asked(names, number, FIRST, sent) for names in (COHORT.names, COHORT.names[:5]))
    answer = COHORT.members[FIRST].unmask(RUN, number, whole)
    again = COHORT.restarted(FIRST)
    assert again.unmask(RUN, number, whole) == answer
    for member in (COHORT.members[FIRST], again):
        with pytest.raises(StaleUpdate):
            member.unmask(RUN, number, less)


def test_a_round_that_never_was_is_not_answered() -> None:
    number = next(ROUNDS)
    sent = uploads(COHORT, COHORT.context(number), COHORT.names)
    question = asked(COHORT.names, number, FIRST, sent)
    for run, other in ((RUN, number + 10_000), ("run-9", number)):
        with pytest.raises(StaleUpdate):
            COHORT.members[FIRST].unmask(run, other, question)


def test_members_that_were_told_different_models_share_no_mask_and_open_no_package() -> None:
    number = next(ROUNDS)
    told, otherwise = COHORT.context(number), COHORT.context(number, adapter_digest="1" * 64)
    sent = uploads(COHORT, told, COHORT.names[:5])
    last = COHORT.names[5]
    other = COHORT.members[last].upload(otherwise, values_of(otherwise, last, 0))
    collector = COHORT.collector(told)
    with pytest.raises(StaleUpdate):
        collector.add_upload(last, other)
    question = asked(COHORT.names[:5], number, FIRST, sent)
    with pytest.raises(StaleUpdate):
        COHORT.members[last].unmask(RUN, number, question)


def test_a_recorder_keeps_what_it_has() -> None:
    recorder = MemoryRecorder()
    recorder.store(RUN, 1, "upload", b"first")
    with pytest.raises(StorageError):
        recorder.store(RUN, 1, "upload", b"second")
    assert recorder.stored(RUN, 1, "upload") == b"first"
