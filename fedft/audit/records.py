"""What the coordinator's record of rounds says of an institution, against the institution's ledger."""

from __future__ import annotations

from collections.abc import Iterator

from fedft.audit.asked import Asked
from fedft.audit.findings import Finding, claim, note, rounds_text
from fedft.audit.folder import Run, number
from fedft.audit.spending import UPDATE, Spending


def rounds_with_update(run: Run, name: str) -> set[int]:
    """In which rounds the coordinator counts an update of the institution."""
    return {
        int(round)
        for record in run.rounds
        if isinstance(record.get("updates"), list) and name in record["updates"]
        if (round := number(record.get("round"))) is not None
    }


def record_findings(run: Run, spending: Spending, asked: Asked) -> Iterator[Finding]:
    """Releases without an intent, and the other ways in which the two may differ."""
    name, reported = spending.name, rounds_with_update(run, spending.name)
    updates = [charge for charge in spending.of_run(asked.run) if charge.purpose == UPDATE]
    charged = {round for charge in updates for round in charge.rounds}
    released = {round for charge in updates for round in charge.released}
    if reported and not charged:
        yield claim(
            "ledger-of-another",
            name,
            f"expected charges for {rounds_text(reported)} of {asked.run}, found none of this run: another run's "
            "ledger, an older copy, or another institution's",
        )
    elif reported - charged:
        yield claim(
            "release-without-intent",
            name,
            f"the coordinator has updates of {rounds_text(reported - charged)}, for which nothing was charged",
        )
    if (reported & charged) - released:
        yield claim(
            "update-not-recorded",
            name,
            f"the coordinator has updates of {rounds_text((reported & charged) - released)}, which were charged, and "
            "whose release the ledger does not hold",
        )
    if released - reported:
        yield note(
            "release-not-counted",
            name,
            f"{rounds_text(released - reported)}: an update left that the coordinator's record does not count: it came "
            "late, was refused, or the round did not finish",
        )
