"""Part 9: what the promise does not cover, what it rests on, what deviated, and who signs."""

from __future__ import annotations

from fedft.audit.contributions import contributions_of
from fedft.audit.findings import rounds_text
from fedft.errors import StorageError
from fedft.report.facts import ContributionText, FindingText, Residual
from fedft.report.form import Document
from fedft.report.page import bullets, cell, figure, paragraph, section, subsection, table
from fedft.report.sources import Sources
from fedft.report.words import unit_of

TITLE = "Residual risks, assumptions, deviations"
_LIMITS = """
Set sizes: the number of {unit}s at an institution is treated as public. It sets the sampling rate and the noise, and
is in this report.

A {unit} with rows at several institutions: each promise holds by itself, and together the epsilons and deltas add up.

What many {unit}s have in common. Differential privacy hides one {unit}, not what is true of a group; a text that stands
under two {unit}s is protected as two.

The chance δ. It is below one in the number of {unit}s, and it is still a chance.

Which institutions take part, and which rounds they answer.

Timing: how long an answer takes depends on the rows that were drawn.

Refusals: a word such as "data" or "budget-exhausted" can depend on records or on earlier runs.

Heads of ledgers: with each answer goes how many entries the ledger has, over all federations it serves.

The labels, the evaluation rows and the reference rows: they are treated as public.

Settings that were chosen by looking at results on private rows: such trials are runs of their own, and count only where
they are in the same ledger.
"""
_SIMULATED = "This was a simulation: all institutions' rows were on one machine, in the hands of whoever ran it."
_ASSUMPTIONS = """
Each institution ran the code of part 1, or code that does the same, on a machine that it controls: a report can check
what was recorded, not what a processor did.

Whoever is to be protected is one {unit}: nobody is spread over two of them.

The random source of the operating system is sound; SHA-256, Ed25519 and AES-256 are.

The coordinator's key in part 1 is the one that its people confirm: compare the fingerprint.

Gaussian noise is sampled in floating point; the accountant has no term for that (fedft/privacy/noise.py says why).
"""
_LEAVING = (
    "An update cannot be subtracted: later ones were trained on an adapter that had it. To be without one, the others "
    "train again from the newest state without it (fedft coordinate --resume RUN --without NAME), and pay for it from "
    "their budgets."
)
_SIGN_OFF = ("Privacy officer of each institution", "Information security officer", "Coordinator", "Auditor")


def facts(sources: Sources) -> Residual:
    run, unit = sources.run, unit_of(sources.run)
    simulated = run.summary.get("engine") is not None and not run.is_elsewhere
    limits = (
        ["Everything: privacy was off in this run."]
        if run.is_unprotected
        else [*_listed(_LIMITS, unit), *([_SIMULATED] if simulated else [])]
    )
    return {
        "not_protected": limits,
        "contributions": _contributions(sources),
        "assumptions": _listed(_ASSUMPTIONS, unit),
        "deviations": findings(sources),
        "sign_off": list(_SIGN_OFF),
    }


def findings(sources: Sources) -> list[FindingText]:
    """Of the recomputation, without paths of this machine."""
    return [
        {
            "kind": found.kind,
            "code": found.code,
            "where": sources.shown(found.where),
            "text": sources.shown(found.text),
        }
        for found in sources.recomputed.findings
    ]


def _contributions(sources: Sources) -> list[ContributionText]:
    """None where the run's own record cannot be read: the verification says so."""
    try:
        found = contributions_of(sources.run.folder).institutions
    except StorageError:
        return []
    return [
        {
            "institution": one.institution,
            "rounds": list(one.rounds),
            "in_best": one.best,
            "in_final": one.final,
            "free": one.free,
            "again": one.again,
            "left_after": sources.log.left.get(one.institution),
        }
        for one in found
    ]


def view(document: Document) -> str:
    found = document["parts"]["residual"]
    kinds = {"claim": "does not hold", "input": "could not be read", "note": "to be seen"}
    rows = [
        [cell(kinds[one["kind"]]), cell(one["where"]), cell(one["code"]), cell(one["text"])]
        for one in found["deviations"]
    ]
    blank = [[cell(who), "", "", ""] for who in found["sign_off"]]
    return section(
        TITLE,
        "<h3>What is not protected</h3>" + bullets(found["not_protected"]),
        "<h3>What the claims rest on</h3>" + bullets(found["assumptions"]),
        _who_is_in_it(document),
        "<h3>What deviated</h3>",
        table(("Kind", "Where", "Word", "What"), rows)
        or paragraph("Nothing: every figure that was recomputed agrees with what the run states.", "good"),
        '<h3>Read and accepted</h3><div class="sign">',
        table(("Who", "Name", "Date", "Signature"), blank),
        "</div>",
        number=9,
    )


def _who_is_in_it(document: Document) -> str:
    found, at = document["parts"]["residual"]["contributions"], "/parts/residual/contributions"
    rows = [
        [
            cell(one["institution"]),
            cell(rounds_text(one["rounds"]) if one["rounds"] else "none"),
            figure(document, f"{at}/{i}/in_best"),
            figure(document, f"{at}/{i}/in_final"),
            cell(f"after round {one['free']}" if one["free"] else "the start"),
            figure(document, f"{at}/{i}/again"),
            cell("no" if one["left_after"] is None else f"after round {one['left_after']}"),
        ]
        for i, one in enumerate(found)
    ]
    head = ("Institution", "In the sums of", "In the best adapter", "In the last", "Newest state without it",
            "Rounds to train again", "Has left")  # fmt: skip
    return subsection("Who is in it", table(head, rows, numeric=(5,)), paragraph(_LEAVING, "note")) if rows else ""


def _listed(text: str, unit: str) -> list[str]:
    return [" ".join(one.split()) for one in text.format(unit=unit).split("\n\n")]
