"""Tokenizers of models that are made here: words of the tiny world as single tokens, or bytes alone.

Both are byte-level BPE without merges, in the parts that transformers' Qwen2Tokenizer is built from. transformers 5
rebuilds the tokenizer of a Qwen2 model from these parts whatever tokenizer.json says (its pre-tokenizer and
`ignore_merges` are lost), and only added tokens survive. So the words are added tokens: found in the text first, the
longest at each place; what no word covers is spelt in bytes. Any NFC text comes through unchanged.
"""

import functools
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tiny_demos
import tiny_world
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

PAD, EOS, FOLLOW, INSTRUCT, ANSWER = ("<pad>", "<eos>", "<follow>", "<instruct>", "<answer>")
TINY_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}<answer>"
END_OF_TEXT, TURN, END_OF_TURN = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a tokenizer is made of. Ids: the special tokens, 256 bytes, the words."""

    special: tuple[str, ...]
    eos_token: str
    pad_token: str
    num_words: int
    chat_template: str

    @property
    def vocabulary(self) -> int:
        return len(self.special) + 256 + self.num_words

    @property
    def eos(self) -> int:
        return self.special.index(self.eos_token)

    @property
    def pad(self) -> int:
        return self.special.index(self.pad_token)


# 576 and 264 tokens: divisible by any tensor-parallel size that such a model could want.
TINY = Layout((PAD, EOS, FOLLOW, INSTRUCT, ANSWER), EOS, PAD, 315, TINY_TEMPLATE)
_SPARE = tuple(f"<|spare_{i}|>" for i in range(5))
BYTE_LEVEL = Layout((END_OF_TEXT, TURN, END_OF_TURN, *_SPARE), END_OF_TURN, END_OF_TEXT, 0, CHAT_TEMPLATE)

# JSON punctuation as the Instructor writes it, title brackets, a word or a sign with the space before it.
_PIECE = re.compile(r"""\{"|": "|", "|"\}|<<|>>| ?\w+| ?[^\w\s]|\s""")
# The pre-tokenizer of Qwen2 (Hugging Face, tokenization_qwen2.py). Without merges it decides nothing.
_QWEN2_PIECE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SAMPLES = 4_000


def save_tokenizer(folder: Path, layout: Layout) -> None:
    """Writes tokenizer.json and tokenizer_config.json. The same files every time."""
    words = _frequent_words(layout.num_words) if layout.num_words else ()
    tokens = [*layout.special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    ids = {token: i for i, token in enumerate(tokens)}
    assert len(ids) == len(tokens) == layout.vocabulary, "a word is also a byte or a special token"
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(_QWEN2_PIECE), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in layout.special])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in words])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=layout.eos_token,
        pad_token=layout.pad_token,
        unk_token=layout.pad_token,  # never used; Qwen2Tokenizer would add one of its own otherwise
        chat_template=layout.chat_template,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    wrapped.save_pretrained(folder, save_jinja_files=False)
    _name_class(folder / "tokenizer_config.json")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer as every other user of the folder gets it. The folder needs its config.json by then."""
    return AutoTokenizer.from_pretrained(folder)


def _name_class(file: Path) -> None:
    """Names the class that every version of transformers knows; the writing one named a base class of its own."""
    settings = json.loads(file.read_text())
    settings["tokenizer_class"] = "Qwen2Tokenizer"
    file.write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n")


@functools.cache
def _frequent_words(count: int) -> tuple[str, ...]:
    """The `count` most frequent words of the world's own text (and the numbers 1 to 40), sorted."""
    counts: Counter[str] = Counter({f" {number}": _SAMPLES for number in range(1, 41)})
    for text in _world_text():
        counts.update(piece for piece in _PIECE.findall(text) if len(piece) > 1)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return tuple(sorted(ranked[:count]))


def _world_text() -> Iterator[str]:
    rng = random.Random(0)
    seeds = tiny_world.seed_splits().training
    for _ in range(_SAMPLES):
        follower = tiny_demos.draw_follower_demo(rng, rng.choice(seeds), keep=0.5)
        instructor = tiny_demos.draw_instructor_demo(rng, rng.choice(seeds), hard=0.5)
        yield from (follower.prompt, follower.response, instructor.response)
