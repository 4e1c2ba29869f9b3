"""What one institution allows, whatever a plan asks for: its policy, one TOML file. Every line: docs/policy.md.

Guarantee: a policy that loads is complete: every limit is written out, and the one data set that its federation may
train on has a budget. A file that others than its owner may write is no policy.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from fedft.config.files import read_toml
from fedft.config.keys import section_of
from fedft.config.loading import frozen
from fedft.config.problems import as_config_error
from fedft.config.sections import Count, Name, NonNegative, Positive, Section
from fedft.config.template import key_lines, plain
from fedft.errors import ConfigError

_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class PolicyInstitution(Section):
    """Who this institution is, and whose plans it takes."""

    name: Name = Field(description="its name in the roster")
    federation: Name = Field(description="the federation's name, in the roster and in every plan")
    coordinator: str = Field(
        pattern=r"^ed25519:[0-9a-f]{64}$", description="the coordinator's public key, compared by phone"
    )
    identity: Path = Field(description="its own private key, mode 0600; it never leaves this machine")
    roster: Path = Field(description="the roster that the coordinator signed")


class PolicyAgent(Section):
    """How the agent runs on this machine."""

    socket: Path = Field(description="Unix domain socket that the relay speaks to")
    ledger: Path = Field(description="the privacy ledger; an older copy put back forgets what was spent")
    state: Path = Field(description="folder of what must outlive a restart: consolidations, the newest roster seen")
    log: Path = Field(description="one JSON line an event, its owner's alone; no record's content")
    queue: int = Field(default=4, ge=0, le=1024, description="requests that may wait while one trains")
    max_request_bytes: int = Field(default=2**30, ge=1024, description="a longer request is refused unread")
    device: Literal["auto", "cpu", "cuda", "cuda-all"] = Field(default="auto", description="where the model is trained")


class PolicyModel(Section):
    """A base model that may be fine-tuned here."""

    sha256: _Sha256 = Field(description="its digest: fedft doctor MODEL prints it")
    path: Path = Field(description="its folder on this machine")


class PolicyDataset(Section):
    """A data set that a federation may train on."""

    name: Name = Field(description="the privacy budget belongs to this name: keep it when rows come or go")
    path: Path = Field(description="JSONL, CSV or Parquet")
    federation: Name = Field(description="the one federation that may train on it")
    unit: str | None = Field(
        default=None, min_length=1, description="column of the privacy unit, as patient; absent: each row is a unit"
    )
    epsilon: Positive = Field(description="cap over all runs, for ever")
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(description="a plan with a larger delta is refused")
    reference: Path | None = Field(default=None, description="public rows, for EWC with a public Fisher")
    on_bad_record: Literal["error", "skip"] = Field(default="error", description="a row that cannot be used")


class PolicyAllow(Section):
    """What a plan may ask for; anything else is refused."""

    tasks: tuple[Literal["classification", "instruction"], ...] = Field(description="kinds of task")
    adapters: tuple[Literal["lora", "head"], ...] = Field(description="what may be trained")
    aggregations: tuple[Literal["fedavg", "ffa_lora", "fed_svd"], ...] = Field(description="the coordinator's methods")
    min_noise_multiplier: NonNegative = Field(description="noise over clip norm in every private step, at least")
    max_clip_norm: Positive = Field(description="of one unit's gradient")
    max_rounds: Count = Field(description="rounds of one run")
    max_local_steps: Count = Field(description="steps of one round")
    secure_aggregation: Literal["optional", "required"] = Field(
        default="optional", description="required: no plan without it is answered"
    )
    least_cohort: int = Field(
        default=3, ge=3, description="with secure aggregation: institutions whose sum may be formed, at least"
    )
    distributed_against: int | None = Field(
        default=None,
        ge=0,
        description='lets privacy.mode = "distributed" pass that holds with so many others on the coordinator\'s side',
    )


class PolicyRelease(Section):
    """What may leave besides an update under differential privacy: by default nothing."""

    unprotected: tuple[Literal["update"], ...] = Field(
        default=(), description='["update"] here, and nothing less, lets a run without privacy train'
    )
    private_fisher: bool = Field(
        default=False, description="a noised Fisher matrix, charged to the ledger; it stays here, its influence leaves"
    )
    local_accuracy: bool = Field(
        default=False,
        description="lets fedft local-accuracy write a noised accuracy on these rows, charged first",
    )


class PolicyProcessing(Section):
    """What a report states of this institution's processing of personal data: in its own words, checked by nobody."""

    responsibility: str = Field(default="", max_length=500, description='as "controller", and who that is')
    legal_basis: str = Field(default="", max_length=500, description="on which the rows may be used for training")
    purpose: str = Field(default="", max_length=500, description="of the training")
    data_categories: str = Field(default="", max_length=500, description="of data and of persons")
    retention: str = Field(default="", max_length=500, description="of ledger, log and model, and until when")


class InstitutionPolicy(Section):
    """The whole file."""

    institution: PolicyInstitution
    agent: PolicyAgent
    models: tuple[PolicyModel, ...] = Field(min_length=1)
    datasets: tuple[PolicyDataset, ...] = Field(min_length=1)
    allow: PolicyAllow
    release: PolicyRelease = PolicyRelease()
    processing: PolicyProcessing = PolicyProcessing()

    @model_validator(mode="after")
    def _consistent(self) -> InstitutionPolicy:
        for problem in _problems(self):
            raise ValueError(problem)
        return self


def load_policy(path: str | Path) -> InstitutionPolicy:
    """Read a policy; relative paths in it are relative to its folder.

    Raises
    ------
    ConfigError
        A file that cannot be read or that others may write; TOML that does not parse; an unknown key, named with the
        nearest known one; a value out of range; data sets that do not fit the federation.
    """
    file = Path(path)
    try:
        body = read_toml(
            file, kind="a policy", otherwise="take the template in the kit of fedft provision kit", closed=True
        )
        return parse_policy(body, folder=file.parent)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


def parse_policy(body: Mapping[str, Any], *, folder: Path) -> InstitutionPolicy:
    """As load_policy, of a body already read."""
    resolved = {name: _resolved(name, value, folder) for name, value in body.items()}
    try:
        return InstitutionPolicy.model_validate(frozen(resolved), strict=True)
    except ValidationError as error:
        raise as_config_error(error, body, InstitutionPolicy) from None


def read_shown_policy(path: Path) -> tuple[InstitutionPolicy, str]:
    """A copy of a policy that an institution shows an auditor, whoever may write it, and its SHA-256.

    Raises ConfigError as load_policy, but for the file's mode.
    """
    try:
        body = read_toml(path, kind="a policy", otherwise="ask the institution for a copy")
        return parse_policy(body, folder=path.parent), hashlib.sha256(path.read_bytes()).hexdigest()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def policy_template(name: str, federation: str, coordinator: str, values: Mapping[str, Any] | None = None) -> str:
    """A policy that load_policy reads, with every key there is and what it means. It allows no base model as yet.

    Parameters
    ----------
    values : further values by dotted key, as "institution.roster"
    """
    own = {"institution.name": name, "institution.federation": federation, "institution.coordinator": coordinator}
    examples = {**_EXAMPLES, **own, "datasets.federation": federation, **(values or {})}
    lines = _HEADER.splitlines()
    for table, field in InstitutionPolicy.model_fields.items():
        section, several = section_of(field.annotation)
        if section is not None:
            head = f"[[{table}]]" if several else f"[{table}]"
            lines += ["", head, f"# {plain(section.__doc__ or '')}", *key_lines(table, section, examples)]
    return "\n".join(lines) + "\n"


_PATHS = {
    "institution": ("identity", "roster"),
    "agent": ("socket", "ledger", "state", "log"),
    "models": ("path",),
    "datasets": ("path", "reference"),
}
_EXAMPLES: dict[str, Any] = {
    "institution.identity": "identity.key",
    "institution.roster": "roster.json",
    "agent.socket": "agent.sock",
    "agent.ledger": "ledger.sqlite",
    "agent.state": "state",
    "agent.log": "agent.log",
    "agent.queue": 4,
    "agent.max_request_bytes": 2**30,
    "agent.device": "auto",
    "models.sha256": "0" * 64,
    "models.path": "models/base",
    "datasets.name": "notes",
    "datasets.path": "notes.jsonl",
    "datasets.epsilon": 8.0,
    "datasets.delta": 1e-5,
    "allow.tasks": ["classification"],
    "allow.adapters": ["lora", "head"],
    "allow.aggregations": ["fed_svd"],
    "allow.min_noise_multiplier": 0.3,
    "allow.max_clip_norm": 10.0,
    "allow.max_rounds": 50,
    "allow.max_local_steps": 50,
    "allow.secure_aggregation": "optional",
    "allow.least_cohort": 3,
    "release.unprotected": [],
    "release.private_fisher": False,
    "release.local_accuracy": False,
}
_HEADER = """\
# What this institution allows. It wins over any plan: what is not allowed here is refused, with one word.
# Paths are relative to this file. A commented key shows its default. Its owner alone may have the right to write it.
"""


def _problems(policy: InstitutionPolicy) -> Iterator[str]:
    for key, values in {
        "datasets.name": [dataset.name for dataset in policy.datasets],
        "datasets.federation": [dataset.federation for dataset in policy.datasets],
        "models.sha256": [model.sha256 for model in policy.models],
    }.items():
        if len(set(values)) != len(values):
            yield f"needs {key} to be different, and has one twice"
    if policy.institution.federation not in [dataset.federation for dataset in policy.datasets]:
        yield f'needs a data set with federation = "{policy.institution.federation}"'


def _resolved(table: str, value: Any, folder: Path) -> Any:
    """The same with absolute paths where the table has some."""
    if isinstance(value, list | tuple):
        return [_resolved(table, entry, folder) for entry in value]
    if not isinstance(value, Mapping):
        return value
    return {key: _path(inner, folder) if key in _PATHS.get(table, ()) else inner for key, inner in value.items()}


def _path(value: Any, folder: Path) -> Any:
    if not isinstance(value, str) or not value:
        return value
    return Path(os.path.abspath(os.path.join(folder, os.path.expanduser(value))))
