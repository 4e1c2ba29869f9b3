"""Signed notes: a few lines of text and who signed them. Form: docs/SPEC.md, "Signed notes", after C2SP's signed-note.

Guarantees:
- open_note returns a text only if the key signed it under the name; a note has one form of bytes.
- No note is a signature under a label (identity/keys.py), nor the reverse: a label is followed by 32 bytes, a note's
  first line by at least 40.
"""

from __future__ import annotations

import base64
import re

from fedft.errors import IdentityError
from fedft.identity.keys import SIGNATURE_BYTES, PrivateKey, PublicKey

MAX_NOTE = 1024
"""Bytes of a note in UTF-8."""
COORDINATOR = "coordinator"
"""The name under which a coordinator signs notes."""

_TEXT = re.compile(r"fedft/v1/[!-~]+\n(?:[ -~]+\n)+", re.ASCII)
_NOTE = re.compile(r"(.*\n)\n\u2014 ([A-Za-z0-9][A-Za-z0-9_-]{0,63}) ([A-Za-z0-9+/]+=*)\n", re.DOTALL)
_LEAST_AFTER_FIRST_LINE = 40


def sign_note(text: str, name: str, key: PrivateKey) -> str:
    """``text`` with the signature of ``key`` below it. Raises IdentityError for a text that is none of a note."""
    _require_text(text)
    signed = key.public.note_id(name) + key.sign_note(text.encode())
    return f"{text}\n\u2014 {name} {base64.b64encode(signed).decode()}\n"


def open_note(note: str, name: str, key: PublicKey) -> str:
    """The text. Raises IdentityError unless ``key`` signed it as ``name``."""
    text, signer, signed = _parts(note)
    if signer != name or signed[:4] != key.note_id(name):
        raise IdentityError(
            f"expected a note signed by {name} with {key.text[:16]}..., found one of {signer} with another key: ask "
            "for the signer's key"
        )
    key.verify_note(text.encode(), signed[4:])
    return text


def claimed(note: str) -> tuple[str, str]:
    """Text and signer's name as the note gives them, not verified. Raises IdentityError for what is no note."""
    return _parts(note)[:2]


def _parts(note: str) -> tuple[str, str, bytes]:
    found = _NOTE.fullmatch(note) if len(note) + 2 <= MAX_NOTE else None  # the dash has 3 bytes
    if found is None:
        raise IdentityError(f"expected a signed note of at most {MAX_NOTE} bytes, found something else: copy it whole")
    text, signer, encoded = found.groups()
    _require_text(text)
    try:
        signed = base64.b64decode(encoded, validate=True)
    except ValueError:
        signed = b""
    if len(signed) != 4 + SIGNATURE_BYTES or base64.b64encode(signed).decode() != encoded:
        raise IdentityError("expected a note's signature in base64, found something else: copy it whole")
    return text, signer, signed


def _require_text(text: str) -> None:
    if not _TEXT.fullmatch(text) or len(text) - text.index("\n") - 1 < _LEAST_AFTER_FIRST_LINE:
        raise IdentityError("expected the text of a note, found something else: docs/SPEC.md has its form")
