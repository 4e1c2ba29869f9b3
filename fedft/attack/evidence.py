"""What an attack found, as a file that anyone can compute its figures from again: docs/SPEC.md, "Attack evidence".

It holds coins, scores and the seed that made the canaries; nothing of a record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedft import strict_json
from fedft.attack.bounds import curve_of, epsilon_gaussian, epsilon_one_run, falsifies, right_guesses
from fedft.attack.rates import Estimate, auroc, tpr_at_fpr
from fedft.durable import write_whole
from fedft.errors import ConfigError, StorageError

LABEL = "fedft/v1/attack-evidence"
CONFIDENCE = 0.95
SHARES = (1.0, 0.6, 0.3, 0.1)
"""Of the canaries that are guessed: fixed beforehand, and each pays its part of the significance."""

MOST_BYTES = 2**26
"""Of a file of evidence: canaries by the hundred thousand."""

Verdict = Literal["falsified", "no-power", "stands", "unprotected"]
CLAIM, CONTROL = "claim", "control"


def play_of(
    name: str,
    *,
    coins: npt.NDArray[np.bool_],
    scores: Mapping[str, npt.NDArray[np.float64]],
    epsilon: float,
    delta: float,
    curve: Sequence[tuple[float, float]],
) -> dict[str, Any]:
    """One play of the federation. epsilon: of the ledger's events at delta; curve: their (epsilon, delta) pairs."""
    return {
        "name": name,
        "epsilon": epsilon if math.isfinite(epsilon) else None,
        "delta": delta,
        "curve": [list(pair) for pair in curve if math.isfinite(pair[0])],
        "coins": "".join("1" if coin else "0" for coin in coins),
        "scores": {kind: [float(value) for value in values] for kind, values in scores.items()},
    }


def figures_of(play: Mapping[str, Any]) -> dict[str, Any]:
    """What the guesses of one play say. Its scores, numbers of guesses and two kinds of test share the significance.

    epsilon: the least that they leave possible, without further assumptions; epsilon_gaussian: for Gaussian trade-off
    curves; falsified: the play's epsilon, or its whole curve, is contradicted.

    Raises ConfigError for coins and scores that do not fit together.
    """
    if set(play["coins"]) - {"0", "1"}:
        raise ConfigError("expected coins of 0 and 1, found others: damaged evidence")
    coins = np.array([coin == "1" for coin in play["coins"]])
    options = {"canaries": len(coins), "significance": _significance(len(play["scores"]))}
    curve = curve_of([e for e, _ in play["curve"]], [d for _, d in play["curve"]])
    found: dict[str, Any] = {"confidence": CONFIDENCE, "significance_of_each": options["significance"], "scores": {}}
    for kind, values in play["scores"].items():
        scores = np.array(values, dtype=np.float64)
        if scores.shape != coins.shape or not np.isfinite(scores).all():
            raise ConfigError(f"expected {len(coins)} finite scores for as many coins, found others: damaged evidence")
        guesses = []
        for count in _counts(len(coins)):
            right = right_guesses(scores, coins, count)
            given: dict[str, Any] = {**options, "guesses": count, "right": right}
            guesses.append(
                {
                    "guesses": count,
                    "right": right,
                    "epsilon": epsilon_one_run(delta=play["delta"], **given),
                    "epsilon_gaussian": epsilon_gaussian(delta=play["delta"], **given),
                    "curve_falsified": falsifies(curve, **given),
                }
            )
        found["scores"][kind] = {
            "auroc": _rounded(auroc(scores, coins, CONFIDENCE)),
            "tpr_at_fpr_0.01": _rounded(tpr_at_fpr(scores, coins, 0.01, CONFIDENCE)),
            "tpr_at_fpr_0.001": _rounded(tpr_at_fpr(scores, coins, 0.001, CONFIDENCE)),
            "guesses": guesses,
        }
    every = [guess for score in found["scores"].values() for guess in score["guesses"]]
    for bound in ("epsilon", "epsilon_gaussian"):
        found[bound] = max(guess[bound] for guess in every)
    claimed = math.inf if play["epsilon"] is None else play["epsilon"]
    found["falsified"] = found["epsilon"] > claimed or any(guess["curve_falsified"] for guess in every)
    return found


def _significance(scores: int) -> float:
    """Of each test: by epsilon and by curve, of each score and number of guesses."""
    return (1 - CONFIDENCE) / (2 * scores * len(SHARES))


def _counts(canaries: int) -> list[int]:
    return [max(1, round(share * canaries)) for share in SHARES]


def _rounded(estimate: Estimate) -> dict[str, float]:
    """To what another version of scipy also finds."""
    return {key: round(value, 6) for key, value in asdict(estimate).items()}


def verdict_of(figures: Mapping[str, Mapping[str, Any]], least: float) -> Verdict:
    """Of figures by play. A claim that is contradicted is, whatever the control shows."""
    if CLAIM in figures and figures[CLAIM]["falsified"]:
        return "falsified"
    if figures[CONTROL]["epsilon"] < least:
        return "no-power"
    return "stands" if CLAIM in figures else "unprotected"


def complete(about: Mapping[str, Any], plays: Sequence[Mapping[str, Any]], *, least: float) -> dict[str, Any]:
    """The whole evidence. about: what was attacked, and how."""
    figures = {play["name"]: figures_of(play) for play in plays}
    return {
        "label": LABEL,
        **about,
        "least": least,
        "plays": list(plays),
        "figures": figures,
        "verdict": verdict_of(figures, least),
    }


def ceiling(canaries: int, delta: float, scores: int) -> float:
    """The epsilon that a play shows when every guess is right: no attack can show more."""
    options: dict[str, Any] = {"canaries": canaries, "delta": delta, "significance": _significance(scores)}
    return max(epsilon_one_run(guesses=count, right=count, **options) for count in _counts(canaries))


def write_evidence(evidence: Mapping[str, Any], file: Path) -> None:
    """Raises StorageError when the disk does not take it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, (strict_json.dumps(evidence, indent=1) + "\n").encode())
    except OSError as error:
        raise StorageError(f"expected to write {file}, found {error.strerror}: choose another place") from error


def read_evidence(file: Path) -> dict[str, Any]:
    """The evidence, its figures and verdict computed again from coins and scores, and found equal.

    Raises
    ------
    ConfigError
        No evidence of this version, or figures that its coins and scores do not give.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ConfigError(
                f"expected at most {MOST_BYTES:,} bytes of evidence in {file}, found more: nothing was read"
            )
        stored = json.loads(file.read_text(encoding="utf-8"))
        known = stored["label"] == LABEL
        again = complete({}, stored["plays"], least=float(stored["least"])) if known else {}
    except OSError as error:
        raise StorageError(f"expected to read {file}, found {error.strerror}: check the path") from error
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        known = False
    if not known:
        raise ConfigError(f"expected evidence of an attack in {file}, as docs/SPEC.md has it, found something else")
    for part in ("figures", "verdict"):
        if strict_json.finite(again[part]) != stored.get(part):
            raise ConfigError(
                f"expected the {part} in {file} that its coins and scores give, found others: it was altered, or "
                "written by another version"
            )
    return dict(stored)
