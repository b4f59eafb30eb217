"""Reward work that begins while responses are still generated: same verdicts and counts, and nothing left over."""

import threading
import time

import pytest

from seif_nemo.components.head_start import HeadStart
from seif_nemo.components.reward import Reward
from seif_nemo.config.reward import RewardConfig
from seif_nemo.config.roles import RolesConfig
from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.types.constraints import Instruction
from seif_nemo.types.verdicts import Outcome, Source, Verdict
from tests.unit.components.test_reward import ANSWERING, ScriptedSpeaker

PIRATE = Instruction(
    "Tell me about rivers.",
    tuple(map(parse_constraint, ("use at most 3 words", "sound like a pirate", "be kind"))),
    "Tell me about rivers. …",
)
WAIT_S = 5.0


class SlowJudge:
    """Says yes to what holds "arr". Remembers who asked what; `ahead` decides what becomes of questions asked ahead."""

    name, identity = "the slow judge", "slow"

    def __init__(self, ahead=lambda question: None):
        self.ahead = ahead
        self.asked_ahead, self.asked = [], []
        self._verdicts = {}

    def ask_ahead(self, question):
        self.asked_ahead.append(question)
        self.ahead(question)
        self._verdicts[question] = self._say(question)

    def __call__(self, questions):
        self.asked += [question for question in questions if question not in self._verdicts]
        return [self._verdicts.pop(question, None) or self._say(question) for question in questions]

    @staticmethod
    def _say(question):
        return Verdict(Outcome.PASSED if "arr" in question.response else Outcome.FAILED, Source.MODEL, "said")


def rewarding(judge, *, text=lambda seed: "arr rivers", **config):
    speaker = ScriptedSpeaker(lambda chat, seed: text(seed))
    return Reward(
        speaker,  # type: ignore[arg-type]
        config=RewardConfig(judge_endpoint="http://judge:1/v1", judge_model="m", **config),
        roles=RolesConfig(),
        answer_sampling=ANSWERING,
        run_seed=5,
        deterministic=True,
        remote=judge,
    )


TEXTS = ("arr rivers", "rivers", "arr, this is much too long", "", "<think>arr</think>rivers", "arr rivers")


def outcome(judge, *, rounds=3, **config):
    """Scores and metrics of answers in `rounds` calls, of which the later ones repeat most of the texts."""
    reward = rewarding(judge, text=lambda seed: TEXTS[seed % len(TEXTS)] + (" x" if seed > 10 else ""), **config)
    found = []
    for round in range(rounds):
        rollouts = reward.answers([PIRATE] * 6, seeds=range(round * 5, round * 5 + 6))
        found.append(reward.scores_later([(PIRATE, rollout.text) for rollout in rollouts])())
        found.append(reward.judge_values(meter_seed=round))
    return found


def test_verdicts_and_counts_are_those_of_the_serial_loop():
    serial = outcome(judge := SlowJudge(), overlap_workers=0)
    assert judge.asked and not judge.asked_ahead
    ahead = SlowJudge(lambda question: time.sleep(0.001))
    assert outcome(ahead) == serial
    assert len(ahead.asked_ahead) >= 4 and len(ahead.asked) < len(judge.asked)


def test_what_is_remembered_is_not_asked_ahead():
    reward = rewarding(judge := SlowJudge())
    for _ in range(2):
        reward.scores([(PIRATE, rollout.text) for rollout in reward.answers([PIRATE], seeds=[1])])
    assert len(judge.asked_ahead) + len(judge.asked) == len({*judge.asked_ahead, *judge.asked}) == 2


def test_an_error_ahead_is_left_to_the_call_that_all_ranks_make():
    def fail(question):
        raise OSError("ahead")

    serial = outcome(SlowJudge(), overlap_workers=0)
    judge = SlowJudge(fail)
    assert outcome(judge) == serial
    assert judge.asked_ahead and len(judge.asked) == len(set(judge.asked))


def test_work_goes_on_while_the_caller_does_something_else():
    begun = threading.Event()
    reward = rewarding(judge := SlowJudge(lambda question: begun.set()), text=lambda seed: f"arr {seed}")
    rollouts = reward.answers([PIRATE] * 8, seeds=range(8))
    finish = reward.scores_later([(PIRATE, rollout.text) for rollout in rollouts])
    assert begun.wait(WAIT_S)
    deadline = time.monotonic() + WAIT_S
    while len(judge.asked_ahead) < 16 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert [score.follow_rate for score in finish()] == [1.0] * 8
    assert (len(judge.asked_ahead), judge.asked) == (16, [])


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_at_once_than_workers_and_each_item_once(workers):
    at_once, most, lock = 0, 0, threading.Lock()

    def work(item, stop):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.002)
        with lock:
            at_once -= 1
        return [Verdict(Outcome.PASSED, Source.RULE, item[1])]

    start = HeadStart(work, workers=workers)
    items = [(PIRATE, str(number % 12)) for number in range(24)]
    for item in items:
        start.begin(item)
    time.sleep(0.1)
    done = start.finish()
    assert {item: verdicts[0].evidence for item, verdicts in done.items()} == {item: item[1] for item in items}
    assert most == workers


def test_after_an_abandonment_nothing_more_begins_and_no_thread_stays():
    gate, begun = threading.Event(), []

    def work(item, stop):
        begun.append(item)
        gate.wait(WAIT_S)
        return []

    before = threading.active_count()
    start = HeadStart(work, workers=2)
    for number in range(50):
        start.begin((PIRATE, str(number)))
    while len(begun) < 2:
        time.sleep(0.001)
    start.abandon()
    assert threading.active_count() == before + 2, "what is under way is not waited for"
    gate.set()
    deadline = time.monotonic() + WAIT_S
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.001)
    assert (threading.active_count(), len(begun)) == (before, 2)


def test_an_abandoned_reward_asks_no_more():
    gate = threading.Event()
    judge = SlowJudge(lambda question: gate.wait(WAIT_S))
    reward = rewarding(judge, text=lambda seed: f"arr {seed}", overlap_workers=2)
    reward.answers([PIRATE] * 9, seeds=range(9))
    reward.abandon()
    gate.set()
    time.sleep(0.05)
    assert len(judge.asked_ahead) <= 2
