"""The tokenizer: one token a word, unknown words stay visible, nothing is lost on disk."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from pocket import tokenizer
from pocket.flatworld import caption, sample_scene
from pocket.grammar import WORDS, unknown_words

WORDS_ONLY = tokenizer.build()


@given(st.integers(0, 2**32))
def test_a_caption_fits_and_is_known(seed: int):
    text = caption(sample_scene(seed), full=True)
    ids = WORDS_ONLY(text).input_ids
    assert len(ids) == len(text.split()) + 2 <= tokenizer.LENGTH
    assert WORDS_ONLY.unk_token_id not in ids


def test_unknown_words_do_not_end_the_prompt():
    ids = WORDS_ONLY("a red zebra under a pale sky").input_ids
    assert ids.count(WORDS_ONLY.unk_token_id) == 1 == len(unknown_words("a red zebra under a pale sky"))
    assert ids.index(WORDS_ONLY.eos_token_id) == len(ids) - 1
    assert WORDS_ONLY.eos_token_id != 2  # which CLIPTextModel treats as "the largest id"


def test_case_and_composed_letters_do_not_matter():
    assert WORDS_ONLY("A RED Ring").input_ids == WORDS_ONLY("a red ring").input_ids


def test_it_survives_saving(tmp_path: Path):
    WORDS_ONLY.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    for text in ("a RED ring", "a red zebra", ""):
        assert again(text, padding="max_length").input_ids == WORDS_ONLY(text, padding="max_length").input_ids
    assert again.model_max_length == tokenizer.LENGTH


def test_its_words_can_be_read_without_a_tokenizer_library(tmp_path: Path):
    WORDS_ONLY.save_pretrained(tmp_path)
    table = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    assert [word for word in table if not word.startswith("<")] == list(WORDS)
