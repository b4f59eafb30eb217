"""The reward component: Filter → frozen Follower's answers → Judger, on the evaluator's weights.

All three are collective calls; rules are applied on every rank alike, so that every rank knows every score.
"""

from collections.abc import Sequence
from functools import partial

from seif_nemo.components.speaker import Chat, Speaker
from seif_nemo.config.reward import Judging, RewardConfig
from seif_nemo.config.roles import RolesConfig
from seif_nemo.roles.filter import filter_messages, parse_filter_verdict
from seif_nemo.roles.follower import follower_messages
from seif_nemo.roles.judger import Judger
from seif_nemo.roles.prompts import filter_template, follower_template, judger_template
from seif_nemo.roles.reasoning import judged_text
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import FinishReason, Rollout, SamplingParams
from seif_nemo.types.verdicts import Score


class Reward:
    """`answer_sampling` is how the frozen Follower answers; filter and judge decode greedily."""

    def __init__(
        self, speaker: Speaker, *, config: RewardConfig, roles: RolesConfig, answer_sampling: SamplingParams
    ) -> None:
        self._speaker = speaker
        self._config = config
        self._answer_sampling = answer_sampling
        self._verdict_sampling = SamplingParams(max_new_tokens=config.judge_max_new_tokens, temperature=0.0)
        self._follower_template = follower_template(roles.follower_template)
        self._filter_template = filter_template(roles.filter_template)
        self._judger_template = judger_template(roles.judger_template)

    def keep(self, instructions: Sequence[Instruction], *, seeds: Sequence[int]) -> list[bool | None]:
        """The Filter: False where constraints contradict, None where it gave no verdict. Always True if it is off."""
        if not self._config.model_filter:
            return [True] * len(instructions)
        chats = [
            filter_messages(self._filter_template, instruction, seed=seed)
            for instruction, seed in zip(instructions, seeds, strict=True)
        ]
        return [
            None if answer is None else parse_filter_verdict(answer, seed=seed)
            for answer, seed in zip(self._ask(Resident.EVALUATOR, chats, seeds=seeds), seeds, strict=True)
        ]

    def answers(self, instructions: Sequence[Instruction], *, seeds: Sequence[int]) -> list[Rollout]:
        """The frozen Follower's answer to each instruction."""
        chats = [follower_messages(self._follower_template, instruction) for instruction in instructions]
        return self._speaker.speak(Resident.EVALUATOR, chats, seeds=seeds, sampling=self._answer_sampling)

    def scores(
        self,
        items: Sequence[tuple[Instruction, str]],
        *,
        seeds: Sequence[int],
        judge: Resident = Resident.EVALUATOR,
    ) -> list[Score]:
        """The Judger's verdicts on (instruction, response) pairs. `judge` says what no rule can.

        Judged is a response's answer, not its reasoning, and as far as it goes if it ran out of tokens.
        """
        uses_model = self._config.judging is Judging.rules_then_model
        ask = partial(self._ask, judge) if uses_model else None
        judger = Judger(mode=self._config.judging, ask=ask, template=self._judger_template)
        return judger.judge([(instruction, judged_text(text)) for instruction, text in items], seeds=seeds)

    def _ask(self, resident: Resident, chats: Sequence[Chat], *, seeds: Sequence[int]) -> list[str | None]:
        """A resident's finished answers; None for one that ran out of tokens and for a chat that is too long."""
        fitting = [index for index, chat in enumerate(chats) if self._speaker.fits(chat)]
        rollouts = self._speaker.speak(
            resident,
            [chats[index] for index in fitting],
            seeds=[seeds[index] for index in fitting],
            sampling=self._verdict_sampling,
        )
        answers: list[str | None] = [None] * len(chats)
        for index, rollout in zip(fitting, rollouts, strict=True):
            if rollout.finish_reason is FinishReason.STOP:
                answers[index] = rollout.text
        return answers
