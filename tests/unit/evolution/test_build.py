import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seif_nemo.config.data import DataConfig
from seif_nemo.config.model import ModelConfig
from seif_nemo.config.roles import RolesConfig
from seif_nemo.config.root import Config
from seif_nemo.evolution.build import load_material


class _Words:
    """A tokenizer with one token per word."""

    def encode_chat(self, messages):
        return [0] * sum(len(message.content.split()) for message in messages)


def _load(tmp_path, *questions, max_sequence_length, max_heldout_prompts=None):
    (tmp_path / "seeds.txt").write_text("Why?\n")
    table = pa.table({"seed_question": questions, "constraint": [["be brief", "be kind"]] * len(questions)})
    pq.write_table(table, tmp_path / "heldout.parquet")
    config = Config(
        model=ModelConfig(path="base", max_sequence_length=max_sequence_length),
        roles=RolesConfig(instructor_templates=["tiny"], follower_template="tiny"),
        data=DataConfig(
            seeds=str(tmp_path / "seeds.txt"),
            heldout=str(tmp_path / "heldout.parquet"),
            max_heldout_prompts=max_heldout_prompts,
        ),
    )
    return load_material(config, _Words())


def test_held_out_prompts_that_do_not_fit_are_left_out_and_counted(tmp_path):
    material = _load(tmp_path, "Who is it?", "why " * 40, max_sequence_length=40)
    assert [instruction.seed for instruction in material.heldout] == ["Who is it?"]
    assert [constraint.text for constraint in material.heldout[0].constraints] == ["be brief", "be kind"]
    assert material.counts["data/held-out prompts/used"] == 1
    assert material.counts["data/held-out prompts/too many tokens"] == 1


def test_held_out_prompts_beyond_the_limit_are_counted(tmp_path):
    material = _load(tmp_path, "Who?", "Why?", "How?", max_sequence_length=40, max_heldout_prompts=2)
    assert [instruction.seed for instruction in material.heldout] == ["Who?", "Why?"]
    assert material.counts["data/held-out prompts/used"] == 2
    assert material.counts["data/held-out prompts/above the limit"] == 1


def test_a_held_out_set_of_which_nothing_fits_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"heldout\.parquet: no prompt is short.* model\.max_sequence_length=40$"):
        _load(tmp_path, "why " * 40, "who " * 50, max_sequence_length=40)
