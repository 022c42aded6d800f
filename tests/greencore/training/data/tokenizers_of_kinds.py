"""Small tokenizers of the usual kinds, trained on a few words."""

import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

CORPUS = [
    "The answer is 4, and the answer of two and two is four. What is 2+2= ? It is the answer 4 5 6 7.",
    "def add(a, b):\n    return a + b\n\nthe source, the summary of the source: the summary is short.",
    "TL;DR: summarize: it",
] * 3
SPECIAL = ["<unk>", "<s>", "</s>"]


def llama_2() -> PreTrainedTokenizerBase:
    """SentencePiece in the legacy form of Llama 2, Mistral 0.1, TinyLlama and Phi-3: a space before each text."""
    pairs = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    pairs.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    pairs.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    pairs.train_from_iterator(
        [part for text in CORPUS for part in re.findall(r"\d|\w+|[^\w\s]", text)],  # no merge spans words
        trainers.BpeTrainer(vocab_size=440, special_tokens=[*SPECIAL, *byte_tokens], show_progress=False),
    )
    model = pairs.model
    plain = Tokenizer(model)  # byte tokens are in the vocabulary, not special tokens
    plain.normalizer, plain.decoder = pairs.normalizer, pairs.decoder
    return _wrapped(plain, opening=True)


def metaspace(scheme: str = "first") -> PreTrainedTokenizerBase:
    """SentencePiece in the current form, whose words begin with a space; `scheme` says before which texts."""
    pairs = Tokenizer(models.BPE(unk_token="<unk>"))
    pairs.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    pairs.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.BpeTrainer(
        vocab_size=200, special_tokens=SPECIAL, show_progress=False, initial_alphabet=_characters()
    )
    pairs.train_from_iterator(CORPUS, trainer)
    return _wrapped(pairs, opening=True)


def unigram() -> PreTrainedTokenizerBase:
    """Unigram model over words that begin with a space, as in XGLM and some Llama-like models."""
    pieces = Tokenizer(models.Unigram())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=SPECIAL,
        unk_token="<unk>",
        show_progress=False,
        initial_alphabet=_characters(),
    )
    pieces.train_from_iterator(CORPUS, trainer)
    return _wrapped(pieces, opening=False)


def byte_level(*, prefix_space: bool = False, opening: bool = False) -> PreTrainedTokenizerBase:
    """Byte-level BPE, as in GPT-2, Llama 3 and Qwen."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs.train_from_iterator(CORPUS, trainer)
    return _wrapped(pairs, opening=opening)


def joining_lines() -> PreTrainedTokenizerBase:
    """Byte-level pairs whose split joins line breaks with each other and the spaces before them, as in Qwen."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s*[\r\n]+| ?\w+| ?[^\s\w]+|\s+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    pairs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    pairs.train_from_iterator([*CORPUS, *["a\n\nb\n\n\nc \nd"] * 9], trainer)
    return _wrapped(pairs, opening=False)


def with_template(tokenizer: PreTrainedTokenizerBase, template: str, *tokens: str) -> PreTrainedTokenizerBase:
    """Return the tokenizer with a chat template and the tokens that it uses."""
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    tokenizer.chat_template = template
    return tokenizer


def _characters() -> list[str]:
    return sorted({character for text in CORPUS for character in text} | {"\n"})


def _wrapped(tokenizer: Tokenizer, *, opening: bool) -> PreTrainedTokenizerBase:
    tokenizer.add_special_tokens(SPECIAL)
    if opening:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
