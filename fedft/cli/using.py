"""Commands that use a run's adapter: evaluate, predict, export, local-accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedft import strict_json
from fedft.cli.frame import AsJson, Run, console, one_line, private_files, say

Rows = Annotated[Path | None, typer.Option("--data", metavar="FILE", help="JSONL, CSV or Parquet.")]


def evaluate(run: Run, data: Rows = None, as_json: AsJson = False) -> None:
    """Measure the best adapter of the run in folder RUN, on its public rows or on a file of the same columns."""
    from fedft.assembly.saved_run import open_run
    from fedft.display.tables import metrics_table

    saved = open_run(run)
    metrics = saved.evaluate(None if data is None else str(data))
    if as_json:
        say(strict_json.dumps(metrics))
    else:
        console().print(metrics_table(metrics, saved.config.federation.name, saved.round))


def predict(
    run: Run,
    texts: Annotated[list[str] | None, typer.Argument(metavar="TEXT...")] = None,
    data: Rows = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest generated answer, in tokens.")] = 64,
    as_json: AsJson = False,
) -> None:
    """Ask the best adapter of the run in folder RUN, about each TEXT or each row of a file.

    Prints a line for each: the label and its probability, or the generated answer to an instruction.
    """
    if bool(texts) == (data is not None):
        raise typer.BadParameter("give either TEXT or --data FILE")
    from fedft.assembly.saved_run import open_run

    saved = open_run(run)
    if data is not None:
        answers = saved.answer_file(str(data), max_new_tokens=max_new_tokens)
    else:
        answers = saved.answer(texts or [], max_new_tokens=max_new_tokens)
    for number, answer in enumerate(answers, start=1):
        if as_json:
            say(strict_json.dumps({"row": number, "answer": answer.text, "probability": answer.probability}))
        else:
            text = one_line(answer.text)
            say(text if answer.probability is None else f"{text}\t{answer.probability:.4f}")


def export(
    run: Run,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="A new folder.")],
    merged: Annotated[bool, typer.Option("--merged", help="The whole model with the adapter merged in.")] = False,
) -> None:
    """Write the best adapter of the run in folder RUN as a PEFT folder, or merged into its base model."""
    from fedft.assembly.saved_run import export_run, open_run

    export_run(open_run(run), to, merged=merged)
    say(f"wrote {to}")


def local_accuracy(
    run: Run,
    noise_multiplier: Annotated[
        float, typer.Option(min=0.001, help="Standard deviation of the noise, in units of the data set.")
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="A new file, signed.")],
    policy: Annotated[Path, typer.Option(metavar="FILE", help="The institution's policy.")] = Path("policy.toml"),
) -> None:
    """Institution: how good the best adapter of the run in folder RUN is on your own rows, with noise, for others.

    Your ledger is charged first; the policy has to say release.local_accuracy = true. Stop the agent meanwhile. Of 500
    units and noise 10 the accuracy is known to 2 points.
    """
    from fedft.config import load_policy
    from fedft.deployment.local_accuracy import local_accuracy as released
    from fedft.durable import write_whole
    from fedft.errors import ConfigError

    if to.exists():
        raise ConfigError(f"expected a new file, found {to}: choose another")
    with private_files():
        write_whole(to, released(run, load_policy(policy), noise_multiplier=noise_multiplier))
    say(f"wrote {to}")
