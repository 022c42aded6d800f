"""Loads modules in a process from which others are forked, which then share them and their memory."""

import gc
import os
from collections.abc import Sequence
from importlib import import_module


def load_before_fork(modules: Sequence[str]) -> None:
    """Import modules, which must neither initialise CUDA, which cannot be used after a fork, nor start a thread."""
    # Makes torch look for a GPU through NVML, without initialising CUDA.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    gc.disable()  # its collections take a sixth of the time of these imports
    for module in modules:
        import_module(module)
    # Objects that the collector does not visit are not written to, so their pages stay shared.
    gc.collect()
    gc.freeze()
    gc.enable()
