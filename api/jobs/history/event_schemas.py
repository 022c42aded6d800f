"""What can be read of an event, on the wire: in a list, and in a stream."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from store.tables import Event


class EventOut(BaseModel):
    """One thing that happened to a job."""

    id: int
    at: datetime
    type: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: Event) -> "EventOut":
        """As recorded."""
        return cls(id=event.id, at=event.at, type=event.type, data=event.data)
