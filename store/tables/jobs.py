"""Jobs and their epochs, steps, energy, events and files; times are UTC, energy kWh, emissions gCO2e."""

from datetime import datetime

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Connection,
    Double,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    event,
    func,
    text,
)
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from greencore.carbon import EmissionFactors, Signal
from runtime.site import UNKNOWN_ZONE
from store.lifecycle.status import JobStatus
from store.tables.table import Json, Table

EVENT_CHANNEL = "greentune_events"


class Job(Table):
    """One fine-tuning run, from submission to its end. The table is the outbox: messages carry only the job's id.

    `owner` is None for a job submitted without a key. `method` is "auto" until a job that asked for that is prepared;
    then `method_reason` is why another was chosen, and `hyperparameters_asked` are those that were given, before the
    choice changed them (None for other jobs). `gpus` are the GPUs that the job trains on, one process on each;
    `gpus_asked` those that it asked for, None where preparation chooses the fewest that hold it. `model` is a name in
    the catalogue, and `base_job_id` the job whose result of that model is trained further. `revision` grows with every
    write that a reader can see; other writes set it to itself. Times: `ready_at`, when the job could first have run;
    `released_at`, when its owner resumed or retried it, from which its gate's longest delay counts; `not_before`, when
    its gate is evaluated next; `settled_at`, when all its prices became final; `control_at`, when `control` was
    requested. `task_id` is the claimed message, `gate` the last gate decision, `eta` the last predicted end, `best` the
    evaluation during training with the lowest loss so far (`step`, `epoch`, `loss`), `utility` the importance by ρ of
    the newest probe, `tracker_kwh` CodeCarbon's energy total, `micro_batch_size` the rows computed at once, where a
    worker measured or halved them, `precision` that of its run (`greencore.device.RunPrecision`), None until training
    starts. `signal` and `emission_factors` are the basis of its intensity.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_status_priority", "status", "priority", "id"),
        Index("ix_jobs_status_id", "status", "id"),
        Index("ix_jobs_zone_id", "zone", "id"),
        Index("ix_jobs_dataset_id_id", "dataset_id", "id"),
        Index(
            "ix_jobs_validation_dataset_id_id",
            "validation_dataset_id",
            "id",
            postgresql_where=text("validation_dataset_id IS NOT NULL"),
        ),
        Index(
            "ix_jobs_status_base_job_id",
            "status",
            "base_job_id",
            postgresql_where=text("base_job_id IS NOT NULL"),
        ),
        Index("ix_jobs_owner_id", "owner", "id"),
        Index("ix_jobs_owner_status_id", "owner", "status", "id"),
        Index("ix_jobs_owner_zone_id", "owner", "zone", "id"),
        Index("ix_jobs_model_id", "model", "id"),
        Index("ix_jobs_owner_model_id", "owner", "model", "id"),
        Index("ix_jobs_name_id", "name", "id", postgresql_where=text("name IS NOT NULL")),
        Index("ix_jobs_owner_name_id", "owner", "name", "id", postgresql_where=text("name IS NOT NULL")),
        Index("ix_jobs_unaccounted", "id", postgresql_where=text("settled_at IS NULL AND energy_kwh > 0")),
        Index("ix_jobs_metadata", "metadata", postgresql_using="gin", postgresql_ops={"metadata": "jsonb_path_ops"}),
        CheckConstraint("epochs_done >= 0 AND epochs_done <= epochs", name="epochs_done"),
    )
    # Values set by the database are read back at once, as jobs are used after their session.
    __mapper_args__ = {"eager_defaults": True}  # noqa: RUF012

    id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[JobStatus] = mapped_column(
        Enum(JobStatus, native_enum=False, length=16, values_callable=lambda e: [status.value for status in e])
    )
    reason: Mapped[str | None]
    error: Mapped[Json | None]
    owner: Mapped[str | None]
    revision: Mapped[int] = mapped_column(BigInteger, default=1, onupdate=text("revision + 1"))

    name: Mapped[str | None]
    model: Mapped[str]
    base_job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    validation_dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id"))
    method: Mapped[str]
    method_asked: Mapped[str] = mapped_column(default=lambda row: row.get_current_parameters()["method"])
    method_reason: Mapped[str | None]
    policy_name: Mapped[str | None]
    policy: Mapped[Json]
    zone_asked: Mapped[str | None]
    zone: Mapped[str | None]
    deadline: Mapped[datetime | None]
    priority: Mapped[int]
    hyperparameters: Mapped[Json]
    hyperparameters_asked: Mapped[Json | None]
    gpus_asked: Mapped[int | None] = mapped_column(Integer().evaluates_none(), default=1, server_default="1")
    gpus: Mapped[int] = mapped_column(default=1, server_default="1")
    labels: Mapped[Json] = mapped_column("metadata")

    created_at: Mapped[datetime]
    ready_at: Mapped[datetime | None]
    released_at: Mapped[datetime | None]
    queued_at: Mapped[datetime | None]
    not_before: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    dispatched_at: Mapped[datetime | None]

    attempts: Mapped[int] = mapped_column(default=0)
    lost_attempts: Mapped[int] = mapped_column(default=0)
    lease_token: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None] = mapped_column(index=True)
    worker_id: Mapped[str | None]
    task_id: Mapped[str | None]
    control: Mapped[str] = mapped_column(default="run")
    control_at: Mapped[datetime | None]

    estimate: Mapped[Json | None]
    eta: Mapped[Json | None]
    epochs: Mapped[int]
    epochs_done: Mapped[int] = mapped_column(default=0)
    steps: Mapped[int | None]
    steps_done: Mapped[int] = mapped_column(default=0)
    micro_batch_size: Mapped[int | None]
    precision: Mapped[str | None]
    rho: Mapped[float | None]
    loss: Mapped[float | None]
    energy_kwh: Mapped[float] = mapped_column(default=0.0)
    emissions_gco2e: Mapped[float] = mapped_column(default=0.0)
    device: Mapped[str | None]
    best: Mapped[Json | None]
    evaluation: Mapped[Json | None]

    signal: Mapped[Signal | None]
    emission_factors: Mapped[EmissionFactors | None]
    gate: Mapped[Json | None]
    utility: Mapped[Json | None]
    tracker_kwh: Mapped[float | None]
    settled_at: Mapped[datetime | None]
    counterfactuals: Mapped[Json | None]

    traceparent: Mapped[str | None]
    files_removed_at: Mapped[datetime | None]


class Epoch(Table):
    """One epoch of a job: requested ρ and its reason, reached ρ, FLOPs and losses.

    `selection` maps trained tensors to their importance. `importance` holds that of each of the job's tensors by
    `position`, None for those out of the budget's reach; it is None as a whole without a probe.
    """

    __tablename__ = "epochs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    rho_asked: Mapped[float]
    reason: Mapped[str]
    intensity_gco2e_per_kwh: Mapped[float | None]
    intensity_source: Mapped[str | None]
    intensity_step: Mapped[str | None]
    intensity_age_seconds: Mapped[float | None]
    intensity_estimated: Mapped[bool]

    rho_reached: Mapped[float | None]
    flops: Mapped[float | None]
    full_flops: Mapped[float | None]
    plain_full_flops: Mapped[float | None]
    probe_flops: Mapped[float | None]
    probe_seconds: Mapped[float | None]
    tensors_selected: Mapped[int | None]
    tensors_total: Mapped[int | None]
    selection: Mapped[Json | None]
    importance: Mapped[list[float | None] | None] = mapped_column(ARRAY(Double))

    train_loss: Mapped[float | None]
    eval_loss: Mapped[float | None]


class Tensor(Table):
    """A weight tensor that a job may train, with its gradients' FLOPs in one step of the longest rows.

    `position` counts from the model's output to its input.
    """

    __tablename__ = "tensors"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    parameters: Mapped[int] = mapped_column(BigInteger)
    t_dw_flops: Mapped[int] = mapped_column(BigInteger)
    t_dy_flops: Mapped[int] = mapped_column(BigInteger)


class Step(Table):
    """One optimiser step of a job and its loss; a step lost with its attempt is repeated."""

    __tablename__ = "steps"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    loss: Mapped[float]


class Evaluation(Table):
    """One evaluation of a job during training, after `step` steps and `epoch` epochs (a fraction within one).

    `loss` is in nats a token, `accuracy` a share of the learned tokens, ROUGE in per cent over `rouge_rows` rows.
    `energy_kwh` is what this attempt metered of it. All but the loss are None for jobs of earlier versions.
    """

    __tablename__ = "evaluations"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[float]
    at: Mapped[datetime]
    loss: Mapped[float]
    accuracy: Mapped[float | None]
    rouge1: Mapped[float | None]
    rouge2: Mapped[float | None]
    rouge_l: Mapped[float | None]
    rouge_rows: Mapped[int | None]
    rows: Mapped[int | None]
    seconds: Mapped[float | None]
    energy_kwh: Mapped[float | None]


class EnergyInterval(Table):
    """Metered energy over at most a minute at one intensity, and its price; kept for lost attempts too.

    `zone` and `pue` are those of the worker's site. `settled` is false while the price is provisional, until the source
    has published measured values. Energy whose intensity never became known is settled without a price, with
    `emissions_gco2e` None. `lost` marks an estimate of energy that an attempt used after its last stored interval;
    `evaluation` marks energy of evaluations, before, during and after training.
    """

    __tablename__ = "energy_intervals"
    __table_args__ = (
        Index("ix_energy_intervals_job_id_epoch", "job_id", "epoch"),
        Index("ix_energy_intervals_provisional", "zone", "job_id", "finished_at", postgresql_where=text("NOT settled")),
        Index(
            "ix_energy_intervals_unpriced", "job_id", "finished_at", postgresql_where=text("emissions_gco2e IS NULL")
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    epoch: Mapped[int]
    attempt: Mapped[int]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime]
    cpu_kwh: Mapped[float]
    gpu_kwh: Mapped[float]
    ram_kwh: Mapped[float]
    method: Mapped[Json]
    zone: Mapped[str] = mapped_column(default=UNKNOWN_ZONE)
    intensity_gco2e_per_kwh: Mapped[float | None]
    intensity_source: Mapped[str | None]
    intensity_estimated: Mapped[bool]
    pue: Mapped[float] = mapped_column(default=1.0)
    emissions_gco2e: Mapped[float | None]
    settled: Mapped[bool] = mapped_column(default=False)
    lost: Mapped[bool] = mapped_column(default=False)
    evaluation: Mapped[bool] = mapped_column(default=False)

    @hybrid_property
    def energy_kwh(self) -> float:
        """Energy of CPU, GPU and memory together."""
        return self.cpu_kwh + self.gpu_kwh + self.ram_kwh


class EnergyTotal(Table):
    """All energy ever metered in a zone, by component (cpu, gpu, ram); deletions do not reduce it."""

    __tablename__ = "energy_totals"

    zone: Mapped[str] = mapped_column(primary_key=True)
    component: Mapped[str] = mapped_column(primary_key=True)
    kwh: Mapped[float]


class Event(Table):
    """An event in a job's history: a transition or a notable occurrence.

    Written under a lock of the job's row, so that the events of a job become visible in the order of their ids.
    """

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_job_id_id", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    at: Mapped[datetime]
    type: Mapped[str]
    data: Mapped[Json]


class Checkpoint(Table):
    """A checkpoint that is complete on disk, as `name` in the job's folder; only these are resumed from.

    `best`: it is that of the best evaluation, and kept for the result.
    """

    __tablename__ = "checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    attempt: Mapped[int]
    step: Mapped[int]
    epochs_done: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]
    best: Mapped[bool] = mapped_column(default=False)


class Artifact(Table):
    """A file of a finished job's result."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str]
    created_at: Mapped[datetime]


@event.listens_for(Event, "after_insert")
def _notify_followers(_: object, connection: Connection, row: Event) -> None:
    """Notify the job's followers of every new event when its transaction commits."""
    connection.execute(func.pg_notify(EVENT_CHANNEL, row.job_id).select())
