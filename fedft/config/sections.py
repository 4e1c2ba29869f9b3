"""The sections of a federation file, frozen, each value with its range."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]

SCHEDULERS = (
    "constant",
    "constant_with_warmup",
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "inverse_sqrt",
)


class Section(BaseModel):
    """One table of the file. Frozen; no key beyond those named."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, protected_namespaces=())


class Federation(Section):
    """Who plays how long."""

    name: Name
    rounds: Count
    min_institutions: Count = Field(default=1, description="updates a round needs to count (its quorum)")
    round_timeout_s: Positive = 3600.0
    seed: int = Field(default=0, ge=0, description="for everything that is not noise, coin flips of DP or a key")


class Model(Section):
    """The base model: a local folder in Hugging Face's format, or a hub id."""

    base: str = Field(min_length=1)
    revision: str | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="digest the base must have")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    quantization: Literal["none", "nf4"] = "none"

    @field_validator("quantization", mode="before")
    @classmethod
    def _rows_apart(cls, value: object) -> object:
        if value == "int8":
            raise ValueError('"int8" lets rows of a batch change each other, which no clip norm bounds: use "nf4"')
        return value


class Adapter(Section):
    """What is trained. ``head`` trains the classification head alone on the frozen base."""

    method: Literal["lora", "head"] = "lora"
    rank: Count = 8
    alpha: Positive = 16.0
    target_modules: tuple[str, ...] | None = Field(default=None, description="None: the attention's query and value")
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    rslora: bool = Field(default=False, description="scale alpha/sqrt(rank) instead of alpha/rank")


class Task(Section):
    """What the model learns. Labels are public: classes read off private rows would be a release."""

    kind: Literal["classification", "instruction"]
    text: str = Field(default="text", description="column, for classification")
    label: str = Field(default="label", description="column, for classification")
    labels: tuple[str, ...] | None = Field(default=None, description="None: those of data.evaluation, which is public")
    pooling: Literal["mean", "cls"] = "mean"
    head_start: Literal["zeros", "label-names"] = Field(
        default="zeros", description="label-names: from the base's embeddings of what the labels are called"
    )
    max_length: Annotated[int, Field(ge=4, le=131072)] = 128


class Partition(Section):
    """How data.train is dealt to simulated institutions."""

    method: Literal["natural", "iid", "dirichlet", "label-skew", "quantity-skew"]
    institutions: Count | None = Field(default=None, description="how many; natural: one per value of the column")
    column: str | None = Field(default=None, description="natural: the column that names the institution")
    alpha: Positive | None = Field(default=None, description="dirichlet and quantity-skew: lower is more uneven")
    labels_per_institution: Count | None = Field(default=None, description="label-skew")

    @model_validator(mode="after")
    def _complete(self) -> Partition:
        needs = {
            "natural": ("column",),
            "iid": ("institutions",),
            "dirichlet": ("institutions", "alpha"),
            "label-skew": ("institutions", "labels_per_institution"),
            "quantity-skew": ("institutions", "alpha"),
        }[self.method]
        missing = [key for key in needs if getattr(self, key) is None]
        if missing:
            raise ValueError(f'method "{self.method}" needs {" and ".join(missing)}')
        return self


class Data(Section):
    """Where rows come from. Private: train, or each institution's own data. Public: evaluation and reference."""

    train: str | None = Field(default=None, description="JSONL, CSV, Parquet, or datasets:NAME; with partition")
    evaluation: str = Field(description="the coordinator's own held-out rows, public")
    reference: str | None = Field(default=None, description="public rows whose knowledge must not be lost")
    unit: str | None = Field(default=None, description="column that names the privacy unit; None: each row is one")
    max_rows_per_unit: Count | None = Field(default=None, description="rows of a unit that take part when it is drawn")
    task_column: str | None = Field(default=None, description="column that names the task, for continual.tasks")
    on_bad_record: Literal["error", "skip"] = "error"
    partition: Partition | None = None


class Training(Section):
    """Local training in one round. Steps are logical: one noisy step whatever its physical batches."""

    local_steps: Count
    batch_size: Count = Field(description="expected privacy units per step")
    physical_batch_size: Count = Field(default=64, description="rows in memory at once; does not change the result")
    learning_rate: Positive
    optimizer: Literal["sgd", "adamw"] = "adamw"
    weight_decay: NonNegative = 0.0
    scheduler: Literal[SCHEDULERS] = "constant"  # type: ignore[valid-type]
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    scheduler_options: dict[str, Finite | int | str] = Field(default_factory=dict)
    max_gradient_norm: Positive | None = Field(default=None, description="without DP: clip the batch gradient")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="autocast; auto: bfloat16 on GPU"
    )
    device: Literal["auto", "cpu", "cuda", "cuda-all"] = "auto"


class Privacy(Section):
    """The guarantee each institution asks for. ``mode`` has no default: privacy is switched off in writing only.

    "distributed": a round is one step over all institutions, its noise added in shares under secure aggregation. It
    holds towards a coordinator that sees sums alone; "dp-sgd" holds towards everyone.
    """

    mode: Literal["dp-sgd", "distributed", "off"]
    epsilon: Positive | None = None
    delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    clip_norm: Positive | None = None
    max_units: Count | None = Field(
        default=None, description="distributed: the most any institution has; batch_size over it is the sampling rate"
    )
    colluding: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="distributed: institutions on the coordinator's side; None: as many as masks bear"
    )

    @model_validator(mode="after")
    def _complete(self) -> Privacy:
        budget, shared = ("epsilon", "delta", "clip_norm"), ("max_units", "colluding")
        needs = {"off": (), "dp-sgd": budget, "distributed": (*budget, "max_units")}[self.mode]
        missing = [key for key in needs if getattr(self, key) is None]
        if missing:
            raise ValueError(f'mode "{self.mode}" needs {" and ".join(missing)}')
        if self.mode == "off" and any(getattr(self, key) is not None for key in budget):
            raise ValueError('mode "off" takes no epsilon, delta or clip_norm: they would promise what is not kept')
        if self.mode != "distributed" and any(getattr(self, key) is not None for key in shared):
            raise ValueError(f'mode "{self.mode}" takes no max_units or colluding: noise is not added in shares')
        return self

    @property
    def is_private(self) -> bool:
        return self.mode != "off"


class Continual(Section):
    """Elastic weight consolidation in the space of ΔW (docs/decisions), and the sequence of tasks."""

    method: Literal["ewc", "none"] = "none"
    strength: NonNegative = 0.0
    fisher: Literal["public", "private-dp"] = "public"
    fisher_examples: Count = Field(default=256, description="public: rows; private-dp: all units take part")
    fisher_noise_multiplier: Positive = 5.0
    fisher_clip_norm: Positive = 1.0
    fisher_detail: Literal["entry", "matrix"] | None = Field(default=None, description="None: entry public, matrix DP")
    decay: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, description="gamma of online EWC")
    tasks: tuple[Name, ...] = ()
    rounds_per_task: tuple[Count, ...] = ()
    warm_start_steps: Annotated[int, Field(ge=0)] = Field(default=0, description="on data.reference, before round 1")
    warm_start_learning_rate: Positive = 1e-3

    @model_validator(mode="after")
    def _complete(self) -> Continual:
        if len(self.tasks) != len(self.rounds_per_task):
            raise ValueError("tasks and rounds_per_task must have the same length")
        if self.method == "ewc" and self.strength == 0:
            raise ValueError('method "ewc" needs a strength above 0')
        return self


class Aggregation(Section):
    """How updates become the next adapter. Weights are public constants, never row counts."""

    method: Literal["fedavg", "ffa_lora", "fed_svd"] = "fed_svd"
    weights: dict[str, Positive] | None = Field(default=None, description="None: uniform")
    server_optimizer: Literal["plain", "momentum", "adam"] = "plain"
    server_learning_rate: Positive = 1.0
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    encoding: Literal["float32", "mxint8"] = Field(
        default="float32", description="how adapters and updates travel; mxint8: 8 bits a value, after the noise"
    )
    max_update_norm: Positive = Field(default=1e3, description="a larger update is refused")


class SecureAggregation(Section):
    """Masks, so that the coordinator learns the sum of the updates and no single one (docs/SPEC.md)."""

    enabled: bool = False
    threshold: Annotated[int, Field(ge=3)] | None = Field(
        default=None, description="updates that a round needs, above two thirds of the cohort; None: the least"
    )
    ring_bits: Annotated[int, Field(ge=16, le=32)] = Field(default=32, description="bits a value takes as it travels")
    range: Positive | None = Field(
        default=None, description="values of an update are cut off beyond it; None: from rate, steps and clip norm"
    )


class Evaluation(Section):
    """The coordinator's evaluation on its own public rows."""

    every: Count = 1
    patience: Count | None = Field(default=None, description="evaluations without a better one before stopping early")
    metric: Literal["auto", "accuracy", "macro_f1", "loss"] = "auto"
    batch_size: Count = 128
    max_rows: Count | None = None
    subgroup: str | None = Field(
        default=None, min_length=1, description="column of the public rows: at the end measured by its values, too"
    )


class Faults(Section):
    """What goes wrong at a simulated institution."""

    drop_rounds: tuple[Count, ...] = Field(default=(), description="does not answer in these rounds")
    drop_probability: Annotated[float, Field(ge=0, le=1)] = 0.0
    corrupt_rounds: tuple[Count, ...] = Field(default=(), description="sends NaN in these rounds")
    silent_rounds: tuple[Count, ...] = Field(
        default=(), description="with secure aggregation: sends its update and then reveals no shares in these rounds"
    )


class Institution(Section):
    """One simulated institution."""

    name: Name
    data: str | None = Field(default=None, description="its own rows; None: its share of data.partition")
    dataset: Name | None = Field(default=None, description="the name its budget belongs to; None: its own name")
    epsilon: Positive | None = Field(default=None, description="its own cap for the data set; None: privacy.epsilon")
    batch_size: Count | None = None
    faults: Faults = Faults()


class Check(Section):
    """A figure of summary.json that the story announces."""

    figure: str = Field(min_length=1, description="dotted path, with variants VARIANT.path")
    at_least: Finite | None = None
    at_most: Finite | None = None
    equals: Finite | str | bool | None = None
    of: str | None = Field(default=None, description="compare with bound x this figure instead")

    @model_validator(mode="after")
    def _bounded(self) -> Check:
        if self.at_least is None and self.at_most is None and self.equals is None:
            raise ValueError("needs at_least, at_most or equals")
        return self


class Outcome(Section):
    """The story a scenario tells and what it announces."""

    story: str = ""
    checks: tuple[Check, ...] = ()


class Simulation(Section):
    """How the federation is played on one machine."""

    ledger_dir: str | None = Field(default=None, description="keep budgets across runs here; None: in the run folder")
    threads: Count | None = Field(default=None, description="torch threads; None: all cores")


class FederationConfig(Section):
    """The whole file."""

    federation: Federation
    model: Model
    adapter: Adapter = Adapter()
    task: Task
    data: Data
    training: Training
    privacy: Privacy
    continual: Continual = Continual()
    aggregation: Aggregation = Aggregation()
    secure_aggregation: SecureAggregation = SecureAggregation()
    evaluation: Evaluation = Evaluation()
    simulation: Simulation = Simulation()
    institutions: tuple[Institution, ...] = ()
    variants: dict[Name, dict[str, Any]] = Field(default_factory=dict, description="name -> {dotted key = value}")
    outcome: Outcome = Outcome()
