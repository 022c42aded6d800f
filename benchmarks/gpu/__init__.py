"""The GPU kit: the tests marked `gpu`, and time, energy and memory of training steps, on one CUDA device."""
