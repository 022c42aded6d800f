"""The one settings object: every process reads the same environment."""

from functools import lru_cache
from pathlib import Path

from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

STATIC_ZONES = dict.fromkeys(("DE", "FR", "GB", "NO", "PL", "SE", "US"), "static")


class Settings(BaseSettings):
    """Settings from `GREENTUNE_*` variables; `DATABASE_URL` and `REDIS_URL` go by their usual names."""

    model_config = SettingsConfigDict(env_prefix="GREENTUNE_", extra="ignore", frozen=True)

    database_url: str = Field(default="postgresql://greentune@localhost/greentune", validation_alias="DATABASE_URL")
    redis_url: str = Field(default="redis://localhost:6379/0", validation_alias="REDIS_URL")
    data_dir: Path = Field(default=Path("var"), description="datasets, models, checkpoints and artifacts")
    catalogue: Path | None = Field(default=None, description="the operator's models; None: the built-in list")

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    max_body_bytes: PositiveInt = Field(default=64 * 2**20, description="largest request body")
    max_dataset_rows: PositiveInt = 1_000_000

    zones: dict[str, str] = Field(default=STATIC_ZONES, description='carbon source of each zone, {"FR": "static"}')
    worker_zones: list[str] = Field(default=[], description="zones this worker serves; empty: all")

    tick_seconds: PositiveFloat = Field(default=2.0, description="the scheduler's safety net beside NOTIFY")
    heartbeat_seconds: PositiveFloat = 10.0
    lease_seconds: PositiveFloat = Field(default=60.0, description="a worker silent for this long is lost")
    redispatch_seconds: PositiveFloat = Field(default=300.0, description="an unclaimed message is sent again")
    max_attempts: PositiveInt = 3

    energy_interval_seconds: float = Field(default=60.0, gt=0, le=60)
    cpu_power_w: PositiveFloat | None = Field(default=None, description="instead of CodeCarbon's estimate")
    ram_power_w: PositiveFloat | None = None

    log_format: str = Field(default="console", pattern="^(console|json)$")

    @property
    def datasets_dir(self) -> Path:
        return self.data_dir / "datasets"

    def dataset_file(self, dataset_id: str) -> Path:
        """Where a dataset's rows lie, as JSON Lines."""
        return self.datasets_dir / f"{dataset_id}.jsonl"

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"

    def job_dir(self, job_id: str) -> Path:
        """Where a job's checkpoints and artifacts lie."""
        return self.data_dir / "jobs" / job_id

    def artifact_file(self, job_id: str, name: str) -> Path:
        """Where one file of a finished job's result lies; `name` as in the artifacts table."""
        return self.job_dir(job_id) / "artifacts" / name


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
