"""Where in a model a tensor sits, read from its name: the stack, the block, and its part in the block."""

import re
from dataclasses import dataclass

STACKS = ("encoder", "decoder")
# peft puts these around a model and its adapters.
WRAPPERS = re.compile(r"^(base_model\.model\.)+|\.default(?=\.|$)")


@dataclass(frozen=True)
class TensorLocation:
    """`layer` counts the blocks of its stack from 0; None outside of them. `stack` is set where a model has two.

    `kind` is what the tensors of all blocks that do the same have in common, such as "self_attn.q_proj",
    "mlp.down_proj" or "self_attn.q_proj.bias"; outside of the blocks it names the tensor, as "lm_head".
    """

    stack: str | None
    layer: int | None
    kind: str


def locate_tensor(name: str) -> TensorLocation:
    """The place of a parameter as transformers and peft name it, "model.layers.3.mlp.down_proj.weight"."""
    parts = WRAPPERS.sub("", name).split(".")
    block = next((index for index, part in enumerate(parts) if part.isdecimal()), None)
    outer, inner = (parts, parts) if block is None else (parts[:block], parts[block + 1 :])
    stack = next((part for part in outer if part in STACKS), None)
    # A block's parts may be numbered once more, as T5's "layer.1.EncDecAttention.q" and experts are.
    named = [part for part in inner if not part.isdecimal() and part not in ("layer", "layers", *STACKS)]
    if named[-1:] == ["weight"]:
        named.pop()
    if block is None and named[:1] in (["model"], ["transformer"]):
        named = named[1:] or named
    return TensorLocation(stack, None if block is None else int(parts[block]), ".".join(named) or name)
