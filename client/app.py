"""The relay: carries a message's bytes to the institution's agent, and the agent's bytes back.

A SuperNode runs it in a new process for each message: from the institution's own disk (own.py), or, where that is not
set up, as the coordinator sent it. So it reads nothing, decides nothing, and needs nothing of fedft: the agent checks
who signed.

The SuperNode is started with --node-config 'agent="/path/to/agent.sock"'.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

RECORD, BODY = "fedft", "body"
RECONNECT_SECONDS = 30.0
"""How long a connection is tried again: an agent that restarts is back by then."""
ATTEMPTS = 3
"""How often a request is sent in all, when the agent goes away while it works. It charges a round once."""
PAUSE_SECONDS = 0.5
STOPPING = 503
"""What an agent that was told to stop says to those who waited: another may follow it."""
CHUNK_BYTES = 256 * 1024
"""httpx copies what is left of a body with every write."""

app = ClientApp()


class NoAnswer(Exception):
    """Instead of whatever went wrong: Flower sends an exception's text to the coordinator."""

    def __init__(self) -> None:
        super().__init__("no answer")


@app.train()
def train(message: Message, context: Context) -> Message:
    """A round."""
    return _reply("/v1/answer", message, context)


@app.train("unmask")
def unmask(message: Message, context: Context) -> Message:
    """The second exchange of a round under secure aggregation."""
    return _reply("/v1/unmask", message, context)


@app.query()
def query(message: Message, context: Context) -> Message:
    """A roll call."""
    return _reply("/v1/roll-call", message, context)


@app.query("receipt")
def receipt(message: Message, context: Context) -> Message:
    """The coordinator's last word of a run."""
    return _reply("/v1/receipt", message, context)


def _reply(path: str, message: Message, context: Context) -> Message:
    try:
        answer = _ask(path, message, context)
    except Exception:  # noqa: BLE001 - whatever it was, its text must not travel
        answer = None
    if answer is None:
        raise NoAnswer  # outside the except block, so that no cause travels along
    return Message(RecordDict({RECORD: ConfigRecord({BODY: answer})}), reply_to=message)


def _ask(path: str, message: Message, context: Context) -> bytes:
    """The body of the agent's answer. Raises an error of any kind when there is none before the message expires."""
    body, socket = message.content.config_records[RECORD][BODY], str(context.node_config["agent"])
    if not isinstance(body, bytes):
        raise TypeError
    end = time.monotonic() + message.metadata.created_at + message.metadata.ttl - time.time()
    attempts = ATTEMPTS
    while True:
        try:
            return _sent(path, body, socket, end)
        except (httpx.NetworkError, httpx.RemoteProtocolError):  # it went away; a timeout is none of these
            attempts -= 1
            if not attempts:
                raise
        time.sleep(PAUSE_SECONDS)


def _sent(path: str, body: bytes, socket: str, end: float) -> bytes:
    """Once, as soon as someone listens."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=socket), base_url="http://agent", trust_env=False) as agent:
        _wait_for(agent, end)
        reply = agent.post(
            path,
            content=_chunks(body),
            headers={"content-length": str(len(body))},
            timeout=max(0.1, end - time.monotonic()),
        )
    if reply.status_code == STOPPING:
        raise httpx.RemoteProtocolError("it stops")
    reply.raise_for_status()
    return reply.content


def _wait_for(agent: httpx.Client, end: float) -> None:
    """Return when the agent is there. Raises ConnectError when it is not for too long."""
    last = min(end, time.monotonic() + RECONNECT_SECONDS)
    while True:
        try:
            agent.get("/v1/health", timeout=max(0.1, end - time.monotonic()))
            return
        except httpx.NetworkError:
            if time.monotonic() > last:
                raise
        time.sleep(PAUSE_SECONDS)


def _chunks(body: bytes) -> Iterator[bytes]:
    view = memoryview(body)
    for start in range(0, len(view), CHUNK_BYTES):
        yield bytes(view[start : start + CHUNK_BYTES])
