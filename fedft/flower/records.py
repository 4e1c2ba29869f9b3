"""Ours as Flower's RecordDict and back: one field of bytes, in both directions (docs/decisions/0001).

What the bytes are is for fedft/rounds/messages.py to say, and whose for fedft/identity.
"""

from __future__ import annotations

from flwr.app import ConfigRecord, MessageType, RecordDict

from fedft.errors import UpdateError

RECORD = "fedft"
BODY = "body"
UNMASK = f"{MessageType.TRAIN}.unmask"
"""The type of a question who uploaded, and of its answer."""
RECEIPT = f"{MessageType.QUERY}.receipt"
"""The type of a notice, and of its reply."""


def body_content(body: bytes) -> RecordDict:
    return RecordDict({RECORD: ConfigRecord({BODY: body})})


def body_of(content: RecordDict) -> bytes:
    """Raises UpdateError for anything that body_content does not make; the bytes are not opened here."""
    if list(content.keys()) == [RECORD] and isinstance(content[RECORD], ConfigRecord):
        fields = dict(content[RECORD])
        body = fields.get(BODY)
        if len(fields) == 1 and isinstance(body, bytes):
            return body
    raise UpdateError(
        f'expected one record "{RECORD}" with one field "{BODY}" of bytes, found another content: '
        "use the same version of fedft on both sides"
    )
