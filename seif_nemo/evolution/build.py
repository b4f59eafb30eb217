"""Construction: from the configuration to everything a run works with. No algorithm here."""

import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import torch

from seif_nemo.checkpointing.store import CheckpointStore
from seif_nemo.components.actor import Actor
from seif_nemo.components.critic import Critic
from seif_nemo.components.remote_judge import connect_remote_judge
from seif_nemo.components.reward import Reward
from seif_nemo.components.speaker import Speaker
from seif_nemo.config.algorithm import Advantage, Reference
from seif_nemo.config.checkpoint import CheckpointConfig
from seif_nemo.config.model import Dtype
from seif_nemo.config.reward import Judging
from seif_nemo.config.root import Config
from seif_nemo.config.run import RunConfig
from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.data.seeds import load_seeds
from seif_nemo.data.store import load_heldout
from seif_nemo.data.streams import derive_seed
from seif_nemo.evolution.adapters import lora_of, start_adapters
from seif_nemo.evolution.build_engine import build_engine
from seif_nemo.evolution.context import Context
from seif_nemo.evolution.gate import Gate
from seif_nemo.evolution.inputs import check_inputs, input_digests
from seif_nemo.evolution.ledger import Ledger
from seif_nemo.evolution.material import Material, Settings
from seif_nemo.evolution.paths import RunPaths
from seif_nemo.evolution.plan import plan_run
from seif_nemo.evolution.saving import Saver
from seif_nemo.evolution.stopping import StopRequest
from seif_nemo.models.architecture import Architecture, read_architecture
from seif_nemo.models.builder import build_gpt, with_layer_counts
from seif_nemo.models.lora import add_adapters
from seif_nemo.models.precision import check_machine, plan_fp8, probe_machine
from seif_nemo.models.tokenizer import load_tokenizer
from seif_nemo.models.trainable import TrainableModel
from seif_nemo.observability.memory import peak_memory
from seif_nemo.observability.metrics import MetricsWriter, read_metrics
from seif_nemo.observability.progress import Progress
from seif_nemo.observability.timers import Timers
from seif_nemo.parallel.collectives import any_rank
from seif_nemo.parallel.topology import Topology
from seif_nemo.protocols.judging import RemoteJudge
from seif_nemo.protocols.tokenizer import Message, Tokenizer
from seif_nemo.roles.follower import compose_prompt, follower_messages
from seif_nemo.roles.instructor import instructor_messages
from seif_nemo.roles.prompts import FollowerTemplate, follower_template, instructor_template, judger_template
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.records import SeedQuestion
from seif_nemo.types.residents import Resident
from seif_nemo.weights.bank import RoleBank
from seif_nemo.weights.hf import load_hf_weights
from seif_nemo.weights.host_copies import slots_within
from seif_nemo.weights.role_digest import FrozenBase, RoleSums

_DTYPES = {Dtype.float32: torch.float32, Dtype.bfloat16: torch.bfloat16}
_CRITICS = (Resident.INSTRUCTOR_CRITIC, Resident.FOLLOWER_CRITIC)
_GIB = 1 << 30
_TRAINED = (Resident.INSTRUCTOR, Resident.FOLLOWER, *_CRITICS)
_logger = logging.getLogger(__name__)


def build_context(config: Config, topology: Topology, paths: RunPaths, *, attempt: int) -> Context:
    """Load the data and the base model and put the components together. Collective.

    Raises ValueError for data, a model or a layout that do not fit each other.
    """
    settings = make_settings(config)
    check_machine(config.model.precision, config.fp8, probe_machine(topology.device))
    architecture = read_architecture(settings.base_model)
    topology = with_layer_counts(architecture, topology)
    remote_judge = connect_remote_judge(
        config.reward, topology, template=judger_template(config.roles.judger_template), run_seed=config.run.seed
    )
    tokenizer = load_tokenizer(settings.base_model)
    material = replace(load_material(config, tokenizer), digests=input_digests(config))
    ledger = Ledger(paths.ledger, attempt=attempt, writable=topology.is_main)
    check_inputs(material.digests, ledger, config, topology)
    trainable = build_trainable(config, topology, architecture)
    sums = RoleSums(trainable.modules, architecture, topology, settings.lora)
    base = start_adapters(trainable, architecture, topology, settings.lora, sums)
    bank = build_bank(config, trainable, sums)
    engine = build_engine(config, trainable, bank, tokenizer, architecture, topology, base)
    bank.on_change(engine.invalidate_caches)
    actor = Actor(
        trainable,
        engine,
        tokenizer,
        topology,
        config.algorithm,
        architecture,
        micro_batch_tokens=micro_batch_tokens(config),
        max_new_tokens=config.generation.max_new_tokens,
        temperature=config.generation.temperature,
    )
    speaker = Speaker(bank, actor, tokenizer, max_sequence_length=config.model.max_sequence_length)
    reward = build_reward(config, settings, speaker, remote_judge)
    gate = Gate(
        rules=config.evolution.gate,
        judging=config.reward.judging,
        follower_template=material.follower_template,
        fits=lambda instruction: speaker.fits(follower_messages(material.follower_template, instruction)),
        model_filter=lambda instructions, seeds: reward.keep(instructions, seeds=seeds),
    )
    tensorboard_dir = paths.root / "tensorboard" if config.run.tensorboard else None
    checkpoints = build_checkpoints(config.checkpoint, paths, topology, ledger, base)
    metrics = MetricsWriter(paths.metrics, tensorboard_dir=tensorboard_dir) if topology.is_main else None
    return Context(
        settings=settings,
        paths=paths,
        topology=topology,
        architecture=architecture,
        material=material,
        trainable=trainable,
        base=base,
        tokenizer=tokenizer,
        bank=bank,
        actor=actor,
        critic=build_critic(config, trainable, tokenizer, topology, architecture),
        speaker=speaker,
        reward=reward,
        gate=gate,
        ledger=ledger,
        checkpoints=checkpoints,
        saver=Saver(checkpoints, ledger, paths, config.checkpoint),
        metrics=metrics,
        progress=build_progress(settings, material, paths) if topology.is_main else None,
        timers=Timers(memory=peak_memory(topology.device)),
        stop=StopRequest(lambda flag: any_rank(flag, topology)),
    )


def build_checkpoints(
    config: CheckpointConfig, paths: RunPaths, topology: Topology, ledger: Ledger, base: FrozenBase | None
) -> CheckpointStore:
    return CheckpointStore(
        paths.root,
        topology,
        check_fence=ledger.check_fence,
        write_timeout_s=config.write_timeout_s,
        min_free_bytes=int(config.min_free_gib * _GIB),
        base=base,
    )


def make_settings(config: Config) -> Settings:
    return Settings(
        seed=config.run.seed,
        algorithm=config.algorithm,
        generation=config.generation,
        reward=config.reward,
        evolution=config.evolution,
        checkpoint=config.checkpoint,
        base_model=Path(config.model.path),
        lora=lora_of(config.roles),
    )


def micro_batch_tokens(config: Config) -> int:
    return config.algorithm.micro_batch_tokens or config.model.max_sequence_length


def build_critic(
    config: Config, trainable: TrainableModel, tokenizer: Tokenizer, topology: Topology, architecture: Architecture
) -> Critic | None:
    """What values the responses, where the algorithm asks for it."""
    if config.algorithm.advantage is not Advantage.gae:
        return None
    return Critic(
        trainable,
        topology,
        architecture,
        pad_id=tokenizer.pad_id,
        micro_batch_tokens=micro_batch_tokens(config),
        value_clip=config.algorithm.critic.value_clip,
        max_skipped_updates=config.algorithm.max_skipped_updates,
    )


def build_reward(config: Config, settings: Settings, speaker: Speaker, remote_judge: RemoteJudge | None) -> Reward:
    return Reward(
        speaker,
        config=config.reward,
        roles=config.roles,
        answer_sampling=settings.rollout_sampling(),
        run_seed=settings.seed,
        deterministic=config.run.deterministic,
        remote=remote_judge,
    )


def build_bank(config: Config, trainable: TrainableModel, sums: RoleSums) -> RoleBank:
    """A bank of all residents of the run, which all hold what the model holds now."""
    residents, slots = residents_of(config), None
    if config.roles.host_memory_gib is not None and config.roles.spill_dir is not None:
        spill_dir = Path(config.roles.spill_dir)
        if not spill_dir.is_dir():
            raise ValueError(f"roles.spill_dir={spill_dir} is no directory on this node: make it, or name another one")
        slots = slots_within(
            config.roles.host_memory_gib,
            spill_dir,
            weights_gib=sum(buffer.nbytes for buffer in trainable.weight_buffers()) / _GIB,
            moments_gib=sum(buffer.nbytes for buffer in trainable.moment_buffers()) / _GIB,
            residents=len(residents),
            trained=len([resident for resident in residents if resident in _TRAINED]),
        )
    bank = RoleBank(trainable, sums, slots)
    for resident in residents:
        bank.add(resident, trained=resident in _TRAINED)
    return bank


def residents_of(config: Config) -> list[Resident]:
    """Those that this run needs, in the order in which they get their copy of the base model."""
    with_critic = config.algorithm.advantage is Advantage.gae
    return [
        resident
        for resident in Resident
        if (with_critic or resident not in _CRITICS) and (resident is not Resident.BASE or needs_base(config))
    ]


def needs_base(config: Config) -> bool:
    """Whether the base model stays: as the judge of all evaluations or as the reference of a KL term."""
    references = (config.algorithm.instructor.kl_reference, config.algorithm.follower.kl_reference)
    judges = config.reward.judging is Judging.rules_then_model and config.reward.judge_endpoint is None
    return judges or Reference.base in references


def build_trainable(config: Config, topology: Topology, architecture: Architecture) -> TrainableModel:
    """The resident model with the base weights in it, and fresh adapters if roles are adapters."""
    dtype = _DTYPES[config.model.dtype]
    modules = build_gpt(
        architecture,
        topology,
        dtype=dtype,
        max_sequence_length=config.model.max_sequence_length,
        recompute=config.parallel.recompute,
        router_aux_loss_coefficient=config.model.router_aux_loss_coefficient,
        with_value_head=config.algorithm.advantage is Advantage.gae,
        fp8=plan_fp8(config.model.precision, config.fp8),
    )
    if (lora := lora_of(config.roles)) is not None:
        add_adapters(modules, architecture, topology, lora, seed=config.run.seed)
    trainable = TrainableModel(
        modules,
        modules[0].config,
        config.algorithm.follower.optimizer,
        topology,
        offload=config.parallel.optimizer_offload,
    )
    load_hf_weights(trainable.modules, architecture, topology, Path(config.model.path))
    trainable.after_weights_changed()
    return trainable


def load_material(config: Config, tokenizer: Tokenizer) -> Material:
    """Seeds, probe seeds and held-out prompts. What does not fit the model is dropped and counted, never cut.

    Raises ValueError for a file that cannot be read and for one of which nothing fits.
    """
    templates = tuple(instructor_template(name) for name in config.roles.instructor_templates)
    follower = follower_template(config.roles.follower_template)

    def fits(chat: list[Message]) -> bool:
        return len(tokenizer.encode_chat(chat)) < config.model.max_sequence_length

    counts: dict[str, float] = {}

    def log(path: str, name: str, found: dict[str, int]) -> None:
        _logger.info("%s: %s", path, ", ".join(f"{reason} {number}" for reason, number in found.items()))
        counts.update({f"data/{name}/{reason}": float(number) for reason, number in found.items()})

    def read(name: str, path: str, limit: int | None) -> tuple[SeedQuestion, ...]:
        loaded = load_seeds(path, column=config.data.seed_column, max_characters=config.data.max_seed_characters)
        seeds = loaded.seeds if limit is None else loaded.seeds[:limit]
        fitting = tuple(s for s in seeds if all(fits(instructor_messages(t, s.text)) for t in templates))
        if not fitting:
            raise ValueError(
                f"{path}: no seed is short enough for model.max_sequence_length={config.model.max_sequence_length}"
            )
        dropped = loaded.dropped
        found = {
            "used": len(fitting),
            "empty": dropped.empty,
            "duplicate": dropped.duplicate,
            "too many characters": dropped.too_long,
            "too many tokens": len(seeds) - len(fitting),
            "above the limit": len(loaded.seeds) - len(seeds),
        }
        log(path, name, found)
        return fitting

    heldout, num_beyond = read_heldout(config, follower) if config.data.heldout is not None else ([], 0)
    fitting = tuple(instruction for instruction in heldout if fits(follower_messages(follower, instruction)))
    if heldout and not fitting:
        raise ValueError(
            f"{config.data.heldout}: no prompt is short enough for "
            f"model.max_sequence_length={config.model.max_sequence_length}"
        )
    if config.data.heldout is not None:
        dropped = {"too many tokens": len(heldout) - len(fitting), "above the limit": num_beyond}
        log(config.data.heldout, "held-out prompts", {"used": len(fitting), **dropped})
    seeds = read("seeds", config.data.seeds, config.data.max_seeds)
    return Material(
        seeds=seeds,
        probe_seeds=read("probe seeds", config.data.probe_seeds, config.data.max_probe_seeds)
        if config.data.probe_seeds is not None
        else seeds[: config.data.max_probe_seeds],
        heldout=fitting,
        instructor_templates=templates,
        follower_template=follower,
        counts=counts,
    )


def read_heldout(config: Config, template: FollowerTemplate) -> tuple[list[Instruction], int]:
    """(the held-out instructions, worded as the Follower's training prompts are; how many are beyond the limit)."""
    assert config.data.heldout is not None
    instructions: list[Instruction] = []
    rows = load_heldout(config.data.heldout)
    for row in rows[: config.data.max_heldout_prompts]:
        constraints = tuple(parse_constraint(text) for text in row.constraints)
        prompt = compose_prompt(template, row.seed_question, row.constraints)
        instructions.append(Instruction(row.seed_question, constraints, prompt))
    return instructions, len(rows) - len(instructions)


def build_progress(settings: Settings, material: Material, paths: RunPaths) -> Progress:
    progress = Progress(plan_run(settings, material, known={}), sys.stdout)
    progress.resume(read_metrics(paths.metrics))
    return progress


def set_determinism(config: RunConfig) -> None:
    """Deterministic kernels and seeded library generators, as `run.deterministic` asks. Before any CUDA call."""
    torch.manual_seed(derive_seed(config.seed, "torch"))
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when its handle is made
        os.environ.setdefault("NVTE_ALLOW_NONDETERMINISTIC_ALGO", "0")  # Transformer Engine
        os.environ.setdefault("NCCL_ALGO", "Ring")
    torch.use_deterministic_algorithms(config.deterministic)
