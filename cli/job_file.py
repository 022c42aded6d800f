"""A file with the body of a job, in YAML or JSON: read with its faults named, and written from a job."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.errors import SettingError
from greentune.requests import RunOptions

if TYPE_CHECKING:
    from greentune.models import Job

MAX_BYTES = 1 << 20
KEYS = ("model", "dataset", "columns", *RunOptions.__annotations__)
TEXT_KEYS = ("model", "dataset", "validation_dataset", "method", "zone", "deadline")
SETTINGS = "hyperparameters"

# Of each pair a run has one at most.
EVAL_SHARE = f"{SETTINGS}.eval_share"
EXCLUSIVE = (
    (f"{SETTINGS}.epochs", f"{SETTINGS}.max_steps"),
    (f"{SETTINGS}.warmup_ratio", f"{SETTINGS}.warmup_steps"),
    (EVAL_SHARE, "validation_dataset"),
)

# What has no meaning without a service.
SERVICE_KEYS = ("name", "zone", "deadline", "priority", "metadata")
DEFAULT_RHO = 0.6

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="A YAML or JSON file with the body of a job; options replace what it holds."),
]


@dataclass(frozen=True)
class JobFile:
    """What a file says of a job, by key of `POST /jobs`; empty without a file.

    `columns` maps those of the files of rows that are uploaded for the job.
    """

    path: Path | None = None
    body: Mapping[str, Any] = field(default_factory=dict)

    def merge(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the file's values, replaced by those that are given: one by one within maps.

        One that is given also replaces what it excludes, such as `max_steps` the file's `epochs`.
        """
        return _merge(_drop_excluded(self.body, given), given)

    def merge_run(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a run as `merge` does. Raises `SettingError` without a model or a dataset."""
        body = self.merge(given)
        for key in ("model", "dataset"):
            if key not in body:
                place = "in a file of --config" if self.path is None else f"in {self.path}"
                raise SettingError(f"--{key}: missing: expected as an option, or {place}")
        return body

    def where(self, key: str, *, given: Mapping[str, Any], option: str) -> str:
        """Return what to name in an error at a key: the file and the key, or the option that replaced it."""
        path = key if key.startswith(f"{SETTINGS}.") else key.partition(".")[0].partition("[")[0]
        return f"{self.path}: {key}" if _holds(self.body, path) and not _holds(given, path) else option


def read_job_file(path: Path | None) -> JobFile:
    """Read a file of at most `MAX_BYTES`. Raises `SettingError` with the file, and the key at fault."""
    if path is None:
        return JobFile()
    from cli.yaml_text import YamlError, parse_yaml

    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise SettingError(f"--config: {path} has more than {MAX_BYTES:,} bytes")
        body = parse_yaml(content.decode("utf-8-sig"))
    except OSError as error:
        raise SettingError(f"--config: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"--config: {path}: not UTF-8 at byte {error.start}") from error
    except YamlError as error:
        raise SettingError(f"--config: {path}: {error}") from error
    if not isinstance(body, dict):
        raise SettingError(f"--config: {path}: expected keys such as model and dataset, each with a value")
    body = {key: value for key, value in body.items() if value is not None}
    _check_keys(body, path)
    return JobFile(path, body)


def read_constant_rho(file: JobFile) -> float:
    """Return the ρ of a file's constant policy, the default one without a policy. Raises `SettingError` for others."""
    policy = file.body.get("policy", {"kind": "constant", "rho": DEFAULT_RHO})
    rho = policy.get("rho") if isinstance(policy, Mapping) and policy.get("kind") == "constant" else None
    if not isinstance(rho, int | float) or isinstance(rho, bool):
        raise SettingError(f"{file.path}: policy: only a constant policy has a ρ without a grid: expected --rho")
    return float(rho)


def read_gpus(file: JobFile) -> int:
    """Return the GPUs that a file asks for, 1 without any. Raises `SettingError` for `auto`, which needs a service."""
    gpus = file.body.get("resources", {}).get("gpus", 1)
    if not isinstance(gpus, int) or isinstance(gpus, bool):
        raise SettingError(f"{file.path}: resources.gpus: {gpus!r}: without a service a number is expected, or --gpus")
    return gpus


def to_job_body(job: "Job", *, stored_policy: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the body whose submission gives a job like this one; its datasets are uploads, whose columns are mapped.

    The policy is a name where the newest version of that name, `stored_policy`, is the job's own.
    """
    body = {
        "name": job.name,
        "model": job.base_job or job.model,
        "dataset": job.dataset,
        "validation_dataset": job.validation_dataset,
        "method": job.method_requested,
        "policy": job.policy_name if job.policy_name and stored_policy == job.policy else job.policy,
        "zone": job.zone_requested,
        "deadline": None if job.deadline is None else job.deadline.isoformat(),
        "priority": job.priority,
        "resources": None if job.resources.gpus == 1 else {"gpus": job.resources.gpus},
        SETTINGS: job.hyperparameters if job.hyperparameters_requested is None else job.hyperparameters_requested,
        "metadata": job.metadata,
    }
    return {key: value for key, value in body.items() if value is not None and value != {}}


def _check_keys(body: Mapping[str, Any], path: Path) -> None:
    from greencore.settings.fields import list_settings
    from greencore.settings.hyperparameters import Hyperparameters

    _require_known(body, KEYS, f"{path}")
    for key in TEXT_KEYS:
        if not isinstance(body.get(key, ""), str):
            raise SettingError(f"{path}: {key}: expected a text")
    for key in (SETTINGS, "metadata", "resources", "columns"):
        if not isinstance(body.get(key, {}), dict):
            raise SettingError(f"{path}: {key}: expected keys with values")
    settings = [field.path for field in list_settings(Hyperparameters)]
    given = body.get(SETTINGS, {})
    _require_known(given, [names[0] for names in settings], f"{path}: {SETTINGS}")
    for group, value in given.items():
        nested = [names[1] for names in settings if names[0] == group and len(names) > 1]
        if nested and value is not None:
            if not isinstance(value, dict):
                raise SettingError(f"{path}: {SETTINGS}.{group}: expected keys with values")
            _require_known(value, nested, f"{path}: {SETTINGS}.{group}")


def _require_known(given: Mapping[Any, Any], known: "list[str] | tuple[str, ...]", where: str) -> None:
    for key in given:
        if key not in known:
            raise SettingError(f"{where}: there is no {key!r}: expected {', '.join(dict.fromkeys(known))}")


def _drop_excluded(body: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a file's values without those of which a run has none beside what is given."""
    kept = {**body}
    if isinstance(body.get(SETTINGS), Mapping):
        kept[SETTINGS] = {**body[SETTINGS]}
    for pair in EXCLUSIVE:
        for path, excluded in (pair, pair[::-1]):
            if _is_given(given, path) and not _is_given(given, excluded):
                *outer, name = excluded.split(".")
                (kept.get(outer[0], {}) if outer else kept).pop(name, None)
    return kept


def _is_given(body: Mapping[str, Any], path: str) -> bool:
    value: Any = body
    for name in path.split("."):
        value = (value or {}).get(name)
    return value is not None and (path != EVAL_SHARE or value != 0)  # no share goes with a validation dataset


def _merge(below: Mapping[str, Any], above: Mapping[str, Any], *, depth: int = 0) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        if value is None:
            continue
        known = merged.get(key)
        # A policy, and the columns of a file, are replaced as a whole.
        if isinstance(known, Mapping) and isinstance(value, Mapping) and (depth or key in (SETTINGS, "metadata")):
            merged[key] = _merge(known, value, depth=depth + 1)
        else:
            merged[key] = value
    return merged


def _holds(body: Mapping[str, Any], path: str) -> bool:
    within: Any = body
    for name in path.split("."):
        if not isinstance(within, Mapping):
            return True
        within = within.get(name.partition("[")[0])
        if within is None:
            return False
    return True
