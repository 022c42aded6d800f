"""Settings of every process, read from environment variables."""

import json
import os
from collections.abc import Collection
from datetime import timedelta
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PositiveInt,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from greencore.carbon import Basis, Credentials
from greencore.carbon.specification import spec_basis, static_mean
from greencore.carbon.static import StaticMean
from greencore.device import MAX_GPUS
from runtime.site import SITE_UNKNOWN, UNKNOWN_SITE, UNKNOWN_ZONE, Site, check_zone_name, read_site

STATIC_ZONES = dict.fromkeys(("DE", "FR", "GB", "NO", "PL", "SE", "US"), "static")

PROVIDER_SECRETS = frozenset({"electricity_maps_token", "watttime_user", "watttime_password"})
# Removed settings and their replacements: a removed one is refused rather than silently ignored.
REPLACED = {
    "GREENTUNE_WORKER_ZONES": "GREENTUNE_SITE, the zone of this machine, such as FR",
    "GREENTUNE_PUE": 'GREENTUNE_SITE, such as {"zone": "FR", "pue": 1.2}',
}
# Bounds within which adding a setting to a time, or subtracting it, gives a valid date.
LONGEST_SECONDS, LONGEST_HOURS, LONGEST_DAYS = 864_000, 87_600, 36_500
_Seconds = Annotated[float, Field(gt=0, le=LONGEST_SECONDS)]
_Hours = Annotated[float, Field(gt=0, le=LONGEST_HOURS)]
_Days = Annotated[float, Field(gt=0, le=LONGEST_DAYS)]
_Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
# Secrets that a worker, which runs users' rows and models, does not need.
KEPT_FROM_WORKERS = PROVIDER_SECRETS | {"secret_key"}


class SecretKeyMissing(ValueError):
    """`GREENTUNE_SECRET_KEY` is not set."""

    def __init__(self) -> None:
        super().__init__(
            "GREENTUNE_SECRET_KEY is not set: expected at least 32 random characters, the same for the API, the "
            "scheduler and `greentune keys`; `openssl rand -hex 32` makes some"
        )


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(f"{error}: expected a network such as 10.1.0.0/16") from None
    return text


def _proxy_network(text: str) -> str:
    if ip_network(_network(text)).prefixlen == 0:
        raise ValueError(f"{text} contains every address, so every client: expected the proxies' network")
    return text


class Settings(BaseSettings):
    """Settings from `GREENTUNE_*` variables, `DATABASE_URL` and `REDIS_URL`."""

    model_config = SettingsConfigDict(env_prefix="GREENTUNE_", extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: str = Field(default="postgresql://greentune@localhost/greentune", validation_alias="DATABASE_URL")
    redis_url: str = Field(default="redis://localhost:6379/0", validation_alias="REDIS_URL")
    data_dir: Path = Field(default=Path("var"), description="datasets, models, checkpoints and artifacts")
    catalogue: Path | None = Field(default=None, description="TOML file of models; None: the built-in list")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    max_body_bytes: PositiveInt = Field(default=16 * 2**20, description="largest request body other than an upload")
    max_upload_bytes: PositiveInt = Field(default=2**30, description="largest dataset")
    max_dataset_rows: PositiveInt = 1_000_000
    max_row_bytes: PositiveInt = Field(default=2**20, description="longest line of a dataset")

    secret_key: SecretStr | None = Field(
        default=None, min_length=32, description="signs keys, sessions and webhooks; not passed to workers"
    )
    open_on_loopback: bool = Field(default=False, description="clients on this machine are operators without a key")
    trusted_proxies: list[Annotated[str, AfterValidator(_proxy_network)]] = Field(
        default=["127.0.0.1", "::1"],
        max_length=100,
        description="addresses and networks whose X-Forwarded-For and X-Forwarded-Proto are trusted",
    )
    rate_limit_per_minute: PositiveInt = Field(default=1200, description="requests of one key to one API process")
    session_hours: _Hours = Field(default=12.0, description="lifetime of a browser session")
    idempotency_hours: _Hours = Field(default=24.0, description="lifetime of a response kept for an idempotency key")
    max_event_streams: PositiveInt = Field(default=500, description="open event streams of one API process")
    max_event_streams_per_owner: PositiveInt = 50
    webhook_private_networks: list[Annotated[str, AfterValidator(_network)]] = Field(
        default=[], description="private networks that webhooks may reach, such as 10.1.0.0/16"
    )
    webhook_max_attempts: PositiveInt = Field(default=8, description="8 attempts take about a day")

    zones: dict[str, str] = Field(default=STATIC_ZONES, description='carbon source of each zone, {"FR": "static"}')
    electricity_maps_token: SecretStr | None = None
    watttime_user: SecretStr | None = None
    watttime_password: SecretStr | None = None
    stale_limit_hours: float = Field(
        default=2.0, ge=0, le=LONGEST_HOURS, description="a reading that ended longer ago is not used"
    )
    history_days: float = Field(default=90.0, ge=0, le=400, description="history fetched for a new zone")
    settle_after_hours: _Hours = Field(
        default=72.0, description="age at which a provisional price, or a missing one, becomes final"
    )

    site: Annotated[Site | None, NoDecode, BeforeValidator(read_site)] = Field(
        default=None,
        description="site of this machine's training worker: a zone such as FR, or a zone and its power usage "
        'effectiveness, {"zone": "FR", "pue": 1.2}; None: unknown, priced at the world\'s mean',
    )

    gpus: int | None = Field(
        default=None,
        ge=1,
        le=MAX_GPUS,
        description="GPUs that this machine's training worker gives to jobs, by default all that CUDA shows; without "
        "a GPU the processes that train on its processor at once, by default 1",
    )

    tick_seconds: _Seconds = Field(default=2.0, description="polling interval of the scheduler, beside NOTIFY")
    heartbeat_seconds: _Seconds = 10.0
    lease_seconds: _Seconds = Field(default=60.0, description="time without a heartbeat after which a worker is lost")
    redispatch_seconds: _Seconds = Field(
        default=15.0, description="time after which an unclaimed job is dispatched again"
    )
    max_attempts: PositiveInt = 3
    hang_seconds: _Seconds = Field(
        default=3600.0,
        description="silence after which a job on several GPUs counts as hung, and starts again from its checkpoint; "
        "more than it takes to load its model, to tokenise its rows, or to save its result",
    )
    cancel_grace_seconds: _Seconds = Field(
        default=60.0, description="time to stop after a cancel request, before the job is terminated"
    )

    artifact_retention_days: _Days | None = Field(default=None, description="age at which results are deleted")
    checkpoint_retention_days: _Days | None = Field(
        default=30.0, description="time after a job's end at which its checkpoints are deleted"
    )

    energy_interval_seconds: float = Field(default=60.0, gt=0, le=60)
    cpu_power_w: _Amount | None = Field(default=None, description="instead of CodeCarbon's estimate")
    ram_power_w: _Amount | None = None
    assumed_tflops: _Amount | None = Field(default=None, description="of a device that has not yet run a job")
    assumed_power_w: _Amount | None = None

    log_format: str = Field(default="console", pattern="^(console|json)$")
    otlp_endpoint: str | None = Field(
        default=None, description="an OpenTelemetry collector over HTTP, such as http://localhost:4318"
    )

    @field_validator("zones")
    @classmethod
    def _check_zones(cls, zones: dict[str, str]) -> dict[str, str]:
        for zone in zones:
            check_zone_name(zone)
        if UNKNOWN_ZONE in zones:
            raise ValueError(f"{UNKNOWN_ZONE} is reserved for workers without GREENTUNE_SITE: expected another name")
        return zones

    @field_validator("site")
    @classmethod
    def _check_site(cls, site: Site | None, info: ValidationInfo) -> Site | None:
        zones = info.data.get("zones")  # None where they are invalid
        if site is not None and zones is not None and site.zone not in zones:
            known = ", ".join(sorted(zones)) or "none"
            raise ValueError(f"the zone {site.zone!r} is not in GREENTUNE_ZONES: expected one of {known}")
        return site

    @model_validator(mode="after")
    def _refuse_replaced(self) -> Self:
        replaced = {name.upper() for name in os.environ} & REPLACED.keys()
        if replaced:
            raise ValueError("; ".join(f"{name} is no longer read: set {REPLACED[name]}" for name in sorted(replaced)))
        return self

    @property
    def training_site(self) -> Site:
        """The site of a training worker with these settings; `UNKNOWN_SITE` where none is set."""
        return self.site or UNKNOWN_SITE

    def static_mean(self, zone: str) -> StaticMean | None:
        """Return the yearly mean intensity, the last fallback of a zone; None for a zone without a source."""
        if zone == UNKNOWN_ZONE:
            return StaticMean(source=SITE_UNKNOWN)
        spec = self.zones.get(zone)
        return None if spec is None else static_mean(spec, zone)

    def basis(self, zone: str) -> Basis:
        """Return signal and emission factors of a zone's source, for use before any reading is stored."""
        spec = self.zones.get(zone)
        return Basis() if spec is None else spec_basis(spec)

    @property
    def credentials(self) -> Credentials:
        """The keys of the carbon providers."""
        return Credentials(**{name: _revealed(getattr(self, name)) for name in PROVIDER_SECRETS})

    @property
    def stale_limit(self) -> timedelta:
        """The greatest age of a reading's end at which it is used."""
        return timedelta(hours=self.stale_limit_hours)

    @property
    def settle_after(self) -> timedelta:
        """The age at which a provisional price becomes final."""
        return timedelta(hours=self.settle_after_hours)

    @property
    def secret(self) -> str:
        """The key that signs API keys, sessions and webhooks. Raises `SecretKeyMissing`."""
        if self.secret_key is None:
            raise SecretKeyMissing
        return self.secret_key.get_secret_value()

    def environment(self, *, without: Collection[str] = ()) -> dict[str, str]:
        """Return these settings, secrets included, as environment variables for another process.

        `without` names settings to leave out, such as `KEPT_FROM_WORKERS`.
        """
        variables = {}
        for name in type(self).model_fields:
            if name in without:
                continue
            variable = name.upper() if name in ("database_url", "redis_url") else f"GREENTUNE_{name}".upper()
            value = getattr(self, name)
            value = _revealed(value) if isinstance(value, SecretStr) else value
            value = value.model_dump() if isinstance(value, BaseModel) else value
            if value is not None:
                variables[variable] = json.dumps(value) if isinstance(value, dict | list) else str(value)
        return variables

    @property
    def datasets_dir(self) -> Path:
        return self.data_dir / "datasets"

    def dataset_file(self, blob: str) -> Path:
        """Return the path of the rows of `Dataset.blob`, a JSON Lines file."""
        return self.datasets_dir / f"{blob}.jsonl"

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    def job_dir(self, job_id: str) -> Path:
        """Return the folder of a job's checkpoints and artifacts."""
        return self.data_dir / "jobs" / job_id

    def artifact_file(self, job_id: str, name: str) -> Path:
        """Return the path of an artifact; `name` as in the artifacts table."""
        return self.job_dir(job_id) / "artifacts" / name


def _revealed(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, read once."""
    return Settings()
