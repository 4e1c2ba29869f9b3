"""The parts of a report that speak of protection: what was promised to whom, and what no promise covers."""

from __future__ import annotations

import math

from fedft.audit.accounts import TOLERANCE
from fedft.audit.folder import Body, Run, number, pick
from fedft.report import masking
from fedft.report.budget import disagreements
from fedft.report.page import as_epsilon, bullets, cell, marked, paragraph, section, table
from fedft.report.words import account_text, institutions, unit_of

_HEAD = (
    "Institution",
    "ε spent",
    "ε cap",
    "δ",
    "Noise multiplier",
    "Clip norm",
    "Sampling rate",
    "Planned steps",
    "Units",
)
_ALONE = "ε if masks fail"
_OFF = (
    'Nothing is protected in this run: privacy.mode is "off". Whoever sees an update, or the trained model, may learn '
    "what is in the rows it was trained on. No epsilon can be stated."
)
_UNKNOWN = "Nothing in this folder says that privacy was on. Take this run as unprotected."
_CUT = "The last line of metrics.jsonl is incomplete and left out: its writing was interrupted."
_MEANING = """
For any one {unit}, and any set S of things an institution may send over all rounds: P[S with the {unit}] ≤ exp(ε) · P[S
without] + δ, and the same the other way round. Epsilon covers everything in the institution's ledger for this data set,
composed by privacy loss distributions, and is rounded up.
"""
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

The labels, the evaluation rows and the reference rows: they are treated as public.

Settings that were chosen by looking at results on private rows: such trials are runs of their own, and count only where
they are in the same ledger.
"""
_SIMULATED = "This was a simulation: all institutions' rows were on one machine, in the hands of whoever ran it."


def alarms(run: Run) -> str:
    """What must not be overlooked, in red, before anything else."""
    words = []
    if run.is_unprotected:
        words.append(_OFF if pick(run.config, "privacy.mode") == "off" else _UNKNOWN)
    for name, body in institutions(run).items():
        if _is_infinite(body):
            words.append(f"{name} made an unprotected release: its epsilon is infinite.")
        elif _is_over(body):
            spent, cap = (as_epsilon(float(body[key])) for key in ("epsilon", "cap"))
            words.append(f"{name} has spent more than its cap: {spent} of {cap}.")
    words += [
        f"The ledger of {view.institution} cannot be trusted: {view.problem}." for view in run.ledgers if view.problem
    ]
    words += disagreements(run)
    return "".join(paragraph(word, "alarm") for word in [*words, *([_CUT] if run.cut_line else [])])


def guarantee(run: Run) -> str:
    """The table of guarantees and the words that give the figures a meaning."""
    title = "Guarantee for each institution"
    if run.is_unprotected:
        rows = [
            [cell(name), marked("none", "bad"), cell(body.get("units"))] for name, body in institutions(run).items()
        ]
        return section(
            title,
            paragraph("None. Updates left as they were trained, without noise.", "bad"),
            table(("Institution", "Guarantee", "Units"), rows, numeric=(2,)),
            paragraph(masking.trust(run)),
        )
    unit, column = unit_of(run), pick(run.config, "data.unit")
    what = f'all rows with the same value in column "{column}"' if column else "one row of the data set"
    head = (*_HEAD, _ALONE) if run.shares_noise else _HEAD
    rows = [_row(name, body) + ([_alone(body)] if run.shares_noise else []) for name, body in institutions(run).items()]
    return section(
        title,
        table(head, rows, numeric=range(1, len(head))),
        paragraph(f"Privacy unit: the {unit}, that is {what}. Neighbouring relation: add or remove one {unit}."),
        paragraph(_MEANING.format(unit=unit)),
        paragraph(masking.trust(run)),
    )


def not_protected(run: Run) -> str:
    """The limits of the promise, in words for whoever signs for it."""
    title = "What is not protected"
    if run.is_unprotected:
        return section(title, paragraph("Everything: privacy was off in this run.", "bad"))
    limits = [" ".join(limit.split()) for limit in _LIMITS.format(unit=unit_of(run)).split("\n\n")]
    simulated = run.summary.get("engine") is not None and not run.is_elsewhere
    return section(title, bullets([*limits, *([_SIMULATED] if simulated else [])]))


def _row(name: str, body: Body) -> list[str]:
    cap = number(body.get("cap"))
    figures = [number(body.get(key)) for key in ("delta", "noise_multiplier", "clip_norm", "sampling_rate")]
    return [
        cell(name),
        marked(account_text(body).removeprefix("ε = "), "bad" if _is_infinite(body) or _is_over(body) else ""),
        cell(None if cap is None else as_epsilon(cap)),
        *(cell(figure) for figure in figures),
        cell(body.get("steps")),
        cell(body.get("units")),
    ]


def _alone(body: Body) -> str:
    """ε of what this institution sent, with its own share of the noise and nobody else's."""
    found = number(body.get("local_epsilon"))
    return cell(None if found is None else as_epsilon(found))


def _is_infinite(body: Body) -> bool:
    spent = body.get("epsilon")
    return isinstance(spent, float) and math.isinf(spent)


def _is_over(body: Body) -> bool:
    spent, cap = number(body.get("epsilon")), number(body.get("cap"))
    return spent is not None and cap is not None and spent > cap + TOLERANCE
