"""The agent over HTTP on a Unix domain socket: what the relay speaks to. Form: docs/SPEC.md, "The agent's socket".

Guarantees:
- One request is worked on at a time; ``agent.queue`` may wait, and a further one gets the agent's signed refusal
  ``busy``. Of these one body is read at a time, so that no more is held than the bodies of those who wait, and one.
- A body longer than ``agent.max_request_bytes`` is refused while it is read, before anything looks into it.
- What is sent back is the agent's own signed bytes or one fixed word; an error's text stays here.
- On SIGTERM the running answer is finished and sent, and nothing that waits is begun.
- The log holds names, words and seconds, no data; requests that are turned away in masses make no more than a line a
  second.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import Literal, Protocol

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fedft import __version__
from fedft.config import InstitutionPolicy
from fedft.deployment.agent_log import Events, agent_log
from fedft.deployment.agent_socket import bound_socket
from fedft.errors import FedftError
from fedft.identity.signed import HEAD_BYTES
from fedft.identity.signed import MAGIC as SIGNED_MAGIC
from fedft.rounds.masking import run_of
from fedft.rounds.messages import MAX_ATTESTATION, MAX_SMALL, decode_answer
from fedft.secagg.messages import UPLOAD_MAGIC, own_place
from fedft.update.envelope import MAX_HEADER_BYTES, open_header
from fedft.update.release import Refusal

READ_SECONDS = 120.0
"""How long a body may take to arrive from the same machine."""
CONNECTIONS = 64
"""Beside those that wait: health checks, roll calls, and whoever is turned away."""

Event = Literal["answer", "unmask"]


class AgentLike(Protocol):
    """Signed bytes in, signed bytes out. One thread calls ``answer``, ``unmask`` and ``receipt``; the others meanwhile.

    All raise FedftError for what is not signed by the coordinator or not readable.
    """

    def answer(self, body: bytes) -> bytes: ...
    def unmask(self, body: bytes) -> bytes: ...
    def receipt(self, body: bytes) -> bytes: ...
    def roll_call(self, body: bytes) -> bytes: ...

    def busy(self, event: Event, body: bytes) -> bytes:
        """The signed refusal of what the method of that name is not asked for now."""


def serve(agent: AgentLike, policy: InstitutionPolicy) -> None:
    """Answer at the policy's socket until SIGTERM or SIGINT.

    Raises
    ------
    ConfigError
        The socket cannot be made there, or another agent lives at it.
    StorageError
        The log cannot be written.
    """
    with agent_log(policy.agent.log) as events, bound_socket(policy.agent.socket) as bound:
        with closing(Desk(agent, policy, events)) as desk:
            server = AgentServer(desk, policy)
            with _stopped_by_signals(server):
                events.note("started", outcome=__version__)
                server.run(sockets=[bound])
        events.note("stopped")


class Desk:
    """Takes requests and hands them to the agent, one at a time."""

    def __init__(self, agent: AgentLike, policy: InstitutionPolicy, events: Events) -> None:
        self._agent, self._policy, self._events = agent, policy, events
        self._turn, self._refusing = asyncio.Lock(), asyncio.Lock()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="training")
        self._refuser = ThreadPoolExecutor(max_workers=1, thread_name_prefix="refusing")
        self._inside = 0
        self._training = False
        self.stopping = False

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/answer", self._answer, methods=["POST"]),
                Route("/v1/unmask", self._unmask, methods=["POST"]),
                Route("/v1/receipt", self._receipt, methods=["POST"]),
                Route("/v1/roll-call", self._roll_call, methods=["POST"]),
                Route("/v1/health", self._health, methods=["GET"]),
            ]
        )

    def close(self) -> None:
        self._worker.shutdown()
        self._refuser.shutdown()

    async def _answer(self, request: Request) -> Response:
        return await self._in_turn("answer", self._agent.answer, request)

    async def _unmask(self, request: Request) -> Response:
        return await self._in_turn("unmask", self._agent.unmask, request)

    async def _receipt(self, request: Request) -> Response:
        return await self._in_turn("receipt", self._agent.receipt, request, MAX_SMALL + HEAD_BYTES)

    async def _in_turn(
        self,
        event: Event | Literal["receipt"],
        work: Callable[[bytes], bytes],
        request: Request,
        limit: int | None = None,
    ) -> Response:
        if self.stopping:
            return self._turned_away(event, 503, "stopping")
        if self._inside > self._policy.agent.queue:
            return self._turned_away(event, 429, "busy") if event == "receipt" else await self._busy(event, request)
        self._inside += 1
        try:
            body = await _body(request, limit or self._policy.agent.max_request_bytes)
            async with self._turn:
                if self.stopping:
                    return self._turned_away(event, 503, "stopping")
                if await request.is_disconnected():
                    return self._turned_away(event, 400, "gone")
                return await self._worked_on(event, work, body)
        except _Refused as refused:
            return self._turned_away(event, refused.status, refused.word)
        finally:
            self._inside -= 1

    async def _busy(self, event: Event, request: Request) -> Response:
        """Who asked is told in the agent's name, so its request has to be read: the coordinator's, or nothing."""
        try:
            async with self._refusing:
                body = await _body(request, self._policy.agent.max_request_bytes)
                work = partial(self._agent.busy, event, body)
                answer = await asyncio.get_running_loop().run_in_executor(self._refuser, work)
        except _Refused as refused:
            return self._turned_away(event, refused.status, refused.word)
        except Exception as error:  # noqa: BLE001 - a word instead of its text
            return self._turned_away(event, *_word(error))
        self._events.note_often(event, "busy")
        return Response(answer, media_type="application/octet-stream")

    async def _worked_on(self, event: str, work: Callable[[bytes], bytes], body: bytes) -> Response:
        self._training, begun = True, time.monotonic()
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._worker, work, body)
        except Exception as error:  # noqa: BLE001 - a word instead of its text
            return self._turned_away(event, *_word(error))
        finally:
            self._training = False
        run, number, outcome = _about(answer)
        seconds = round(time.monotonic() - begun, 3)
        self._events.note(event, run=run, round=number, outcome=outcome, seconds=seconds)
        return Response(answer, media_type="application/octet-stream")

    async def _roll_call(self, request: Request) -> Response:
        try:
            reply = self._agent.roll_call(await _body(request, MAX_SMALL + HEAD_BYTES))
        except _Refused as refused:
            return self._turned_away("roll-call", refused.status, refused.word)
        except Exception as error:  # noqa: BLE001 - a word instead of its text
            return self._turned_away("roll-call", *_word(error))
        self._events.note_often("roll-call", "answered")
        return Response(reply, media_type="application/octet-stream")

    async def _health(self, request: Request) -> Response:
        return JSONResponse(
            {
                "status": "stopping" if self.stopping else "ok",
                "version": __version__,
                "name": self._policy.institution.name,
                "training": self._training,
                "waiting": self._inside - self._training,
            }
        )

    def _turned_away(self, event: str, status: int, word: str) -> Response:
        self._events.note_often(event, word)
        return JSONResponse({"error": word}, status, headers={"connection": "close"})


class _Refused(Exception):
    def __init__(self, status: int, word: str) -> None:
        super().__init__(word)
        self.status, self.word = status, word


async def _body(request: Request, limit: int) -> bytes:
    """The whole body. Raises _Refused as soon as it is too long by its own word or in fact, too slow, or broken off."""
    claimed = request.headers.get("content-length", "")
    if claimed.isdigit() and int(claimed) > limit:  # at most 20 digits: h11 takes no more
        raise _Refused(413, "too-large")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit:
                    raise _Refused(413, "too-large")
                chunks.append(chunk)
    except TimeoutError:
        raise _Refused(408, "slow") from None
    except ClientDisconnect:
        raise _Refused(400, "gone") from None
    return b"".join(chunks)


def _word(error: Exception) -> tuple[int, str]:
    return (400, error.code) if isinstance(error, FedftError) else (500, "internal")


def _about(answer: bytes) -> tuple[str | None, int | None, str]:
    """Run, round and outcome of what the agent made, read from its start alone."""
    start = answer[HEAD_BYTES : HEAD_BYTES + MAX_ATTESTATION + MAX_HEADER_BYTES + MAX_SMALL]
    try:
        told = decode_answer(start)
        if isinstance(told, Refusal):
            return told.run, told.round, told.reason
        if told.startswith((UPLOAD_MAGIC, SIGNED_MAGIC)):
            setup, number = own_place(told)
            return run_of(setup), number, "masked-update" if told.startswith(UPLOAD_MAGIC) else "shares"
        header = open_header(told)
    except FedftError:
        return None, None, "answered"
    return header.run, header.round, "update"


class AgentServer(uvicorn.Server):
    """uvicorn's, which stops the desk too."""

    def __init__(self, desk: Desk, policy: InstitutionPolicy) -> None:
        self._desk = desk
        super().__init__(
            uvicorn.Config(
                desk.app(),
                http="h11",  # it bounds the size of headers
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="critical",  # a traceback quotes what it was about
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=policy.agent.queue + CONNECTIONS,
                backlog=CONNECTIONS,
            )
        )

    def stop(self) -> None:
        """Finish what runs, begin nothing, end."""
        self._desk.stopping = self.should_exit = True

    def handle_exit(self, sig: int, frame: object) -> None:
        self.stop()


@contextmanager
def _stopped_by_signals(server: AgentServer) -> Iterator[None]:
    """From before uvicorn listens to signals, so that none is lost."""
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
