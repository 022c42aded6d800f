"""Request and response models of keys and audit records."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.http.times import UtcDatetime
from api.row_model import RowModel
from greencore.text import check_display_name

RoleName = Literal["user", "operator"]


Owner = Annotated[str, AfterValidator(check_display_name), Field(min_length=1, max_length=100)]
KeyName = Annotated[str, AfterValidator(check_display_name), Field(max_length=100)]


class NewKeyRequest(BaseModel):
    """A key to create."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"owner": "carol", "role": "user", "name": "Carol's notebook"}]}
    )

    owner: Owner = Field(description="Owner whose jobs and datasets the key sees; several keys may share one")
    role: RoleName = Field(default="user", description="An operator's key sees everything, and creates keys")
    name: KeyName = Field(default="", description="Purpose of the key")
    expires_at: UtcDatetime | None = Field(default=None, description="Time of expiry; null: valid until it is revoked")


class KeyOut(RowModel):
    """A key without its text; `hint` is the first characters of it."""

    id: str
    owner: str
    role: RoleName
    name: str
    hint: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class IssuedKeyOut(KeyOut):
    """A new key with its text, `key`, which is shown only once."""

    key: str


class AuditEntryOut(RowModel):
    """A request that may have changed something, or was refused: key, action, target and status."""

    id: int
    at: datetime
    key_id: str | None
    owner: str | None
    role: RoleName | None
    action: str
    target: str
    status: int
    request_id: str
    address: str | None
