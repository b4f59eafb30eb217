"""A Hugging Face tokenizer behind this project's own interface."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seif_nemo.models.architecture import read_eos_ids, read_json
from seif_nemo.protocols.tokenizer import Message, Tokenizer
from seif_nemo.types.rollouts import TokenIds


class HfTokenizer:
    """See `seif_nemo.protocols.tokenizer.Tokenizer`. Made by `load_tokenizer`."""

    def __init__(self, tokenizer: Any, *, eos_ids: tuple[int, ...]) -> None:
        self._tokenizer = tokenizer
        self._eos_ids = eos_ids

    @property
    def vocab_size(self) -> int:
        """Tokens that the tokenizer knows, added ones included. The model's embedding may have more rows."""
        return len(self._tokenizer)

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return self._eos_ids

    @property
    def pad_id(self) -> int:
        """The padding token, or the first end token where the tokenizer has none."""
        pad = self._tokenizer.pad_token_id
        return self._eos_ids[0] if pad is None else pad

    def encode_chat(self, messages: Sequence[Message]) -> TokenIds:
        """Token ids [tokens] of the chat and the header of the assistant's turn, by the tokenizer's chat template.

        Without a template every message is a line of its own, after whatever the tokenizer puts before a text.
        """
        if self._tokenizer.chat_template is None:
            text = "".join(f"{message.content}\n" for message in messages)
            return np.array(self._tokenizer(text).input_ids, dtype=np.int64)
        chat = [{"role": message.role, "content": message.content} for message in messages]
        text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return np.array(self._tokenizer(text, add_special_tokens=False).input_ids, dtype=np.int64)

    def encode(self, text: str) -> TokenIds:
        return np.array(self._tokenizer(text, add_special_tokens=False).input_ids, dtype=np.int64)

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        return self._tokenizer.decode(
            [int(token) for token in ids], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )


def load_tokenizer(hf_dir: str | Path) -> Tokenizer:
    """The tokenizer of a Hugging Face directory; nothing is downloaded.

    A response ends with the tokenizer's end token or with any that generation_config.json and config.json name.
    Raises ValueError, naming the directory and the key, where there is no tokenizer, no end token, or more tokens than
    `vocab_size` of config.json.
    """
    path = Path(hf_dir)
    if not path.is_dir():
        raise ValueError(f"{path} is not a directory: model.path must be a Hugging Face model directory")
    from transformers import AutoTokenizer  # seconds to import, and only needed here

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} holds no tokenizer that transformers can load: {error}") from error
    own: list[int] = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    eos_ids = tuple(dict.fromkeys([*own, *read_eos_ids(path)]))
    if not eos_ids:
        raise ValueError(
            f"{path} names no end token: set eos_token in tokenizer_config.json "
            "or eos_token_id in generation_config.json"
        )
    if (path / "config.json").exists():
        rows = read_json(path / "config.json").get("vocab_size")
        if isinstance(rows, int) and len(tokenizer) > rows:
            raise ValueError(f"{path}: the tokenizer has {len(tokenizer)} tokens, vocab_size in config.json is {rows}")
    return HfTokenizer(tokenizer, eos_ids=eos_ids)
