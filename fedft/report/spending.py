"""Part 4: the ledgers, every event in them, and epsilon as it grew against its cap."""

from __future__ import annotations

import math

from fedft.audit.accounts import Account
from fedft.audit.findings import rounds_text
from fedft.audit.spending import Charge, Spending, events_of, is_free
from fedft.privacy.accountant import epsilon_of
from fedft.privacy.events import event_as_json
from fedft.report.budget import budget
from fedft.report.facts import ChargeText, DatasetSpending, Ledgers, LedgerText, SpendPoint
from fedft.report.form import Document
from fedft.report.page import as_text, cell, figure, marked, paragraph, section, table
from fedft.report.sources import Sources

TITLE = "The ledger"
MOST_POINTS = 24
"""Of a data set's spend, evenly over its entries, the last among them."""


def facts(sources: Sources) -> Ledgers:
    accounts = sources.recomputed.accounts
    given = [
        _ledger(spending, [account for account in accounts if account.institution == name])
        for name, spending in sources.recomputed.ledgers.items()
    ]
    missing = [name for name in sources.institutions if name not in sources.recomputed.ledgers]
    return {"given": given, "not_given": missing}


def _ledger(spending: Spending, accounts: list[Account]) -> LedgerText:
    return {
        "institution": spending.name,
        "entries": spending.entries,
        "head": spending.head,
        "receipts": spending.receipts,
        "first_utc": spending.first_utc,
        "last_utc": spending.last_utc,
        "datasets": [_dataset(spending, account) for account in accounts],
        "refusals": [
            {"run": run, "reason": reason, "count": count} for (run, reason), count in sorted(spending.refusals.items())
        ],
    }


def _dataset(spending: Spending, account: Account) -> DatasetSpending:
    charges = spending.on(account.dataset)
    return {
        "dataset": account.dataset,
        "cap": account.cap,
        "delta": account.delta,
        "charges": [_charge(charge) for charge in sorted(charges, key=lambda charge: charge.entries[0])],
        "spend": [] if account.delta is None else _spend(charges, account.delta),
    }


def _charge(charge: Charge) -> ChargeText:
    return {
        "run": charge.run,
        "purpose": charge.purpose,
        "event": event_as_json(charge.event),
        "rounds": charge.rounds,
        "entries": charge.entries,
        "released": sorted(charge.released),
        "first_utc": min(charge.times),
        "last_utc": max(charge.times),
        "cap": charge.value("cap"),
        "allowed_by": charge.text("allowed_by") or "",
    }


def _spend(charges: tuple[Charge, ...], delta: float) -> list[SpendPoint]:
    every = sorted(
        (entry, charge.run, number)
        for charge in charges
        if not is_free(charge.event)
        for entry, number in zip(charge.entries, charge.rounds, strict=True)
    )
    wanted = min(MOST_POINTS, len(every))
    chosen = [every[math.ceil((i + 1) * len(every) / wanted) - 1] for i in range(wanted)]
    found: list[SpendPoint] = []
    for entry, run, number in chosen:
        epsilon = epsilon_of(events_of(charges, entry), delta)
        finite = epsilon if math.isfinite(epsilon) else None
        found.append({"entry": entry, "run": run, "round": number, "epsilon": finite})
    return found


def view(document: Document) -> str:
    found = document["parts"]["ledgers"]
    missing = ", ".join(found["not_given"])
    return section(
        TITLE,
        paragraph(f"Not given: the ledger of {missing}. Nothing of it is in this part.", "note") if missing else "",
        _spend_table(document),
        budget(document),
        _charges(found),
        _refusals(found),
        number=4,
    )


def _spend_table(document: Document) -> str:
    head = ("Ledger of", "Data set", "ε", "Cap", "Entries", "Receipts", "First (UTC)", "Last (UTC)", "Head")
    rows = []
    for i, ledger in enumerate(document["parts"]["ledgers"]["given"]):
        at = f"/parts/ledgers/given/{i}"
        for j, dataset in enumerate(ledger["datasets"]):
            last = len(dataset["spend"]) - 1
            rows.append(
                [
                    cell(ledger["institution"]),
                    cell(dataset["dataset"]),
                    cell(None) if last < 0 else _epsilon(document, f"{at}/datasets/{j}/spend/{last}/epsilon"),
                    figure(document, f"{at}/datasets/{j}/cap", "epsilon"),
                    figure(document, f"{at}/entries"),
                    figure(document, f"{at}/receipts"),
                    _time(ledger["first_utc"]),
                    _time(ledger["last_utc"]),
                    f"<code>{cell(ledger['head'][:12])}</code>",
                ]
            )
    note = "Each chain was checked, and epsilon computed again from its events, those of other runs included."
    return table(head, rows, numeric=(2, 3, 4, 5)) + (paragraph(note, "note") if rows else "")


def _epsilon(document: Document, pointer: str) -> str:
    """A spend without a finite epsilon has had an unprotected release."""
    text = figure(document, pointer, "epsilon")
    return marked("infinite", "bad") if ">–<" in text else text


def _charges(found: Ledgers) -> str:
    head = ("Ledger of", "Run", "For", "Event", "Rounds", "Entries", "Nothing left of", "Allowed by")
    rows = [
        [
            cell(ledger["institution"]),
            cell(charge["run"]),
            cell(charge["purpose"]),
            cell(_event(charge)),
            cell(rounds_text(charge["rounds"])),
            cell(rounds_text(charge["entries"]).removeprefix("rounds ").removeprefix("round ")),
            cell(_unreleased(charge)),
            cell(_allowed_by(charge)),
        ]
        for ledger in found["given"]
        for dataset in ledger["datasets"]
        for charge in dataset["charges"]
    ]
    if not rows:
        return ""
    return "<h3>Every charge</h3>" + table(head, rows)


def _event(charge: ChargeText) -> str:
    body = dict(charge["event"])
    kind = str(body.pop("kind"))
    return ", ".join([kind, *(f"{name.replace('_', ' ')} {as_text(value)}" for name, value in body.items())])


def _allowed_by(charge: ChargeText) -> str | None:
    """The line that let something pass without a guarantee, or the cap that was in force."""
    if charge["allowed_by"] or charge["cap"] is None:
        return charge["allowed_by"] or None
    return f"cap of ε {as_text(charge['cap'])}"


def _unreleased(charge: ChargeText) -> str | None:
    left = set(charge["rounds"]) - set(charge["released"])
    return rounds_text(left) if left else None


def _refusals(found: Ledgers) -> str:
    rows = [
        [cell(ledger["institution"]), cell(refusal["run"]), cell(refusal["reason"]), cell(refusal["count"])]
        for ledger in found["given"]
        for refusal in ledger["refusals"]
    ]
    if not rows:
        return ""
    return "<h3>Refusals in the ledgers</h3>" + table(("Ledger of", "Run", "Word", "Times"), rows, numeric=(3,))


def _time(time_utc: str) -> str:
    return f'<span class="t">{cell(time_utc.replace("T", " ").rstrip("Z"))}</span>'
