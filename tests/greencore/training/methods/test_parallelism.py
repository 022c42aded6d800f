"""Models distributed in other ways are refused at once, and FSDP2's mixed precision survives frozen groups."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecisionPolicy, fully_shard
from transformers import Adafactor, TrainingArguments
from transformers.distributed.configuration_utils import DistributedConfig

from greencore.backprop.importance import importance_of_gradients
from greencore.training.methods.parallelism import ParallelismUnsupported, prepare_sharded_model
from greencore.training.models.loading import load_model
from tests.torchrun import run_processes


@pytest.fixture(scope="module")
def printed(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the first of two processes printed that ran every case of this module."""
    folder = tmp_path_factory.mktemp("processes")
    return run_processes(__file__, str(model_folder), str(folder), processes=2, seconds=240)


def test_other_ways_to_distribute_a_model_are_refused_with_the_reason(printed: str) -> None:
    assert "FSDP1: FSDP1, which keeps a block's tensors in one flat parameter, is not supported" in printed
    assert "tensor parallel: tensor parallelism is not supported: tensors are frozen and measured one by one" in printed
    assert printed.count("DistributedConfig(fsdp_size=N)) does\n") == 2


def test_an_update_of_a_part_is_refused_where_it_depends_on_the_whole(printed: str) -> None:
    assert "dw: optimiser Adafactor is not supported: its step on a part of a sharded tensor is another" in printed
    assert "grad: 29 tensors" in printed


def test_a_group_that_is_frozen_from_the_start_can_be_trained_later(printed: str) -> None:
    assert "trained later" in printed


def test_deepspeed_is_refused(model_folder: Path, tmp_path: Path) -> None:
    model: Any = load_model(model_folder)
    next(model.parameters()).ds_id = 0  # what its ZeRO stage 3 gives each parameter
    with pytest.raises(ParallelismUnsupported, match="DeepSpeed is not supported"):
        prepare_sharded_model(model, make_arguments(tmp_path))


def make_arguments(folder: Path) -> TrainingArguments:
    return TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none")


def refusals(model_folder: Path, folder: Path) -> None:
    arguments = make_arguments(folder)
    parallel = load_model(model_folder).from_pretrained(model_folder, distributed_config=DistributedConfig(tp_size=2))
    for name, model in [
        ("FSDP1", FullyShardedDataParallel(load_model(model_folder), device_id=torch.device("cpu"))),
        ("tensor parallel", parallel),
    ]:
        with pytest.raises(ParallelismUnsupported) as refused:
            prepare_sharded_model(model, arguments)
        say(f"{name}: {refused.value}")


def adafactor(model_folder: Path, folder: Path) -> None:
    model = load_model(model_folder, shards=2)
    ids = torch.arange(1, 25).view(2, 12)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer, tensors = Adafactor(model.parameters()), dict(model.named_parameters())
    say(f"grad: {sum(value > 0 for value in importance_of_gradients(tensors, optimizer, 'grad').values())} tensors")
    with pytest.raises(ValueError, match="not supported") as refused:
        importance_of_gradients(tensors, optimizer, "dw")
    say(f"dw: {refused.value}")


def frozen_group(model_folder: Path, folder: Path) -> None:
    model: Any = load_model(model_folder)
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for part in (*model.model.layers, model):
        fully_shard(part, mesh=MESH, mp_policy=policy)
    prepare_sharded_model(model, make_arguments(folder))
    ids = torch.arange(1, 25).view(2, 12)
    for trained in (False, True):
        for parameter in model.model.layers[0].parameters():
            parameter.requires_grad_(trained)
        model(input_ids=ids, labels=ids).loss.backward()
    say("trained later")


def say(text: str) -> None:
    if torch.distributed.get_rank() == 0:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    MESH = init_device_mesh("cpu", (2,))
    for case in (refusals, adafactor, frozen_group):
        case(Path(sys.argv[1]), Path(sys.argv[2]))
    torch.distributed.destroy_process_group()
