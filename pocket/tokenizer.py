"""The tokenizer of the pocket worlds: one token per word of a grammar.

`PreTrainedTokenizerFast` over a word-level model, because it is the one kind that keeps its normaliser on reload
and has an unknown token of its own: `CLIPTokenizer` would end the prompt at an unknown word, `T5Tokenizer` loses
its normaliser. The same file serves both text encoders, and `tokenizer.json` can be read as plain JSON where
torch must not be imported.
"""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pocket.grammar import WORDS

PAD, UNKNOWN, BEGIN, END = "<pad>", "<unk>", "<s>", "</s>"
SPECIAL = (PAD, UNKNOWN, BEGIN, END)  # END must not be id 2, which CLIPTextModel reads as "take the largest id"
LENGTH = 20  # the longest caption has 16 words; begin and end make 18


def build(words: Sequence[str] = WORDS, length: int = LENGTH) -> PreTrainedTokenizerFast:
    """Number the special tokens, then the words in their order; `length` tokens at most, begin and end included."""
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *words))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        special_tokens=[(BEGIN, vocabulary[BEGIN]), (END, vocabulary[END])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        model_max_length=length,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
    )
