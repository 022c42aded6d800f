"""Browser sessions: a signed cookie with the session's id, key and expiry, and no secret."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from itsdangerous import BadSignature, URLSafeSerializer
from starlette.requests import Request
from starlette.responses import Response

from greencore.clock import Clock
from runtime.ids import new_id

SESSION_COOKIE = "greentune_session"


@dataclass(frozen=True)
class BrowserSession:
    """Content of a session cookie."""

    id: str
    key_id: str
    expires_at: datetime


class SessionCookies:
    """Sets and reads the cookie. A session ends at its expiry, with its key, or by signing out."""

    def __init__(self, secret: str, *, hours: float, clock: Clock) -> None:
        self._serializer = URLSafeSerializer(secret, salt="session")
        self._length = timedelta(hours=hours)
        self._clock = clock

    def set_cookie(self, request: Request, response: Response, key_id: str) -> None:
        """Set the cookie of a new session of this key."""
        value = self._serializer.dumps([new_id("session"), key_id, (self._clock() + self._length).timestamp()])
        response.set_cookie(
            SESSION_COOKIE,
            str(value),
            max_age=int(self._length.total_seconds()),
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def clear_cookie(self, response: Response) -> None:
        """Delete the cookie."""
        response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")

    def read(self, cookie: str) -> BrowserSession | None:
        """Return the session of a cookie; None if it has expired, or was not signed in this form here."""
        try:
            session_id, key_id, until = self._serializer.loads(cookie)
        except (BadSignature, ValueError):
            return None
        if until <= self._clock().timestamp():
            return None
        return BrowserSession(session_id, key_id, datetime.fromtimestamp(until, UTC))
