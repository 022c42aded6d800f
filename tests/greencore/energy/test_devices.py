import pytest

from greencore.energy.devices import Gpu, GpuId, GpuSelection, select_gpus, select_visible_gpus

GPUS = [Gpu(0, "GPU-aa11", "H100"), Gpu(1, "GPU-aa22", "H100"), Gpu(2, "GPU-bb33", "H100")]
MIXED = [Gpu(0, "GPU-aa11", "T4"), Gpu(1, "GPU-bb22", "H100")]
WHOLE = ("the whole GPU of a MIG instance",)
ASSUMED = ("device order assumed",)


def mig_parent(uuid: str) -> int | None:
    return {"MIG-55": 1, "MIG-66": 1}.get(uuid)


@pytest.mark.parametrize(
    ("listed", "indices"),
    [
        ("0", (0,)),
        ("2,0", (0, 2)),
        (" 1 , 2 ", (1, 2)),
        ("GPU-aa22", (1,)),
        ("GPU-bb", (2,)),
        ("GPU-aa22,0", (0, 1)),
        ("", ()),
        ("-1", ()),
        ("0,-1,1", (0,)),
        ("0,7,1", (0,)),
        ("GPU-aa", ()),
        ("GPU-", ()),
        ("GPU-cc,0", ()),
        ("NoDevFiles", ()),
        ("1,1", ()),
        ("GPU-aa22,GPU-aa22", ()),
    ],
)
def test_a_process_sees_the_listed_gpus_up_to_the_first_unknown_entry(listed: str, indices: tuple[int, ...]) -> None:
    assert select_visible_gpus({"CUDA_VISIBLE_DEVICES": listed}, GPUS, mig_parent=mig_parent) == GpuSelection(indices)


def test_a_process_sees_all_gpus_where_the_variable_is_unset() -> None:
    assert select_visible_gpus({}, GPUS, mig_parent=mig_parent) == GpuSelection((0, 1, 2))
    assert select_visible_gpus({}, [], mig_parent=mig_parent) == GpuSelection(())
    assert select_visible_gpus({"CUDA_VISIBLE_DEVICES": "0"}, [], mig_parent=mig_parent) == GpuSelection(())


@pytest.mark.parametrize(
    ("listed", "selection"),
    [
        ("MIG-55", GpuSelection((1,), WHOLE)),
        ("MIG-55,MIG-66", GpuSelection((1,), WHOLE)),
        ("MIG-GPU-bb33/1/0", GpuSelection((2,), WHOLE)),
        ("MIG-77,0", GpuSelection(())),
    ],
)
def test_a_mig_instance_selects_its_whole_gpu_with_a_note(listed: str, selection: GpuSelection) -> None:
    assert select_visible_gpus({"CUDA_VISIBLE_DEVICES": listed}, GPUS, mig_parent=mig_parent) == selection


@pytest.mark.parametrize(
    ("environment", "selection"),
    [
        ({"CUDA_VISIBLE_DEVICES": "0"}, GpuSelection((0,), ASSUMED)),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, GpuSelection((0,), ASSUMED)),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, GpuSelection((0,))),
        ({"CUDA_VISIBLE_DEVICES": "1,0"}, GpuSelection((0, 1))),
        ({"CUDA_VISIBLE_DEVICES": "GPU-bb22"}, GpuSelection((1,))),
    ],
)
def test_among_several_models_a_choice_by_index_is_an_assumption_unless_the_order_is_known(
    environment: dict[str, str], selection: GpuSelection
) -> None:
    assert select_visible_gpus(environment, MIXED, mig_parent=mig_parent) == selection


@pytest.mark.parametrize(
    ("environment", "indices"),
    [
        ({"HIP_VISIBLE_DEVICES": "1", "ROCR_VISIBLE_DEVICES": "2"}, (1,)),
        ({"ROCR_VISIBLE_DEVICES": "2"}, (2,)),
        ({"CUDA_VISIBLE_DEVICES": "0"}, (0,)),
    ],
)
def test_amd_variables_take_precedence_on_amd(environment: dict[str, str], indices: tuple[int, ...]) -> None:
    assert select_visible_gpus(environment, GPUS, mig_parent=mig_parent, amd=True) == GpuSelection(indices)
    assert select_visible_gpus({"HIP_VISIBLE_DEVICES": "1"}, GPUS, mig_parent=mig_parent) == GpuSelection((0, 1, 2))


@pytest.mark.parametrize(
    ("gpu_ids", "selection"),
    [
        ([], GpuSelection(())),
        ([2, 0, 2], GpuSelection((0, 2))),
        (["GPU-aa22"], GpuSelection((1,))),
        (["bb33"], GpuSelection((2,))),
        (["MIG-66", 0], GpuSelection((0, 1), WHOLE)),
    ],
)
def test_a_caller_chooses_by_index_or_by_uuid(gpu_ids: list[GpuId], selection: GpuSelection) -> None:
    assert select_gpus(gpu_ids, GPUS, mig_parent=mig_parent) == selection


@pytest.mark.parametrize("gpu_id", [3, -1, "GPU-cc", "GPU-aa", "", "MIG-77"])
def test_an_unknown_gpu_is_refused_and_the_message_lists_the_known(gpu_id: GpuId) -> None:
    with pytest.raises(ValueError, match=r"gpu_ids\[1\] is .*: expected .* which are 0 \(GPU-aa11\), 1 \(GPU-aa22\)"):
        select_gpus([0, gpu_id], GPUS, mig_parent=mig_parent)


def test_a_chosen_gpu_on_a_machine_without_any_is_refused() -> None:
    with pytest.raises(ValueError, match="which are none"):
        select_gpus([0], [], mig_parent=mig_parent)
