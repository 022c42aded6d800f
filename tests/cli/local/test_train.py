"""`greentune train`: a run without a service."""

import gzip
import io
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel
from typer.testing import CliRunner

from cli.errors import CommandError, ExitCode, SettingError
from cli.local.train import _ProgressDisplay, train
from cli.main import app
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.run import TrainingResult
from runtime.settings import Settings
from tests.greencore.training.conftest import small_model
from tests.greencore.training.test_divergence import HUGE, model_with

if TYPE_CHECKING:
    from tests.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("remembered_traces")

ROWS = [{"prompt": f"w{number} w1", "completion": " w7 w8"} for number in range(12)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"), layers=2)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    return file


def run(
    model: Path | str,
    dataset: Path,
    output: Path,
    *,
    rho: float = 0.6,
    method: str = "greentrainer",
    eval_share: float = 0.1,
    validation: Path | None = None,
) -> None:
    train(
        str(model),
        dataset,
        rho,
        Hyperparameters(epochs=1, eval_share=eval_share),
        output,
        Settings(data_dir=output.parent / "var"),
        method=method,
        validation_dataset=validation,
    )


@pytest.mark.parametrize("gpus", [1, 2])
def test_a_run_shows_a_table_and_saves_a_model(
    greentune: "Run", model: Path, dataset: Path, tmp_path: Path, gpus: int
) -> None:
    options = {"--model": model, "--dataset": dataset, "--rho": 0.6, "--epochs": 2, "--output": tmp_path / "out"}
    command = greentune("train", *(str(part) for option in options.items() for part in option), f"--gpus={gpus}")
    assert command.finish() == 0, command.output
    epochs = [line.split("│")[1:3] for line in command.lines if "0.60" in line]
    assert [[cell.strip() for cell in cells] for cells in epochs] == [["1", "0.60"], ["2", "0.60"]]
    assert "ROUGE-1 0.0 → " in command.output
    assert re.search(r"kWh in all, 0\.\d{6} of it in evaluations \(CPU: ", command.output)
    assert command.lines[-1] == f"model: {tmp_path / 'out' / 'artifacts'}"
    AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "artifacts")


def test_an_unusable_model_or_dataset_is_named(model: Path, dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(SettingError, match="--model: nope is neither in the catalogue"):
        run("nope", dataset, output)
    with pytest.raises(SettingError, match=r"--dataset: .*nowhere\.jsonl: No such file"):
        run(model, tmp_path / "nowhere.jsonl", output)
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"prompt": "a", "completion": "b"}\nnot json\n')
    with pytest.raises(SettingError, match=r"--dataset: .*wrong\.jsonl: line 2"):
        run(model, wrong, output)
    with pytest.raises(SettingError, match="--model: File name too long"):
        run("x" * 256, dataset, output)
    assert not output.exists()
    for path, reason in ((tmp_path / ("x" * 256), "File name too long"), (dataset, "Not a directory")):
        with pytest.raises(SettingError, match=f"--output: {reason}"):
            run(model, dataset, path)


def test_rows_of_a_compressed_table_are_trained_by_their_columns(model: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "rows.csv.gz", tmp_path / "out"
    lines = [f"{row['prompt']},{row['completion']},{number}" for number, row in enumerate(ROWS)]
    file.write_bytes(gzip.compress("\n".join(["question,data.answer,id", *lines]).encode()))
    command = ["train", "--model", str(model), "--dataset", str(file), "--epochs", "1", "--output", str(output)]

    wrong = CliRunner().invoke(app, [*command, "--column", "prompt=q"])
    config = tmp_path / "job.yaml"
    config.write_text("columns: {prompt: question, completion: data.answer}")
    right = CliRunner().invoke(app, [*command, "--config", str(config)])

    assert f"--dataset: {file}: has no column 'q', from which prompt is to be taken" in wrong.stderr
    assert right.exit_code == 0, right.output
    assert "not used of the rows: id\n" in right.output
    assert (output / "artifacts").is_dir()


def test_an_invalid_row_is_named_by_its_place_in_the_container(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_text(json.dumps([*ROWS, {"text": 5}]))
    with pytest.raises(SettingError, match=r"--dataset: .*rows\.json: element 13: text: must be text, got int"):
        run(model, file, tmp_path / "out")


@pytest.mark.fault(number=9)
def test_a_quantised_model_is_refused(model: Path, dataset: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "quantised"))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SettingError, match=r"--model: .*quantised weights \(bitsandbytes, 4 bits\), which cannot be"):
        run(folder, dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(number=8)
def test_rows_longer_than_the_models_positions_are_refused(model: Path, dataset: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "gpt2"))
    GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64)).save_pretrained(folder)
    with pytest.raises(SettingError, match="--max-length: given 512, but the model has positions for 64 tokens"):
        run(folder, dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_after_a_rho_below_the_floor_the_corrected_command_runs(model: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"--rho: ρ = 0.1 is too small for any tensor.* take 0\.\d+"):
        run(model, dataset, tmp_path / "out", rho=0.1)
    run(model, dataset, tmp_path / "out")
    assert (tmp_path / "out" / "artifacts" / "model.safetensors").is_file()


def test_an_unknown_or_unsuitable_method_is_named(model: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="--method: 'lorra' is not one of greentrainer, full, "):
        run(model, dataset, tmp_path / "out", method="lorra")
    with pytest.raises(SettingError, match="--method: LlamaForCausalLM has no tensor that 'bitfit' trains"):
        run(model, dataset, tmp_path / "out", method="bitfit")
    run(model, dataset, tmp_path / "out", method="top2")
    assert (tmp_path / "out" / "artifacts" / "model.safetensors").is_file()


def test_a_non_empty_output_folder_is_refused_and_unchanged(model: Path, dataset: Path, tmp_path: Path) -> None:
    precious = tmp_path / "out" / "precious"
    precious.parent.mkdir()
    precious.write_text("kept")
    with pytest.raises(SettingError, match=r"--output: .* is not empty"):
        run(model, dataset, precious.parent)
    assert precious.read_text() == "kept"


@pytest.mark.fault(number=4)
def test_a_row_that_the_chat_template_refuses_is_named_by_its_line(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, [*ROWS, {"messages": [{"role": "assistant", "content": "w1"}]}])))
    with pytest.raises(SettingError, match=r"--dataset: .*rows\.jsonl: line 13: messages: there is no message before"):
        run(model, file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(number=2)
def test_a_run_that_diverges_fails_with_the_step_and_removes_its_output(dataset: Path, tmp_path: Path) -> None:
    model = model_with(tmp_path / "overflowing", HUGE)
    rows = [*ROWS[:9], {"prompt": "w58 w1", "completion": " w7 w8"}]
    dataset.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(CommandError, match=r"step \d+ is nan") as failure:
        run(model, dataset, tmp_path / "out", method="full", eval_share=0.0)
    assert failure.value.exit_code == ExitCode.FAILED
    assert not (tmp_path / "out").exists()


@pytest.mark.fault(number=2)
def test_non_finite_weights_are_an_error_of_the_model(greentune: "Run", dataset: Path, tmp_path: Path) -> None:
    model = model_with(tmp_path / "broken", float("nan"))
    options = {"--model": model, "--dataset": dataset, "--rho": 0.6, "--output": tmp_path / "out"}
    command = greentune("train", *(str(part) for option in options.items() for part in option))
    assert command.finish() == ExitCode.USAGE
    assert "--model: transformer.wte.weight holds non-finite values" in " ".join(command.output.split())
    assert not (tmp_path / "out").exists()


def test_a_validation_file_is_evaluated_on(
    greentune: "Run", model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    validation = tmp_path / "validation.jsonl"
    validation.write_text(
        "\n".join(map(json.dumps, [*ROWS[:2], *({"prompt": f"w{n} w3", "completion": "w4"} for n in range(3))]))
    )
    run(model, dataset, tmp_path / "out", validation=validation)
    shown = capsys.readouterr().out
    assert "on 3 held-out rows" in shown
    assert "2 rows were not held out" in shown

    validation.write_text('{"text": "w1"}')
    with pytest.raises(SettingError, match=r"--validation-dataset: .*line 1: is a text row"):
        run(model, dataset, tmp_path / "other", validation=validation)
    both = ("--validation-dataset", str(validation), "--eval-share", "0.2")
    command = greentune("train", "--model", str(model), "--dataset", str(dataset), *both)
    assert command.finish() == ExitCode.USAGE
    assert "--eval-share: given beside --validation-dataset" in command.output


def test_what_was_left_out_is_counted_in_the_singular_too() -> None:
    shown = io.StringIO()
    display = _ProgressDisplay(Console(file=shown, width=200), Settings())
    display.summarise(TrainingResult(completed=True, dropped_lines=(3,), held_out_duplicates=1))
    display.summarise(TrainingResult(completed=True, dropped_lines=(3, 5), held_out_duplicates=2))
    text = shown.getvalue()
    assert "1 row was not used, since nothing is learned of it: line 3\n" in text
    assert "1 row was not held out, " in text
    assert "2 rows were not used, since nothing is learned of them: lines 3, 5\n" in text
    assert "2 rows were not held out, " in text


def test_a_run_is_described_by_a_file_and_options(greentune: "Run", model: Path, dataset: Path, tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    settings = "{epochs: 1, eval_share: 0, max_length: 32}"
    policy = "{kind: constant, rho: 0.7}"
    config.write_text(f"model: {model}\ndataset: {dataset}\nzone: FR\npolicy: {policy}\nhyperparameters: {settings}\n")
    command = greentune("train", "--config", str(config), "--epochs", "2", "--output", str(tmp_path / "out"))
    assert command.finish() == 0, command.output
    assert len([line for line in command.lines if "0.70" in line]) == 2
    assert f"{config}: not used without a service: zone" in command.output

    config.write_text(f"model: {model}\ndataset: {dataset}\nhyperparameters: {{epochs: 0}}\n")
    command = greentune("train", "--config", str(config), "--output", str(tmp_path / "other"))
    assert command.finish() == 2
    assert f"{config}: hyperparameters.epochs: " in command.output


def test_a_method_left_open_is_chosen_for_the_budget_with_its_reason(
    model: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(model, dataset, tmp_path / "out", method="auto", rho=0.5)
    shown = " ".join(capsys.readouterr().out.split())
    assert "method lora: a budget of 0.5 epochs of full fine-tuning (1 at ρ = 0.5), " in shown


def test_the_policy_of_a_file_is_read_only_by_the_method_that_has_a_rho(dataset: Path, tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(f"model: absent\ndataset: {dataset}\npolicy: {{kind: carbon_linear}}\n")
    command = ["train", "--config", str(config), "--output", str(tmp_path / "out"), "--data-dir", str(tmp_path)]
    for method, reason in (("greentrainer", "policy: only a constant policy has a ρ"), ("full", "--model: absent is")):
        result = CliRunner().invoke(app, [*command, "--method", method])
        assert result.exit_code == ExitCode.USAGE
        assert reason in result.output


def test_a_setting_of_another_method_is_refused_before_the_model_is_loaded(dataset: Path, tmp_path: Path) -> None:
    command = ["train", "--model", "absent", "--dataset", str(dataset), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(app, [*command, "--method", "full", "--lora-rank", "4"])
    assert result.exit_code == ExitCode.USAGE
    assert "--lora-…: given with the method full, and only lora has these settings" in result.output


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("full", ["--lora-rank", "4"], "--lora-…: given with the method full, and only lora has these settings"),
        ("lora", ["--lora-targets", "q_proj,query"], "--lora-targets: 'query' matches no module of LlamaForCausalLM"),
        ("greentrainer", ["--adaptive-never-train", "*.embed"], "--adaptive-never-train: '*.embed' matches no tensor"),
        ("greentrainer", ["--adaptive-always-train", "*layers.0.*"], "--rho: ρ = 0.5 is too small for the tensors"),
    ],
)
def test_a_setting_of_a_method_that_cannot_be_used_is_named_by_its_option(
    model: Path, dataset: Path, tmp_path: Path, method: str, options: list[str], reason: str
) -> None:
    output = tmp_path / "out"
    given = ["--model", str(model), "--dataset", str(dataset), "--output", str(output), "--method", method]
    result = CliRunner().invoke(app, ["train", *given, "--rho", "0.5", "--data-dir", str(tmp_path / "var"), *options])
    assert result.exit_code == ExitCode.USAGE
    assert reason in " ".join(result.output.split())
    assert not output.exists()
