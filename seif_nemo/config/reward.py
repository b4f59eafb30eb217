"""Group `reward`: how responses are judged and instructions are gated."""

import math
import re
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit


class Judging(Enum):
    rules = "rules"  # a constraint that no rule covers is refused by the gate
    rules_then_model = "rules_then_model"  # the frozen evaluator judges what no rule covers


class JudgeMode(Enum):
    generate = "generate"  # the judge analyses and then gives its verdict; the last one counts
    logprob = "logprob"  # the judge's probability of yes against no, at the place of the verdict


@dataclass(kw_only=True, slots=True)
class RewardConfig:
    judging: Judging = Judging.rules_then_model
    answers_per_instruction: int = 1  # frozen Follower's answers that an Instructor's reward averages over
    model_filter: bool = True  # ask the frozen evaluator whether constraints contradict, after the rules
    required_format: str = ""  # regular expression that a whole response must match, else its reward is 0

    overlap_workers: int = 8  # threads that judge responses while others are still generated; 0: judge after all are

    judge_mode: JudgeMode = JudgeMode.generate
    judge_max_new_tokens: int = 1024
    judge_margin: float = 0.1  # logprob: a probability closer than this to one half is no verdict
    judge_cache_entries: int = 100_000  # verdicts kept for questions that come again; 0: none
    max_missing_share: float = 0.2  # of the questions of a call that may go without a verdict; above, the run stops
    min_questions_for_budget: int = 20  # a call with fewer questions never stops the run
    meter_questions: int = 16  # rule-checkable questions per training step that the judge gets too; 0: none

    judge_endpoint: str | None = None  # OpenAI-compatible, such as http://node:8000/v1; null: the frozen evaluator
    judge_model: str | None = None  # its name at the endpoint
    judge_key_variable: str | None = None  # the environment variable that holds the endpoint's key
    judge_timeout_s: float = 120.0  # for one answer
    judge_concurrency: int = 32  # questions under way at the endpoint
    judge_attempts: int = 4  # per question, if the endpoint fails
    judge_first_delay_s: float = 1.0  # before the second attempt; doubles with each, up to
    judge_max_delay_s: float = 30.0
    judge_max_failures: int = 4  # questions in a row that the endpoint fails; then one is tried before others are asked
    judge_pause_s: float = 0.0  # after so many failures no question is asked for as long

    def __post_init__(self) -> None:
        self._check_judge()
        self._check_endpoint()
        if self.answers_per_instruction < 1:
            raise ValueError(f"reward.answers_per_instruction={self.answers_per_instruction} must be at least 1")
        if self.overlap_workers < 0:
            raise ValueError(f"reward.overlap_workers={self.overlap_workers} must be 0 (off) or positive")
        try:
            re.compile(self.required_format)
        except re.error as error:
            raise ValueError(
                f"reward.required_format={self.required_format!r} is no regular expression: {error}"
            ) from error

    def _check_judge(self) -> None:
        if self.judge_max_new_tokens < 1:
            raise ValueError(f"reward.judge_max_new_tokens={self.judge_max_new_tokens} must be at least 1")
        if not 0 <= self.judge_margin < 0.5:
            raise ValueError(f"reward.judge_margin={self.judge_margin} must be in [0, 0.5)")
        if self.judge_cache_entries < 0:
            raise ValueError(f"reward.judge_cache_entries={self.judge_cache_entries} must be 0 (none) or positive")
        if not 0 <= self.max_missing_share <= 1:
            raise ValueError(f"reward.max_missing_share={self.max_missing_share} must be in [0, 1]")
        if self.min_questions_for_budget < 1:
            raise ValueError(f"reward.min_questions_for_budget={self.min_questions_for_budget} must be at least 1")
        if self.meter_questions < 0:
            raise ValueError(f"reward.meter_questions={self.meter_questions} must be 0 (none) or positive")

    def _check_endpoint(self) -> None:
        named = {"judge_model": self.judge_model, "judge_key_variable": self.judge_key_variable}
        for name, value in named.items():
            if self.judge_endpoint is None and value is not None:
                raise ValueError(f"reward.{name}={value} has no effect without reward.judge_endpoint")
        if self.judge_endpoint is not None:
            self._check_address(self.judge_endpoint)
        if not 0 < self.judge_timeout_s < math.inf:
            raise ValueError(f"reward.judge_timeout_s={self.judge_timeout_s} must be positive")
        if self.judge_concurrency < 1:
            raise ValueError(f"reward.judge_concurrency={self.judge_concurrency} must be at least 1")
        if self.judge_attempts < 1:
            raise ValueError(f"reward.judge_attempts={self.judge_attempts} must be at least 1")
        if not 0 <= self.judge_first_delay_s < math.inf:
            raise ValueError(f"reward.judge_first_delay_s={self.judge_first_delay_s} must be 0 or positive")
        if not 0 <= self.judge_max_delay_s < math.inf:
            raise ValueError(f"reward.judge_max_delay_s={self.judge_max_delay_s} must be 0 or positive")
        if self.judge_max_failures < 1:
            raise ValueError(f"reward.judge_max_failures={self.judge_max_failures} must be at least 1")
        if not 0 <= self.judge_pause_s < math.inf:
            raise ValueError(f"reward.judge_pause_s={self.judge_pause_s} must be 0 or positive")

    def _check_address(self, endpoint: str) -> None:
        if "@" in endpoint:  # not shown: it may hold a password
            raise ValueError(
                "reward.judge_endpoint holds a user name: give the key by reward.judge_key_variable "
                "(and write an @ of the path as %40)"
            )
        if not (endpoint.isascii() and endpoint.isprintable()) or " " in endpoint:
            raise ValueError(
                f"reward.judge_endpoint={endpoint!r} must be printable ASCII without spaces; write others as in %C3%BC"
            )
        try:
            address = urlsplit(endpoint)
            fits = address.scheme in ("http", "https") and address.hostname and address.port != 0
        except ValueError:  # brackets that do not match, a port that is none
            fits = False
        if not fits or "?" in endpoint or "#" in endpoint:
            raise ValueError(f"reward.judge_endpoint={endpoint} must look like http://node:8000/v1")
        if self.judging is Judging.rules:
            raise ValueError(f"reward.judge_endpoint={endpoint} has no effect with reward.judging=rules")
        if not self.judge_model:
            raise ValueError(f"reward.judge_endpoint={endpoint} needs reward.judge_model, the model's name there")

    def accepts_format(self, text: str) -> bool:
        """Whether a response has the required format (always, if none is required)."""
        return not self.required_format or re.fullmatch(self.required_format, text, re.DOTALL) is not None
