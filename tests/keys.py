"""Keys as a deployment issues them, for the clients of tests."""

from datetime import datetime

from api.access.keys import issue_key
from greencore.clock import utc_now
from runtime.settings import Settings
from store.database import Database
from store.repositories.keys import Role


def new_key(
    settings: Settings, owner: str = "ops", role: Role = "operator", *, expires_at: datetime | None = None
) -> str:
    """The text of a new key in the database of these settings."""
    database = Database(settings.database_url)
    with database.session() as session:
        _, text = issue_key(session, settings.secret, owner=owner, role=role, at=utc_now(), expires_at=expires_at)
    database.dispose()
    return text


def bearer(key: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {key}"}
