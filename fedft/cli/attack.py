"""Command that tests a privacy claim by attack: audit attack."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from fedft import strict_json
from fedft.cli.frame import CHECK_FAILED, AsJson, File, Overrides, console, hint, say
from fedft.cli.running import config_of

FALSIFIED = 3
_CODES = {"falsified": FALSIFIED, "no-power": CHECK_FAILED}


def attack(
    file: File,
    set_: Overrides = None,
    variant: Annotated[str | None, typer.Option(metavar="NAME", help="Of the file, attack this variant.")] = None,
    institution: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which gets the canaries. Default: the first.")
    ] = None,
    canaries: Annotated[int, typer.Option(min=1, help="Each is trained on with probability 1/2.")] = 400,
    kind: Annotated[
        Literal["random", "mislabelled"], typer.Option(help="Rows of random words, or public rows with a wrong label.")
    ] = "random",
    references: Annotated[int, typer.Option(min=0, help="Further plays of each kind, for LiRA and RMIA.")] = 0,
    least: Annotated[float, typer.Option(min=0.0, help="Epsilon that the control without privacy has to show.")] = 3.0,
    seed: Annotated[str | None, typer.Option(metavar="HEX", help="32 hexadecimal digits. Default: drawn.")] = None,
    evidence: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep coins, scores and figures here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Play the federation in FILE with canaries, guess which were trained on, and bound epsilon from below.

    Played beside it: the same without privacy, which must leak. FILE may also be evidence of an earlier attack
    (.json): its figures are then computed again. Ledgers and budgets of the file are not touched.

    Exit code 3: the guesses contradict the claimed epsilon. 4: the control did not leak, so that nothing is said.
    """
    if file.suffix == ".json":
        from fedft.attack.evidence import read_evidence

        found = read_evidence(file)
    else:
        from fedft.attack.evidence import write_evidence
        from fedft.attack.pipeline import AttackTerms
        from fedft.attack.pipeline import attack as carried_out

        terms = AttackTerms(_seed(seed), institution, canaries, kind, references, least)
        with tempfile.TemporaryDirectory(prefix="fedft-attack-") as scratch:
            found = carried_out(config_of(file, set_ or [], variant), terms, scratch=Path(scratch), tell=hint)
        if evidence is not None:
            write_evidence(found, evidence)
    if as_json:
        say(strict_json.dumps(_short(found)))
    else:
        from fedft.display.attack import attack_view

        console().print(attack_view(found))
    raise typer.Exit(_CODES.get(found["verdict"], 0))


def _seed(given: str | None) -> str:
    if given is None:
        from fedft.randomness import secure_bytes

        return secure_bytes(16).hex()
    if len(given) != 32 or set(given) - set("0123456789abcdef"):
        raise typer.BadParameter("give --seed as 32 hexadecimal digits, lower case")
    return given


def _short(found: dict[str, Any]) -> dict[str, Any]:
    """Without the long lists."""
    plays = [{key: play[key] for key in ("name", "epsilon", "delta")} for play in found["plays"]]
    return {**found, "plays": plays}
