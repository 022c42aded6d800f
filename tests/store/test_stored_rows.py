"""Files of stored rows are read by the rules of the version that stored them."""

import hashlib
import json
from pathlib import Path

import pytest

from greencore.dataset import InvalidRow, Message, MessagesRow
from store.stored_rows import enumerate_stored_rows, load_stored_rows, name_blob

CHAT = [
    {"role": "user", "content": "Hi", "name": "ann"},
    {"role": "assistant", "content": "Hello", "weight": 0},
    {"role": "user", "content": "Again"},
    {"role": "assistant", "content": "Hello again", "id": 1},
]
ROW = json.dumps({"messages": CHAT, "tools": [{"name": "f"}]}).encode()
PLAIN = MessagesRow(
    (
        Message("user", "Hi"),
        Message("assistant", "Hello"),
        Message("user", "Again"),
        Message("assistant", "Hello again"),
    )
)
SHA256 = hashlib.sha256(ROW).hexdigest()


@pytest.mark.parametrize("blob", [SHA256, "dataset_01a22cda81917484b7eaa1c50eb40e54"])
def test_a_file_of_an_earlier_version_means_what_it_did(tmp_path: Path, blob: str) -> None:
    file = tmp_path / f"{blob}.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + ROW + b'\n\n{"text": "a", "weight": 0.5}\n')
    assert load_stored_rows(file)[0] == PLAIN
    assert [number for number, _ in enumerate_stored_rows(file)] == [1, 3]


def test_a_file_of_this_version_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / f"{name_blob(SHA256)}.jsonl"
    file.write_bytes(ROW)
    [row] = load_stored_rows(file)
    assert isinstance(row, MessagesRow)
    assert row.tools == '[{"type":"function","function":{"name":"f"}}]'
    assert row.messages[:2] == (Message("user", "Hi", name="ann"), Message("assistant", "Hello", weight=0))
    file.write_bytes(b'{"text": "a", "weight": 0.5}')
    with pytest.raises(InvalidRow, match="line 1: weight: is not supported"):
        list(enumerate_stored_rows(file))
