"""The documents as a site: built without a warning, loading nothing from elsewhere, holding all of the code's own."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer
from playwright.sync_api import Browser

from cli.main import app
from docs.hooks.hyperparameters import hyperparameters
from greencore.settings.fields import list_settings
from greencore.settings.hyperparameters import Hyperparameters
from runtime.settings import Settings
from tests.stand_in_settings import StandIn

ROOT = Path(__file__).parents[2]
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
LOADING_LINKS = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch"}
ELSEWHERE = re.compile(r"(https?:)?//")


class Page(HTMLParser):
    """What a page loads, the classes of its elements, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.classes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.classes |= set(values.get("class", "").split())
        if tag in LOADING and LOADING[tag] in values:
            self.loads.append(values[LOADING[tag]])
        if tag == "link" and LOADING_LINKS & set(values.get("rel", "").split()):
            self.loads.append(values["href"])

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    folder = tmp_path_factory.mktemp("site")
    build = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert build.returncode == 0, build.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Page]:
    return {str(file.relative_to(site)): Page(file.read_text()) for file in site.rglob("*.html")}


def test_every_document_is_a_page(pages: dict[str, Page]) -> None:
    documents = {str(file.relative_to(ROOT / "docs").with_suffix(".html")) for file in (ROOT / "docs").rglob("*.md")}
    assert documents
    assert pages.keys() == documents | {"404.html"}


def test_no_page_loads_anything_from_another_host(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        assert page.loads, name
        assert not [load for load in page.loads if ELSEWHERE.match(load)], name
        # The theme would fetch what draws these.
        assert "mermaid" not in page.classes, name
    for style in site.rglob("*.css"):
        text = style.read_text()
        assert "@import" not in text
        assert not [url for url in re.findall(r"url\([\"']?([^)]*)", text) if ELSEWHERE.match(url)], style


def test_every_picture_is_there(site: Path, pages: dict[str, Page]) -> None:
    for name, page in pages.items():
        for load in page.loads:
            assert ((site / name).parent / load.partition("?")[0]).is_file() or name == "404.html", f"{name}: {load}"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_browser_asks_nobody_else_and_finds_words(browser: Browser, address: str) -> None:
    asked: list[str] = []
    context = browser.new_context()
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    for name in ("explanation/architecture", "reference/rest", "policies"):
        page.goto(f"{address}/{name}.html", wait_until="networkidle")
    page.keyboard.press("/")
    page.keyboard.type("heartbeat")
    page.get_by_role("link", name=re.compile("Settings|Metrics|Run the service")).first.wait_for()
    context.close()
    assert len(asked) > 10
    assert not [url for url in asked if not url.startswith((address, "data:", "blob:"))]


def test_every_call_is_on_the_page_about_rest(pages: dict[str, Page]) -> None:
    paths = json.loads((ROOT / "api" / "openapi.json").read_text())["paths"]
    text = pages["reference/rest.html"].text
    for path, methods in paths.items():
        for method in methods:
            assert f"{method.upper()} {path}" in text


def test_every_setting_is_on_the_page_about_settings(pages: dict[str, Page]) -> None:
    text = pages["reference/settings.html"].text
    names = {name.upper() for name in Settings.model_fields}
    for name in names:
        assert (name if name in ("DATABASE_URL", "REDIS_URL") else f"GREENTUNE_{name}") in text


def test_every_hyperparameter_is_on_the_page_about_them(pages: dict[str, Page]) -> None:
    text = pages["reference/hyperparameters.html"].text
    for field in list_settings(Hyperparameters):
        assert ".".join(field.path) in text
        assert field.description.replace("`", "") in text


def test_a_nested_setting_gets_a_section_a_row_and_its_option() -> None:
    text = hyperparameters(StandIn)
    assert "## A probe\n\nSettings of the probe. Only with the method `lora`." in text
    assert "| `probe.targets`<br>`--probe-targets` | `all` or a list of texts | – | Where it applies |" in text
    assert "| `packing`<br>`--packing` | `auto` or `true` or `false` | `auto` | Whether rows are packed |" in text
    assert "| `stopping.rank`<br>`--stopping-rank` | a whole number, at least 1, at most 64 | `2` |" in text


def test_every_command_and_option_is_on_the_page_about_them(pages: dict[str, Page]) -> None:
    text = pages["reference/cli.html"].text

    def check(path: str, command: object) -> None:
        below = getattr(command, "commands", None)
        if below is not None:
            for name, each in below.items():
                check(f"{path} {name}", each)
            if not command.invoke_without_command:  # type: ignore[attr-defined]
                return
        assert path in text
        for parameter in command.params:  # type: ignore[attr-defined]
            for option in parameter.opts:
                assert not option.startswith("--") or option in text, f"{path}: {option}"

    check("greentune", typer.main.get_command(app))
