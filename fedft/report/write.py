"""report.html, report.json, report.pdf: a run's report as files, and the comparison of a run's variants."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from fedft import strict_json
from fedft.audit.folder import Body, Run, number, part, read_files
from fedft.durable import write_whole
from fedft.errors import ConfigError, StorageError
from fedft.report import quality, sections
from fedft.report.document import page_of, report_of
from fedft.report.page import as_bytes, as_duration, capitalized, cell, marked, page, paragraph, section, table
from fedft.report.svg import COLOURS, line_plot, row_plot
from fedft.report.words import axis_text, epsilon_text, header, metric_name, metric_text, title, unit_of

Format = Literal["html", "json", "pdf"]
REPORT = "report.html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PRINT_S = 120
_QUIET = (
    "--headless", "--disable-gpu", "--no-first-run", "--disable-extensions", "--proxy-server=127.0.0.1:9",
    "--no-pdf-header-footer",
)  # fmt: skip
_EPSILON = "Largest ε is that of the institution which spent most, under adding or removing one"


def write_report(
    folder: Path,
    to: Path | None = None,
    *,
    form: Format = "html",
    ledgers: Sequence[tuple[str | None, Path]] = (),
    policies: Sequence[Path] = (),
    attacks: Sequence[Path] = (),
) -> Path:
    """Write the report on a run; on a run with variants, of each and of their comparison. Returns the file's path.

    Parameters
    ----------
    to : the file; None: report.FORM in the run's folder, which an archive has not
    ledgers, policies, attacks : see sources.gather

    Raises
    ------
    StorageError
        This is no run folder, a file in it is not what fedft writes, or the report cannot be written.
    ConfigError
        Input that is none; variants where one run is wanted; no browser to print with.
    """
    if folder.is_file() and to is None:
        raise ConfigError("expected a place for the report on an archive, found none: name one with --to")
    target = folder / f"report.{form}" if to is None else to
    variants = {} if folder.is_file() else part(read_files(folder).summary, "variants")
    if variants and form == "html" and to is None:
        return _write_variants(folder, variants)
    if variants:
        first = next((name for name in variants if _is_run(folder, name)), next(iter(variants)))
        raise ConfigError(f"expected one run, found variants: give one of them, as {folder / first}")
    document = report_of(folder, ledgers=ledgers, policies=policies, attacks=attacks)
    if form == "json":
        return _write(target, (strict_json.dumps(document, indent=1) + "\n").encode())
    html = page_of(document).encode()
    return _write(target, html if form == "html" else _printed(html))


def _printed(html: bytes) -> bytes:
    """The page as PDF, by a browser without network: the page loads nothing."""
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise ConfigError(
            f"expected Chromium or Chrome to print with ({', '.join(BROWSERS)}), found none: install it, or write "
            "--format html and print that from any browser"
        )
    with tempfile.TemporaryDirectory(prefix="fedft-print-") as scratch:
        source, target = Path(scratch, "report.html"), Path(scratch, "report.pdf")
        source.write_bytes(html)
        command = [browser, *_QUIET, f"--user-data-dir={scratch}/profile", f"--print-to-pdf={target}", source.as_uri()]
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # it has none for root; the page runs nothing
        try:
            subprocess.run(command, capture_output=True, timeout=PRINT_S, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired) as error:
            raise _not_printed(browser, type(error).__name__) from None
        if not target.is_file():
            raise _not_printed(browser, "no file")
        return target.read_bytes()


def _not_printed(browser: str, found: str) -> StorageError:
    return StorageError(f"expected {browser} to print the page, found {found}: write --format html and print that")


def _write_variants(folder: Path, variants: Body) -> Path:
    runs = {name: read_files(folder / name) for name in variants if _is_run(folder, name)}
    for name in runs:
        _write(folder / name / REPORT, page_of(report_of(folder / name)).encode())
    run = read_files(folder)
    return _write(folder / REPORT, page(title(run), _comparison(run, variants, runs)).encode())


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
            header(run),
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
        )
    )


def _variants_table(variants: Body, runs: Mapping[str, Run], metric: str) -> str:
    name_of = capitalized(metric_name(metric))
    head = ("Variant", f"{name_of} at start", "Best", "At the end", "Largest ε", "Forgetting", "Rounds", "Sent", "Time")
    rows = [_variant_row(name, part(variants, name), runs.get(name), metric) for name in variants]
    return table(head, rows, numeric=range(1, len(head)))


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


def _is_run(folder: Path, name: str) -> bool:
    inside = Path(name).name == name and name not in ("", ".", "..")
    return inside and any((folder / name / file).is_file() for file in ("config.json", "summary.json", "metrics.jsonl"))


def _write(path: Path, content: bytes) -> Path:
    """Whole or not at all."""
    try:
        write_whole(path, content)
    except OSError as error:
        raise StorageError(
            f"expected to write {path}, found {error.strerror or type(error).__name__}: make room or check the folder"
        ) from error
    return path
