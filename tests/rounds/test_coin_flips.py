"""With a guarantee no coin of training can be repeated, dropout's masks included; without one all of them can."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from fedft.assembly.planning import institution_plan
from fedft.ledger.store import Ledger
from fedft.model.vector import vector_digest
from fedft.rounds.institution import Institution
from fedft.rounds.plan import DEFAULT_TASK, RoundPlan, RoundRequest
from fedft.simulation.institutions import make_institution, public_fisher_of
from fedft.simulation.setup import Setup
from fedft.update.envelope import open_envelope
from tests.federation import federation

OFF = ("privacy.mode=off", "privacy.epsilon=", "privacy.delta=", "privacy.clip_norm=")


def masks_and_flips(institution: Institution, plan: RoundPlan) -> list[float]:
    torch.manual_seed(0)
    uniform = institution._coin_flips(plan)
    return [*torch.rand(4).tolist(), *uniform(4)]


@pytest.mark.parametrize("overrides", [(), OFF], ids=["private", "unprotected"])
def test_coin_flips_and_dropout_masks_are_secret_exactly_with_a_guarantee(
    overrides: tuple[str, ...], tmp_path: Path
) -> None:
    setup = Setup(federation(tmp_path / "data", "adapter.dropout=0.3", *overrides))
    model, adapter = setup.model, setup.model.start_vector()
    plan = RoundPlan(
        run="run", round=1, rounds=1, task=DEFAULT_TASK, task_index=0, cohort=("north",),
        layout_digest=model.layout.digest, adapter_digest=vector_digest(adapter), roles=setup.aggregation.trains,
        local_steps=2, first_step=0, total_steps=2,
    )  # fmt: skip

    def update(name: str) -> npt.NDArray[np.float32]:
        with Ledger.open(tmp_path / f"{name}.sqlite") as ledger:
            terms = institution_plan(setup.config, setup.institution("north"))
            institution = make_institution(setup, terms, tmp_path / name, "north", ledger, public_fisher_of(setup))
            drawn.append(masks_and_flips(institution, plan))
            answer = institution.answer(RoundRequest(plan, adapter))
        assert isinstance(answer, bytes)
        return open_envelope(answer, expected_size=model.layout.only(plan.roles).size).delta

    drawn: list[list[float]] = []
    first, second = update("first"), update("second")
    assert np.array_equal(first, second) == (overrides == OFF)
    same = [a == b for a, b in zip(*drawn, strict=True)]
    assert same == [overrides == OFF] * 8
