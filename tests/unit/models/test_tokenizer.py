import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from seif_nemo.models.tokenizer import load_tokenizer
from seif_nemo.protocols.tokenizer import Message

VOCABULARY = ["<pad>", "<s>", "</s>", "<turn>", "user", "assistant", "\n", "a", "b", "c", " "]
TEMPLATE = (
    "{% for m in messages %}<turn>{{ m.role }}\n{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant\n{% endif %}"
)


def _save(path: Path, *, template: str | None, pad: bool = True, eos: bool = True) -> Path:
    ids = {token: i for i, token in enumerate(VOCABULARY)}
    backend = Tokenizer(models.WordLevel(ids, unk_token=" "))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    special = {"bos_token": "<s>"} | ({"eos_token": "</s>"} if eos else {}) | ({"pad_token": "<pad>"} if pad else {})
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, additional_special_tokens=["<turn>", "user", "assistant"], **special
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(path)
    return path


def test_chat_template_makes_the_prompt_and_special_tokens_do_not_survive_decoding(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(_save(tmp_path, template=TEMPLATE))
    ids = tokenizer.encode_chat([Message("user", "ab")])
    assert ids.dtype == np.int64
    assert ids.tolist() == [3, 4, 6, 7, 8, 3, 5, 6]  # <turn>user\nab<turn>assistant\n, and no <s> of its own
    assert tokenizer.decode([7, 8, 2, 0]) == "ab"
    assert tokenizer.decode(ids) == "\nab\n"
    assert (tokenizer.vocab_size, tokenizer.pad_id, tokenizer.eos_ids) == (11, 0, (2,))
    assert tokenizer.encode("ba").tolist() == [8, 7]  # no <s> here either
    assert tokenizer.encode("").tolist() == []


def test_without_a_template_every_message_is_a_line(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(_save(tmp_path, template=None, pad=False))
    assert tokenizer.encode_chat([Message("system", "c"), Message("user", "ab")]).tolist() == [1, 9, 6, 7, 8, 6]
    assert tokenizer.pad_id == 2, "the end token stands in"


def test_end_tokens_come_from_all_three_files_without_repeats(tmp_path: Path) -> None:
    _save(tmp_path, template=TEMPLATE)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 2]}))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 6, "model_type": "llama", "vocab_size": 11}))
    assert load_tokenizer(tmp_path).eos_ids == (2, 5, 6)


def test_errors_name_the_directory_and_the_key(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"missing is not a directory: model\.path"):
        load_tokenizer(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no tokenizer"):
        load_tokenizer(tmp_path / "empty")
    with pytest.raises(ValueError, match="endless names no end token: set eos_token"):
        load_tokenizer(_save(tmp_path / "endless", template=None, eos=False))
    small = _save(tmp_path / "small", template=None)
    (small / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 10}))
    with pytest.raises(ValueError, match=r"the tokenizer has 11 tokens, vocab_size in config\.json is 10"):
        load_tokenizer(small)
