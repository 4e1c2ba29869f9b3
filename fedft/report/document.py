"""The report as a document: nine parts, the control mapping, and the run's own files; what page.html and JSON say.

Guarantees:
- The document is made from the run's folder, and from the ledgers, policies and evidence that were given, alone; the
  same ones give the same document. No torch, no network.
- page_of reads nothing but the document: what stands on the page is in the JSON. Figures carry their JSON Pointer.
- The page loads nothing and runs nothing, and every text in it is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from fedft import __version__, strict_json
from fedft.audit.folder import Run
from fedft.audit.unpacked import opened
from fedft.audit.verify import Verdict
from fedft.report import controls, correctness, guarantee, identity, mechanism, residual, security, spending, utility
from fedft.report import sections as told
from fedft.report.form import LABEL, Document, Recomputation, Verification
from fedft.report.page import bullets, marked, page, paragraph, section
from fedft.report.sources import Sources, gather
from fedft.report.words import header, headline, title


def report_of(
    folder: Path,
    *,
    ledgers: Sequence[tuple[str | None, Path]] = (),
    policies: Sequence[Path] = (),
    attacks: Sequence[Path] = (),
) -> Document:
    """The report on the run in ``folder``, or in the archive that it is; parameters and errors as sources.gather.

    Raises RecordError, too, for a file that is no whole archive.
    """
    if not folder.is_file():
        return document_of(gather(folder, ledgers=ledgers, policies=policies, attacks=attacks))
    with opened(folder) as found:
        packed = [*ledgers, *found.ledgers.items()]
        return document_of(gather(found.run, ledgers=packed, policies=policies, attacks=attacks, unpacked=found.root))


def document_of(sources: Sources) -> Document:
    run = sources.run
    document: Document = {
        "label": LABEL,
        "fedft_version": __version__,
        "verification": None if sources.verdict is None else _verification(sources.verdict, sources.shown),
        "recomputation": _recomputation(sources),
        "parts": {
            "identity": identity.facts(sources),
            "guarantees": guarantee.facts(sources),
            "mechanisms": mechanism.facts(sources),
            "ledgers": spending.facts(sources),
            "correctness": correctness.facts(sources),
            "attacks": correctness.attacks(sources),
            "utility": utility.facts(sources),
            "security": security.facts(sources),
            "residual": residual.facts(sources),
        },
        "controls": controls.read_controls(),
        "configuration": dict(run.config),
        "rounds": [dict(record) for record in run.rounds],
        "summary": dict(run.summary),
        "cut_line": run.cut_line,
        "files": dict(sources.files),
    }
    return cast(Document, strict_json.finite(document))


def page_of(document: Document) -> str:
    """The same as one page of HTML."""
    run = Run(
        Path("run"), document["configuration"], tuple(document["rounds"]), document["summary"], document["cut_line"]
    )
    return page(
        title(run),
        "".join(
            (
                header(run),
                guarantee.alarms(document, run),
                headline(run),
                told.key_figures(run),
                _checked(document),
                told.outcome(run.summary, run.config),
                identity.view(document),
                guarantee.view(document, run),
                mechanism.view(document),
                spending.view(document),
                correctness.view(document),
                correctness.attacks_view(document),
                utility.view(document, run),
                security.view(document, run),
                residual.view(document),
                controls.view(document),
                told.rounds_table(run),
                told.configuration(run.config),
                told.files(document["files"]),
            )
        ),
    )


def _verification(verdict: Verdict, shown: Callable[[str], str]) -> Verification:
    mismatch = verdict.finding
    return {
        "valid": verdict.valid,
        "ledgers": list(verdict.ledgers),
        "not_covered": list(verdict.not_covered),
        "mismatch": None
        if mismatch is None
        else {
            "where": shown(mismatch.where),
            "expected": shown(mismatch.expected),
            "found": shown(mismatch.found),
            "signed_by": mismatch.signed_by,
        },
    }


def _recomputation(sources: Sources) -> Recomputation:
    return {"exit_code": sources.recomputed.exit_code, "findings": residual.findings(sources)}


def _checked(document: Document) -> str:
    """What fedft audit verify and recompute said when the report was made."""
    verification, again = document["verification"], document["recomputation"]
    if verification is None:
        records = marked("Records: nothing that could be verified.", "bad")
    elif verification["valid"]:
        whose = ", ".join(verification["ledgers"]) or "nobody"
        records = marked(f"Records hold: every chain, signature, receipt and file; ledgers of {whose}.", "good")
    else:
        records = marked("Records do not hold: see above.", "bad")
    words = {0: "Figures hold: each was computed again.", 1: "A claim does not hold: part 9 says which."}
    unread = "Figures: not everything could be read; part 9 says what."
    figures = marked(words.get(again["exit_code"], unread), "good" if again["exit_code"] == 0 else "bad")
    uncovered = [] if verification is None else verification["not_covered"]
    return section(
        "Checked when this report was made",
        f"<p>{records}</p><p>{figures}</p>",
        bullets([f"not covered: {words}" for words in uncovered]) if uncovered else "",
        paragraph("Check it yourself: fedft audit verify RUN, fedft audit recompute RUN.", "note"),
    )
