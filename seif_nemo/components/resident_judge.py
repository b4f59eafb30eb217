"""A resident's weights as a judge, by what it writes or by its probabilities."""

import math
from collections.abc import Sequence

from seif_nemo.components.speaker import Speaker
from seif_nemo.config.reward import JudgeMode, RewardConfig
from seif_nemo.roles.judger import (
    WORDS,
    forced_opening,
    judge_probability,
    judger_messages,
    model_missing,
    parse_judgement,
    question_seed,
)
from seif_nemo.roles.prompts import JudgerTemplate
from seif_nemo.types.questions import Question
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import FinishReason, SamplingParams
from seif_nemo.types.verdicts import Verdict, Why


class ResidentJudge:
    """See `protocols/judging.py`. Decodes greedily; never unavailable."""

    def __init__(
        self, speaker: Speaker, resident: Resident, *, config: RewardConfig, template: JudgerTemplate, run_seed: int
    ) -> None:
        self._speaker = speaker
        self._resident = resident
        self._mode = config.judge_mode
        self._margin = config.judge_margin
        self._sampling = SamplingParams(max_new_tokens=config.judge_max_new_tokens, temperature=0.0)
        self._template = template
        self._run_seed = run_seed

    @property
    def name(self) -> str:
        return f"the judge ({self._resident.value})"

    @property
    def identity(self) -> str:
        return f"{self._speaker.digest(self._resident)} {self._template.name} {self._mode.value}"

    def __call__(self, questions: Sequence[Question]) -> list[Verdict]:
        seeds = [question_seed(self._run_seed, question) for question in questions]
        return (
            self._by_text(questions, seeds) if self._mode is JudgeMode.generate else self._by_logprob(questions, seeds)
        )

    def _by_text(self, questions: Sequence[Question], seeds: Sequence[int]) -> list[Verdict]:
        chats = [judger_messages(self._template, q, seed=seed) for q, seed in zip(questions, seeds, strict=True)]
        rollouts = self._speaker.speak_fitting(self._resident, chats, seeds=seeds, sampling=self._sampling)
        verdicts: list[Verdict] = []
        for rollout, seed in zip(rollouts, seeds, strict=True):
            if rollout is None:
                verdicts.append(model_missing(Why.TOO_LONG, "the question does not fit the judge's context"))
            elif rollout.finish_reason is not FinishReason.STOP:
                tokens = rollout.num_response_tokens
                verdicts.append(model_missing(Why.UNPARSABLE, f"ran out of tokens after {tokens}"))
            else:
                verdicts.append(parse_judgement(rollout.text, seed=seed))
        return verdicts

    def _by_logprob(self, questions: Sequence[Question], seeds: Sequence[int]) -> list[Verdict]:
        found = self._speaker.word_logprobs(
            self._resident,
            [judger_messages(self._template, q, seed=s, direct=True) for q, s in zip(questions, seeds, strict=True)],
            openings=[forced_opening(seed) for seed in seeds],
            words=WORDS,
        )
        return [
            model_missing(Why.TOO_LONG, "the question does not fit the judge's context")
            if logprobs is None
            else judge_probability(1 / (1 + math.exp(min(logprobs[1] - logprobs[0], 700.0))), margin=self._margin)
            for logprobs in found
        ]
