"""The real PEFT library reads what we write and writes what we read."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from seif_nemo.config.roles import LoraConfig, Projection
from seif_nemo.parallel.topology import shutdown
from seif_nemo.weights.peft import export_adapter
from tests.dist.harness import run_ranks
from tests.dist.lora_model import VOCAB, Layout, build, make_actor, pairs
from tests.dist.test_lora import distance, plain_logprobs
from tests.tiny_hf import make_tiny_hf

peft = pytest.importorskip("peft", reason="peft is not installed: what it reads and writes is not checked with it")
CASES = {
    "qwen2": LoraConfig(rank=4, alpha=8.0),
    "llama": LoraConfig(rank=3, alpha=5.0, targets=[Projection.q_proj, Projection.v_proj, Projection.down_proj]),
}


def in_and_out(base: Path, adapter: Path, lora: LoraConfig, out: Path) -> list[np.ndarray]:
    model = build(Layout("tp2 sp", {"tensor": 2, "sequence": True}), base, lora, adapter)
    logprobs = make_actor(model).logprobs(pairs(), temperature=1.0)
    export_adapter(model.modules, model.arch, model.topology, out, lora, base_dir=base)
    shutdown(model.topology)
    return logprobs


@pytest.mark.parametrize("family", CASES)
def test_peft_and_we_agree(family: str, tmp_path: Path) -> None:
    lora = CASES[family]
    base = make_tiny_hf(tmp_path / "base", family, vocab_size=VOCAB)
    config = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=[target.value for target in lora.targets],
        init_lora_weights=False,  # B is random, too
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(0)
    theirs: Any = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    theirs.save_pretrained(tmp_path / "theirs")
    expected = plain_logprobs(theirs)
    assert distance(plain_logprobs(AutoModelForCausalLM.from_pretrained(base)), expected) > 0.05

    ours, _ = run_ranks(2, in_and_out, base, tmp_path / "theirs", lora, tmp_path / "ours")
    assert distance(ours, expected) <= 1e-6
    again: Any = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "ours")
    assert distance(plain_logprobs(again), ours) <= 1e-6
    written, read = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "theirs"))
    assert written.keys() == read.keys()
    assert all(torch.equal(written[name], value) for name, value in read.items())
    assert distance(plain_logprobs(again.merge_and_unload()), ours) <= 1e-6
