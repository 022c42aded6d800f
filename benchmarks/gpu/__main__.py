"""Runs the tests marked `gpu`, and measures time, energy and memory of training steps on one CUDA device.

    make gpu
    python -m benchmarks.gpu [--device cpu --scale tiny]

Needs no network, and ends in less than 9 minutes: what there is no time for, and what a missing package or too little
memory forbids, is listed as skipped. With `--device cpu --scale tiny` the same program tries itself without a GPU.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from benchmarks.gpu.requirements import list_faults

BEGAN = time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--scale", choices=("h200", "tiny"), default="h200", help="models and times, see scales.py")
    parser.add_argument("--folder", type=Path, help="of gpu.json; by default that of the published results")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks, here and in the parts
    if faults := list(list_faults()):
        print(f"the GPU kit cannot run here: {'; '.join(faults)}", file=sys.stderr)
        return 1
    import torch  # which may be missing, and so may what the kit loads

    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"make gpu needs a CUDA device, and torch {torch.__version__} sees none here", file=sys.stderr)
        return 1
    try:
        from benchmarks.gpu import kit
    except ImportError as error:  # of what a needed package needs in turn
        print(f"the GPU kit cannot run here: {error}", file=sys.stderr)
        return 1

    if options.part:
        kit.run_part(options.scale, options.part, options.device, file=options.rows, until=options.until)
        return 0
    return kit.run_kit(options.scale, options.device, folder=options.folder, began=BEGAN)


if __name__ == "__main__":
    sys.exit(main())
