"""Part 7: how good the model is, for whom, and what it forgot."""

from __future__ import annotations

from fedft.audit.folder import Run, number, part, pick
from fedft.report import quality
from fedft.report.facts import Utility
from fedft.report.form import Document
from fedft.report.page import cell, figure, paragraph, section, table
from fedft.report.sources import Sources
from fedft.report.words import SHARES, metric_name

TITLE = "Utility"
_SUBGROUPS = """
The best adapter on the coordinator's public rows, apart by the value of the named column. Few rows say little: the
number of rows stands beside each figure.
"""


def facts(sources: Sources) -> Utility:
    run = sources.run
    groups = part(run.summary, "subgroups")
    return {
        "metric": run.metric or "",
        "best_round": int(number(run.summary.get("best_round")) or 0),
        "start": dict(part(run.summary, "start")),
        "best": dict(part(run.summary, "best")),
        "final": dict(part(run.summary, "final")),
        "forgetting": dict(part(run.summary, "forgetting")),
        "subgroup_column": str(pick(run.config, "evaluation.subgroup") or ""),
        "subgroups": {str(name): dict(part(groups, name)) for name in groups},
    }


def view(document: Document, run: Run) -> str:
    found, at = document["parts"]["utility"], "/parts/utility"
    metrics = [name for name in ("accuracy", "macro_f1", "loss", "perplexity") if name in found["start"]]
    rows = [
        [
            cell(metric_name(name)),
            *(
                figure(document, f"{at}/{key}/{name}", "percent" if name in SHARES else "number")
                if name in found[key]
                else cell(None)
                for key in ("start", "best", "final")
            ),
        ]
        for name in metrics
    ]
    return section(
        TITLE,
        table(
            ("Metric", "Before training", f"Best, round {found['best_round']}", "At the end"), rows, numeric=(1, 2, 3)
        ),
        quality.quality(run),
        _subgroups(document),
        quality.forgotten(run),
        number=7,
    )


def _subgroups(document: Document) -> str:
    found, at = document["parts"]["utility"], "/parts/utility/subgroups"
    if not found["subgroups"]:
        words = "Subgroups: none named (evaluation.subgroup names a column of the public rows)."
        return paragraph(words, "note")
    metrics = [name for name in ("accuracy", "macro_f1", "loss") if name in next(iter(found["subgroups"].values()))]
    rows = [
        [
            cell(group),
            figure(document, f"{at}/{_escaped(group)}/rows"),
            *(
                figure(document, f"{at}/{_escaped(group)}/{name}", "percent" if name in SHARES else "number")
                for name in metrics
            ),
        ]
        for group in found["subgroups"]
    ]
    head = (found["subgroup_column"], "Rows", *map(metric_name, metrics))
    return (
        "<h3>By subgroup</h3>"
        + paragraph(" ".join(_SUBGROUPS.split()), "note")
        + table(head, rows, numeric=range(1, len(head)))
    )


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
