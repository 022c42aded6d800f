"""What the GPU kit measures: models with random weights, lengths of rows, arms and kernels, and the time for each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from transformers import LlamaConfig

from benchmarks.training.finetuning import Arm

Kernels = Literal["sdpa", "flash", "liger"]

LEARNED_SHARE = 8  # one token in so many of a row is learned, as of an abstract with its summary
FULL, GREEN = Arm("full", "full"), Arm("GT-0.5", "greentrainer", 0.5)
# Full first, of which the others are shares; then what matters most, for a device on which time runs out.
ARMS = (FULL, GREEN, Arm("LoRA", "lora"), Arm("GT-0.7", "greentrainer", 0.7), Arm("GT-0.35", "greentrainer", 0.35))


@dataclass(frozen=True)
class ModelSize:
    """A Llama of a size: widths, layers and heads. With `tied` embeddings the output embedding is the input's."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_heads: int
    vocabulary: int
    tied: bool

    def build_config(self) -> LlamaConfig:
        """Build the model's configuration."""
        return LlamaConfig(
            architectures=["LlamaForCausalLM"],
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_heads,
            max_position_embeddings=8192,
            tie_word_embeddings=self.tied,
        )


@dataclass(frozen=True)
class Batch:
    """Rows of a step and their tokens, and the steps of an epoch; the first of an epoch measures importance."""

    rows: int
    tokens: int
    steps: int


@dataclass(frozen=True)
class Cell:
    """One measurement: an arm on a model and a batch, with kernels."""

    model: ModelSize
    batch: Batch
    arm: Arm
    kernels: Kernels = "sdpa"

    @property
    def name(self) -> str:
        """The measurement in words, for a line about it."""
        return f"{self.model.name}, {self.batch.tokens} tokens, {self.arm.name}, {self.kernels}"


@dataclass(frozen=True)
class Part:
    """Measurements of one process, in order; `weight` is its share of the time that is left beside other parts'."""

    name: str
    cells: Sequence[Cell]
    weight: float

    @property
    def predicts_memory(self) -> bool:
        """Whether memory is predicted: not for kernels whose temporary tensors the prediction does not know."""
        return all(cell.kernels == "sdpa" for cell in self.cells)


@dataclass(frozen=True)
class Scale:
    """All measurements at a scale, and their time: of all together, of the tests, and of the steps of each.

    `processes` predict memory beside the measurements; 0: between them.
    """

    title: str
    parts: Sequence[Part]
    seconds: float
    test_seconds: float
    cell_seconds: float
    processes: int


def _list_cells(model: ModelSize, batches: Sequence[Batch]) -> list[Cell]:
    return [Cell(model, batch, arm) for batch in batches for arm in ARMS]


def _list_kernel_cells(model: ModelSize, batch: Batch) -> list[Cell]:
    """List the cells that compare kernels; sdpa's are measured again, on the same state of the device."""
    kernels: tuple[Kernels, ...] = ("sdpa", "flash", "liger")
    return [Cell(model, batch, arm, kind) for kind in kernels for arm in (FULL, GREEN)]


ONE_BILLION = ModelSize("1B", 2048, 8192, 16, 32, 8, 128_256, tied=True)
EIGHT_BILLION = ModelSize("8B", 4096, 14336, 32, 32, 8, 128_256, tied=False)
TINY, UNTIED = (
    ModelSize("tiny", 64, 192, 3, 4, 2, 256, tied=True),
    ModelSize("small", 96, 256, 4, 4, 2, 256, tied=False),
)

SCALES = {
    "h200": Scale(
        "Training steps on a GPU: models of 1 and 8 billion parameters",
        (
            Part("1B", _list_cells(ONE_BILLION, (Batch(8, 512, 40), Batch(2, 2048, 40))), 100),
            Part("8B", _list_cells(EIGHT_BILLION, (Batch(4, 512, 7), Batch(1, 2048, 7))), 200),
            Part("kernels", _list_kernel_cells(ONE_BILLION, Batch(2, 2048, 40)), 50),
        ),
        seconds=505,
        test_seconds=130,
        cell_seconds=12,
        processes=5,
    ),
    "tiny": Scale(
        "Training steps of tiny models, to try the GPU kit",
        (
            Part(
                "models",
                [
                    *_list_cells(TINY, (Batch(2, 32, 3),)),
                    *(Cell(UNTIED, Batch(2, 64, 3), arm) for arm in (FULL, GREEN)),
                ],
                2,
            ),
            Part("kernels", _list_kernel_cells(TINY, Batch(2, 32, 3)), 1),
        ),
        seconds=120,
        test_seconds=30,
        cell_seconds=10,
        processes=0,
    ),
}
