"""What a report says in a sentence, and the figures and names that several of its parts share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from fedft.audit.folder import Body, Run, number, part, pick
from fedft.report.page import as_epsilon, as_number, as_percent, as_text, marked, paragraph

SHARES = ("accuracy", "macro_f1")
"""Metrics that are a share of 1, written in percent."""

_NAMES_IN_A_SENTENCE = 6


def headline(run: Run) -> str:
    """One sentence: who trained what, how well it went, and what each institution was promised."""
    done, planned = rounds_done(run), pick(run.config, "federation.rounds")
    text = (
        f"{_who(run)} fine-tuned the base model {_base(run)} ({_adapter(run)}) {_purpose(run)} in {done} of "
        f"{planned or done} rounds{_aggregated(run)}{_result(run)}"
    )
    if run.is_unprotected:
        return f'<p class="lead">{escape(text)}, and {marked("nothing is protected", "bad")}.</p>'
    unit = unit_of(run)
    text += (
        f"; each {unit}'s data at an institution is protected by (ε, δ)-differential privacy under adding or removing "
        f"one {unit} ({_promises(run)}), towards everyone who sees that institution's updates, the coordinator too."
    )
    return paragraph(text, "lead")


def _promises(run: Run) -> str:
    """The pairs (ε, δ) by institution, δ once where all have the same."""
    known = institutions(run)
    if not known:
        return f"ε at most {as_text(pick(run.config, 'privacy.epsilon'))}"
    deltas = {as_text(number(body.get("delta"))) for body in known.values()}
    common = f"δ = {deltas.pop()}; " if len(deltas) == 1 else ""
    pairs = [
        f"{name} {account_text(body)}" + ("" if common else f", δ = {as_text(body.get('delta'))}")
        for name, body in known.items()
    ]
    return _listed([f"{common}{pairs[0]}", *pairs[1:]]).replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def institutions(run: Run) -> dict[str, Body]:
    """Figures by institution: from the summary, or from the last round while there is none."""
    known = part(run.summary, "institutions")
    return {name: _spelled_out(part(known, name)) or _from_rounds(run, name) for name in run.institutions}


def rounds_done(run: Run) -> int:
    return int(number(run.summary.get("rounds_done")) or len(run.rounds))


def cap_of(run: Run, name: str) -> float | None:
    """The institution's own cap on epsilon, or None."""
    stated = (number(part(record, "cap").get(name)) for record in reversed(run.rounds))
    found = next((cap for cap in stated if cap is not None), None)
    return found if found is not None else number(part(part(run.summary, "institutions"), name).get("cap"))


def unit_of(run: Run) -> str:
    column = pick(run.config, "data.unit")
    return column if isinstance(column, str) and column else "record"


def epsilon_text(value: object) -> str:
    return as_epsilon(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else "none"


def account_text(body: Body) -> str:
    """An institution's ε; of one elsewhere the ε that it was asked to stay within in this run."""
    asked = number(body.get("epsilon_asked"))
    if body.get("epsilon") is None and asked is not None:
        return f"ε at most {as_epsilon(asked)}, as asked"
    return f"ε = {epsilon_text(body.get('epsilon'))}"


def metric_text(metric: str, value: float) -> str:
    return as_percent(value) if metric in SHARES else as_number(value)


def axis_text(metric: str) -> Callable[[float], str]:
    """How a plot's axis writes the metric's values."""
    return (lambda value: f"{100 * value:.3g}\N{NO-BREAK SPACE}%") if metric in SHARES else as_number


def metric_name(metric: str) -> str:
    names = {"macro_f1": "macro F1", "loss": "loss (nats)"}
    return names.get(metric, metric)


def _from_rounds(run: Run, name: str) -> Body:
    told = next((record for record in reversed(run.rounds) if name in part(record, "epsilon")), {})
    epsilon = part(told, "epsilon").get(name)
    infinite = name in (told.get("epsilon_infinite") or ())
    body = {"epsilon": epsilon, "cap": cap_of(run, name), "delta": pick(run.config, "privacy.delta")}
    return _spelled_out({**body, "epsilon_infinite": infinite})


def _spelled_out(body: Body) -> Body:
    """With the infinite epsilon that JSON has no number for."""
    return {**body, "epsilon": math.inf} if body.get("epsilon_infinite") is True else body


def _who(run: Run) -> str:
    names = run.institutions
    if not names:
        return "A federation"
    return f"{len(names)} institution{'s' if len(names) > 1 else ''} ({_listed(names)})"


def _base(run: Run) -> str:
    base = pick(run.config, "model.base")
    return f'"{str(base).rstrip("/").rsplit("/", 1)[-1]}"' if base else "of unknown name"


def _adapter(run: Run) -> str:
    count = run.summary.get("parameters_trained")
    trained = f"{as_text(count)} parameters trained" if count else ""
    if pick(run.config, "adapter.method") == "head":
        words = ["its head alone", trained]
    else:
        rank = pick(run.config, "adapter.rank")
        words = [f"LoRA of rank {rank}" if rank else "LoRA", trained]
    return ", ".join(word for word in words if word)


def _purpose(run: Run) -> str:
    kind = pick(run.config, "task.kind")
    return {"classification": "to classify text", "instruction": "to follow instructions"}.get(
        str(kind), "for its task"
    )


def _aggregated(run: Run) -> str:
    method = pick(run.config, "aggregation.method")
    return f" of {method}" if method else ""


def _result(run: Run) -> str:
    metric = run.metric
    best, start = (number(part(run.summary, key).get(metric or "")) for key in ("best", "start"))
    if metric is None or best is None:
        return ""
    before = f" from {metric_text(metric, start)}" if start is not None else ""
    at = f" in round {run.summary['best_round']}" if run.summary.get("best_round") else ""
    return f", taking {metric_name(metric)} on the coordinator's public rows{before} to {metric_text(metric, best)}{at}"


def _listed(words: Sequence[str]) -> str:
    shown = words[:_NAMES_IN_A_SENTENCE]
    rest = len(words) - len(shown)
    return ", ".join(shown) + (f" and {rest} others" if rest else "")


def header(run: Run) -> str:
    engine, name = run.summary.get("engine"), run.config.get("run") or run.summary.get("run")
    state = _state(run)
    facts = [
        f"run {name}" if name else "",
        f"fedft {run.config.get('fedft_version') or 'of unknown version'}",
        _played(engine),
        state,
    ]
    line = " · ".join(fact for fact in facts if fact)
    return f"<header><h1>{escape(title(run))}</h1>{paragraph(line, 'meta')}</header>"


def _state(run: Run) -> str:
    if not run.summary:
        return "not finished: there is no summary.json"
    stopped = run.summary.get("stopped_early")
    words = {"patience": "nothing got better any more", "budgets-spent": "no institution had budget left"}
    return f"stopped early: {words.get(str(stopped), str(stopped))}" if stopped else ""


def title(run: Run) -> str:
    name = pick(run.config, "federation.name") or run.summary.get("name") or run.folder.name
    return f"Federated fine-tuning report: {name}"


def _played(engine: object) -> str:
    if not engine:
        return ""
    return "across organisations" if engine == "superlink" else f"simulated on one machine, engine {engine}"
