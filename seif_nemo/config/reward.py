"""Group `reward`: how responses are judged and instructions are gated."""

import re
from dataclasses import dataclass
from enum import Enum


class Judging(Enum):
    rules = "rules"  # a constraint that no rule covers is refused by the gate
    rules_then_model = "rules_then_model"  # the frozen evaluator judges what no rule covers


@dataclass(kw_only=True, slots=True)
class RewardConfig:
    judging: Judging = Judging.rules_then_model
    answers_per_instruction: int = 1  # frozen Follower's answers that an Instructor's reward averages over
    model_filter: bool = True  # ask the frozen evaluator whether constraints contradict, after the rules
    judge_max_new_tokens: int = 1024
    required_format: str = ""  # regular expression that a whole response must match, else its reward is 0

    def __post_init__(self) -> None:
        if self.answers_per_instruction < 1:
            raise ValueError(f"reward.answers_per_instruction={self.answers_per_instruction} must be at least 1")
        if self.judge_max_new_tokens < 1:
            raise ValueError(f"reward.judge_max_new_tokens={self.judge_max_new_tokens} must be at least 1")
        try:
            re.compile(self.required_format)
        except re.error as error:
            raise ValueError(
                f"reward.required_format={self.required_format!r} is no regular expression: {error}"
            ) from error

    def accepts_format(self, text: str) -> bool:
        """Whether a response has the required format (always, if none is required)."""
        return not self.required_format or re.fullmatch(self.required_format, text, re.DOTALL) is not None
