"""What the GPU kit needs of the machine, and the versions that it found; nothing here loads a library."""

import importlib.util
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

# (module, package) of what a training step imports; the rest of the project's packages may be missing.
NEEDED = (
    ("torch", "torch"),
    ("transformers", "transformers"),
    ("accelerate", "accelerate"),
    ("peft", "peft"),
    ("pydantic", "pydantic"),
    ("regex", "regex"),
    ("nltk", "nltk"),
    ("rouge_score", "rouge-score"),
    ("psutil", "psutil"),
    ("rich", "rich"),
    ("pytest", "pytest"),
)
KERNEL_PACKAGES = {"flash": ("flash_attn", "flash-attn"), "liger": ("liger_kernel", "liger-kernel")}
OLDEST = {"torch": (2, 11), "transformers": (5, 23)}
REPORTED = (
    *("torch", "transformers", "accelerate", "peft", "safetensors", "triton", "nvidia-ml-py", "flash-attn"),
    *("liger-kernel", "codecarbon", "pydantic", "pytest"),
)


def list_faults() -> Iterator[str]:
    """Yield what keeps the kit from running here."""
    if missing := [package for module, package in NEEDED if importlib.util.find_spec(module) is None]:
        yield f"not installed: {', '.join(missing)}"
    for package, oldest in OLDEST.items():
        found = find_version(package)
        if found is not None and tuple(int(part) for part in found.split(".")[:2]) < oldest:
            yield f"{package} {found} is older than {'.'.join(map(str, oldest))}"


def explain_missing_kernels(kernels: str, *, cuda: bool) -> str | None:
    """Return why kernels cannot run here; None where they can, as those of PyTorch itself."""
    if kernels not in KERNEL_PACKAGES:
        return None
    module, package = KERNEL_PACKAGES[kernels]
    if importlib.util.find_spec(module) is None:
        return f"{package} is not installed"
    return None if cuda else f"{package} needs a CUDA device"


def find_version(package: str) -> str | None:
    """Return the version of an installed package; None of one that is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def list_versions() -> dict[str, str | None]:
    """Return the versions of the packages that matter to the measurements; None for those that are missing."""
    return {package: find_version(package) for package in REPORTED}
