"""What each of the nine parts of a report holds. Published as docs/schemas/audit-report.schema.json.

Numbers that are not finite are null: an infinite epsilon has ``epsilon_infinite`` beside it. "" or null: not stated.
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict


class FindingText(TypedDict):
    kind: Literal["claim", "input", "note"]
    code: str
    where: str
    text: str


class Party(TypedDict):
    """policy_sha256: of the policy that the statements are from; "" where none was given."""

    name: str
    role: Literal["coordinator", "institution"]
    key: str
    fingerprint: str
    responsibility: str
    legal_basis: str
    purpose: str
    data_categories: str
    retention: str
    policy_sha256: str


class Software(TypedDict):
    """code, packages: digests (docs/SPEC.md, "Audit log"). one_version: every round was played by the same code."""

    fedft_version: str
    code_sha256: str
    packages_sha256: str
    one_version: bool


class Identity(TypedDict):
    run: str
    federation: str
    engine: str
    finished: bool
    rounds_done: int
    rounds_planned: int
    first_utc: str
    last_utc: str
    task: str
    base_model: str
    base_model_sha256: str
    adapter_layout_sha256: str
    adapter_sha256: str
    config_sha256: str
    terms_sha256: str
    begun_from: str
    software: Software
    parties: list[Party]


class CurvePoint(TypedDict):
    delta: float
    epsilon: float | None


class AttackBound(TypedDict):
    """No attacker who wrongly accuses at most ``fpr`` of those whose data was not used finds more than ``tpr``."""

    fpr: float
    tpr: float


class Guarantee(TypedDict):
    """Of one data set of an institution, over all runs in its ledger.

    prv: bounds on both sides by another accountant; rdp: outer bound; without_masks: where noise was added in shares,
    epsilon if secure aggregation failed. stated: by the run itself. asked: in this run, where its ledger was not given.
    """

    institution: str
    dataset: str
    of_this_run: bool
    protected: bool
    epsilon: float | None
    epsilon_infinite: bool
    stated: float | None
    asked: float | None
    cap: float | None
    delta: float | None
    unit: str
    units: list[int]
    fingerprints: list[str]
    runs: list[str]
    prv: list[float] | None
    rdp: float | None
    without_masks: float | None
    least_honest: int | None
    curve: list[CurvePoint]
    attack_bounds: list[AttackBound]
    sentence: str


class Guarantees(TypedDict):
    relation: str
    trust_model: str
    released: str
    institutions: list[Guarantee]


class Mechanism(TypedDict):
    """Of this run. from_ledger: as charged before training; otherwise as the run states it."""

    institution: str
    from_ledger: bool
    noise_multipliers: list[float]
    clip_norms: list[float]
    sampling_rates: list[float]
    batch_size: float | None
    steps: int


class Mechanisms(TypedDict):
    """common: by name, what the code of this version does everywhere."""

    mode: str
    common: dict[str, str]
    institutions: list[Mechanism]


class ChargeText(TypedDict):
    """Intents that differ in their round alone. entries: their numbers in the ledger; released: rounds that left."""

    run: str
    purpose: str
    event: dict[str, Any]
    rounds: list[int]
    entries: list[int]
    released: list[int]
    first_utc: str
    last_utc: str
    cap: float | None
    allowed_by: str


class SpendPoint(TypedDict):
    """Epsilon of everything charged up to this entry."""

    entry: int
    run: str
    round: int
    epsilon: float | None


class DatasetSpending(TypedDict):
    dataset: str
    cap: float | None
    delta: float | None
    charges: list[ChargeText]
    spend: list[SpendPoint]


class RefusalCount(TypedDict):
    run: str
    reason: str
    count: int


class LedgerText(TypedDict):
    institution: str
    entries: int
    head: str
    receipts: int
    first_utc: str
    last_utc: str
    datasets: list[DatasetSpending]
    refusals: list[RefusalCount]


class Ledgers(TypedDict):
    given: list[LedgerText]
    not_given: list[str]


class SelfTest(TypedDict):
    """Of one institution in this run; the worst of its rounds. None: not in its ledger.

    independence: by how much a row's gradient changed with the rows beside it.
    """

    institution: str
    gradient_error: float | None
    independence: float | None
    sensitivity: float | None
    noise_deviation: float | None


class Correctness(TypedDict):
    """smallest_update_norm: of the rounds that changed the adapter; null where none is recorded."""

    self_tests: list[SelfTest]
    rounds_with_update: int
    smallest_update_norm: float | None


class AttackScore(TypedDict):
    score: str
    auroc: float
    auroc_low: float
    auroc_high: float
    tpr_at_fpr_1_percent: float
    tpr_at_fpr_01_percent: float


class AttackPlay(TypedDict):
    play: str
    claimed_epsilon: float | None
    delta: float
    epsilon_lower_bound: float
    epsilon_gaussian: float
    contradicted: bool
    scores: list[AttackScore]


class Attack(TypedDict):
    """same_terms: the attacked federation trained as this run did, field by field of what the evidence names."""

    sha256: str
    time_utc: str
    fedft_version: str
    verdict: str
    canaries: int
    kind: str
    confidence: float
    least: float
    same_terms: bool
    plays: list[AttackPlay]
    masked_uploads_uniform: bool | None


class Utility(TypedDict):
    """Metrics on the coordinator's public rows, by name."""

    metric: str
    best_round: int
    start: dict[str, Any]
    best: dict[str, Any]
    final: dict[str, Any]
    forgetting: dict[str, Any]
    subgroup_column: str
    subgroups: dict[str, dict[str, Any]]


class Left(TypedDict):
    """What left an institution for one purpose: how often, and bytes in all."""

    institution: str
    purpose: str
    kind: str
    releases: int
    bytes: int


class ReleaseText(TypedDict):
    institution: str
    run: str
    round: int
    purpose: str
    bytes: int
    sha256: str


class Security(TypedDict):
    transport: str
    secure_aggregation: bool
    masked_rounds: int
    abandoned_rounds: int
    attestations: int
    left: list[Left]
    releases: list[ReleaseText]


class ContributionText(TypedDict):
    """Whose updates are in which adapter.

    rounds: whose sum has its update. free: the newest state without it, 0 the start; again: rounds to train anew from
    there. left_after: the last round with its update, where it signed that it leaves.
    """

    institution: str
    rounds: list[int]
    in_best: bool
    in_final: bool
    free: int
    again: int
    left_after: int | None


class Residual(TypedDict):
    not_protected: list[str]
    contributions: list[ContributionText]
    assumptions: list[str]
    deviations: list[FindingText]
    sign_off: list[str]


class Parts(TypedDict):
    identity: Identity
    guarantees: Guarantees
    mechanisms: Mechanisms
    ledgers: Ledgers
    correctness: Correctness
    attacks: list[Attack]
    utility: Utility
    security: Security
    residual: Residual
