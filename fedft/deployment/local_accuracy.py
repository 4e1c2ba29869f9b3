"""A run's adapter on the rows of a policy: the document that fedft local-accuracy writes."""

from __future__ import annotations

from pathlib import Path

from fedft.assembly.parts import encode_rows
from fedft.assembly.saved_run import SavedRun, open_run
from fedft.config import InstitutionPolicy
from fedft.data.examples import load_data_set
from fedft.deployment.withdrawal import Departure
from fedft.errors import ConfigError, PolicyError
from fedft.identity.documents import write_document
from fedft.identity.keys import PrivateKey
from fedft.ledger.chain import Signer
from fedft.ledger.store import Ledger
from fedft.model.vector import vector_digest
from fedft.rounds.local_accuracy import LABEL, Budget, release_local_accuracy
from fedft.rounds.run_folder import RunFolder


def local_accuracy(folder: Path, policy: InstitutionPolicy, *, noise_multiplier: float) -> bytes:
    """The signed document about the best adapter of the run in ``folder`` on the data set of the policy's federation.

    Raises
    ------
    ConfigError
        Another federation's run; what open_run raises.
    PolicyError
        Less noise than the policy's least; what release_local_accuracy raises.
    Withdrawn
        The institution has left: nothing that depends on its rows leaves any more.
    LedgerLocked
        An agent works with the ledger: stop it meanwhile.
    """
    own, least = policy.institution, policy.allow.min_noise_multiplier
    if not noise_multiplier >= least:
        raise PolicyError(
            f"expected a noise multiplier of at least allow.min_noise_multiplier = {least:g}, found "
            f"{noise_multiplier:g}: give more"
        )
    saved = open_run(folder, bases={model.sha256: model.path for model in policy.models})
    if saved.config.federation.name != own.federation:
        raise ConfigError(
            f'expected a run of federation "{own.federation}", as the policy says, found one of '
            f'"{saved.config.federation.name}": give its own'
        )
    if saved.labels is None:
        raise ConfigError("expected a run that classifies, found another task: its accuracy is not defined")
    dataset = next(one for one in policy.datasets if one.federation == own.federation)
    rows = load_data_set(
        str(dataset.path),
        fields=(saved.config.task.text, saved.config.task.label),
        unit_column=dataset.unit,
        on_bad_record=dataset.on_bad_record,
        labels=saved.labels,
        label_field=saved.config.task.label,
    )
    key = PrivateKey.load(own.identity)
    with Ledger.open(policy.agent.ledger, signer=Signer(own.name, key)) as ledger:
        Departure(policy, ledger, key.public).require_member()
        return release_local_accuracy(
            saved.model,
            encode_rows(saved.config, rows, saved.model.tokenizer, labels=saved.labels),
            ledger=ledger,
            run=str(RunFolder(folder).config()["run"]),
            round=saved.round,
            adapter=_adapter(saved),
            institution=own.name,
            budget=Budget(dataset.name, dataset.unit or "", dataset.epsilon, dataset.delta),
            noise_multiplier=noise_multiplier,
            allowed=policy.release.local_accuracy,
            sign=lambda fields: write_document(LABEL, fields, [key]),
            precision=saved.config.training.precision,
        )


def _adapter(saved: SavedRun) -> str:
    return vector_digest(saved.model.read_vector())
