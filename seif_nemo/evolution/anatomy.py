"""What a training step consisted of, in numbers: lengths, work, speeds. docs/metrics.md lists the names."""

from collections.abc import Sequence

import torch

from seif_nemo.evolution.context import Context
from seif_nemo.evolution.rewarded import RewardedRollout
from seif_nemo.models.architecture import Architecture
from seif_nemo.models.flops import training_flops
from seif_nemo.observability.device_peaks import bf16_peak_tflop_per_s
from seif_nemo.types.rollouts import Rollout
from seif_nemo.types.training import TrainSample

_TERA = 1e12
_SHORTEST_S = 1e-9  # a clock may not have moved


def generation_values(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """How much was generated for a draw."""
    tokens = sum(rollout.num_response_tokens for rollout in rollouts)
    return {"generate/num_responses": float(len(rollouts)), "generate/num_tokens": float(tokens)}


def length_values(rewarded: Sequence[RewardedRollout]) -> dict[str, float]:
    """Tokens of the prompts and responses that a step learns from."""
    prompts = [len(item.rollout.prompt_ids) for item in rewarded]
    responses = [item.rollout.num_response_tokens for item in rewarded]
    return {
        "lengths/prompt_mean": sum(prompts) / len(prompts),
        "lengths/prompt_max": float(max(prompts)),
        "lengths/response_mean": sum(responses) / len(responses),
        "lengths/response_max": float(max(responses)),
    }


def work_values(architecture: Architecture, samples: Sequence[TrainSample]) -> dict[str, float]:
    """The work of one pass forward and back over the samples, without what is recomputed."""
    lengths = [(len(sample.prompt_ids) + len(sample.response_ids), len(sample.response_ids)) for sample in samples]
    flops = sum(training_flops(architecture, whole, num_scored=scored) for whole, scored in lengths)
    return {"train/num_input_tokens": float(sum(whole for whole, _ in lengths)), "train/model_tflop": flops / _TERA}


def speed_values(
    values: dict[str, float],
    made: Sequence[dict[str, float]],
    *,
    num_devices: int,
    peak_tflop_per_s: float | None,
) -> dict[str, float]:
    """Speeds from the times and the work in `values`; `made` are the metrics of what was sampled in that time.

    Nothing of what was not done, and no utilisation of a device whose peak is not known.
    """
    found: dict[str, float] = {}
    responses, tokens = (
        sum(value for each in made for key, value in each.items() if key.endswith(name))  # of all draws
        for name in ("generate/num_responses", "generate/num_tokens")
    )
    if responses:
        found["generate/mean_tokens"] = tokens / responses
        found["generate/tokens_per_s"] = tokens / max(values["time_s/generate"], _SHORTEST_S)
    if "train/model_tflop" in values:
        seconds = max(values["time_s/train"], _SHORTEST_S)
        speed = values["train/model_tflop"] / seconds / num_devices
        found["train/tokens_per_s"] = values["train/num_input_tokens"] / seconds
        found["train/tflop_per_s_per_device"] = speed
        if peak_tflop_per_s is not None:
            found["train/mfu"] = speed / peak_tflop_per_s
    return found


def peak_of(context: Context) -> float | None:
    """The dense bf16 peak of this rank's device, TFLOP/s; None where it is not known or the model is not bf16."""
    device = context.topology.device
    if device.type != "cuda" or next(context.trainable.modules[0].parameters()).dtype is not torch.bfloat16:
        return None
    return bf16_peak_tflop_per_s(torch.cuda.get_device_name(device))
