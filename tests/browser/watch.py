"""Monitor of a page: console messages, requests to other hosts, and violations of its security policy."""

from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from playwright.sync_api import ConsoleMessage, Page, Request

_watches: "WeakKeyDictionary[Page, PageMonitor]" = WeakKeyDictionary()


def monitor_of(page: Page) -> "PageMonitor":
    """Return the monitor of a page of the fixture `sign_in`."""
    return _watches[page]


class PageMonitor:
    """Records a page's faults and its requests."""

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
        """Ignore faults that contain `text`, such as a refused request that the test causes."""
        self._expected.append(text)

    def check(self) -> None:
        """Fail with every fault that was not expected."""
        faults = [fault for fault in self.faults if not any(text in fault for text in self._expected)]
        assert not faults, "\n".join(faults)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console {message.type}: {message.text} ({message.location})")

    def _request(self, request: Request) -> None:
        self.requests.append(request)
        address = urlsplit(request.url)
        if address.scheme not in ("data", "blob", "about") and f"{address.scheme}://{address.netloc}" != self._origin:
            self.faults.append(f"requested another host: {request.url}")
