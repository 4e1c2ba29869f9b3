"""The command of a privacy officer before saying yes: audit plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from fedft import strict_json
from fedft.cli.frame import AsJson, Overrides, console, say
from fedft.errors import ConfigError

if TYPE_CHECKING:
    from fedft.privacy.events import PrivacyEvent

_Value = TypeVar("_Value", int, float)


def _list(metavar: str, text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(metavar=metavar, help=text, show_default=False)
    return option


def plan(
    federation: Annotated[
        Path | None,
        typer.Option("--federation", metavar="FILE", help="Takes rounds, steps, batch size, delta from it."),
    ] = None,
    set_: Overrides = None,
    units: Annotated[str | None, _list("N,N,...", "Privacy units of the data sets.")] = None,
    batch_size: Annotated[str | None, _list("N,N,...", "Units in a step, on average.")] = None,
    sampling_rate: Annotated[str | None, _list("Q,Q,...", "Instead of units and batch size.")] = None,
    local_steps: Annotated[int | None, typer.Option(min=1, help="Steps in a round.")] = None,
    rounds: Annotated[str | None, _list("N,N,...", "Default: 10,25,50,100.")] = None,
    noise: Annotated[str | None, _list("Z,Z,...", "Noise multipliers. Default: 0.5,0.7,1,1.5,2,3,5.")] = None,
    delta: Annotated[float | None, typer.Option(help="Chance that the bound does not hold.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Say the least noise for it, too.")] = None,
    ledger: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What this ledger's one data set has spent counts too.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page with plots.")] = None,
    as_json: AsJson = False,
) -> None:
    """Epsilon against noise, rounds and batch size, for data sets of several sizes.

    For comparing settings before there is a federation; fedft plan says what one file will cost as it stands.
    """
    from fedft.audit.prices import NOISES, ROUNDS, price_list, settings_of
    from fedft.display.prices import prices_view

    known = _from_file(federation, set_ or [])
    steps, chance = local_steps or known.get("local_steps"), delta or known.get("delta")
    if steps is None or chance is None or not 0 < chance < 1:
        raise typer.BadParameter("give --local-steps and --delta between 0 and 1, or --federation FILE that has them")
    if epsilon is not None and not 0 < epsilon < 1e3:
        raise typer.BadParameter(f"expected --epsilon above 0 and below 1000, found {epsilon:g}")
    batches = _numbers("--batch-size", batch_size, int) or [int(size) for size in (known.get("batch_size"),) if size]
    settings = settings_of(
        _numbers("--units", units, int), batches, _numbers("--sampling-rate", sampling_rate, float, most=1.0)
    )
    found = price_list(
        settings,
        noises=_numbers("--noise", noise, float, most=1e4) or NOISES,
        rounds=_numbers("--rounds", rounds, int) or ([int(known["rounds"])] if known else ROUNDS),
        local_steps=int(steps),
        delta=chance,
        wanted=epsilon,
        past=() if ledger is None else _past(ledger),
    )
    if html is not None:
        from fedft.durable import write_whole
        from fedft.report.prices_page import prices_page

        write_whole(html, prices_page(found).encode())
    if as_json:
        say(strict_json.dumps(found.as_json(), indent=2))
    else:
        console().print(prices_view(found))


def _numbers(option: str, text: str | None, kind: Callable[[str], _Value], *, most: float = 1e6) -> list[_Value]:
    """In the order given, each once."""
    if text is None:
        return []
    try:
        found = list(dict.fromkeys(kind(part) for part in text.split(",")))
    except ValueError:
        found = []
    if not found or not all(0 < value <= most for value in found):
        word = "whole numbers from 1" if kind is int else "numbers above 0"
        raise typer.BadParameter(f'expected {option} as {word} to {most:g}, separated by commas, found "{text}"')
    return found


def _from_file(file: Path | None, overrides: list[str]) -> dict[str, float]:
    if file is None:
        if overrides:
            raise typer.BadParameter("give --federation FILE with --set")
        return {}
    from fedft.config import load_config

    config = load_config(file, overrides)
    training = config.training
    known = {"rounds": config.federation.rounds, "local_steps": training.local_steps, "batch_size": training.batch_size}
    return {**known, **({} if config.privacy.delta is None else {"delta": config.privacy.delta})}


def _past(path: Path) -> list[PrivacyEvent]:
    from fedft.audit.spending import events_of, read_spending

    spending = read_spending(path.stem, path)
    if len(spending.datasets) != 1:
        listed = ", ".join(spending.datasets) or "none"
        raise ConfigError(f"expected one data set in {path}, found {listed}: give the ledger of one")
    return events_of(spending.charges)
