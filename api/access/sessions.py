"""A browser's session: a signed cookie that names a key and an end, and no secret."""

from datetime import timedelta

from itsdangerous import BadSignature, URLSafeSerializer
from starlette.requests import Request
from starlette.responses import Response

from greencore.clock import Clock

COOKIE = "greentune_session"


class Sessions:
    """Makes and reads the cookie. Nothing is stored: a session ends with its time, or with its key."""

    def __init__(self, secret: str, *, hours: float, clock: Clock) -> None:
        self._serializer = URLSafeSerializer(secret, salt="session")
        self._length = timedelta(hours=hours)
        self._clock = clock

    def begin(self, request: Request, response: Response, key_id: str) -> None:
        """Have the browser stay signed in by this key."""
        value = self._serializer.dumps([key_id, (self._clock() + self._length).timestamp()])
        response.set_cookie(
            COOKIE,
            str(value),
            max_age=int(self._length.total_seconds()),
            path="/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="strict",
        )

    def end(self, response: Response) -> None:
        """Have the browser forget it."""
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")

    def key_id(self, cookie: str) -> str | None:
        """The key that a cookie names; None where it is over, or was not made here."""
        try:
            key_id, until = self._serializer.loads(cookie)
        except BadSignature:
            return None
        return str(key_id) if until > self._clock().timestamp() else None
