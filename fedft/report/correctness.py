"""Parts 5 and 6: what the code tested of itself before it trained, and what an attack found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedft.audit.folder import Body, Run, number, pick
from fedft.audit.spending import UPDATE, Spending
from fedft.report.facts import Attack, AttackPlay, Correctness, SelfTest
from fedft.report.form import Document
from fedft.report.page import cell, figure, marked, paragraph, section, table
from fedft.report.sources import Sources

TITLE, ATTACK_TITLE = "Evidence of correctness", "The empirical audit"
_SELF_TESTS = """
Before its first private round each institution's process compares the per-example gradients that will be clipped with
autograd, row by row, and with the same gradients beside other rows, on made-up tokens; takes one unit out of a clipped
sum and measures how much it changes, in clip norms; and draws noise and compares its deviation with what was asked for.
A round that fails any is refused and not charged. Here are the worst results of this run's rounds, from the ledgers.
"""
_NONE = "No ledger that was given has results of self-tests for this run."
_NO_ATTACK = """
No evidence of an attack was given. What the ledger says was done was not tested from outside: fedft audit attack does
that, and fedft audit report --attack takes its evidence.
"""
_ATTACK = """
The federation of the evidence was played again with canaries of which a fair coin decided whether each is trained on;
guesses from what was released bound epsilon from below, with 95 % confidence over all guesses together. Beside it the
control: the same without privacy, which has to leak. A bound can contradict a claim and never prove it. It was the
same program on the same settings, and not this run's own model.
"""
_VERDICTS = {
    "stands": "The claim stands: the control leaked, and the guesses do not contradict the claim.",
    "falsified": "The claim is contradicted: more was guessed than the stated epsilon allows.",
    "no-power": "No verdict: the control did not leak enough, so the attack had no power to find a leak.",
    "unprotected": "There was no claim: privacy was off.",
}
_SCORES = {
    "auroc": "AUROC",
    "tpr_at_fpr_0.01": "TPR at 1 % FPR",
    "tpr_at_fpr_0.001": "TPR at 0.1 % FPR",
}


def facts(sources: Sources) -> Correctness:
    run = str(sources.run.config.get("run") or "")
    moved = [record for record in sources.run.rounds if record.get("quorum") is not False and record.get("updates")]
    norms = [value for record in moved if (value := number(record.get("update_norm"))) is not None]
    return {
        "self_tests": [_self_test(spending, run) for spending in sources.recomputed.ledgers.values()],
        "rounds_with_update": len(moved),
        "smallest_update_norm": min(norms, default=None),
    }


def _self_test(spending: Spending, run: str) -> SelfTest:
    charges = [charge for charge in spending.of_run(run) if charge.purpose == UPDATE]

    def worst(name: str) -> float | None:
        return max((found for charge in charges if (found := charge.value(name)) is not None), default=None)

    return {
        "institution": spending.name,
        "gradient_error": worst("self_test_gradients"),
        "independence": worst("self_test_independence"),
        "sensitivity": worst("self_test_sensitivity"),
        "noise_deviation": worst("self_test_noise"),
    }


def view(document: Document) -> str:
    found = document["parts"]["correctness"]
    head = (
        "Institution",
        "Gradients differ from autograd by",
        "They change with other rows by",
        "Largest change by one unit, in clip norms",
        "Noise's deviation off by",
    )
    at = "/parts/correctness/self_tests"
    rows = [
        [
            cell(test["institution"]),
            *(
                figure(document, f"{at}/{i}/{key}")
                for key in ("gradient_error", "independence", "sensitivity", "noise_deviation")
            ),
        ]
        for i, test in enumerate(found["self_tests"])
        if test["gradient_error"] is not None
    ]
    moved = found["smallest_update_norm"]
    words = (
        f"The adapter moved in each of {found['rounds_with_update']} rounds with updates; the smallest step has norm "
        if moved
        else "No round is recorded in which the adapter moved."
    )
    smallest = figure(document, "/parts/correctness/smallest_update_norm") if moved else ""
    return section(
        TITLE,
        paragraph(" ".join((_SELF_TESTS if rows else _NONE).split())),
        table(head, rows, numeric=(1, 2, 3, 4)),
        f"<p>{cell(words)}{smallest}{'.' if moved else ''}</p>",
        number=5,
    )


def attacks(sources: Sources) -> list[Attack]:
    return [_attack(digest, evidence, sources.run) for digest, evidence in sources.attacks]


def _attack(digest: str, evidence: Mapping[str, Any], run: Run) -> Attack:
    uploads = evidence.get("uploads")
    first = next(iter(evidence["figures"].values()))
    return {
        "sha256": digest,
        "time_utc": str(evidence.get("time_utc", "")),
        "fedft_version": str(evidence.get("fedft_version", "")),
        "verdict": str(evidence["verdict"]),
        "canaries": len(evidence["plays"][0]["coins"]),
        "kind": str(pick(evidence, "canaries.kind") or ""),
        "confidence": float(first["confidence"]),
        "least": float(evidence["least"]),
        "same_terms": _same_terms(evidence.get("terms"), run.config),
        "plays": [_play(play, evidence["figures"][play["name"]]) for play in evidence["plays"]],
        "masked_uploads_uniform": None if not isinstance(uploads, Mapping) else bool(uploads["uniform"]),
    }


def _same_terms(terms: object, config: Body) -> bool:
    """Whether what was attacked trains as the run did: tasks, adapter, training, privacy, aggregation."""
    if not isinstance(terms, Mapping):
        return False
    for name in ("adapter", "training", "privacy", "continual", "federation", "aggregation"):
        asked, had = terms.get(name), config.get(name)
        if not isinstance(asked, Mapping) or not isinstance(had, Mapping):
            return False
        if any(had.get(key) != value for key, value in asked.items()):
            return False
    return True


def _play(play: Mapping[str, Any], figures: Mapping[str, Any]) -> AttackPlay:
    return {
        "play": str(play["name"]),
        "claimed_epsilon": number(play["epsilon"]),
        "delta": float(play["delta"]),
        "epsilon_lower_bound": float(figures["epsilon"]),
        "epsilon_gaussian": float(figures["epsilon_gaussian"]),
        "contradicted": bool(figures["falsified"]),
        "scores": [
            {
                "score": kind,
                "auroc": float(score["auroc"]["value"]),
                "auroc_low": float(score["auroc"]["low"]),
                "auroc_high": float(score["auroc"]["high"]),
                "tpr_at_fpr_1_percent": float(score["tpr_at_fpr_0.01"]["value"]),
                "tpr_at_fpr_01_percent": float(score["tpr_at_fpr_0.001"]["value"]),
            }
            for kind, score in figures["scores"].items()
        ],
    }


def attacks_view(document: Document) -> str:
    found = document["parts"]["attacks"]
    if not found:
        return section(ATTACK_TITLE, paragraph(" ".join(_NO_ATTACK.split()), "note"), number=6)
    return section(
        ATTACK_TITLE,
        paragraph(" ".join(_ATTACK.split())),
        *(_attack_view(document, i) for i in range(len(found))),
        number=6,
    )


def _attack_view(document: Document, i: int) -> str:
    attack, at = document["parts"]["attacks"][i], f"/parts/attacks/{i}"
    head = ("Play", "Claimed ε", "Lower bound of ε", "Score", "AUROC", "95 % interval", *list(_SCORES.values())[1:])
    rows = [
        [
            cell(play["play"] if k == 0 else ""),
            figure(document, f"{at}/plays/{j}/claimed_epsilon", "epsilon") if k == 0 else "",
            figure(document, f"{at}/plays/{j}/epsilon_lower_bound") if k == 0 else "",
            cell(score["score"]),
            figure(document, f"{at}/plays/{j}/scores/{k}/auroc"),
            " to ".join(figure(document, f"{at}/plays/{j}/scores/{k}/auroc_{end}") for end in ("low", "high")),
            figure(document, f"{at}/plays/{j}/scores/{k}/tpr_at_fpr_1_percent"),
            figure(document, f"{at}/plays/{j}/scores/{k}/tpr_at_fpr_01_percent"),
        ]
        for j, play in enumerate(attack["plays"])
        for k, score in enumerate(play["scores"])
    ]
    told = (
        f"{attack['canaries']} canaries ({attack['kind']}), {attack['time_utc']}, fedft {attack['fedft_version']}; the "
        f"control has to show ε of {attack['least']:g}. Evidence: SHA-256 {attack['sha256']}."
    )
    other = (
        ""
        if attack["same_terms"]
        else "The attacked federation was not set as this run: take it as a test of the program alone."
    )
    masked = attack["masked_uploads_uniform"]
    seen = (
        ""
        if masked is None
        else f"What the coordinator gets of a masked round was {'uniform' if masked else 'NOT uniform'}."
    )
    good = attack["verdict"] == "stands"
    return "".join(
        (
            f"<p>{marked(_VERDICTS.get(attack['verdict'], attack['verdict']), 'good' if good else 'bad')}</p>",
            table(head, rows, numeric=range(1, len(head))),
            paragraph(told, "note"),
            paragraph(other, "bad") if other else "",
            paragraph(seen) if seen else "",
        )
    )
