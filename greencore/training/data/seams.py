"""Where a prompt's tokens end and those of its completion begin."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from greencore.training.data.special_text import encode_marked, remove_marks

# Texts that a completion is encoded after where it merges with its own prompt: one of them does not merge with it.
ANCHORS = ("\n", ".", "a", "0", ":", "é", "字")


def tokenise_continuation(prompt: str, completion: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens of `completion` as they follow on the tokens of `prompt`, which stay as they are.

    Both are encoded as one text, so that no space arises that a SentencePiece tokenizer puts before a text of its
    own, and the tokens after the prompt's are taken. Where that text's tokens join the two ("a " and "b" as "a", " b"),
    generation after the prompt could not meet them: then the completion is encoded after another text that it does
    not merge with. Decoded together, the prompt's tokens and these give the prompt and the completion; only where the
    tokenizer cannot give back any text, such as one of whole words, is the completion encoded by itself.
    """
    before, joint = encode_marked(prompt, tokenizer), encode_marked(prompt + completion, tokenizer)
    after = joint[len(before) :]
    # an unknown word swallows what is joined to it, so that its place says nothing
    if joint[: len(before)] == before and after and (not before or before[-1] != tokenizer.unk_token_id):
        return after
    expected = {_decode(joint, tokenizer), _decode(before, tokenizer) + remove_marks(completion)}
    for anchor in ANCHORS:
        front, both = encode_marked(anchor, tokenizer), encode_marked(anchor + completion, tokenizer)
        after = both[len(front) :]
        if after and both[: len(front)] == front and _decode([*before, *after], tokenizer) in expected:
            return after
    return encode_marked(completion, tokenizer)


def _decode(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))
