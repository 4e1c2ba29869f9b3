"""The parts of a report that speak of secure aggregation: what the coordinator saw, and what each round lost."""

from __future__ import annotations

from collections.abc import Sequence

from fedft.audit.folder import Body, Run, number, part, pick
from fedft.errors import ConfigError
from fedft.report.page import as_bytes, as_duration, cell, paragraph, subsection, table
from fedft.secagg.graph import colluders, shape_for

_HEAD = ("Round", "Cohort", "Needed", "In the sum", "Dropped", "Revealed no shares", "Lied", "Shares", "Coordinator")
_BARE = """
Trust model: the coordinator sees each institution's {what} update. {noise}there is no secure aggregation in this run.
"""
_MASKED = """
Trust model: the coordinator sees the sum of the updates of a round's institutions and no single one of them, as long as
no more than {colluding} of the others tell it what they know (docs/SPEC.md, "What holds, and why").{noise}
"""
_NOISE = "Noise is added inside the institution, so nobody else has to be trusted with the rows; "
_EVEN_SO = " Each institution's epsilon holds even where that fails: its noise was added before the mask."
_SHARED = """
The noise of this run was added in shares, one from each institution, and each alone is too little. The epsilons stated
here hold towards a coordinator that has at most {colluding} of the institutions on its side, and towards whoever sees
the model. If secure aggregation failed, only what the table calls "if masks fail" would hold.
"""
_SHARED_BARE = """
Trust model: none that can be stated. Noise was to be added in shares under secure aggregation, and not every round's
record says that it was masked: take "if masks fail" as what holds.
"""


def is_masked(run: Run) -> bool:
    """Whether the coordinator saw sums alone in every round there is a record of."""
    return bool(run.rounds) and all(part(record, "secure_aggregation") for record in run.rounds)


def trust(run: Run) -> str:
    """Who saw what. Says that updates were hidden only where every round's record does."""
    private = not run.is_unprotected
    if run.shares_noise:
        return _trust_in_masks(run)
    if not is_masked(run):
        words = _BARE.format(what="noised" if private else "own", noise=_NOISE if private else "It has no noise, and ")
        return " ".join(words.split())
    least = min(_colluding(part(record, "secure_aggregation")) for record in run.rounds)
    return " ".join(_MASKED.format(colluding=least, noise=_EVEN_SO if private else "").split())


def _trust_in_masks(run: Run) -> str:
    if not is_masked(run):
        return " ".join(_SHARED_BARE.split())
    masked = min(_colluding(part(record, "secure_aggregation")) for record in run.rounds)
    stated = number(pick(run.config, "privacy.colluding"))
    words = _MASKED.format(colluding=masked, noise="") + _SHARED
    return " ".join(words.format(colluding=masked if stated is None else int(stated)).split())


def masking(run: Run) -> str:
    """A line for each round that was masked; nothing where none was."""
    rows = [_row(record, found) for record in run.rounds if (found := part(record, "secure_aggregation"))]
    if not rows:
        return ""
    return subsection(
        "Secure aggregation",
        table(_HEAD, rows, numeric=(0, 1, 2, 3, 7, 8)),
        paragraph(
            "Needed: uploads and answers, of the cohort. Shares: bytes beside the masked updates. Coordinator: its "
            "time for masks. An abandoned round changed nothing, and is paid for all the same.",
            "note",
        ),
    )


def _row(record: Body, found: Body) -> list[str]:
    abandoned = found.get("abandoned")
    return [
        cell(record.get("round")),
        cell(len(_names(found, "cohort"))),
        cell(found.get("threshold")),
        cell(f"none: {abandoned}" if abandoned else len(_names(found, "uploaded"))),
        *(cell(", ".join(_names(found, key)) or "nobody") for key in ("dropped", "silent", "lied")),
        cell(as_bytes(number(found.get("bytes_shares")) or 0.0)),
        cell(as_duration(number(found.get("seconds")) or 0.0)),
    ]


def _colluding(found: Body) -> int:
    """How many may collude by the record's numbers; none where they are no numbers of a round."""
    try:
        return colluders(shape_for(len(_names(found, "cohort")), int(number(found.get("threshold")) or 0)))
    except ConfigError:
        return 0


def _names(found: Body, key: str) -> list[str]:
    value = found.get(key)
    return [name for name in value if isinstance(name, str)] if isinstance(value, Sequence) else []
