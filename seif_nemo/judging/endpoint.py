"""A judge behind an OpenAI-compatible endpoint, asked by one process. `components/remote_judge.py` has it for ranks."""

import math
import os
import threading
from collections.abc import Callable, Mapping, Sequence

from seif_nemo.config.reward import JudgeMode, RewardConfig
from seif_nemo.generation.openai_client import Completion, OpenAIClient, TokenAlternatives
from seif_nemo.judging.asking import side_by_side
from seif_nemo.judging.outage import FailureBudget, Outage
from seif_nemo.judging.retrying import Backoff, with_retries
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


class EndpointJudge:
    """See `protocols/judging.py`, but for one process.

    Questions are asked `judge_concurrency` at a time, each up to `judge_attempts` times. Once more of them have failed
    than a run may miss, the rest of the call is not asked: an endpoint that is down shall not cost hours of time-outs.
    After `judge_max_failures` questions in a row without an answer, of whichever calls, a call first tries one of them,
    and within `judge_pause_s` seconds none at all.

    An interrupt ends a call at once. Requests under way are left behind. Calls are made by one thread; `ask_ahead` may
    be by others before, not during a call.
    """

    def __init__(
        self,
        client: OpenAIClient,
        *,
        config: RewardConfig,
        template: JudgerTemplate,
        run_seed: int,
        outage: Outage | None = None,
        sleep: Callable[[threading.Event, float], object] = threading.Event.wait,
    ) -> None:
        self._client = client
        self._config = config
        self._template = template
        self._run_seed = run_seed
        self._outage = outage or Outage(limit=config.judge_max_failures, pause_s=config.judge_pause_s)
        self._sleep = sleep
        self._backoff = Backoff(config.judge_attempts, config.judge_first_delay_s, config.judge_max_delay_s)
        self._ahead: dict[Question, Verdict | None] = {}  # asked before the next call; None: no answer yet
        self._ahead_failed = False
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        return judge_name(self._config)

    @property
    def identity(self) -> str:
        return judge_identity(self._config, self._template)

    def ask_ahead(self, question: Question) -> None:
        """Ask before the next call, which finds the verdict. Once only, and not if the last one got no answer.

        The patience and the counting of failures are the call's.
        """
        with self._lock:
            if self._ahead_failed or self._outage.is_on or question in self._ahead:
                return
            self._ahead[question] = None
        seed = question_seed(self._run_seed, question)
        try:
            completion = self._ask(question, seed=seed)
        except JudgeUnavailableError:
            self._ahead_failed = True
            return
        self._outage.answered()
        self._ahead[question] = self._verdict(completion, seed=seed)

    def __call__(self, questions: Sequence[Question]) -> list[Verdict]:
        ahead, self._ahead, self._ahead_failed = self._ahead, {}, False
        if self._outage.is_pausing:
            return self._not_asked(len(questions))
        stop = threading.Event()
        budget = FailureBudget(
            num_questions=len(questions),
            max_missing_share=self._config.max_missing_share,
            min_questions=self._config.min_questions_for_budget,
        )
        num_trials = 1 if self._outage.is_on else 0

        def judge(question: Question) -> Verdict:
            return ahead.get(question) or self._judge(question, budget, stop)

        tried = side_by_side(judge, questions[:num_trials], workers=1, stop=stop)
        if self._outage.is_on:
            return tried + self._not_asked(len(questions) - len(tried))
        return tried + side_by_side(judge, questions[num_trials:], workers=self._config.judge_concurrency, stop=stop)

    def probe(self) -> None:
        """Ask a small question. Raises ValueError, naming the key to change, for an endpoint that is of no use."""
        question = Question("Name a colour.", "Name one colour only.", "Blue.")
        seed = question_seed(self._run_seed, question)
        stop = threading.Event()
        place = f"reward.judge_endpoint={self._config.judge_endpoint}"
        try:  # on a thread, so that an interrupt need not wait for the network
            (completion,) = side_by_side(
                lambda each: self._ask_patiently(each, seed=seed, stop=stop), [question], workers=1, stop=stop
            )
        except JudgeUnavailableError as error:
            raise ValueError(
                f"{place} gives no answer as reward.judge_model={self._config.judge_model}: {error}"
            ) from error
        if self._config.judge_mode is JudgeMode.logprob and not completion.tokens:
            raise ValueError(f"{place} gives no log-probs, which reward.judge_mode=logprob needs; use generate")

    def _not_asked(self, count: int) -> list[Verdict]:
        return [model_missing(Why.UNAVAILABLE, f"not asked: {self._outage.last_error}")] * count

    def _judge(self, question: Question, budget: FailureBudget, stop: threading.Event) -> Verdict:
        if budget.is_spent:
            return model_missing(Why.UNAVAILABLE, f"not asked: {budget.last_error}")
        seed = question_seed(self._run_seed, question)
        try:
            completion = self._ask_patiently(question, seed=seed, stop=stop)
        except JudgeUnavailableError as error:
            budget.spend(str(error))
            if error.retryable:
                self._outage.failed(str(error))
            else:  # it did answer, with a refusal of this question
                self._outage.answered()
            return model_missing(Why.UNAVAILABLE, str(error))
        self._outage.answered()
        return self._verdict(completion, seed=seed)

    def _verdict(self, completion: Completion, *, seed: int) -> Verdict:
        if not completion.finished:
            return model_missing(Why.UNPARSABLE, "did not finish its answer")
        if self._config.judge_mode is JudgeMode.generate:
            return parse_judgement(completion.text, seed=seed)
        probability = word_probability(completion.tokens or (), code=secret_code(seed))
        if probability is None:
            return model_missing(Why.UNPARSABLE, f"no verdict with probabilities: {completion.text.strip()[-100:]}")
        return judge_probability(probability, margin=self._config.judge_margin)

    def _ask_patiently(self, question: Question, *, seed: int, stop: threading.Event) -> Completion:
        def ask() -> Completion:
            if stop.is_set():
                raise JudgeUnavailableError("stopped", retryable=False)
            return self._ask(question, seed=seed)

        return with_retries(ask, self._backoff, sleep=lambda seconds: self._sleep(stop, seconds))

    def _ask(self, question: Question, *, seed: int) -> Completion:
        direct = self._config.judge_mode is JudgeMode.logprob
        chat: list[Message] = judger_messages(self._template, question, seed=seed, direct=direct)
        if direct:
            return self._client.complete(chat, seed=seed, max_new_tokens=_VERDICT_TOKENS, top_logprobs=_TOP_LOGPROBS)
        return self._client.complete(chat, seed=seed, max_new_tokens=self._config.judge_max_new_tokens)


def word_probability(tokens: Sequence[TokenAlternatives], *, code: str) -> float | None:
    """P(yes) / (P(yes) + P(no)) where the last verdict's word begins; None without a verdict.

    A token counts for a word if it is a beginning of it, or begins with it and goes on with no letter ("yes]]"); spaces
    and case aside. What is not among the likeliest tokens counts as 0. None too if the token that was chosen there
    counts for neither word: then its place does not say what the judge said.
    """
    text = "".join(token.text for token in tokens)
    found = find_last_verdict(text, code=code, words=WORDS)
    if found is None:
        return None
    start = 0
    for token in tokens:
        if found.start < start + len(token.text):
            return _share(token.logprobs) if any(_counts_for(token.text, word) for word in WORDS) else None
        start += len(token.text)
    return None


def _share(logprobs: Sequence[tuple[str, float]]) -> float | None:
    mass = {
        word: math.fsum(math.exp(min(logprob, 0.0)) for text, logprob in logprobs if _counts_for(text, word))
        for word in WORDS
    }
    total = mass[YES] + mass[NO]
    return mass[YES] / total if total > 0 else None


def _counts_for(token: str, word: str) -> bool:
    text = token.strip().lower()
    if text.startswith(word):
        return not text[len(word) :][:1].isalpha()
    return bool(text) and word.startswith(text)


def make_endpoint_judge(
    config: RewardConfig, *, template: JudgerTemplate, run_seed: int, environment: Mapping[str, str] = os.environ
) -> EndpointJudge:
    """The judge at `reward.judge_endpoint`.

    Raises ValueError, which names the variable, if its key is not in the environment or can be no key.
    """
    assert config.judge_endpoint is not None and config.judge_model is not None
    key: str | None = None
    if config.judge_key_variable is not None:
        place = f"reward.judge_key_variable={config.judge_key_variable}"
        key = environment.get(config.judge_key_variable)
        if not key:
            raise ValueError(f"{place}: no such environment variable")
        if not (key.isascii() and key.isprintable()):  # the key itself is never shown
            raise ValueError(f"{place}: what it holds must be printable ASCII, without a line's end")
    client = OpenAIClient(
        endpoint=config.judge_endpoint, model=config.judge_model, key=key, timeout_s=config.judge_timeout_s
    )
    return EndpointJudge(client, config=config, template=template, run_seed=run_seed)


def judge_name(config: RewardConfig) -> str:
    """For people: which judge this is."""
    return f"the judge {config.judge_model} at {config.judge_endpoint}"


def judge_identity(config: RewardConfig, template: JudgerTemplate) -> str:
    """All that its verdicts depend on besides the question."""
    return f"{config.judge_endpoint} {config.judge_model} {template.name} {config.judge_mode.value}"
