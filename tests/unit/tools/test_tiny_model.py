import json
import random
import unicodedata
from pathlib import Path

import make_tiny_model
import pyarrow.parquet as pq
import pytest
import tiny_data
import tiny_demos
import tiny_training
import tiny_world
import torch
from hypothesis import given
from hypothesis import strategies as st
from make_tiny_model import Variety
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.data.seeds import DroppedSeeds, load_seeds
from seif_nemo.data.store import load_heldout


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    assert make_tiny_model.make_tiny_model(folder, variety=Variety.RANDOM)
    return folder


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "bytes"
    assert make_tiny_model.make_tiny_model(folder, variety=Variety.BYTE_LEVEL, seed=1)
    return folder


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny)


@pytest.fixture(scope="module")
def byte_tokenizer(byte_level: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(byte_level)


def ids_of(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text)["input_ids"]


# --- tokenizer


def test_text_of_the_world_is_words(tokenizer: PreTrainedTokenizerBase) -> None:
    pieces = tokenizer.convert_ids_to_tokens(
        ids_of(tokenizer, "<instruct>Tell me about the tiger in the city.<answer>")
    )
    assert pieces == ["<instruct>", "Tell", " me", " about", " the", " tiger", " in", " the", " city", ".", "<answer>"]
    instruction = '{"c1": "use at least 17 words", "c2": "do not use commas"}'
    assert tokenizer.convert_ids_to_tokens(ids_of(tokenizer, instruction)) == [
        *('{"', "c1", '": "', "use", " at", " least", " 17", " words", '", "'),
        *("c2", '": "', "do", " not", " use", " commas", '"}'),
    ]


def test_demonstrations_go_through_unchanged_and_short(tokenizer: PreTrainedTokenizerBase) -> None:
    rng = random.Random(0)
    seeds = tiny_world.seed_splits().training
    num_tokens = num_characters = 0
    for seed in seeds[:300]:
        for demo in (tiny_demos.draw_follower_demo(rng, seed), tiny_demos.draw_instructor_demo(rng, seed)):
            for text in (demo.prompt, demo.response):
                ids = ids_of(tokenizer, text)
                assert tokenizer.decode(ids) == text
                num_tokens += len(ids)
                num_characters += len(text)
    assert num_characters / num_tokens > 4


@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.from_regex(r"[ a-zA-Z<>|_{}\":,.\n\[\]*]*"))
def test_any_text_goes_through_both_tokenizers(
    tokenizer: PreTrainedTokenizerBase, byte_tokenizer: PreTrainedTokenizerBase, text: str
) -> None:
    text = unicodedata.normalize("NFC", text)
    for each in (tokenizer, byte_tokenizer):
        if any(special in text for special in each.all_special_tokens):
            continue
        ids = ids_of(each, text)
        assert each.decode(ids) == text
        assert all(i < len(each) for i in ids)
    assert len(ids_of(byte_tokenizer, text)) == len(text.encode())


def test_every_way_to_load_it_gives_the_same_tokenizer(tiny: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    plain = PreTrainedTokenizerFast.from_pretrained(tiny)
    text = '<follow>Why is the zebra so brightly 100 naïve?\n* add a title<answer>"<<QUIET>>" [name]'
    assert ids_of(plain, text) == ids_of(tokenizer, text)
    assert len(tokenizer) == 576 == json.loads((tiny / "config.json").read_text())["vocab_size"]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)


def test_chat_templates(tokenizer: PreTrainedTokenizerBase, byte_tokenizer: PreTrainedTokenizerBase) -> None:
    chat = [{"role": "system", "content": "<follow>"}, {"role": "user", "content": "Why?\n* use at least 3 words"}]
    for prompt in (False, True):
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt)
        assert text == "<follow>Why?\n* use at least 3 words<answer>"
    assert byte_tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\n<follow><|im_end|>\n<|im_start|>user\nWhy?\n* use at least 3 words<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert byte_tokenizer.eos_token == "<|im_end|>"


# --- the folder


def test_transformers_loads_the_folders(tiny: Path, byte_level: Path) -> None:
    for folder, vocabulary in ((tiny, 576), (byte_level, 264)):
        model = AutoModelForCausalLM.from_pretrained(folder)
        assert (model.config.model_type, model.dtype) == ("qwen2", torch.float32)
        # 3 layers: qkv with bias, output, gate-up-down, two norms; tied embeddings; a last norm
        layer = 96 * 192 + 192 + 96 * 96 + 3 * 96 * 256 + 2 * 96
        assert sum(p.numel() for p in model.parameters()) == vocabulary * 96 + 3 * layer + 96
        stds = {name: p.std().item() for name, p in model.named_parameters() if p.dim() == 2}
        assert stds["model.embed_tokens.weight"] == pytest.approx(0.1, rel=0.03)
        assert stds["model.layers.1.self_attn.o_proj.weight"] == pytest.approx(0.02, rel=0.03)
        assert stds["model.layers.2.mlp.down_proj.weight"] == pytest.approx(0.02, rel=0.03)
        assert stds["model.layers.0.mlp.up_proj.weight"] == pytest.approx(96**-0.5, rel=0.03)


def test_the_data_files(tiny: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    data = tiny / "data"
    splits = tiny_world.seed_splits()
    for name, seeds in (("seeds", splits.training), ("probe_seeds", splits.probe)):
        loaded = load_seeds(data / f"{name}.parquet", column=tiny_data.SEED_COLUMN, max_characters=200)
        assert tuple(seed.text for seed in loaded.seeds) == seeds
        assert loaded.dropped == DroppedSeeds()
    for name, seeds, label in (("dev", splits.dev, "dev"), ("heldout", splits.heldout, tiny_data.HELDOUT_LABEL)):
        rows = load_heldout(data / f"{name}.parquet")
        assert tuple(row.seed_question for row in rows) == seeds
        expected = tiny_demos.evaluation_prompts(seeds, label)
        assert [row.constraints for row in rows] == [p.texts for p in expected]
        released = pq.read_table(data / f"{name}.parquet").to_pylist()
        assert [record["prompt"] for record in released] == [p.prompt for p in expected]
        assert [parse_constraint(text).spec for row in rows for text in row.constraints] == [
            constraint.spec for prompt in expected for constraint in prompt.constraints
        ]
        # a prompt and a whole response fit the quickstart's 192 tokens
        assert max(len(ids_of(tokenizer, p.prompt)) for p in expected) + 2 + 56 <= 192
        if name == "dev":
            assert released[0]["instruction_id_list"][0] == "seif:uppercase"  # in any language


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_a_second_call_does_nothing_and_another_folder_gets_the_same_bytes(tiny: Path, tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in tiny.rglob("*")}
    assert not make_tiny_model.make_tiny_model(tiny, variety=Variety.RANDOM)
    assert {file: file.stat().st_mtime_ns for file in tiny.rglob("*")} == before
    assert make_tiny_model.make_tiny_model(tmp_path / "again", variety=Variety.RANDOM)
    assert contents(tmp_path / "again") == contents(tiny)


def test_another_seed_replaces_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "m"
    assert make_tiny_model.make_tiny_model(out, variety=Variety.BYTE_LEVEL, seed=0)
    before = contents(out)
    assert make_tiny_model.make_tiny_model(out, variety=Variety.BYTE_LEVEL, seed=1)
    changed = {name for name, data in contents(out).items() if data != before[name]}
    assert changed == {"model.safetensors", "tiny_model.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".m.lock", "m"]


def test_an_interrupted_call_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny_training, "train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_tiny_model.make_tiny_model(tmp_path / "m", steps=5)
    assert [path.name for path in tmp_path.iterdir()] == [".m.lock"]


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("x")
    assert make_tiny_model.main(["--out", str(tmp_path / "m"), "--random"]) == 2
    assert "was not made by this tool" in capsys.readouterr().err
    assert contents(tmp_path / "m") == {"thesis.txt": b"x"}
    assert make_tiny_model.main(["--out", str(tmp_path / "n"), "--steps", "0"]) == 2


# --- training


def test_response_loss_is_that_of_each_example_alone(tiny: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny)
    stream = tiny_training.demonstrations(tokenizer, seed=0)
    examples = [next(stream) for _ in range(5)]
    assert len({example.length for example in examples}) > 1
    expected = 0.0
    for example in examples:
        ids = torch.tensor([example.prompt_ids + example.response_ids])
        with torch.no_grad():
            logprobs = model(ids).logits.log_softmax(-1)[0]
        start = len(example.prompt_ids)
        expected -= sum(logprobs[start + i - 1, token].item() for i, token in enumerate(example.response_ids))
    assert tiny_training.response_loss(model, examples).item() == pytest.approx(expected, rel=1e-5)


def test_examples_are_chats_of_both_roles(tokenizer: PreTrainedTokenizerBase) -> None:
    stream = tiny_training.demonstrations(tokenizer, seed=0)
    examples = [next(stream) for _ in range(1000)]
    openings = [tokenizer.decode(example.prompt_ids[:1]) for example in examples]
    assert set(openings) == {"<follow>", "<instruct>"}
    assert 0.19 <= openings.count("<instruct>") / 1000 <= 0.27  # 23%, standard deviation 1.3%
    assert all(tokenizer.decode(example.prompt_ids[-1:]) == "<answer>" for example in examples)
    ended = [example.response_ids[-1] == tokenizer.eos_token_id for example in examples]
    assert sum(ended) >= 950
    assert all(end or len(example.response_ids) == 56 for end, example in zip(ended, examples, strict=True))


def test_training_is_reproducible_and_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        assert make_tiny_model.make_tiny_model(tmp_path / name, seed=3, steps=6)
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("a", "b")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert "step 6/6" in capsys.readouterr().err
    assert make_tiny_model.make_tiny_model(tmp_path / "untrained", variety=Variety.RANDOM, seed=3)
    assert mean_loss(tmp_path / "a") < mean_loss(tmp_path / "untrained") - 0.3


def mean_loss(folder: Path) -> float:
    """Per response token, on demonstrations of another seed."""
    stream = tiny_training.demonstrations(AutoTokenizer.from_pretrained(folder), seed=99)
    batch = [next(stream) for _ in range(32)]
    with torch.no_grad():
        loss = tiny_training.response_loss(AutoModelForCausalLM.from_pretrained(folder), batch)
    return loss.item() / sum(len(example.response_ids) for example in batch)


def test_learning_rate() -> None:
    assert tiny_training.learning_rate(0, 1000) == pytest.approx(3e-3 / 50)
    assert tiny_training.learning_rate(49, 1000) == pytest.approx(3e-3 * (1 - 0.9 * 0.049))
    assert tiny_training.learning_rate(500, 1000) == pytest.approx(3e-3 * 0.55)
    assert tiny_training.learning_rate(1000, 1000) == pytest.approx(3e-4)
