"""Loading of models from each source, and the sources that are refused."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from greencore.training.models.loading import (
    ModelError,
    load_meta_model,
    load_model,
    load_tokenizer,
    resolve_model_folder,
)
from tests.greencore.training.families import family_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def t5_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    return tmp_path / "t5"


class Hub(BaseHTTPRequestHandler):
    """Fake hub with the requests of a download: a commit's list of files, and each file."""

    folder: Path

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path, _, _ = self.path.partition("?")
        resolve = f"/owner/model/resolve/{COMMIT}/"
        if path == f"/api/models/owner/model/tree/{COMMIT}":
            files = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": f"{index:040x}"}
                for index, file in enumerate(sorted(self.folder.iterdir()))
            ]
            self._send(200, json.dumps(files).encode(), with_body=with_body)
        elif path.startswith(resolve) and (self.folder / path.removeprefix(resolve)).is_file():
            self._send(200, (self.folder / path.removeprefix(resolve)).read_bytes(), with_body=with_body)
        else:
            self._send(404, b"{}", with_body=with_body)

    def _send(self, status: int, body: bytes, *, with_body: bool) -> None:
        self.send_response(status)
        self.send_header("ETag", f'"{hash(self.path)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(copy: Path) -> Iterator[str]:
    (copy / "modeling_own.py").write_text("raise SystemExit\n")
    (copy / "pytorch_model.bin").write_bytes(b"\x80")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Hub,), {"folder": copy}))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(sources: list[str], cache: Path, **environment: str) -> list[str]:
    """Resolve each source in a separate process, since the hub's settings are read once."""
    code = (
        "import sys; from pathlib import Path\n"
        "from greencore.training.models.loading import ModelError, resolve_model_folder\n"
        "for source in sys.argv[1:]:\n"
        "    try: print(resolve_model_folder(source, Path('nowhere')))\n"
        "    except ModelError as error: print('ModelError', str(error).replace(chr(10), ' '))\n"
    )
    settings = os.environ | {"HF_HOME": str(cache), "HF_HUB_DISABLE_TELEMETRY": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code, *sources],
        env=settings,
        cwd=Path(__file__).parents[4],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.splitlines()


def test_a_hub_model_is_fetched_once_at_its_commit_without_code_or_pickle(
    hub: str, copy: Path, model_folder: Path, tmp_path: Path
) -> None:
    source = f"hub:owner/model@{COMMIT}"
    found, unknown = fetch([source, f"hub:owner/other@{COMMIT}"], tmp_path / "cache", HF_ENDPOINT=hub)
    assert {path.name for path in Path(found).iterdir()} == {path.name for path in model_folder.iterdir()}
    assert torch.equal(*(load_model(Path(folder)).lm_head.weight for folder in (found, model_folder)))
    assert unknown.startswith("ModelError hub:owner/other@")
    assert "HF_TOKEN" in unknown
    offline = {"HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "1"}
    again, absent = fetch([source, f"hub:owner/model@{COMMIT[::-1]}"], tmp_path / "cache", **offline)
    assert again == found
    assert "neither in the local cache" in absent


@pytest.mark.parametrize("revision", ["", "@main", "@v1.0", f"@{COMMIT[:12]}", f"@{COMMIT.upper()}", f"@{COMMIT}0"])
def test_a_hub_model_needs_a_whole_commit(revision: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="commit of 40 hexadecimal digits"):
        resolve_model_folder(f"hub:owner/model{revision}", tmp_path / "converted")


def test_an_invalid_hub_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="hub:a/b/c"):
        resolve_model_folder(f"hub:a/b/c@{COMMIT}", tmp_path / "converted")


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    with pytest.raises(ModelError, match=r"no \.safetensors file"):
        resolve_model_folder(str(tmp_path), tmp_path / "converted")
    with pytest.raises(ModelError, match="no model at"):
        resolve_model_folder(str(tmp_path / "nowhere"), tmp_path / "converted")
    with pytest.raises(ModelError, match="not installed"):
        resolve_model_folder("package:no_such_package", tmp_path / "converted")


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve_model_folder(str(tmp_path), tmp_path / "converted")


def test_a_folder_without_a_file_of_its_index_is_refused(copy: Path, tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"incomplete: its index names model-2\.safetensors"):
        resolve_model_folder(str(copy), tmp_path / "converted")


def test_a_model_without_some_weights_is_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of the model's weights, such as model\.layers\.2\.mlp\.up_proj"):
        load_model(copy)


def test_an_invalid_safetensors_file_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").write_bytes(b"\x80\x04pickle" * 9)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(copy)


@pytest.mark.parametrize(("model_type", "loads"), [("llama", True), ("own", False)])
def test_code_that_comes_with_a_model_never_runs(copy: Path, model_type: str, loads: bool) -> None:
    marker = copy / "it_ran"
    (copy / "own.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Own: ...\n")
    asks = {"auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}, "model_type": model_type}
    (copy / "config.json").write_text(json.dumps(json.loads((copy / "config.json").read_text()) | asks))
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["own.Own", "own.Own"]}}
    if not loads:
        settings["tokenizer_class"] = "Own"
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    if loads:  # the library has a class for it
        assert type(load_model(copy)) is LlamaForCausalLM
        assert type(load_meta_model(copy)) is LlamaForCausalLM
        assert load_tokenizer(copy)("w1")["input_ids"] == [3]
    else:
        for load in (load_model, load_meta_model, load_tokenizer):
            with pytest.raises(ModelError, match="not allowed"):
                load(copy)
    assert not marker.exists()


def test_a_meta_model_has_the_shapes_without_the_weights(model_folder: Path) -> None:
    model, skeleton = load_model(model_folder), load_meta_model(model_folder)
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    assert shapes(skeleton) == shapes(model)


def test_a_model_with_an_encoder_is_loaded_as_one(t5_folder: Path) -> None:
    assert isinstance(load_model(t5_folder), T5ForConditionalGeneration)
    assert isinstance(load_meta_model(t5_folder), T5ForConditionalGeneration)
    assert shapes(load_meta_model(t5_folder)) == shapes(load_model(t5_folder))


def test_a_head_stored_separately_is_untied_in_the_meta_model(t5_folder: Path) -> None:
    weights = load_file(t5_folder / "model.safetensors")
    weights["lm_head.weight"] = weights["shared.weight"] + 1
    save_file(weights, t5_folder / "model.safetensors", {"format": "pt"})
    skeleton = load_meta_model(t5_folder)
    assert "lm_head.weight" in shapes(skeleton)
    assert shapes(skeleton) == shapes(load_model(t5_folder))


@pytest.mark.fault(number=1)
@pytest.mark.parametrize("head", ["language_model.lm_head.weight", "lm_head.weight"])
def test_a_vision_language_models_separate_head_is_untied_in_the_meta_model(head: str, tmp_path: Path) -> None:
    file = family_folder("gemma3", tmp_path) / "model.safetensors"
    weights = load_file(file)
    assert shapes(load_meta_model(tmp_path)) == shapes(load_model(tmp_path))
    weights[head] = weights["language_model.model.embed_tokens.weight"] + 1
    save_file(weights, file, {"format": "pt"})
    skeleton = load_meta_model(tmp_path)
    assert "lm_head.weight" in shapes(skeleton)
    assert shapes(skeleton) == shapes(load_model(tmp_path))


def shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def test_a_tokenizer_without_a_pad_token_pads_with_the_end_of_text(model_folder: Path) -> None:
    tokenizer = load_tokenizer(model_folder)
    assert tokenizer.pad_token == tokenizer.eos_token == "<end>"


def test_a_tokenizer_without_an_end_of_text_is_refused(copy: Path) -> None:
    settings = json.loads((copy / "tokenizer_config.json").read_text())
    del settings["eos_token"]
    (copy / "tokenizer_config.json").write_text(json.dumps(settings))
    (copy / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="no end-of-text token"):
        load_tokenizer(copy)
