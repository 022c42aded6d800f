"""Checks of the API that is named, or that runs in the data folder."""

from collections.abc import Iterator
from pathlib import Path

from cli.doctor.check import CheckResult
from cli.errors import SettingError
from cli.remote.connection import open_client
from cli.stack.data_folder import discover_service
from greentune.client import Client
from greentune.errors import Problem, ServiceError

TIMEOUT_SECONDS = 10.0


def run_checks(url: str | None, key: str | None, data_dir: Path) -> Iterator[CheckResult]:
    """Check whether the API is ready, and whether it accepts the key; by default that of `data_dir`."""
    known = url or discover_service(data_dir)
    if not known:
        yield CheckResult("service", "skipped", "no service is named", "--url or GREENTUNE_URL names one")
        return
    try:
        client = open_client(known, key, timeout=TIMEOUT_SECONDS, attempts=1)
    except SettingError as error:
        yield CheckResult("service", "failed", str(error), "correct the address or the key")
        return
    with client:
        yield _readiness(client)
        yield _key(client)


def _readiness(client: Client) -> CheckResult:
    try:
        health = client.readiness()
    except Problem as problem:
        return CheckResult("service", "failed", f"{client.url} is not ready: {problem}", "mend what it names")
    except ServiceError as error:
        return CheckResult("service", "failed", str(error), "start `greentune serve`, or correct --url (GREENTUNE_URL)")
    if health.warnings:
        lacking = "; ".join(f"{warning.part}: {warning.message}" for warning in health.warnings)
        return CheckResult("service", "warning", f"{client.url} answers, and lacks {lacking}", "start what is missing")
    return CheckResult("service", "ok", f"{client.url} is ready")


def _key(client: Client) -> CheckResult:
    try:
        client.models()
    except Problem as problem:
        mend = "give a key with --key (GREENTUNE_KEY): operators make them with `greentune keys create`"
        return CheckResult("key", "failed", str(problem), mend)
    except ServiceError as error:
        return CheckResult("key", "skipped", str(error))
    return CheckResult("key", "ok", "the service lets this caller in")
