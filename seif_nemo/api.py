"""Verdicts as a library, and as a reward function of other trainers. Importing it loads no torch.

What a response should satisfy is said as in a row of `python -m seif_nemo judge`: by one of `constraints` (texts),
`instruction_id_list` with `kwargs` (IFEval's), and `specs`; `seed_question` and `prompt` are optional.

A verdict that nobody could give is missing. It never becomes a number by itself: TRL gets None; verl and NeMo-RL have
no word for it, so there it is an error unless the caller chose a number for it. Without a model, whether a verdict can
be missing depends on the constraint alone: `undecided` finds such constraints before training.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any, cast

from seif_nemo.config.reward import JudgeMode, RewardConfig
from seif_nemo.config.roles import RolesConfig
from seif_nemo.judging.endpoint import make_endpoint_judge
from seif_nemo.judging.rulings import is_undecided, judge_tasks
from seif_nemo.judging.tasks import (
    CONSTRAINTS,
    DEMANDS,
    IDS,
    KWARGS,
    PROMPT,
    RESPONSE,
    SEED,
    SPECS,
    Task,
    kind_of,
    parse_object,
    read_demands,
    read_task,
    shorten,
)
from seif_nemo.protocols.judging import JudgeUnavailableError
from seif_nemo.roles.judger import AskQuestions
from seif_nemo.roles.prompts import judger_template
from seif_nemo.types.verdicts import Outcome, Score

__all__ = [
    "MissingVerdictError",
    "compute_score",
    "endpoint_judge",
    "follow_rate",
    "judge_response",
    "judge_rows",
    "make_trl_reward",
    "nemo_rl_rewards",
    "trl_reward",
    "undecided",
]

_PAUSE_S = 30.0  # for which an endpoint that is down is left alone
_ROW_KEYS = (*DEMANDS, KWARGS, SEED, PROMPT)


class MissingVerdictError(RuntimeError):
    """A reward was asked for and a verdict is missing."""


def judge_rows(
    rows: Sequence[Mapping[str, object]], *, ask: AskQuestions | None = None, loose: bool = False
) -> list[Score]:
    """One Score per row; a row is what one line of the command's input holds. All questions go to `ask` in one call.

    Without `ask`, what no rule covers is missing. `loose` is IFEval's loose criterion, for instruction ids and
    specs; texts in `constraints` are always judged strictly. Raises ValueError that names the row and the key for a row
    that cannot be read.
    """
    return judge_tasks([_read(index, row) for index, row in enumerate(rows)], ask=ask, loose=loose)


def judge_response(
    response: str,
    *,
    constraints: Sequence[str | Mapping[str, object]] | None = None,
    instruction_id_list: Sequence[str] | None = None,
    kwargs: Sequence[Mapping[str, object] | None] | None = None,
    specs: Sequence[str | Mapping[str, object]] | None = None,
    seed_question: str | None = None,
    prompt: str | None = None,
    ask: AskQuestions | None = None,
    loose: bool = False,
) -> Score:
    """The verdicts on one response, one per constraint, id or spec; `.follow_rate` is None if one is missing."""
    given = (constraints, instruction_id_list, kwargs, specs, seed_question, prompt)
    row = dict(zip((CONSTRAINTS, IDS, KWARGS, SPECS, SEED, PROMPT), given, strict=True))
    return judge_tasks([read_task(_plain_row({RESPONSE: response, **row}))], ask=ask, loose=loose)[0]


def follow_rate(response: str, **demands: Any) -> float | None:
    """The share of passed verdicts, or None if one is missing. Arguments are those of `judge_response`."""
    return judge_response(response, **demands).follow_rate


def undecided(row: Mapping[str, object]) -> list[int]:
    """The positions of a row's constraints on which rules alone may give no verdict. `response` may be left out."""
    return [index for index, demand in enumerate(read_demands(_plain_row(row))) if is_undecided(demand)]


def endpoint_judge(
    endpoint: str, model: str, *, key_variable: str | None = None, mode: str = "generate", try_out: bool = True
) -> AskQuestions:
    """A model behind an OpenAI-compatible endpoint (http://node:8000/v1), as the `ask` of the functions here.

    `key_variable` names the environment variable that holds its key; `mode` is a `JudgeMode`. Questions that get no
    answer are missing; while the endpoint is down, all are for half a minute at a time. An interrupt ends a call at
    once. Raises ValueError for arguments that do not fit and, if it is tried out, JudgeUnavailableError for an endpoint
    of no use.
    """
    modes = [member.value for member in JudgeMode]
    if mode not in modes:
        raise ValueError(f"mode={mode!r} must be one of {modes}")
    config = RewardConfig(
        judge_endpoint=endpoint,
        judge_model=model,
        judge_key_variable=key_variable,
        judge_mode=JudgeMode(mode),
        judge_pause_s=_PAUSE_S,
    )
    judge = make_endpoint_judge(config, template=judger_template(RolesConfig().judger_template), run_seed=0)
    if try_out:
        try:
            judge.probe()
        except ValueError as error:
            raise JudgeUnavailableError(str(error)) from error
    return judge


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | Mapping[str, object],
    extra_info: Mapping[str, object] | None = None,
    *,
    missing_score: float | None = None,
    ask: AskQuestions | None = None,
    loose: bool = False,
    reward_model: object = None,
    reward_router_address: object = None,
    reward_model_tokenizer: object = None,
) -> dict[str, float]:
    """verl's custom reward function: {"score", "missing", "passed", "failed"}, of which verl trains on "score".

    `ground_truth` is a row without `response`, as JSON or as an object. `extra_info` and the arguments of a reward
    model are verl's and are not used. verl turns scores into a float tensor and averages them over a group, so that a
    NaN would spread to all of it: a missing verdict raises MissingVerdictError, unless `missing_score` (set through
    verl's `custom_reward_function.reward_kwargs`) says what it is worth. That may be neither 0 nor 1: those say failed
    and passed. "missing" then counts them in verl's metrics.

    Sources: docs/preparation/reward_function.rst, verl/trainer/ppo/reward.py (get_custom_reward_fn) and
    verl/experimental/reward_loop/reward_manager/naive.py of github.com/verl-project/verl.
    """
    _check_replacement("missing_score", missing_score)
    try:
        fields = parse_object(ground_truth) if isinstance(ground_truth, str) else ground_truth
        row = {**_without_response(fields), RESPONSE: solution_str}
    except ValueError as error:
        raise ValueError(f"ground_truth: {error}") from error
    task = read_task(_plain_row(row))
    score = judge_tasks([task], ask=ask, loose=loose)[0]
    counts = {outcome: sum(v.outcome is outcome for v in score.verdicts) for outcome in Outcome}
    return {
        "score": _number(score, missing_score, "missing_score"),
        "missing": float(counts[Outcome.MISSING]),
        "passed": float(counts[Outcome.PASSED]),
        "failed": float(counts[Outcome.FAILED]),
    }


TrlReward = Callable[..., list[float | None]]


def make_trl_reward(*, ask: AskQuestions | None = None, loose: bool = False) -> TrlReward:
    """A reward function for TRL's GRPOTrainer and RLOOTrainer that may ask a model."""

    def follow_rate_reward(
        prompts: Sequence[object], completions: Sequence[object], **columns: object
    ) -> list[float | None]:
        """The follow rate of each completion; None, which TRL leaves out of the group, where a verdict is missing.

        The data set's columns say what to satisfy, by the names of a row's keys; other columns are ignored. Prompts and
        completions may be texts or lists of messages. Raises ValueError that names the row for one it cannot read.

        Sources: docs/source/grpo_trainer.md ("Using a custom reward function") and _calculate_rewards in
        trl/trainer/grpo_trainer.py of github.com/huggingface/trl; since pull request 5902 a None is no part of the
        group's mean.
        """
        given = {key: cast(Sequence[object], columns[key]) for key in _ROW_KEYS if key in columns and key != PROMPT}
        for key, values in {"prompts": prompts, **given}.items():
            if len(values) != len(completions):
                raise ValueError(f"{key!r} has {len(values)} entries but 'completions' has {len(completions)}")
        rows: list[dict[str, object]] = []
        for index, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            with _row(index):
                rows.append({RESPONSE: _said(completion, role="assistant"), PROMPT: _said(prompt, role="user")})
        for index, row in enumerate(rows):
            row.update({key: values[index] for key, values in given.items()})
        return [score.follow_rate for score in judge_rows(rows, ask=ask, loose=loose)]

    return follow_rate_reward


trl_reward = make_trl_reward()


def nemo_rl_rewards(
    message_log_batch: Sequence[Sequence[Mapping[str, object]]],
    metadata: Sequence[Mapping[str, object]],
    *,
    missing_reward: float | None = None,
    ask: AskQuestions | None = None,
    loose: bool = False,
) -> list[float]:
    """The rewards of a step of a NeMo-RL environment, one per conversation; docs/judging.md has the environment.

    Judged is the last message of the assistant. An entry of `metadata` (the sample's `extra_env_info`) is a row
    without `response`. NeMo-RL's rewards are a float tensor, so a missing verdict raises MissingVerdictError unless
    `missing_reward`, neither 0 nor 1, says what it is worth.

    Source: EnvironmentInterface.step and EnvironmentReturn in nemo_rl/environments/interfaces.py of
    github.com/NVIDIA-NeMo/RL.
    """
    _check_replacement("missing_reward", missing_reward)
    if len(message_log_batch) != len(metadata):
        raise ValueError(f"'metadata' has {len(metadata)} entries but 'message_log_batch' has {len(message_log_batch)}")
    rows: list[dict[str, object]] = []
    for index, (log, fields) in enumerate(zip(message_log_batch, metadata, strict=True)):
        with _row(index):
            rows.append({**_without_response(fields), RESPONSE: _said(log, role="assistant")})
    scores = judge_rows(rows, ask=ask, loose=loose)
    return [_number(score, missing_reward, "missing_reward") for score in scores]


def _read(index: int, row: Mapping[str, object]) -> Task:
    with _row(index):
        return read_task(_plain_row(row))


@contextmanager
def _row(index: int) -> Generator[None, None, None]:
    """A ValueError of the block names the row."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"row {index}: {shorten(str(error))}") from error


def _plain_row(row: Mapping[str, object]) -> dict[str, object]:
    try:
        return {str(key): _plain(value) for key, value in _object(row).items()}
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(row: object) -> Mapping[str, object]:
    if not isinstance(row, Mapping):
        raise ValueError(f"not an object but {kind_of(row)}")
    return cast(Mapping[str, object], row)


def _plain(value: object) -> object:
    """The value as JSON has it: arrays of data frames become lists."""
    if isinstance(value, str | None):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in cast(Mapping[object, object], value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast(Sequence[object], value)]
    to_list = getattr(value, "tolist", None)
    return _plain(to_list()) if callable(to_list) else value


def _without_response(fields: object) -> Mapping[str, object]:
    if RESPONSE in _object(fields):
        raise ValueError(f"{RESPONSE!r} is given twice: by the trainer and by the data set")
    return _object(fields)


def _said(turn: object, *, role: str) -> object:
    """The text of a turn that may be a list of messages: of the last one of this role, None if there is none."""
    if not isinstance(turn, list | tuple):
        return turn
    for message in reversed(cast(Sequence[object], turn)):
        if not isinstance(message, Mapping):
            raise ValueError(f"a message must be an object with 'role' and 'content', not {kind_of(message)}")
        fields = cast(Mapping[str, object], message)
        if fields.get("role") == role:
            return _content(fields.get("content"))
    return None


def _content(content: object) -> object:
    """Text of a message; parts that are no text are left out."""
    if not isinstance(content, list | tuple):
        return "" if content is None else content
    parts = [cast(Mapping[str, object], part) for part in cast(Sequence[object], content) if isinstance(part, Mapping)]
    return "".join(str(part.get("text", "")) for part in parts if part.get("type") == "text")


def _check_replacement(name: str, value: float | None) -> None:
    is_worth = isinstance(value, Real) and value not in (0, 1) and math.isfinite(value)
    if value is not None and not is_worth:
        raise ValueError(f"{name}={value!r} must be a finite number other than 0 and 1, which say failed and passed")


def _number(score: Score, replacement: float | None, name: str) -> float:
    if score.follow_rate is not None:
        return score.follow_rate
    if replacement is not None:
        return float(replacement)
    missing = [f"{n}: {v.evidence}" for n, v in enumerate(score.verdicts) if v.outcome is Outcome.MISSING]
    raise MissingVerdictError(
        f"no verdict on constraint {shorten('; '.join(missing))}. Find such rows with seif_nemo.api.undecided and "
        f"leave them out, or set {name} to what they are worth"
    )
