"""The reward component: Filter → frozen Follower's answers → Judger, on the evaluator's weights or a remote judge.

All are collective calls; rules are applied on every rank alike, so that every rank knows every score.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial

from seif_nemo.components.head_start import HeadStart
from seif_nemo.components.judge_cache import JudgeCounts, VerdictCache, ask_once, question_key
from seif_nemo.components.missing_budget import check_missing
from seif_nemo.components.resident_judge import ResidentJudge
from seif_nemo.components.speaker import Speaker
from seif_nemo.components.trust import sample_checkable, trust_values
from seif_nemo.config.reward import Judging, RewardConfig
from seif_nemo.config.roles import RolesConfig
from seif_nemo.protocols.engine import OnFinished
from seif_nemo.protocols.judging import Judge, RemoteJudge
from seif_nemo.roles.filter import filter_messages, parse_filter_verdict
from seif_nemo.roles.follower import follower_messages
from seif_nemo.roles.judger import Item, Judger, question_about, rule_verdicts
from seif_nemo.roles.prompts import filter_template, follower_template, judger_template
from seif_nemo.roles.reasoning import judged_text
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.questions import Question
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import FinishReason, Rollout, SamplingParams
from seif_nemo.types.verdicts import Score, Verdict


class Reward:
    """`answer_sampling` is how the frozen Follower answers; filter and judge decode greedily.

    `remote`, if given, judges in place of a resident. A `deterministic` resident judge forgets its verdicts before each
    call of `scores`: what is asked together would otherwise depend on what was asked before the last restart.

    With `reward.overlap_workers`, what needs no resident weights (rules, and questions to a remote judge) begins as
    soon as a response is finished, on threads, and `scores` collects it. Verdicts and counts are those without it.
    """

    def __init__(
        self,
        speaker: Speaker,
        *,
        config: RewardConfig,
        roles: RolesConfig,
        answer_sampling: SamplingParams,
        run_seed: int,
        deterministic: bool,
        remote: RemoteJudge | None = None,
    ) -> None:
        self._speaker = speaker
        self._config = config
        self._answer_sampling = answer_sampling
        self._verdict_sampling = SamplingParams(max_new_tokens=config.judge_max_new_tokens, temperature=0.0)
        self._follower_template = follower_template(roles.follower_template)
        self._filter_template = filter_template(roles.filter_template)
        self._judger_template = judger_template(roles.judger_template)
        self._run_seed = run_seed
        self._remote = remote
        self._forgets = deterministic and remote is None
        self._cache = VerdictCache(config.judge_cache_entries)
        self._counts = JudgeCounts()
        self._head_start: HeadStart | None = None  # of the next call of `scores`
        self._scored: list[tuple[Sequence[Item], list[Score]]] = []  # by rules and the evaluator, since the last drain

    def keep(self, instructions: Sequence[Instruction], *, seeds: Sequence[int]) -> list[bool | None]:
        """The Filter: False where constraints contradict, None where it gave no verdict. Always True if it is off."""
        if not self._config.model_filter:
            return [True] * len(instructions)
        chats = [
            filter_messages(self._filter_template, instruction, seed=seed)
            for instruction, seed in zip(instructions, seeds, strict=True)
        ]
        rollouts = self._speaker.speak_fitting(Resident.EVALUATOR, chats, seeds=seeds, sampling=self._verdict_sampling)
        return [
            None
            if rollout is None or rollout.finish_reason is not FinishReason.STOP
            else parse_filter_verdict(rollout.text, seed=seed)
            for rollout, seed in zip(rollouts, seeds, strict=True)
        ]

    def answers(self, instructions: Sequence[Instruction], *, seeds: Sequence[int]) -> list[Rollout]:
        """The frozen Follower's answer to each instruction."""
        chats = [follower_messages(self._follower_template, instruction) for instruction in instructions]
        return self._speaker.speak(
            Resident.EVALUATOR,
            chats,
            seeds=seeds,
            sampling=self._answer_sampling,
            on_finished=self.head_start(instructions),
        )

    def head_start(self, instructions: Sequence[Instruction]) -> OnFinished | None:
        """For `on_finished` of the call that answers these instructions: begins what the next `scores` will need.

        None where `reward.overlap_workers` is 0.
        """
        self.abandon()
        workers = self._config.overlap_workers
        if workers == 0:
            return None
        if self._remote is not None:
            workers = min(workers, self._config.judge_concurrency)
        head_start = self._head_start = HeadStart(self._prepare, workers=workers)

        def on_finished(index: int, rollout: Rollout) -> None:
            head_start.begin((instructions[index], judged_text(rollout.text)))

        return on_finished

    def scores_later(self, items: Sequence[Item]) -> Callable[[], list[Score]]:
        """Begin with `scores` of these items; the call of what this returns ends it and is collective."""
        if self._head_start is not None:
            for item in _judged(items):
                self._head_start.begin(item)
        return partial(self.scores, items)

    def abandon(self) -> None:
        """Begin nothing more of what was begun ahead, and forget it."""
        if self._head_start is not None:
            self._head_start.abandon()
            self._head_start = None

    def _prepare(self, item: Item, stop: threading.Event) -> list[Verdict | None]:
        """The rules' verdicts on an item; the remote judge is asked for the rest unless it is remembered."""
        verdicts = rule_verdicts(item)
        if self._remote is not None and self._config.judging is Judging.rules_then_model:
            for place, verdict in enumerate(verdicts):
                question = question_about(item, place)
                if verdict is None and question_key(self._remote.identity, question) not in self._cache:
                    if stop.is_set():
                        break
                    self._remote.ask_ahead(question)
        return verdicts

    def scores(self, items: Sequence[Item], *, judge: Resident = Resident.EVALUATOR) -> list[Score]:
        """The Judger's verdicts on (instruction, response) pairs. `judge` says what no rule can, unless one is remote.

        Judged is a response's answer, not its reasoning, and as far as it goes if it ran out of tokens. Raises
        TooManyMissingVerdictsError.
        """
        known = {} if self._head_start is None else self._head_start.finish()
        self._head_start = None
        if self._config.judging is Judging.rules:
            return Judger(mode=self._config.judging, ask=None).judge(_judged(items), known=known)
        if self._forgets:
            self._cache.clear()

        def ask(questions: Sequence[Question]) -> list[Verdict]:
            known = self._verdicts(judge, questions)
            check_missing(
                list(known.values()),
                judge=self._judge(judge).name,
                max_missing_share=self._config.max_missing_share,
                min_questions=self._config.min_questions_for_budget,
            )
            return [known[question] for question in questions]

        judged = _judged(items)
        scores = Judger(mode=self._config.judging, ask=ask).judge(judged, known=known)
        if judge is Resident.EVALUATOR:
            self._scored.append((judged, scores))
        return scores

    def judge_values(self, *, meter_seed: int | None = None) -> dict[str, float]:
        """Metrics `judge/…` since the last call: what model judges were asked, remembered and left open. Collective.

        With `meter_seed`, which draws the sample, also how far to trust the evaluator as a judge: some of what rules
        decided in `scores` since the last call is put to it as well. Nothing where rules judge alone.
        """
        if self._config.judging is Judging.rules:
            return {}
        scored, self._scored = self._scored, []
        values: dict[str, float] = {}
        if meter_seed is not None:
            checked = sample_checkable(scored, count=self._config.meter_questions, seed=meter_seed)
            verdicts = self._verdicts(Resident.EVALUATOR, [each.question for each in checked])
            values = trust_values(checked, [verdicts[each.question] for each in checked]) if checked else {}
        counts, self._counts = self._counts, JudgeCounts()
        values |= {"judge/asked": float(counts.asked), "judge/cache_hits": float(counts.cache_hits)}
        return values | {f"judge/missing/{why.value}": float(number) for why, number in sorted(counts.missing.items())}

    def _verdicts(self, resident: Resident, questions: Sequence[Question]) -> dict[Question, Verdict]:
        return ask_once(self._judge(resident), questions, cache=self._cache, counts=self._counts)

    def _judge(self, resident: Resident) -> Judge:
        if self._remote is not None:
            return self._remote
        return ResidentJudge(
            self._speaker, resident, config=self._config, template=self._judger_template, run_seed=self._run_seed
        )


def _judged(items: Sequence[Item]) -> list[Item]:
    return [(instruction, judged_text(text)) for instruction, text in items]
