"""What no page may do: complain in the console, ask another host, or be stopped by its own policy."""

from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from playwright.sync_api import ConsoleMessage, Page, Request

_watches: "WeakKeyDictionary[Page, PageMonitor]" = WeakKeyDictionary()


def monitor_of(page: Page) -> "PageMonitor":
    """The watch that is kept over a page of the fixture `sign_in`."""
    return _watches[page]


class PageMonitor:
    """Keeps what a page did wrong, and the requests that it made."""

    def __init__(self, page: Page, origin: str) -> None:
        self.faults: list[str] = []
        self.requests: list[Request] = []
        self._origin = origin
        self._expected: list[str] = []
        _watches[page] = self
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        page.on("request", self._request)
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation', (event) => console.error("
            "`policy: ${event.violatedDirective} ${event.blockedURI}`))"
        )

    def expect(self, text: str) -> None:
        """A complaint that holds `text` is what the test is about, such as a refused request."""
        self._expected.append(text)

    def check(self) -> None:
        """Fails with everything that was wrong."""
        faults = [fault for fault in self.faults if not any(text in fault for text in self._expected)]
        assert not faults, "\n".join(faults)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text} ({message.location})")

    def _request(self, request: Request) -> None:
        self.requests.append(request)
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob", "about") and f"{address.scheme}://{address.netloc}" != self._origin:
            self.faults.append(f"asked another host: {request.url}")
