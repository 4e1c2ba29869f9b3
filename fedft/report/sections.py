"""The parts of a report that say what happened: outcome, who took part, traffic, configuration, files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from fedft.audit.folder import Body, Run, number, part, pick
from fedft.report.page import (
    as_bytes,
    as_duration,
    as_number,
    as_percent,
    cell,
    marked,
    paragraph,
    section,
    subsection,
    table,
    tiles,
)
from fedft.report.quality import metrics_of
from fedft.report.svg import bar_plot
from fedft.report.words import epsilon_text, institutions, metric_name, metric_text, rounds_done

ROUNDS_PER_GRID = 30

_MEANING = {
    "budget-exhausted": "the round would have cost more than what is left of the data set's budget",
    "stale-round": "asked for a round that is over",
    "not-private": "training would not have been private",
    "wrong-plan": "the plan does not fit the institution's model or settings",
    "data": "its data set could not be used",
    "storage": "a file could not be written",
    "ledger": "its privacy ledger could not be opened or trusted",
    "policy": "its policy does not allow what the plan asked for",
    "identity": "a signature or a key was not the one it should be",
    "busy": "more requests waited than it takes",
    "too-few": "too few uploaded for shares to be revealed",
    "withdrawn": "it has left the federation",
    "internal": "another error, which stays with the institution",
    "update": "the coordinator could not accept what was sent",
    "non-finite-update": "the coordinator refused an update with NaN or infinity",
    "update-too-large": "the coordinator refused an update above the largest norm",
    "stale-update": "the coordinator refused an update of another round, or a second one",
    "layout-mismatch": "the coordinator refused an update made for another adapter",
}


def key_figures(run: Run) -> str:
    metric, summary = run.metric, run.summary
    best = None if metric is None else number(part(summary, "best").get(metric))
    spent = [body.get("epsilon") for body in institutions(run).values()]
    known = [float(value) for value in spent if isinstance(value, int | float)]
    up, down = traffic(run)
    pairs = [
        ("Rounds", f"{rounds_done(run)} of {pick(run.config, 'federation.rounds') or '?'}"),
        ("Institutions", str(len(run.institutions))),
        _largest_epsilon(run, known),
        ("Sent, both ways", as_bytes(up + down)),
    ]
    if metric is not None and best is not None:
        pairs.insert(0, (f"Best {metric_name(metric)}", metric_text(metric, best)))
    seconds = number(summary.get("seconds"))
    return tiles([*pairs, ("Time", as_duration(seconds))] if seconds is not None else pairs)


def _largest_epsilon(run: Run, known: Sequence[float]) -> tuple[str, str]:
    if run.is_elsewhere and not run.is_unprotected:
        asked = [number(body.get("epsilon_asked")) or 0.0 for body in institutions(run).values()]
        return "ε asked for, at most", epsilon_text(max(asked, default=None))
    return "Largest ε spent", "none" if run.is_unprotected or not known else epsilon_text(max(known))


def outcome(summary: Body, config: Body) -> str:
    """What the scenario announced, and whether it came true."""
    checks = [check for check in summary.get("checks") or () if isinstance(check, Mapping)]
    story = summary.get("story") or pick(config, "outcome.story")
    rows = [
        [
            cell(check.get("figure")),
            cell(check.get("bound")),
            cell(check.get("found")),
            marked("✓ holds", "good") if check.get("holds") is True else marked("✗ does not hold", "bad"),
        ]
        for check in checks
    ]
    if not rows and not story:
        return ""
    failed = sum(check.get("holds") is not True for check in checks)
    verdict = (
        "All announced outcomes hold." if not failed else f"{failed} of {len(rows)} announced outcomes do not hold."
    )
    return section(
        "Announced and found",
        paragraph(str(story)) if story else "",
        paragraph(verdict, "bad" if failed else "good") if rows else "",
        table(("Figure", "Announced", "Found", "Verdict"), rows),
    )


def participation(run: Run) -> str:
    """Who answered, refused or was missing, round by round."""
    names, rounds = run.institutions, run.rounds
    if not names or not rounds:
        return ""
    chunks = [rounds[start : start + ROUNDS_PER_GRID] for start in range(0, len(rounds), ROUNDS_PER_GRID)]
    without = [int(number(record.get("round")) or 0) for record in rounds if record.get("quorum") is False]
    legend = "● update accepted · ✕ refused, or not accepted · – no answer · blank: not asked"
    return subsection(
        "Who answered",
        paragraph(legend, "note"),
        *(_grid(names, chunk) for chunk in chunks),
        paragraph(f"Too few updates, adapter unchanged, in round {_ranges(without)}.", "bad") if without else "",
        _refusals(rounds),
    )


def traffic_and_time(run: Run) -> str:
    up, down = traffic(run)
    rounds = [r for r in run.rounds if number(r.get("round")) is not None]
    numbers = [int(record["round"]) for record in rounds]
    stacks = [
        ("from institutions", [number(record.get("bytes_up")) or 0.0 for record in rounds]),
        ("to institutions", [number(record.get("bytes_down")) or 0.0 for record in rounds]),
    ]
    training = [number(record.get("seconds_training")) for record in rounds]
    inside = [value or 0.0 for value in training]
    rest = [max((number(r.get("seconds")) or 0.0) - t, 0.0) for r, t in zip(rounds, inside, strict=True)]
    times = [("training", inside), ("the rest", rest)] if any(training) else [("round", rest)]
    outside = number(run.summary.get("seconds_outside_training_fraction"))
    words = f"{as_bytes(up)} from institutions and {as_bytes(down)} to them, {as_bytes(up + down)} in all."
    if outside is not None:
        words += f" {as_percent(outside)} of the rounds' time was spent outside local training."
    plots = bar_plot(stacks, categories=numbers, title="Bytes per round", format_y=as_bytes)
    plots += bar_plot(times, categories=numbers, title="Seconds per round", format_y=as_number)
    return subsection("Traffic and time", paragraph(words), f'<div class="grid2">{plots}</div>')


def configuration(config: Body) -> str:
    """The resolved configuration, in the form of the file it came from."""
    top = {key: value for key, value in config.items() if not isinstance(value, Mapping | list)}
    blocks = [_lines(top)] if top else []
    for name, value in config.items():
        tables = value if isinstance(value, list) else [value]
        title = f"[[{name}]]" if isinstance(value, list) else f"[{name}]"
        blocks += [f"{title}\n{_lines(body)}" for body in tables if isinstance(body, Mapping) and body]
    if not blocks:
        return ""
    text = "".join(f"<span>{escape(block)}</span>" for block in blocks)
    return section("Configuration", paragraph("Resolved, with every default.", "note"), f"<pre>{text}</pre>")


def rounds_table(run: Run) -> str:
    """The figures behind the plots."""
    if not run.rounds:
        return ""
    metrics, reference = metrics_of(run, "evaluation"), metrics_of(run, "reference")
    several = len({str(record.get("task")) for record in run.rounds}) > 1
    head = [
        "Round",
        *(["Task"] if several else []),
        "Updates",
        *map(metric_name, metrics),
        *(f"ref. {metric_name(m)}" for m in reference),
    ]
    head += ["Largest ε", "Update norm", "Up", "Down", "Time"]
    rows = [_round_row(record, metrics, reference, several) for record in run.rounds]
    return section("Figures per round", table(head, rows, numeric=[i for i, name in enumerate(head) if name != "Task"]))


def files(digests: Mapping[str, str]) -> str:
    """SHA-256 of what this page was made from, and of the adapter."""
    rows = [[cell(name), f"<code>{escape(digest)}</code>"] for name, digest in digests.items()]
    intro = "This page was made from these files of the run's folder."
    return section("Files", paragraph(intro, "note"), table(("File", "SHA-256"), rows)) if rows else ""


def traffic(run: Run) -> tuple[float, float]:
    """Bytes from and to institutions, over all rounds."""
    stated = [number(run.summary.get(key)) for key in ("bytes_up", "bytes_down")]
    added = [sum(number(record.get(key)) or 0.0 for record in run.rounds) for key in ("bytes_up", "bytes_down")]
    up, down = (a if s is None else s for s, a in zip(stated, added, strict=True))
    return up, down


def _refusals(rounds: Sequence[Body]) -> str:
    """Institution and word with the rounds they were said in."""
    found: dict[tuple[str, str], list[int]] = {}
    for record in rounds:
        for name, reason in part(record, "refused").items():
            found.setdefault((name, str(reason)), []).append(int(number(record.get("round")) or 0))
    rows = [
        [cell(name), cell(_ranges(said)), cell(reason), cell(_MEANING.get(reason, "–"))]
        for (name, reason), said in found.items()
    ]
    return "<h4>Refusals</h4>" + table(("Institution", "Rounds", "Word", "Meaning"), rows) if rows else ""


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers in short: 1, 4-7."""
    runs: list[list[int]] = []
    for value in numbers:
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(f"{first}–{last}" if last > first else str(first) for first, last in runs)


def _grid(names: Sequence[str], rounds: Sequence[Body]) -> str:
    head = "".join(f'<th scope="col">{cell(record.get("round"))}</th>' for record in rounds)
    rows = "".join(
        f'<tr><th scope="row">{cell(name)}</th>{"".join(_answer(name, record) for record in rounds)}</tr>'
        for name in names
    )
    return (
        f'<div class="scroll"><table class="who"><thead><tr><th scope="col">Round</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _answer(name: str, record: Body) -> str:
    at = cell(record.get("round"))
    if name in (record.get("updates") or ()):
        return f'<td class="yes" title="round {at}: update accepted">●</td>'
    if name in part(record, "refused"):
        return f'<td class="no" title="round {at}: {cell(part(record, "refused")[name])}">✕</td>'
    if name in (record.get("missing") or ()):
        return f'<td class="gone" title="round {at}: no answer">–</td>'
    return "<td></td>"


def _round_row(record: Body, metrics: Sequence[str], reference: Sequence[str], is_task_told: bool) -> list[str]:
    spent = [float(v) for v in part(record, "epsilon").values() if isinstance(v, int | float)]
    spent += [math.inf for _ in record.get("epsilon_infinite") or ()]
    seconds = number(record.get("seconds"))

    def figure(key: str, metric: str) -> str:
        value = number(part(record, key).get(metric))
        return cell(None if value is None else metric_text(metric, value))

    return [
        cell(record.get("round")),
        *([cell(record.get("task"))] if is_task_told else []),
        cell(len(record.get("updates") or ())),
        *(figure("evaluation", metric) for metric in metrics),
        *(figure("reference", metric) for metric in reference),
        cell(epsilon_text(max(spent)) if spent else None),
        cell(number(record.get("update_norm"))),
        cell(as_bytes(number(record.get("bytes_up")) or 0.0)),
        cell(as_bytes(number(record.get("bytes_down")) or 0.0)),
        cell(None if seconds is None else as_duration(seconds)),
    ]


def _lines(body: Body) -> str:
    return "\n".join(f"{key} = {_value(value)}" for key, value in body.items() if value is not None)


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
