import math

import pytest

from seif_nemo.config.algorithm import (
    AdaptiveKlConfig,
    Advantage,
    AlgorithmConfig,
    Correction,
    CriticConfig,
    InstructorRewardConfig,
    OptimizerConfig,
    RoleTrainingConfig,
)
from seif_nemo.config.checkpoint import CheckpointConfig
from seif_nemo.config.cluster import ClusterConfig
from seif_nemo.config.data import DataConfig
from seif_nemo.config.evolution import EvolutionConfig
from seif_nemo.config.generation import GenerationConfig
from seif_nemo.config.model import Dtype, ModelConfig
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.config.reward import Judging, RewardConfig
from seif_nemo.config.roles import RolesConfig
from seif_nemo.config.root import Config
from seif_nemo.config.run import RunConfig

NAN = math.nan
GROUPS = {
    "algorithm": AlgorithmConfig,
    "checkpoint": CheckpointConfig,
    "cluster": ClusterConfig,
    "data": DataConfig,
    "evolution": EvolutionConfig,
    "generation": GenerationConfig,
    "model": ModelConfig,
    "parallel": ParallelConfig,
    "reward": RewardConfig,
    "roles": RolesConfig,
    "run": RunConfig,
    "algorithm.instructor": lambda **values: AlgorithmConfig(instructor=RoleTrainingConfig(**values)),
    "algorithm.follower": lambda **values: AlgorithmConfig(follower=RoleTrainingConfig(**values)),
    "algorithm.instructor_reward": lambda **values: AlgorithmConfig(instructor_reward=InstructorRewardConfig(**values)),
    "algorithm.critic": lambda **values: AlgorithmConfig(advantage=Advantage.gae, critic=CriticConfig(**values)),
    "algorithm.adaptive_kl": lambda **values: AlgorithmConfig(
        adaptive_kl=AdaptiveKlConfig(**{"target": 1.0, **values})
    ),
    "algorithm.instructor.optimizer": lambda **values: AlgorithmConfig(
        instructor=RoleTrainingConfig(optimizer=OptimizerConfig(**values))
    ),
    "algorithm.follower.optimizer": lambda **values: AlgorithmConfig(
        follower=RoleTrainingConfig(optimizer=OptimizerConfig(**values))
    ),
}


LIMITS = [
    ("algorithm.clip_low", [-0.1, 1.1, NAN], [0.0, 1.0]),
    ("algorithm.clip_high", [-0.1, NAN], [0.0]),
    ("algorithm.dual_clip", [1.0, NAN], [1.5]),
    ("algorithm.max_staleness", [-1, 2], [0]),
    ("algorithm.replay_share", [-0.1, 1.0, NAN], [0.0]),
    ("algorithm.instructor_reward.diversity_coefficient", [-0.1, 1.1, NAN], [0.0, 1.0]),
    ("algorithm.instructor.epochs", [[], [1, -1]], [[0], [1, 0]]),
    ("algorithm.instructor.max_steps", [0, -1], [1, None]),
    ("algorithm.instructor.prompts_per_step", [0, -4], [4]),
    ("algorithm.instructor.group_size", [1], [2]),
    ("algorithm.follower.group_size", [1], [2]),
    ("algorithm.critic.gamma", [-0.1, 1.1, NAN], [0.0, 1.0]),
    ("algorithm.critic.gae_lambda", [-0.1, 1.1, NAN], [0.0, 1.0]),
    ("algorithm.critic.value_clip", [0.0, NAN], [math.inf]),
    ("algorithm.critic.warmup_steps", [-1], [0]),
    ("algorithm.critic.epochs", [0], [1]),
    ("algorithm.critic.mini_batches", [0, 385], [1, 384]),
    ("algorithm.adaptive_kl.target", [0.0, NAN, math.inf], [None]),
    ("algorithm.adaptive_kl.horizon", [0.0, NAN, math.inf, 1919], [1920]),
    ("algorithm.follower.mini_batches", [0, 385], [1, 384]),
    ("algorithm.follower.kl_coefficient", [-0.01, NAN, math.inf], [0.0]),
    ("algorithm.follower.optimizer.learning_rate", [0.0, -1e-6, NAN, math.inf], [1.0]),
    ("algorithm.instructor.optimizer.final_learning_rate_share", [0.0, 1.1, -1.0, NAN], [0.1]),
    ("algorithm.instructor.optimizer.weight_decay", [-0.1, NAN], [0.0]),
    ("algorithm.instructor.optimizer.beta1", [-0.1, 1.0, NAN], [0.0]),
    ("algorithm.instructor.optimizer.beta2", [-0.1, 1.0, NAN], [0.99]),
    ("algorithm.instructor.optimizer.epsilon", [0.0, NAN], [1e-5]),
    ("algorithm.instructor.optimizer.max_grad_norm", [0.0, -1.0, NAN], [0.5, math.inf]),
    ("checkpoint.every_steps", [0], [1]),
    ("checkpoint.write_timeout_s", [0.0, -1.0, NAN], [0.5]),
    ("checkpoint.min_free_gib", [-0.1, NAN], [0.0]),
    ("checkpoint.keep", [0], [1]),
    ("cluster.rendezvous_timeout_s", [0.0, NAN, math.inf], [1.0]),
    ("cluster.refusal_wait_s", [0.0, NAN, math.inf], [1.0]),
    ("data.max_seed_characters", [0, -1], [1]),
    ("data.max_seeds", [0, -1], [1, None]),
    ("data.max_probe_seeds", [0, -1], [1]),
    ("data.max_heldout_prompts", [0, -1], [1, None]),
    ("evolution.rounds", [0], [1]),
    ("evolution.samples_per_seed", [0], [1]),
    ("evolution.solvability_samples", [-1], [0, 1]),
    ("evolution.synthesis_batch", [0], [1]),
    ("evolution.min_kept_share", [-0.1, 1.1, NAN], [0.0, 1.0]),
    ("evolution.evaluation_temperature", [-0.1, NAN, math.inf], [0.0]),
    ("evolution.evaluation_samples", [0], [1]),
    ("evolution.samples_logged_per_step", [-1], [0]),
    ("generation.max_new_tokens", [0], [1]),
    ("generation.temperature", [0.0, NAN, math.inf], [0.7]),
    ("generation.top_p", [0.0, 1.1, NAN], [1.0]),
    ("generation.top_k", [-1], [0]),
    ("generation.tensor", [0], [1]),
    ("generation.pipeline", [0], [1]),
    ("generation.expert", [0], [1]),
    ("generation.refit_bucket_mib", [0.0, NAN, math.inf], [1.0]),
    ("generation.max_batch_rows", [0], [1]),
    ("generation.warn_mismatch", [0.9, 1.3, NAN], [1.0, 1.2]),
    ("model.max_sequence_length", [1], [2]),
    ("parallel.tensor", [0], [1]),
    ("parallel.pipeline", [0], [1]),
    ("parallel.virtual_pipeline", [0, 2], [1]),
    ("parallel.pipeline_layout", [[], [1, 2], [0], [-1], [4]], [None]),
    ("parallel.sequence", [True], [False]),
    ("parallel.collective_timeout_s", [0.0, NAN, math.inf], [1.0]),
    ("reward.answers_per_instruction", [0], [1]),
    ("reward.overlap_workers", [-1], [0]),
    ("reward.judge_max_new_tokens", [0, -1], [1]),
    ("reward.judge_margin", [-0.1, 0.5, NAN], [0.0, 0.49]),
    ("reward.judge_cache_entries", [-1], [0]),
    ("reward.max_missing_share", [-0.1, 1.1, NAN], [0.0, 1.0]),
    ("reward.min_questions_for_budget", [0], [1]),
    ("reward.meter_questions", [-1], [0]),
    (
        "reward.judge_endpoint",
        ["", "a:8", "ftp://a", "http://a?key=1", "http://a", "http://[", "http://a:x", "http://a:0", "http://a:65536"],
        [None],
    ),
    ("reward.judge_endpoint", ["http://node/ü", "http://node/a b", "http://node\n", "http://nöde", "\x1b"], [None]),
    ("reward.judge_model", ["m"], [None]),
    ("reward.judge_key_variable", ["KEY"], [None]),
    ("reward.judge_timeout_s", [0.0, NAN, math.inf], [1.0]),
    ("reward.judge_concurrency", [0], [1]),
    ("reward.judge_attempts", [0], [1]),
    ("reward.judge_first_delay_s", [-1.0, NAN], [0.0]),
    ("reward.judge_max_delay_s", [-1.0, NAN, math.inf], [0.0]),
    ("reward.judge_max_failures", [0], [1]),
    ("reward.judge_pause_s", [-1.0, NAN, math.inf], [0.0]),
    ("reward.required_format", ["("], ["a+"]),
    ("roles.instructor_templates", [[]], [["tiny"]]),
    ("roles.host_memory_gib", [0.0, -1.0, NAN], []),
    ("roles.spill_dir", [], []),
    ("run.name", ["", ".", "..", "a/b"], ["a.b"]),
    ("run.threads_per_rank", [0], [1]),
]


def test_float32_weights_cannot_be_offloaded():
    offload = ParallelConfig(optimizer_offload=True)
    with pytest.raises(ValueError, match=r"^parallel\.optimizer_offload=true needs model\.dtype=bfloat16"):
        Config(parallel=offload, model=ModelConfig(path="m", dtype=Dtype.float32))
    Config(parallel=offload, model=ModelConfig(path="m"))


@pytest.mark.parametrize(("key", "wrong", "right"), LIMITS)
def test_a_value_that_can_only_be_a_mistake_is_refused_with_its_whole_key(key, wrong, right):
    group, _, name = key.rpartition(".")
    for value in wrong:
        with pytest.raises(ValueError) as caught:
            GROUPS[group](**{name: value})
        text = str(caught.value)
        assert text.startswith((f"{key}={value}", f"{key}={value!r}", f"{key}={str(value).lower()}", f"{key} is empty"))
        assert "\n" not in text
    for value in right:
        GROUPS[group](**{name: value})


def test_a_limit_of_host_memory_needs_a_place_for_the_rest():
    assert RolesConfig(host_memory_gib=1.5, spill_dir="/scratch").host_memory_gib == 1.5
    with pytest.raises(ValueError, match=r"^roles\.spill_dir=null.*give both"):
        RolesConfig(host_memory_gib=1.5)
    with pytest.raises(ValueError, match=r"^roles\.host_memory_gib=null.*give both"):
        RolesConfig(spill_dir="/scratch")


def test_a_judges_endpoint_needs_its_model_and_a_use_and_keeps_the_key_out():
    fine = {"judge_endpoint": "https://node:8000/v1", "judge_model": "m", "judge_key_variable": "KEY"}
    assert RewardConfig(**fine).judge_endpoint == "https://node:8000/v1"
    with pytest.raises(ValueError, match=r"^reward\.judge_endpoint=.* needs reward\.judge_model"):
        RewardConfig(judge_endpoint="https://node:8000/v1")
    with pytest.raises(ValueError, match=r"^reward\.judge_endpoint=.* has no effect with reward\.judging=rules"):
        RewardConfig(**fine, judging=Judging.rules)
    for endpoint in ("http://me:hush@node/v1", "http://me:hush@nöde/v1", "http://me:hush@℀/v1", "http://me:hush/@[/v1"):
        with pytest.raises(ValueError, match=r"user name.*judge_key_variable") as caught:
            RewardConfig(judge_endpoint=endpoint, judge_model="m")
        assert "hush" not in str(caught.value)


def test_older_rollouts_need_a_correction():
    with pytest.raises(ValueError, match=r"algorithm.max_staleness=1.*algorithm.correction=none.*token_cut"):
        AlgorithmConfig(max_staleness=1)
    assert AlgorithmConfig(max_staleness=1, correction=Correction.token_cut).max_staleness == 1
