"""The API, killed just before it answers a submission; run as a module with the port as its argument."""

import os
import signal
import sys

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.main import create_app
from runtime.settings import Settings


def kill_before_answer(app: ASGIApp) -> ASGIApp:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        async def die_instead(message: Message) -> None:
            if message["type"] == "http.response.start" and (scope["method"], scope["path"]) == ("POST", "/jobs"):
                os.kill(os.getpid(), signal.SIGKILL)
            await send(message)

        await app(scope, receive, die_instead if scope["type"] == "http" else send)

    return call


if __name__ == "__main__":
    uvicorn.run(kill_before_answer(create_app(Settings())), host="127.0.0.1", port=int(sys.argv[1]))
