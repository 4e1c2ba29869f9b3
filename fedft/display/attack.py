"""An attack on a privacy claim, as its reader sees it: what was guessed, what that says, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from fedft.display.summary import table

_WORDS = {
    "falsified": "the claim is false: the guesses contradict it",
    "no-power": """the control without privacy did not show the least epsilon, so that nothing can be said: use more
        canaries, another kind, or more rounds""",
    "stands": "the attack does not contradict the claim, and without privacy it finds the canaries",
    "unprotected": "there is no claim: privacy is off, and the canaries are found",
}
_STYLES = {"falsified": "red", "no-power": "yellow", "stands": "green", "unprotected": "red"}
_NOTE = """
at least: the epsilon that the guesses leave possible, with {confidence:.0%} confidence, whatever the mechanism; as
Gaussian: if its trade-off curve is a Gaussian mechanism's. An attack can contradict a claim and never proves one: the
best possible attack on a true claim of 8 shows about 3
"""


def attack_view(evidence: Mapping[str, Any]) -> RenderableType:
    """``evidence``: as attack/evidence.py completes it."""
    canaries = evidence["canaries"]
    head = Text.assemble(
        (str(evidence["terms"]["federation"]["name"]), "bold"),
        f": {canaries['count']} canaries ({canaries['kind']}) at {evidence['institution']}",
    )
    made = table(
        "play",
        "claimed",
        "score",
        "AUROC",
        "TPR at 1 %",
        "at 0.1 %",
        "at least",
        "as Gaussian",
        right=tuple(range(3, 8)),
    )
    for play in evidence["plays"]:
        for row in _rows(play, evidence["figures"][play["name"]]):
            made.add_row(*row)
    confidence = next(iter(evidence["figures"].values()))["confidence"]
    notes = [Text(line) for line in _others(evidence)]
    meaning = " ".join(_NOTE.format(confidence=confidence).split())
    word = evidence["verdict"]
    verdict = Text(f"{word}: {' '.join(_WORDS[word].split())}", style=_STYLES[word])
    return Group(head, made, *notes, Text(meaning, style="dim"), verdict)


def _rows(play: Mapping[str, Any], figures: Mapping[str, Any]) -> Iterator[list[str]]:
    claimed = "none" if play["epsilon"] is None else f"{play['epsilon']:.2f}"
    for kind, found in figures["scores"].items():
        best = {key: max(guess[key] for guess in found["guesses"]) for key in ("epsilon", "epsilon_gaussian")}
        area = found["auroc"]
        yield [
            str(play["name"]),
            claimed,
            kind,
            f"{area['value']:.3f} ({area['low']:.3f}-{area['high']:.3f})",
            f"{found['tpr_at_fpr_0.01']['value']:.3f}",
            f"{found['tpr_at_fpr_0.001']['value']:.3f}",
            f"{best['epsilon']:.2f}",
            f"{best['epsilon_gaussian']:.2f}",
        ]


def _others(evidence: Mapping[str, Any]) -> Iterator[str]:
    span, uploads = evidence["reconstruction"], evidence["uploads"]
    if not span["applies"]:
        yield "tokens from an update: the check does not apply, no layer of this base reads single tokens"
    else:
        private = f", with it {span['with_privacy']:.0%}" if "with_privacy" in span else ""
        yield (
            f"tokens from the update of one step on one row, at worst: without privacy {span['without_privacy']:.0%} "
            f"found{private}, by chance {span['by_chance']:.1%}"
        )
    if uploads is not None:
        found = "uniform" if uploads["uniform"] else "NOT uniform"
        yield f"masked updates: {uploads['uploads']} tested, {found} (p {uploads['smallest']:.2g})"
