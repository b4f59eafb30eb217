"""The reward component with a scripted model behind it: who is asked, what counts, what stays missing."""

import numpy as np
import pytest

from seif_nemo.components.missing_budget import TooManyMissingVerdictsError
from seif_nemo.components.reward import Reward
from seif_nemo.config.reward import JudgeMode, Judging, RewardConfig
from seif_nemo.config.roles import RolesConfig
from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.protocols.judging import JudgeUnavailableError
from seif_nemo.roles.prompts import secret_code
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.questions import Question
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import FinishReason, Rollout, SamplingParams
from seif_nemo.types.verdicts import Outcome, Source, Verdict, Why

ANSWERING = SamplingParams(max_new_tokens=32, temperature=0.7)


class ScriptedSpeaker:
    """Says `script(chat, seed)`; None stands for a text that ran into the token limit."""

    def __init__(self, script, max_characters=10_000):
        self.script = script
        self.max_characters = max_characters
        self.calls = []

    def word_logprobs(self, resident, chats, *, openings, words):
        assert words == ("yes", "no")
        self.calls.append((resident, None, len(chats)))
        return [self.script(chat, opening) for chat, opening in zip(chats, openings, strict=True)]

    def digest(self, resident):
        return f"digest of {resident.value}"

    def speak_fitting(self, resident, chats, *, seeds, sampling):
        fits = [sum(len(message.content) for message in chat) <= self.max_characters for chat in chats]
        fitting = [(chat, seed) for chat, seed, fit in zip(chats, seeds, fits, strict=True) if fit]
        chats, seeds = [chat for chat, _ in fitting], [seed for _, seed in fitting]
        rollouts = iter(self.speak(resident, chats, seeds=seeds, sampling=sampling))
        return [next(rollouts) if fit else None for fit in fits]

    def speak(self, resident, chats, *, seeds, sampling, on_finished=None):
        self.calls.append((resident, sampling, len(chats)))
        rollouts = []
        for index, (chat, seed) in enumerate(zip(chats, seeds, strict=True)):
            rollouts.append(self._rollout(self.script(chat, seed)))
            if on_finished is not None:
                on_finished(index, rollouts[index])
        return rollouts

    @staticmethod
    def _rollout(text):
        empty = np.zeros(0)
        finish = FinishReason.LENGTH if text is None else FinishReason.STOP
        return Rollout(empty, empty, empty, "[[yes]]" if text is None else text, finish, "evaluator@1")


def _reward(script, *, deterministic=False, remote=None, **config):
    speaker = ScriptedSpeaker(script)
    reward = Reward(
        speaker,
        config=RewardConfig(**config),
        roles=RolesConfig(),
        answer_sampling=ANSWERING,
        run_seed=5,
        deterministic=deterministic,
        remote=remote,
    )
    return reward, speaker


def _instruction(*texts):
    return Instruction("Tell me about rivers.", tuple(map(parse_constraint, texts)), "Tell me about rivers. …")


def test_the_evaluator_answers_with_the_rollout_sampling():
    reward, speaker = _reward(lambda chat, seed: "Rivers are long.")
    (rollout,) = reward.answers([_instruction("use at most 5 words")], seeds=[3])
    assert rollout.text == "Rivers are long."
    assert speaker.calls == [(Resident.EVALUATOR, ANSWERING, 1)]


def test_rules_judge_what_they_can_and_the_model_the_rest():
    asked = []

    def judge(chat, seed):
        asked.append(chat[-1].content)
        return f"It does. [[{secret_code(seed)} no]] or rather [[{secret_code(seed)} yes]]"

    reward, speaker = _reward(judge)
    instruction = _instruction("use at most 5 words", "sound like a pirate")
    (score,) = reward.scores([(instruction, "Arr, rivers be long.")])
    assert [(v.outcome, v.source) for v in score.verdicts] == [
        (Outcome.PASSED, Source.RULE),
        (Outcome.PASSED, Source.MODEL),  # the last verdict counts
    ]
    assert score.follow_rate == 1.0
    assert len(asked) == 1 and "sound like a pirate" in asked[0] and "at most 5 words" not in asked[0]
    resident, sampling, _ = speaker.calls[0]
    assert (resident, sampling.temperature) == (Resident.EVALUATOR, 0.0)


def test_the_asked_for_resident_judges():
    reward, speaker = _reward(lambda chat, seed: f"[[{secret_code(seed)} yes]]")
    items = [(_instruction("sound like a pirate"), "Arr, yes.")]
    reward.scores(items, judge=Resident.BASE)
    assert [resident for resident, _, _ in speaker.calls] == [Resident.BASE]


def test_judged_is_the_answer_and_not_the_reasoning():
    asked = []

    def judge(chat, seed):
        asked.append(chat[-1].content)
        return f"[[{secret_code(seed)} yes]]"

    reward, _ = _reward(judge)
    instruction = _instruction("use at most 5 words", "sound like a pirate")
    text = "<think>The user wants a pirate who says at most five words.</think>\n<answer>Arr, rivers be long.</answer>"
    (score,) = reward.scores([(instruction, text)])
    assert [v.outcome for v in score.verdicts] == [Outcome.PASSED, Outcome.PASSED]
    assert len(asked) == 1 and "Arr, rivers be long." in asked[0] and "user wants" not in asked[0]


@pytest.mark.parametrize("said", ["[[yes]]", "[[deadbeef yes]]", "", None])
def test_without_a_verdict_of_ours_the_rate_is_missing(said):
    reward, _ = _reward(lambda chat, seed: said)
    (score,) = reward.scores([(_instruction("use at most 5 words", "sound like a pirate"), "Arr, yes.")])
    assert [(v.outcome, v.why) for v in score.verdicts] == [(Outcome.PASSED, None), (Outcome.MISSING, Why.UNPARSABLE)]
    assert score.follow_rate is None
    assert reward.judge_values() == {"judge/asked": 1.0, "judge/cache_hits": 0.0, "judge/missing/unparsable": 1.0}
    assert reward.judge_values() == {"judge/asked": 0.0, "judge/cache_hits": 0.0}


def test_rules_only_never_asks():
    reward, speaker = _reward(lambda chat, seed: "[[yes]]", judging=Judging.rules, model_filter=False)
    instructions = [_instruction("sound like a pirate")]
    (score,) = reward.scores([(instructions[0], "Arr, rivers be long.")])
    assert score.verdicts[0].why is Why.NO_RULE
    assert reward.judge_values(meter_seed=1) == {}
    assert reward.keep(instructions, seeds=[4]) == [True]
    assert speaker.calls == []


def test_the_filter_keeps_rejects_or_stays_silent():
    words = {5: "keep", 6: "reject", 7: "maybe"}
    reward, _ = _reward(lambda chat, seed: None if seed == 8 else f"[[{secret_code(seed)} {words[seed]}]]")
    instructions = [_instruction("use at most 5 words")] * 4
    assert reward.keep(instructions, seeds=[5, 6, 7, 8]) == [True, False, None, None]


def test_a_chat_that_does_not_fit_the_model_gives_no_verdict_and_the_others_keep_their_places():
    reward, speaker = _reward(lambda chat, seed: f"[[{secret_code(seed)} yes]]")
    instruction = _instruction("sound like a pirate")
    answers = ["Arr, one.", "Arr, two. " + "x" * 10_000, "Arr, three."]
    scores = reward.scores([(instruction, answer) for answer in answers])
    assert [score.verdicts[0].why for score in scores] == [None, Why.TOO_LONG, None]
    assert speaker.calls[0][2] == 2


def test_the_same_question_is_asked_once_and_remembered_by_the_weights_that_answered():
    asked = []

    def judge(chat, seed):
        asked.append(seed)
        return f"[[{secret_code(seed)} yes]]"

    items = [(_instruction("sound like a pirate"), "Arr, yes.")] * 3 + [(_instruction("be kind"), "Arr, yes.")]
    reward, _ = _reward(judge)
    first = reward.scores(items)
    assert (len(asked), [s.follow_rate for s in first]) == (2, [1.0] * 4)
    assert reward.scores(items) == first
    assert reward.judge_values() == {"judge/asked": 2.0, "judge/cache_hits": 6.0}
    assert reward.scores(items, judge=Resident.BASE) == first
    assert len(asked) == 4, "other weights are another judge"

    asked.clear()
    reward, _ = _reward(judge, deterministic=True)
    assert reward.scores(items) == reward.scores(items) == first
    assert asked[:2] == asked[2:] and len(asked) == 4, "what is asked together must not depend on earlier calls"


def test_too_many_missing_verdicts_stop_the_run_with_one_line():
    reward, _ = _reward(lambda chat, seed: "I think so." if seed % 3 else None, min_questions_for_budget=20)
    items = [(_instruction("sound like a pirate"), f"Arr, {index} rivers.") for index in range(20)]
    assert [s.follow_rate for s in reward.scores(items[:19])] == [None] * 19
    with pytest.raises(TooManyMissingVerdictsError) as caught:
        reward.scores(items)
    text = str(caught.value)
    assert text.startswith("the judge (evaluator) gave no verdict on 20 of 20 questions (unparsable 20); ")
    assert "reward.max_missing_share=0.2" in text and "\n" not in text


def test_some_of_what_rules_decided_is_put_to_the_judge():
    def judge(chat, seed):  # passes everything with "river" in the answer
        answer = chat[-1].content.split("Answer:")[1]
        return f"[[{secret_code(seed)} {'yes' if 'river' in answer else 'no'}]]" if "?" not in answer else "Who knows"

    reward, speaker = _reward(judge, meter_questions=6)
    instruction = _instruction("use at most 3 words")
    failed = ["One river too many here", "One lake too many here", "Another lake of too many words", "Is it a river?"]
    passed = ["A river", "A lake", ""]  # the empty one fails by rule but shows nothing about the constraint
    scores = reward.scores([(instruction, text) for text in failed + passed])
    assert [s.follow_rate for s in scores] == [0.0] * 4 + [1.0, 1.0, 0.0]
    assert speaker.calls == []
    values = reward.judge_values(meter_seed=9)
    assert values == {
        "judge/meter_questions": 6.0,
        "judge/meter_missing": 1.0,
        "judge/false_pass_rate": pytest.approx(1 / 3),
        "judge/false_fail_rate": 0.5,
        "judge/asked": 6.0,
        "judge/cache_hits": 0.0,
        "judge/missing/unparsable": 1.0,
    }
    assert reward.judge_values(meter_seed=9) == {"judge/asked": 0.0, "judge/cache_hits": 0.0}, "each step its own"

    reward, speaker = _reward(judge, meter_questions=0)
    reward.scores([(instruction, text) for text in failed])
    assert reward.judge_values(meter_seed=9) == {"judge/asked": 0.0, "judge/cache_hits": 0.0}
    assert speaker.calls == []


def test_logprob_mode_forces_the_verdicts_opening_and_weighs_yes_against_no():
    logprobs = {"one": (-0.5, -3.0), "two": (-1.0, -1.2), "three": (-900.0, -0.1), "four": (-0.1, -900.0), "five": None}
    openings = []

    def script(chat, opening):
        openings.append(opening)
        code = opening[2:-1]
        assert opening == f"[[{code} " and f">>> {code}\n\nReply with your verdict alone" in chat[-1].content
        return logprobs[chat[-1].content.split(f"Answer:\n<<< {code}\n")[1].split(",")[0]]

    reward, speaker = _reward(script, judge_mode=JudgeMode.logprob, judge_margin=0.1)
    scores = reward.scores([(_instruction("sound like a pirate"), f"{name}, arr") for name in logprobs])
    # P(yes): 1 / (1 + e^-2.5) = 0.924, 1 / (1 + e^-0.2) = 0.550, 0, 1
    assert [(s.verdicts[0].outcome, s.verdicts[0].why, s.verdicts[0].evidence[:14]) for s in scores] == [
        (Outcome.PASSED, None, "P(yes) = 0.924"),
        (Outcome.MISSING, Why.UNDECIDED, "P(yes) = 0.550"),
        (Outcome.FAILED, None, "P(yes) = 0.000"),
        (Outcome.PASSED, None, "P(yes) = 1.000"),
        (Outcome.MISSING, Why.TOO_LONG, "the question d"),
    ]
    assert len(set(openings)) == 5
    assert speaker.calls == [(Resident.EVALUATOR, None, 5)]


class RemoteFake:
    """A judge elsewhere that says no, or is down."""

    name, identity = "the judge m", "m"

    def __init__(self):
        self.asked = []
        self.is_down = False

    def __call__(self, questions):
        if self.is_down:
            raise JudgeUnavailableError("nobody there")
        self.asked += questions
        return [Verdict(Outcome.FAILED, Source.MODEL) for _ in questions]


def test_a_remote_judge_stands_in_for_every_resident_and_is_remembered():
    remote = RemoteFake()
    reward, speaker = _reward(lambda chat, seed: "?", remote=remote, deterministic=True, min_questions_for_budget=1)
    items = [(_instruction("sound like a pirate"), "Arr, yes.")]
    assert [reward.scores(items, judge=judge)[0].follow_rate for judge in (Resident.EVALUATOR, Resident.BASE)] == [0, 0]
    assert remote.asked == [Question("Tell me about rivers.", "sound like a pirate", "Arr, yes.")]
    assert speaker.calls == []
    remote.is_down = True
    with pytest.raises(TooManyMissingVerdictsError, match=r"1 of 1 questions \(unavailable 1\).*nobody there"):
        reward.scores([(_instruction("sound like a pirate"), "Arr, no.")])
