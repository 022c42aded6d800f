"""Response model of an event, shared by the list, the stream and the dashboard."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel

from store.tables import Event


class EventOut(BaseModel):
    """An event in a job's history."""

    id: int
    at: datetime
    type: str
    data: dict[str, Any]

    @classmethod
    def of(cls, event: Event) -> "EventOut":
        """Build from a stored event."""
        return cls(id=event.id, at=event.at, type=event.type, data=event.data)
