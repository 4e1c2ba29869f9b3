"""The privacy claim under attack: canaries at epsilon 1, at epsilon 8 and without privacy.

    python bench/attack.py [--quick] [--only SET] [--write bench/results/attack.json]

Each federation is attacked at both epsilons; its control, without privacy, is played once. ``least_control``: the
smallest epsilon that a control showed, at least, at delta 1e-6; it should be 3 or more. ``within``: no claim was
contradicted. Sets: the hospitals' notes and, as a causal model, their instructions (scenarios/), BANKING77 with the
head on all-MiniLM-L6-v2 (needs the data, see utility.py). With --only, the file's other sets stay as they are.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from _frozen_layers import keep_frozen_states
from _recipes import overrides_of
from _result import command, emit
from utility import ROOT, data_folder

from fedft.attack.evidence import CLAIM, CONTROL
from fedft.attack.pipeline import AttackTerms, attack
from fedft.config import FederationConfig, load_config, with_overrides

EPSILONS = (8.0, 1.0)
TERMS = AttackTerms(seed="6665646674206174746163682062656e", canaries=400)
"""The seed is fixed, so that the control comes out the same again; noise and coin flips of the claims do not."""

INSTITUTIONS = {"hospitals": "village", "instructions": None, "banking77": None}
KEPT = ("auroc", "tpr_at_fpr_0.01", "tpr_at_fpr_0.001")


def config_of(name: str) -> FederationConfig:
    if name == "hospitals":
        return load_config(ROOT / "scenarios" / "hospitals.toml")
    if name == "instructions":
        return load_config(ROOT / "scenarios" / "instructions.toml", ["training.batch_size=96"])
    folder = data_folder() / "banking77"
    here = (f"data.train={folder / 'train.jsonl'}", f"data.evaluation={folder / 'test.jsonl'}")
    return load_config(
        ROOT / "scenarios" / "real" / "banking77.toml", [*overrides_of(name, "iid", "head", "8", 1), *here]
    )


def measure(name: str, terms: AttackTerms, **overrides: Any) -> dict[str, Any]:
    terms = replace(terms, institution=INSTITUTIONS[name])
    found: dict[str, Any] = {"institution": None, "canaries": terms.canaries, "claims": {}}
    control = None
    for epsilon in EPSILONS:
        config = with_overrides(config_of(name), {**overrides, "privacy.epsilon": epsilon})
        with tempfile.TemporaryDirectory() as scratch, keep_frozen_states():
            evidence = attack(config, terms, scratch=Path(scratch), tell=print, control_play=control)
        control = next(play for play in evidence["plays"] if play["name"] == CONTROL)
        found["institution"], found["reconstruction"] = evidence["institution"], evidence["reconstruction"]
        found["control"] = shortened(evidence, CONTROL)
        found["claims"][f"{epsilon:g}"] = {**shortened(evidence, CLAIM), "verdict": evidence["verdict"]}
        print(name, epsilon, found["claims"][f"{epsilon:g}"], found["control"], flush=True)
    return found


def measured_before(file: Path | None) -> dict[str, Any]:
    """Sets of earlier calls with --only: each has its own command and date."""
    return {} if file is None or not file.exists() else dict(json.loads(file.read_text(encoding="utf-8"))["sets"])


def shortened(evidence: dict[str, Any], name: str) -> dict[str, Any]:
    play, figures = next(play for play in evidence["plays"] if play["name"] == name), evidence["figures"][name]
    return {
        "epsilon_claimed": play["epsilon"],
        "delta": play["delta"],
        "epsilon_at_least": figures["epsilon"],
        "epsilon_gaussian_at_least": figures["epsilon_gaussian"],
        "scores": {kind: {key: score[key] for key in KEPT} for kind, score in figures["scores"].items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one step and 40 canaries, the causal model alone")
    parser.add_argument("--only", action="append", choices=tuple(INSTITUTIONS))
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    if args.quick:
        terms = replace(TERMS, canaries=40, least=0.0)
        sets = {"instructions": measure("instructions", terms, **{"federation.rounds": 1, "training.local_steps": 1})}
    else:
        sets = measured_before(args.write) if args.only else {}
        for name in args.only or INSTITUTIONS:
            sets[name] = {**measure(name, TERMS), "command": command(), "date": datetime.now(UTC).date().isoformat()}
    figures = {
        "least_control": min(found["control"]["epsilon_at_least"] for found in sets.values()),
        "within": all(c["verdict"] != "falsified" for found in sets.values() for c in found["claims"].values()),
        "sets": sets,
    }
    emit("attack", figures, write=args.write)


if __name__ == "__main__":
    main()
