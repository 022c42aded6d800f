"""A browser's session: a signed cookie that names the session, its key and its end, and holds no secret."""

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
    """What a cookie says: which session it is of, by which key, and when it ends."""

    id: str
    key_id: str
    expires_at: datetime


class SessionCookies:
    """Makes and reads the cookie. A session ends with its time, with its key, or when it is signed out."""

    def __init__(self, secret: str, *, hours: float, clock: Clock) -> None:
        self._serializer = URLSafeSerializer(secret, salt="session")
        self._length = timedelta(hours=hours)
        self._clock = clock

    def set_cookie(self, request: Request, response: Response, key_id: str) -> None:
        """Have the browser stay signed in by this key."""
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
        """Have the browser forget it."""
        response.delete_cookie(SESSION_COOKIE, path="/", httponly=True, samesite="strict")

    def read(self, cookie: str) -> BrowserSession | None:
        """Return what a cookie says; None where it has expired, or was not made here by this version."""
        try:
            session_id, key_id, until = self._serializer.loads(cookie)
        except (BadSignature, ValueError):
            return None
        if until <= self._clock().timestamp():
            return None
        return BrowserSession(session_id, key_id, datetime.fromtimestamp(until, UTC))
