"""The reward component with a scripted model behind it: who is asked, what counts, what stays missing."""

import numpy as np
import pytest

from seif_nemo.components.reward import Reward
from seif_nemo.config.reward import Judging, RewardConfig
from seif_nemo.config.roles import RolesConfig
from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.roles.prompts import secret_code
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.residents import Resident
from seif_nemo.types.rollouts import FinishReason, Rollout, SamplingParams
from seif_nemo.types.verdicts import Outcome, Source

ANSWERING = SamplingParams(max_new_tokens=32, temperature=0.7)


class ScriptedSpeaker:
    """Says `script(chat, seed)`; None stands for a text that ran into the token limit."""

    def __init__(self, script, max_characters=10_000):
        self.script = script
        self.max_characters = max_characters
        self.calls = []

    def fits(self, chat):
        return sum(len(message.content) for message in chat) <= self.max_characters

    def speak(self, resident, chats, *, seeds, sampling):
        self.calls.append((resident, sampling, len(chats)))
        return [self._rollout(self.script(chat, seed)) for chat, seed in zip(chats, seeds, strict=True)]

    @staticmethod
    def _rollout(text):
        empty = np.zeros(0)
        finish = FinishReason.LENGTH if text is None else FinishReason.STOP
        return Rollout(empty, empty, empty, "[[yes]]" if text is None else text, finish, "evaluator@1")


def _reward(script, **config):
    speaker = ScriptedSpeaker(script)
    reward = Reward(speaker, config=RewardConfig(**config), roles=RolesConfig(), answer_sampling=ANSWERING)
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
    (score,) = reward.scores([(instruction, "Arr, rivers be long.")], seeds=[3])
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
    reward.scores(items, seeds=[3], judge=Resident.BASE)
    assert [resident for resident, _, _ in speaker.calls] == [Resident.BASE]


def test_judged_is_the_answer_and_not_the_reasoning():
    asked = []

    def judge(chat, seed):
        asked.append(chat[-1].content)
        return f"[[{secret_code(seed)} yes]]"

    reward, _ = _reward(judge)
    instruction = _instruction("use at most 5 words", "sound like a pirate")
    text = "<think>The user wants a pirate who says at most five words.</think>\n<answer>Arr, rivers be long.</answer>"
    (score,) = reward.scores([(instruction, text)], seeds=[3])
    assert [v.outcome for v in score.verdicts] == [Outcome.PASSED, Outcome.PASSED]
    assert len(asked) == 1 and "Arr, rivers be long." in asked[0] and "user wants" not in asked[0]


@pytest.mark.parametrize("said", ["[[yes]]", "[[deadbeef yes]]", "", None])
def test_without_a_verdict_of_ours_the_rate_is_missing(said):
    reward, _ = _reward(lambda chat, seed: said)
    (score,) = reward.scores([(_instruction("use at most 5 words", "sound like a pirate"), "Arr, yes.")], seeds=[3])
    assert [v.outcome for v in score.verdicts] == [Outcome.PASSED, Outcome.MISSING]
    assert score.follow_rate is None


def test_rules_only_never_asks():
    reward, speaker = _reward(lambda chat, seed: "[[yes]]", judging=Judging.rules, model_filter=False)
    instructions = [_instruction("sound like a pirate")]
    (score,) = reward.scores([(instructions[0], "Arr, rivers be long.")], seeds=[3])
    assert score.verdicts[0].outcome is Outcome.MISSING
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
    scores = reward.scores([(instruction, answer) for answer in answers], seeds=[1, 2, 3])
    assert [score.verdicts[0].outcome for score in scores] == [Outcome.PASSED, Outcome.MISSING, Outcome.PASSED]
    assert speaker.calls[0][2] == 2
