"""The form of the whole report, and its JSON Schema."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from fedft.report.facts import FindingText, Parts

LABEL: Final = "fedft/v1/audit-report"
SCHEMA_ID = "urn:fedft:v1:audit-report"


class Mismatch(TypedDict):
    where: str
    expected: str
    found: str
    signed_by: str


class Verification(TypedDict):
    """What fedft audit verify found; mismatch: the first that does not hold."""

    valid: bool
    ledgers: list[str]
    not_covered: list[str]
    mismatch: Mismatch | None


class Recomputation(TypedDict):
    """What fedft audit recompute found. exit_code: 0 every claim holds, 1 one does not, 2 something was not read."""

    exit_code: int
    findings: list[FindingText]


class Control(TypedDict):
    """evidence: numbers of parts of this report; commands: what an auditor runs."""

    framework: str
    clause: str
    asks: str
    evidence: list[int]
    how: str
    source: str


class Document(TypedDict):
    """configuration, rounds, summary: the run's own files, as they stand in its folder.

    cut_line: the last of the rounds was cut off. files: SHA-256 by name.
    """

    label: Literal["fedft/v1/audit-report"]
    fedft_version: str
    verification: Verification | None
    recomputation: Recomputation
    parts: Parts
    controls: list[Control]
    configuration: dict[str, Any]
    rounds: list[dict[str, Any]]
    summary: dict[str, Any]
    cut_line: bool
    files: dict[str, str]


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    body = TypeAdapter(Document).json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, **body}
