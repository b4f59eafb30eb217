"""A judge behind an OpenAI-compatible endpoint: the main rank asks, all ranks get the verdicts."""

import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from seif_nemo.components.main_rank import on_main_rank
from seif_nemo.components.retrying import Backoff, with_retries
from seif_nemo.config.reward import JudgeMode, RewardConfig
from seif_nemo.generation.openai_client import Completion, OpenAIClient, TokenAlternatives
from seif_nemo.parallel.topology import Topology
from seif_nemo.protocols.judging import JudgeUnavailableError
from seif_nemo.protocols.tokenizer import Message
from seif_nemo.roles.judger import (
    NO,
    WORDS,
    YES,
    judge_probability,
    judger_messages,
    model_missing,
    parse_judgement,
    question_seed,
)
from seif_nemo.roles.prompts import JudgerTemplate, secret_code
from seif_nemo.roles.verdict_text import find_last_verdict
from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Verdict, Why

_TOP_LOGPROBS = 20  # what endpoints give at most
_VERDICT_TOKENS = 64  # for a verdict alone: brackets, eight hexadecimal digits, a word


class RemoteJudge:
    """See `protocols/judging.py`, but for one process: `OnMainRank` makes it collective.

    Questions are asked `judge_concurrency` at a time, each up to `judge_attempts` times. Once more of them have failed
    than a run may miss, the rest is not asked: an endpoint that is down shall not cost hours of time-outs.
    """

    def __init__(
        self,
        client: OpenAIClient,
        *,
        config: RewardConfig,
        template: JudgerTemplate,
        run_seed: int,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._config = config
        self._template = template
        self._run_seed = run_seed
        self._sleep = sleep
        self._backoff = Backoff(config.judge_attempts, config.judge_first_delay_s, config.judge_max_delay_s)

    @property
    def name(self) -> str:
        return _name(self._config)

    @property
    def identity(self) -> str:
        return _identity(self._config, self._template)

    def __call__(self, questions: Sequence[Question]) -> list[Verdict]:
        budget = _FailureBudget(self._config, len(questions))
        with ThreadPoolExecutor(self._config.judge_concurrency, thread_name_prefix="judge") as pool:
            return list(pool.map(lambda question: self._judge(question, budget), questions))

    def probe(self) -> None:
        """Ask a small question. Raises ValueError, naming the key to change, for an endpoint that is of no use."""
        question = Question("Name a colour.", "Name one colour only.", "Blue.")
        place = f"reward.judge_endpoint={self._config.judge_endpoint}"
        try:
            completion = self._ask_patiently(question, seed=question_seed(self._run_seed, question))
        except JudgeUnavailableError as error:
            raise ValueError(
                f"{place} gives no answer as reward.judge_model={self._config.judge_model}: {error}"
            ) from error
        if self._config.judge_mode is JudgeMode.logprob and not completion.tokens:
            raise ValueError(f"{place} gives no log-probs, which reward.judge_mode=logprob needs; use generate")

    def _judge(self, question: Question, budget: "_FailureBudget") -> Verdict:
        if budget.is_spent:
            return model_missing(Why.UNAVAILABLE, f"not asked: {budget.last_error}")
        seed = question_seed(self._run_seed, question)
        try:
            completion = self._ask_patiently(question, seed=seed)
        except JudgeUnavailableError as error:
            budget.spend(str(error))
            return model_missing(Why.UNAVAILABLE, str(error))
        if not completion.finished:
            return model_missing(Why.UNPARSABLE, "did not finish its answer")
        if self._config.judge_mode is JudgeMode.generate:
            return parse_judgement(completion.text, seed=seed)
        probability = word_probability(completion.tokens or (), code=secret_code(seed))
        if probability is None:
            return model_missing(Why.UNPARSABLE, f"no verdict with probabilities: {completion.text.strip()[-100:]}")
        return judge_probability(probability, margin=self._config.judge_margin)

    def _ask_patiently(self, question: Question, *, seed: int) -> Completion:
        return with_retries(lambda: self._ask(question, seed=seed), self._backoff, sleep=self._sleep)

    def _ask(self, question: Question, *, seed: int) -> Completion:
        direct = self._config.judge_mode is JudgeMode.logprob
        chat: list[Message] = judger_messages(self._template, question, seed=seed, direct=direct)
        if direct:
            return self._client.complete(chat, seed=seed, max_new_tokens=_VERDICT_TOKENS, top_logprobs=_TOP_LOGPROBS)
        return self._client.complete(chat, seed=seed, max_new_tokens=self._config.judge_max_new_tokens)


class _FailureBudget:
    """How many more questions of a call may fail before the rest is not asked."""

    def __init__(self, config: RewardConfig, num_questions: int) -> None:
        counts = num_questions >= config.min_questions_for_budget
        self._left = math.floor(config.max_missing_share * num_questions) + 1 if counts else num_questions
        self._lock = threading.Lock()
        self.last_error = ""

    @property
    def is_spent(self) -> bool:
        return self._left <= 0

    def spend(self, error: str) -> None:
        with self._lock:
            self._left -= 1
            self.last_error = error


def word_probability(tokens: Sequence[TokenAlternatives], *, code: str) -> float | None:
    """P(yes) / (P(yes) + P(no)) where the last verdict's word begins; None without a verdict.

    A token counts for a word if it is a beginning of it, spaces and case aside. What is not among the likeliest tokens
    counts as 0.
    """
    text = "".join(token.text for token in tokens)
    found = find_last_verdict(text, code=code, words=WORDS)
    if found is None:
        return None
    start = 0
    for token in tokens:
        if found.start < start + len(token.text):
            return _share(token.logprobs)
        start += len(token.text)
    return None


def _share(logprobs: Sequence[tuple[str, float]]) -> float | None:
    mass = {
        word: math.fsum(
            math.exp(min(logprob, 0.0))
            for text, logprob in logprobs
            if text.strip() and word.startswith(text.strip().lower())
        )
        for word in WORDS
    }
    total = mass[YES] + mass[NO]
    return mass[YES] / total if total > 0 else None


class OnMainRank:
    """The judge of the main rank, asked by all ranks together; `judge` is None on the others."""

    def __init__(self, judge: RemoteJudge | None, topology: Topology, *, name: str, identity: str) -> None:
        assert (judge is not None) == topology.is_main
        self._judge = judge
        self._topology = topology
        self._name = name
        self._identity = identity

    @property
    def name(self) -> str:
        return self._name

    @property
    def identity(self) -> str:
        return self._identity

    def __call__(self, questions: Sequence[Question]) -> list[Verdict]:
        return on_main_rank(lambda: _present(self._judge)(questions), self._topology)


def make_remote_judge(
    config: RewardConfig, *, template: JudgerTemplate, run_seed: int, environment: Mapping[str, str] = os.environ
) -> RemoteJudge:
    """The judge at `reward.judge_endpoint`, for one process. Raises ValueError if its key is not in the environment."""
    assert config.judge_endpoint is not None and config.judge_model is not None
    key: str | None = None
    if config.judge_key_variable is not None:
        key = environment.get(config.judge_key_variable)
        if not key:
            raise ValueError(f"reward.judge_key_variable={config.judge_key_variable}: no such environment variable")
    client = OpenAIClient(
        endpoint=config.judge_endpoint, model=config.judge_model, key=key, timeout_s=config.judge_timeout_s
    )
    return RemoteJudge(client, config=config, template=template, run_seed=run_seed)


def connect_remote_judge(
    config: RewardConfig, topology: Topology, *, template: JudgerTemplate, run_seed: int
) -> OnMainRank | None:
    """The judge at `reward.judge_endpoint`, tried out; None without one. Collective.

    Raises ValueError, the same on every rank, for a key that is missing on the main rank or an endpoint of no use.
    """
    if config.judge_endpoint is None:
        return None
    made: list[RemoteJudge] = []  # on the main rank

    def try_out() -> str | None:
        try:
            made.append(make_remote_judge(config, template=template, run_seed=run_seed))
            made[0].probe()
        except ValueError as error:
            return str(error)
        return None

    problem = on_main_rank(try_out, topology)
    if problem is not None:
        raise ValueError(problem)
    return OnMainRank(made[0] if made else None, topology, name=_name(config), identity=_identity(config, template))


def _name(config: RewardConfig) -> str:
    return f"the judge {config.judge_model} at {config.judge_endpoint}"


def _identity(config: RewardConfig, template: JudgerTemplate) -> str:
    return f"{config.judge_endpoint} {config.judge_model} {template.name} {config.judge_mode.value}"


def _present(judge: RemoteJudge | None) -> RemoteJudge:
    assert judge is not None
    return judge
