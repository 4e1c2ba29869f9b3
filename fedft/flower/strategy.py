"""Rounds over Flower's Message API: a Strategy that leaves every decision to rounds.coordinator."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from logging import getLogger
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from fedft.errors import FederationError, FedftError, UpdateError
from fedft.flower.records import RECEIPT, UNMASK, body_content, body_of
from fedft.identity.signed import HEAD_BYTES
from fedft.rounds.coordinator import Coordinator
from fedft.rounds.masked_sum import MaskedSum
from fedft.rounds.messages import (
    ANSWER_LABEL,
    MAX_ATTESTATION,
    MAX_SMALL,
    RECEIPT_LABEL,
    REQUEST_LABEL,
    ROLL_CALL_LABEL,
    decode_answer,
    decode_presence,
    encode_question,
    encode_request,
    fresh_nonce,
    split_attestation,
)
from fedft.rounds.open_round import OpenRound
from fedft.rounds.plan import RoundRequest
from fedft.update.envelope import largest_envelope
from fedft.update.release import Refusal
from fedft.update.wire import body_size

log = getLogger(__name__)

PARTITION = "partition-id"
"""Flower's name for the number of a simulated node."""

POLL_SECONDS = 0.02
ROLL_CALL_SECONDS = 60.0
"""How long a roll call waits for a node's name, and the first one for the whole cohort before a quorum is enough."""


CLOCK_SECONDS = 600.0
"""How far the clocks of coordinator and institutions may be apart: a message lives so much longer than its round."""

UNMASK_SECONDS = 300.0
"""How long those who hold shares may take: they train nothing."""
GRACE_SECONDS = 2.0
"""How much longer than for the least number of them is waited: with more, one that lies can be left out."""
MAX_SHARES = 16 * 2**20
NOTICE_SECONDS = 30.0
"""How long the last notice waits for institutions to reply."""

Sign = Callable[[str, bytes], bytes]
"""Label, payload -> what travels."""
Opened = Callable[[str, str, bytes], bytes]
"""Label, institution, what came -> the payload. Raises FedftError unless that institution signed it."""


def unsigned(label: str, payload: bytes) -> bytes:
    """In a simulation all sides are one process."""
    return payload


def unchecked(label: str, institution: str, data: bytes) -> bytes:
    """The counterpart of ``unsigned``."""
    return data


class FedftStrategy(Strategy):
    """One round a turn, from wherever the coordinator's state stands, each reply added as it comes.

    Flower's own loop starts at round 1, keeps all replies in memory and stops at the first bad one; ``start`` does not.
    The adapter travels in our own record, so the arrays of Flower's interface stay empty.

    Guarantee: with ``sign`` and ``opened`` of fedft/identity nothing is believed but what the named institution signed:
    a node cannot speak in another's name, nor take its place by an earlier reply of its.

    Parameters
    ----------
    terms
        Text of the terms sent along with every plan; the coordinator's terms name its digest.
    sign, opened
        How a payload becomes what travels, and back.
    poll_s
        How long to wait before asking for replies again: short in one process, a call over TLS elsewhere.
    measured
        Called after a round's replies; figures to keep with its record.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        round_timeout_s: float,
        terms: str = "",
        sign: Sign = unsigned,
        opened: Opened = unchecked,
        poll_s: float = POLL_SECONDS,
        measured: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._coordinator, self._timeout, self._measured = coordinator, round_timeout_s, measured
        self._terms, self._sign, self._open = terms, sign, opened
        self._poll = poll_s
        self._names: dict[int, str] = {}
        self._left_out: set[int] = set()
        self._opened: OpenRound | None = None
        self._grid: Grid | None = None

    def start(self, grid: Grid, *_: object, **__: object) -> Result:
        """Play what is left of the run. Raises what rounds.coordinator raises."""
        self._grid = grid
        while not self._coordinator.finished:
            self._call_roll(grid)
            number, masking = self._coordinator.next_round, self._coordinator.masking
            if masking is not None and masking.is_outdated(self._names.values(), number):
                masking.renew()
                self._names.clear()
                self._call_roll(grid)
            messages = self.configure_train(number, ArrayRecord(), ConfigRecord(), grid)
            self.aggregate_train(number, stream_replies(grid, messages, self._timeout, self._poll))
        self._give_notice(grid)
        return Result()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        request = self._coordinator.request()
        self._opened = self._coordinator.open_round(request)
        return list(self._messages(request))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        opened = self._opened
        if opened is None:
            raise FederationError("expected configure_train before aggregate_train: use start")
        heard = set()
        for reply in replies:
            name = self._names.get(reply.metadata.src_node_id)
            if name is not None and not reply.has_error():
                heard.add(name)
                self._take(opened, name, reply)
        for name in opened.plan.cohort:
            if name not in heard:
                opened.missing(name)
        if opened.masked is not None:
            self._unmask(opened, opened.masked)
        asked = sum(name in opened.plan.cohort for name in self._names.values())
        down = body_size("adapter", self._coordinator.layout.size, opened.plan.encoding) * asked
        self._coordinator.close(opened, bytes_down=down, **self._measured())
        self._opened = None
        return None, None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Institutions evaluate for themselves; the coordinator uses its own public rows."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return None

    def summary(self) -> None:
        terms = self._coordinator.terms
        log.info("run %s: %d rounds, %d institutions", terms.run, terms.rounds, len(terms.cohort))

    def _messages(self, request: RoundRequest) -> Iterator[Message]:
        content, plan = body_content(self._sign(REQUEST_LABEL, encode_request(request, self._terms))), request.plan
        masking = self._coordinator.masking
        asked = plan.cohort if masking is None else masking.members
        for node in sorted(self._names, key=lambda node: plan.cohort.index(self._names[node])):
            if self._names[node] in asked:
                ttl, group = self._timeout + CLOCK_SECONDS, f"round-{plan.round}"
                yield Message(content, node, MessageType.TRAIN, ttl=ttl, group_id=group)

    def _unmask(self, opened: OpenRound, masked: MaskedSum) -> None:
        """The second exchange of a masked round: ask those who hold shares, until enough of them have answered."""
        grid, nodes = self._grid, {name: node for node, name in self._names.items()}
        if grid is None:
            raise FederationError("expected start before aggregate_train: a masked round takes two exchanges")
        timeout, group = min(self._timeout, UNMASK_SECONDS), f"round-{opened.plan.round}"
        questions = [
            Message(body_content(question), nodes[holder], UNMASK, ttl=timeout + CLOCK_SECONDS, group_id=group)
            for holder, question in masked.questions().items()
            if holder in nodes
        ]
        for reply in stream_replies(grid, questions, timeout, self._poll, enough=lambda: masked.is_answered):
            name = self._names.get(reply.metadata.src_node_id)
            if name is not None and not reply.has_error():
                self._take_shares(opened, masked, name, reply)

    def _give_notice(self, grid: Grid) -> None:
        """Send the log's head to all who are there, and note their ledgers' heads; who does not reply is left out."""
        trail = self._coordinator.trail
        if trail is None:
            return
        if not self._names:  # a run that was resumed when its rounds were over
            self._call_roll(grid)
        notice = trail.notice()
        content = body_content(self._sign(RECEIPT_LABEL, notice))
        ttl = NOTICE_SECONDS + CLOCK_SECONDS
        messages = [Message(content, node, RECEIPT, ttl=ttl, group_id="notice") for node in sorted(self._names)]
        for reply in stream_replies(grid, messages, min(NOTICE_SECONDS, self._timeout), self._poll):
            name = self._names.get(reply.metadata.src_node_id)
            if name is None or reply.has_error():
                continue
            try:
                body = _within(body_of(reply.content), MAX_SMALL)
                trail.noticed(name, notice, self._open(RECEIPT_LABEL, name, body))
            except FedftError as error:
                log.warning("notice: %s replied with something else: %s", name, error)

    def _take_shares(self, opened: OpenRound, masked: MaskedSum, name: str, reply: Message) -> None:
        try:
            body = _within(body_of(reply.content), MAX_SHARES)
            opened.reveal(masked, name, decode_answer(self._open(ANSWER_LABEL, name, body)))
        except FedftError as error:
            log.warning("round %d: %s sent something else than shares: %s", opened.plan.round, name, error)

    def _call_roll(self, grid: Grid) -> None:
        """Ask nodes that are new who they are, each with a nonce of its own.

        A name outside the cohort, one that is taken, or a reply that its institution did not sign, is left out. Nobody
        waits for who has been removed from the federation.
        """
        begun, cohort, first = time.monotonic(), self._coordinator.terms.cohort, not self._names
        trail = self._coordinator.trail
        able = len(cohort) if trail is None else len(trail.members & set(cohort))
        masking = self._coordinator.masking
        least = 0 if masking is None else masking.terms.least_cohort
        quorum = min(max(self._coordinator.terms.min_institutions, least), len(cohort))
        while True:
            known = set(grid.get_node_ids())
            self._names = {node: name for node, name in self._names.items() if node in known}
            nonces = {node: fresh_nonce() for node in sorted(known - self._names.keys())}
            questions = [
                Message(
                    body_content(
                        self._sign(ROLL_CALL_LABEL, encode_question(nonce, "" if masking is None else masking.setup))
                    ),
                    node,
                    MessageType.QUERY,
                    ttl=ROLL_CALL_SECONDS + CLOCK_SECONDS,
                    group_id="roll-call",
                )
                for node, nonce in nonces.items()
            ]
            for reply in stream_replies(grid, questions, min(ROLL_CALL_SECONDS, self._timeout), self._poll):
                node = reply.metadata.src_node_id
                if node in nonces and not reply.has_error():
                    self._seat(node, reply, nonces[node])
            waited = time.monotonic() - begun
            wanted = max(able, quorum) if first and waited < ROLL_CALL_SECONDS else quorum
            if len(self._names) >= wanted or waited > self._timeout:
                return
            time.sleep(self._poll)

    def _seat(self, node: int, reply: Message, nonce: str) -> None:
        """Note who ``node`` is, if its reply shows that; say once that it does not."""
        free = [name for name in self._coordinator.terms.cohort if name not in self._names.values()]
        name = self._name_in(reply, nonce, free)
        if name is not None:
            self._names[node] = name
        elif node not in self._left_out:
            self._left_out.add(node)
            log.warning("roll call: a node is left out that does not show to be %s", " or ".join(free) or "expected")

    def _name_in(self, reply: Message, nonce: str, names: Iterable[str]) -> str | None:
        """The one of ``names`` that signed the reply and gives itself this name."""
        for name in names:
            try:
                body = _within(body_of(reply.content), MAX_SMALL)
                found, key = decode_presence(self._open(ROLL_CALL_LABEL, name, body), nonce=nonce)
                if found == name:
                    if self._coordinator.masking is not None:
                        self._coordinator.masking.offer(name, key)
                    return name
            except FedftError:
                continue  # not this one's, or nobody's
        return None

    def _take(self, opened: OpenRound, name: str, reply: Message) -> None:
        try:
            size = self._coordinator.layout.size
            longest = largest_envelope(size) if opened.masked is None else opened.masked.largest_upload
            body = _within(body_of(reply.content), longest + MAX_ATTESTATION)
            note, told = split_attestation(self._open(ANSWER_LABEL, name, body))
            answer = decode_answer(told)
            if self._coordinator.trail is not None and note:
                self._coordinator.trail.attested(name, note, told, opened.plan)
                opened.notes[name] = note
        except FedftError as error:
            log.warning("round %d: %s sent something else than an answer: %s", opened.plan.round, name, error)
            opened.malformed(name, error.code)
            return
        if isinstance(answer, Refusal):
            opened.refuse(name, answer)
        else:
            opened.receive(name, answer)


def _within(body: bytes, payload_bytes: int) -> bytes:
    """``body`` itself, before anything reads it. Raises UpdateError when no signed payload of this size is so long."""
    longest = payload_bytes + HEAD_BYTES
    if len(body) > longest:
        raise UpdateError(f"expected at most {longest} bytes, found {len(body)}: send what docs/SPEC.md says, no more")
    return body


def partition_of(context: Context) -> int:
    """The number, from 0, of a simulated node."""
    return int(context.node_config[PARTITION])


def stream_replies(
    grid: Grid,
    messages: Iterable[Message],
    timeout_s: float,
    poll_s: float = POLL_SECONDS,
    enough: Callable[[], bool] = lambda: False,
) -> Iterator[Message]:
    """Replies one at a time as they come: until all are there, the time is over, or GRACE_SECONDS after ``enough``."""
    waiting = set(asked := list(grid.push_messages(messages)))
    end, latest = time.monotonic() + timeout_s, math.inf
    while waiting:
        if enough():
            latest = min(latest, time.monotonic() + GRACE_SECONDS)
        for reply in grid.pull_messages([m for m in asked if m in waiting]):
            waiting.discard(reply.metadata.reply_to_message_id)
            yield reply
        if not waiting or time.monotonic() > min(end, latest):
            return
        time.sleep(poll_s)
