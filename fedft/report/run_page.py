"""report.html: what a run was, what it promised and whether it kept it, on one page that needs nothing else.

Guarantee: the page is made from the run's folder alone, loads nothing, runs nothing, and every text from the folder is
escaped in it. The same folder gives the same page.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

from fedft.audit.folder import Body, Run, number, part, pick, read_run
from fedft.durable import write_whole
from fedft.errors import StorageError
from fedft.report import guarantee, masking, quality, sections
from fedft.report.budget import budget
from fedft.report.page import as_bytes, as_duration, capitalized, cell, marked, page, paragraph, section, table
from fedft.report.svg import COLOURS, line_plot, row_plot
from fedft.report.words import axis_text, epsilon_text, headline, metric_name, metric_text, unit_of

REPORT = "report.html"
_EPSILON = "Largest ε is that of the institution which spent most, under adding or removing one"


def write_report(folder: Path) -> Path:
    """Write the report of a run, or of every variant and their comparison; returns the path of the page.

    Raises
    ------
    StorageError
        This is no run folder, a file in it is not what fedft writes, or the page cannot be written.
    """
    run = read_run(folder)
    variants = part(run.summary, "variants")
    if not variants:
        return _write(folder / REPORT, page(_title(run), _report(run)))
    runs = {name: read_run(folder / name) for name in variants if _is_run(folder, name)}
    for variant in runs.values():
        _write(variant.folder / REPORT, page(_title(variant), _report(variant)))
    return _write(folder / REPORT, page(_title(run), _comparison(run, variants, runs)))


def _report(run: Run) -> str:
    return "".join(
        (
            _header(run),
            guarantee.alarms(run),
            headline(run),
            sections.key_figures(run),
            guarantee.guarantee(run),
            sections.outcome(run.summary, run.config),
            quality.quality(run),
            budget(run),
            sections.participation(run),
            masking.masking(run),
            sections.traffic_and_time(run),
            quality.forgotten(run),
            guarantee.not_protected(run),
            sections.rounds_table(run),
            sections.configuration(run.config),
            sections.evidence(run),
        )
    )


def _comparison(run: Run, variants: Body, runs: Mapping[str, Run]) -> str:
    names = list(variants)
    metric = next((str(part(variants, name)["metric"]) for name in names if "metric" in part(variants, name)), "")
    best = [(name, number(part(part(variants, name), "best").get(metric))) for name in names]
    lines = [
        quality.series_of(inner, name, metric, names.index(name) if names.index(name) < COLOURS else None)
        for name, inner in runs.items()
    ]
    title = f"Best {metric_name(metric)}"

    plots = row_plot(
        [(name, value) for name, value in best if value is not None],
        title=title,
        format_x=lambda value: metric_text(metric, value),
    )
    plots += line_plot(lines, title=f"{capitalized(metric_name(metric))} per round", format_y=axis_text(metric))
    unprotected = [name for name, inner in runs.items() if inner.is_unprotected]
    warning = f"Nothing is protected in {', '.join(unprotected)}: privacy is off in that variant."
    return "".join(
        (
            _header(run),
            paragraph(warning, "alarm") if unprotected else "",
            paragraph(f"{len(names)} variants of one federation, each a run of its own.", "lead"),
            sections.outcome(run.summary, run.config),
            section(
                "Comparison",
                _variants_table(variants, runs, metric),
                paragraph(f"{_EPSILON} {unit_of(run)}; the variant's own report has its table.", "note"),
                f'<div class="grid2">{plots}</div>',
            ),
            sections.configuration(run.config),
            sections.evidence(run),
        )
    )


def _variants_table(variants: Body, runs: Mapping[str, Run], metric: str) -> str:
    name_of = capitalized(metric_name(metric))
    head = ("Variant", f"{name_of} at start", "Best", "At the end", "Largest ε", "Forgetting", "Rounds", "Sent", "Time")
    rows = [_variant_row(name, part(variants, name), runs.get(name), metric) for name in variants]
    return table(head, rows, numeric=range(1, len(head)))


def _played(engine: object) -> str:
    if not engine:
        return ""
    return "across organisations" if engine == "superlink" else f"simulated on one machine, engine {engine}"


def _variant_row(name: str, summary: Body, run: Run | None, metric: str) -> list[str]:
    title = escape(name)
    link = title if run is None else f'<a href="{quote(name, safe="")}/{REPORT}">{title}</a>'
    found = (number(part(summary, key).get(metric)) for key in ("start", "best", "final"))
    spent = [body.get("epsilon") for body in part(summary, "institutions").values() if isinstance(body, Mapping)]
    known = [float(value) for value in spent if isinstance(value, int | float)]
    lost = [value for value in map(number, part(summary, "forgetting").values()) if value is not None]
    average = number(part(summary, "forgetting").get("average", max(lost, default=None)))
    sent = sum(number(summary.get(key)) or 0.0 for key in ("bytes_up", "bytes_down"))
    seconds = number(summary.get("seconds"))
    return [
        link,
        *(cell(None if value is None else metric_text(metric, value)) for value in found),
        cell(epsilon_text(max(known))) if known else marked("no privacy", "bad"),
        cell(None if average is None else quality.points_text(metric, average)),
        cell(summary.get("rounds_done")),
        cell(as_bytes(sent)),
        cell(None if seconds is None else as_duration(seconds)),
    ]


def _header(run: Run) -> str:
    engine, name = run.summary.get("engine"), run.config.get("run") or run.summary.get("run")
    state = _state(run)
    facts = [
        f"run {name}" if name else "",
        f"fedft {run.config.get('fedft_version') or 'of unknown version'}",
        _played(engine),
        state,
    ]
    line = " · ".join(fact for fact in facts if fact)
    return f"<header><h1>{escape(_title(run))}</h1>{paragraph(line, 'meta')}</header>"


def _state(run: Run) -> str:
    if not run.summary:
        return "not finished: there is no summary.json"
    stopped = run.summary.get("stopped_early")
    words = {"patience": "nothing got better any more", "budgets-spent": "no institution had budget left"}
    return f"stopped early: {words.get(str(stopped), str(stopped))}" if stopped else ""


def _title(run: Run) -> str:
    name = pick(run.config, "federation.name") or run.summary.get("name") or run.folder.name
    return f"Federated fine-tuning report: {name}"


def _is_run(folder: Path, name: str) -> bool:
    inside = Path(name).name == name and name not in ("", ".", "..")
    return inside and any((folder / name / file).is_file() for file in ("config.json", "summary.json", "metrics.jsonl"))


def _write(path: Path, text: str) -> Path:
    """Whole or not at all."""
    try:
        write_whole(path, text.encode())
    except OSError as error:
        raise StorageError(
            f"expected to write {path}, found {error.strerror or type(error).__name__}: make room or check the folder"
        ) from error
    return path
