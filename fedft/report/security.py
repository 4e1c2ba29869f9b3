"""Part 8: keys, transport, secure aggregation, and everything that left an institution, in kind and size."""

from __future__ import annotations

from fedft.audit.folder import Run, part
from fedft.audit.spending import SHARES
from fedft.report import masking, sections
from fedft.report.facts import Left, ReleaseText, Security
from fedft.report.form import Document
from fedft.report.page import as_text, cell, figure, paragraph, section, table
from fedft.report.sources import Sources

TITLE = "Security"
_ELSEWHERE = (
    "Across organisations: Flower's SuperLink over TLS, SuperNodes known by key, every plan and answer signed "
    "with Ed25519 under the roster's keys beside that (docs/deploy.md). The run's folder holds no record of TLS itself."
)
_SIMULATED = "Simulated in one process: no network, no TLS. Keys were made for the run and deleted at its end."
_ATTESTED = (
    "With each answer goes its sender's signed head of its ledger: a random number of the ledger, how many entries it "
    "has over all federations, its hash, and the answer's digest. It says nothing of a row."
)


def facts(sources: Sources) -> Security:
    run = sources.run
    masked = [found for record in run.rounds if (found := part(record, "secure_aggregation"))]
    return {
        "transport": _ELSEWHERE if run.is_elsewhere else _SIMULATED,
        "secure_aggregation": masking.is_masked(run),
        "masked_rounds": len(masked),
        "abandoned_rounds": sum(bool(found.get("abandoned")) for found in masked),
        "attestations": sum(len(entry.fields["heads"]) for entry in sources.log.rounds),
        "left": _left(sources),
        "releases": _releases(sources),
    }


def _releases(sources: Sources) -> list[ReleaseText]:
    return [
        {
            "institution": name,
            "run": release.run,
            "round": release.round,
            "purpose": release.purpose,
            "bytes": release.bytes,
            "sha256": release.sha256,
        }
        for name, spending in sources.recomputed.ledgers.items()
        for release in spending.releases
    ]


def _left(sources: Sources) -> list[Left]:
    found: dict[tuple[str, str], Left] = {}
    for release in _releases(sources):
        name, purpose = release["institution"], release["purpose"]
        kind = "shares of keys, in which no row has a part" if purpose == SHARES else "charged in part 4"
        one = found.setdefault(
            (name, purpose), {"institution": name, "purpose": purpose, "kind": kind, "releases": 0, "bytes": 0}
        )
        one["releases"] += 1
        one["bytes"] += release["bytes"]
    return list(found.values())


def view(document: Document, run: Run) -> str:
    found, at = document["parts"]["security"], "/parts/security"
    head = ("Institution", "Purpose", "Kind", "Releases", "Bytes in all")
    rows = [
        [
            cell(one["institution"]),
            cell(one["purpose"]),
            cell(one["kind"]),
            figure(document, f"{at}/left/{i}/releases"),
            figure(document, f"{at}/left/{i}/bytes"),
        ]
        for i, one in enumerate(found["left"])
    ]
    note = "Over all runs of the ledgers that were given. Each release, with its digest, is in the report's JSON."
    return section(
        TITLE,
        paragraph(found["transport"]),
        paragraph("Keys and fingerprints: part 1. Masks: " + _masks(document)),
        masking.masking(run),
        "<h3>What left each institution</h3>" if rows else "",
        table(head, rows, numeric=(3, 4)),
        paragraph(note, "note") if rows else "",
        paragraph(f"{_ATTESTED} {as_text(found['attestations'])} of them are in the log."),
        sections.participation(run),
        sections.traffic_and_time(run),
        number=8,
    )


def _masks(document: Document) -> str:
    found = document["parts"]["security"]
    if not found["masked_rounds"]:
        return "none; the coordinator saw each institution's update."
    return (
        f"{found['masked_rounds']} of {len(document['rounds'])} rounds under secure aggregation, "
        f"{found['abandoned_rounds']} of them abandoned."
    )
