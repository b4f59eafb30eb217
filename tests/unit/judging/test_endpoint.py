"""A judge at an endpoint, against a real server on this machine."""

import math
import threading
import time
import traceback
from collections import Counter
from typing import Any

import pytest

from seif_nemo.components.judge_cache import JudgeCounts, VerdictCache, ask_once
from seif_nemo.components.missing_budget import TooManyMissingVerdictsError, check_missing
from seif_nemo.config.reward import JudgeMode, RewardConfig
from seif_nemo.generation.openai_client import TokenAlternatives
from seif_nemo.judging.endpoint import EndpointJudge, make_endpoint_judge, word_probability
from seif_nemo.judging.outage import Outage
from seif_nemo.roles.judger import question_seed
from seif_nemo.roles.prompts import judger_template, secret_code
from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Outcome, Why
from tests.chat_server import Reply, chat_server, said

PASSED, FAILED, MISSING = Outcome
TEMPLATE = judger_template("single_constraint")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


def questions(number: int) -> list[Question]:
    return [Question("Tell me.", "be kind", f"answer {index}") for index in range(number)]


def code_of(question: Question) -> str:
    return secret_code(question_seed(5, question))


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """The code and the answer that a request shows."""
    prompt = body["messages"][-1]["content"]
    code = prompt.split("Answer:\n<<< ")[1][:8]
    return code, prompt.split(f"Answer:\n<<< {code}\n")[1].split("\n>>>")[0]


def remote(url: str, **config: Any) -> tuple[EndpointJudge, list[float]]:
    """The judge and the waits that it made."""
    waits: list[float] = []
    values = {"judge_attempts": 3, "judge_timeout_s": 5.0, "judge_concurrency": 4} | config
    made = make_endpoint_judge(
        RewardConfig(judge_endpoint=url, judge_model="m", **values), template=TEMPLATE, run_seed=5, environment={}
    )
    made._sleep = lambda _, seconds: waits.append(seconds)
    return made, waits


def test_verdicts_come_back_in_order_and_some_at_a_time() -> None:
    at_once: list[int] = []
    running = Counter[str]()
    lock, together = threading.Lock(), threading.Barrier(4)

    def answer(body: dict[str, Any]) -> Reply:
        code, response = shown(body)
        number = int(response.split()[1])
        with lock:
            running["now"] += 1
            at_once.append(running["now"])
        if number < 4:
            together.wait(30)
        time.sleep(0.02 if number % 3 else 0.06)
        with lock:
            running["now"] -= 1
        texts = [f"[[{code} yes]]", f"[[{code} yes]] no: [[{code} no]]", "I cannot say."]
        return said(texts[number % 3]) if number != 8 else said(f"[[{code} yes]]", finish="length")

    with chat_server(answer) as server:
        judge, waits = remote(server.url)
        verdicts = judge(questions(9))
    assert [v.outcome for v in verdicts] == [PASSED, FAILED, MISSING] * 3
    assert {v.why for v in verdicts if v.outcome is MISSING} == {Why.UNPARSABLE}
    assert max(at_once) == 4
    assert waits == []
    assert judge.name == f"the judge m at {server.url}"


def test_what_fails_is_asked_again_and_the_rest_is_not() -> None:
    asked = Counter[str]()
    replies = {
        "answer 0": [Reply(b"boom", status=500), Reply(b"garbage")],
        "answer 1": [Reply(b"", status=429, headers={"Retry-After": "9"})],
        "answer 2": [Reply(b"", status=503)] * 3,
        "answer 3": [Reply(b"too long", status=400)],
    }

    def answer(body: dict[str, Any]) -> Reply:
        code, response = shown(body)
        asked[response] += 1
        left = replies.get(response, [])
        return left.pop(0) if left else said(f"[[{code} yes]]")

    with chat_server(answer) as server:
        judge, waits = remote(server.url, judge_concurrency=1, judge_first_delay_s=2.0, judge_max_delay_s=8.0)
        verdicts = judge(questions(5))
    assert [v.outcome for v in verdicts] == [PASSED, PASSED, MISSING, MISSING, PASSED]
    assert [asked[f"answer {index}"] for index in range(5)] == [3, 2, 3, 1, 1]
    assert waits == [2.0, 4.0, 8.0, 2.0, 4.0]
    assert [(v.why, v.evidence) for v in verdicts[2:4]] == [
        (Why.UNAVAILABLE, "HTTP 503: "),
        (Why.UNAVAILABLE, "HTTP 400: too long"),
    ]


def test_an_endpoint_that_is_down_is_given_up_and_stops_the_run() -> None:
    with chat_server(lambda _: Reply(b"down", status=500)) as server:
        judge, _ = remote(server.url, judge_attempts=2, judge_concurrency=1, max_missing_share=0.1)
        verdicts = judge(questions(50))
        assert len(server.requests) == 2 * 6, "one more than 10% of 50, twice each"
        judge, _ = remote(server.url, judge_attempts=2, judge_concurrency=1, max_missing_share=0.1)
        assert len(judge(questions(7))) == 7
        assert len(server.requests) == 2 * 6 + 2 * 7, "too few to say: all are asked"
    assert {v.why for v in verdicts} == {Why.UNAVAILABLE}
    with pytest.raises(TooManyMissingVerdictsError) as caught:
        check_missing(verdicts, judge=judge.name, max_missing_share=0.1, min_questions=20)
    assert str(caught.value) == (
        f"the judge m at {server.url} gave no verdict on 50 of 50 questions (unavailable 50); "
        "reward.max_missing_share=0.1. The first: 'HTTP 500: down'"
    )


class Server:
    """Answers while it is up; `asked` are the answers that it was shown since the last look."""

    def __init__(self) -> None:
        self.up = False
        self.status = 503
        self.shown: list[str] = []

    def __call__(self, body: dict[str, Any]) -> Reply:
        code, response = shown(body)
        self.shown.append(response)
        return said(f"[[{code} yes]]") if self.up else Reply(b"down", status=self.status)

    def asked(self) -> int:
        number = len(self.shown)
        self.shown.clear()
        return number


def test_an_endpoint_that_stays_down_costs_one_question_per_call() -> None:
    endpoint = Server()
    with chat_server(endpoint) as server:
        judge, _ = remote(server.url, judge_max_failures=5)
        outcomes = [judge(questions(8)) for _ in range(5)]
        assert endpoint.asked() == 3 * (8 + 4 * 1), "three attempts each"
        assert {(v.outcome, v.why) for verdicts in outcomes for v in verdicts} == {(MISSING, Why.UNAVAILABLE)}
        assert [len(verdicts) for verdicts in outcomes] == [8] * 5
        assert [v.evidence for v in outcomes[1]] == ["HTTP 503: down"] + ["not asked: HTTP 503: down"] * 7
        endpoint.up = True
        verdicts = judge(questions(8))
        assert [v.outcome for v in verdicts] == [PASSED] * 8
        assert endpoint.asked() == 8
        endpoint.up = False
        judge(questions(4))
        assert endpoint.asked() == 3 * 4
        judge(questions(4))
        assert endpoint.asked() == 3 * 4, "four failures in a row, and a fifth within the call"
        judge(questions(4))
        assert endpoint.asked() == 3
    assert judge([]) == []


def test_a_pause_asks_nothing_and_ends_with_a_trial() -> None:
    now = [100.0]
    endpoint = Server()
    with chat_server(endpoint) as server:
        judge, _ = remote(server.url)
        judge._outage = Outage(limit=2, pause_s=30.0, clock=lambda: now[0])
        judge(questions(2))
        endpoint.asked()
        now[0] = 129.9
        assert [v.evidence for v in judge(questions(3))] == ["not asked: HTTP 503: down"] * 3
        assert endpoint.asked() == 0
        now[0] = 130.0
        judge(questions(3))
        assert endpoint.asked() == 3, "one question, three attempts"
        endpoint.up, now[0] = True, 159.9
        assert [v.why for v in judge(questions(3))] == [Why.UNAVAILABLE] * 3
        assert endpoint.asked() == 0
        now[0] = 160.0
        assert [v.outcome for v in judge(questions(3))] == [PASSED] * 3


def test_refused_questions_are_no_outage() -> None:
    endpoint = Server()
    endpoint.status = 400
    with chat_server(endpoint) as server:
        judge, _ = remote(server.url, judge_max_failures=1)
        for _ in range(2):
            assert [v.evidence for v in judge(questions(3))] == ["HTTP 400: down"] * 3
        assert endpoint.asked() == 6


def test_unavailable_is_not_remembered_and_unparsable_is() -> None:
    texts = iter(["Hm."])

    def answer(body: dict[str, Any]) -> Reply:
        code, response = shown(body)
        if response == "answer 0":
            return said(next(texts))
        return Reply(b"", status=400) if len(server.requests) < 3 else said(f"[[{code} no]]")

    cache, counts = VerdictCache(10), JudgeCounts()
    with chat_server(answer) as server:
        judge, _ = remote(server.url, judge_concurrency=1)
        first = ask_once(judge, questions(2), cache=cache, counts=counts)
        second = ask_once(judge, questions(2), cache=cache, counts=counts)
    assert [v.why for v in first.values()] == [Why.UNPARSABLE, Why.UNAVAILABLE]
    assert [(v.outcome, v.why) for v in second.values()] == [(MISSING, Why.UNPARSABLE), (FAILED, None)]
    assert (counts.asked, counts.cache_hits) == (3, 1)
    assert counts.missing == {Why.UNPARSABLE: 1, Why.UNAVAILABLE: 1}


def spell(code: str, near: dict[str, float], word: str = " yes") -> list[tuple[str, dict[str, float]]]:
    """A verdict in tokens; `near` are the log-probs where its word begins."""
    return [(token, {token: 0.0}) for token in ("[[", code[:3], code[3:])] + [(word, near), ("]]", {"]]": 0.0})]


@pytest.mark.parametrize(
    ("near", "word", "expected"),
    [
        ({" yes": math.log(0.6), " no": math.log(0.2)}, " yes", 0.75),
        ({" no": math.log(0.6), " Yes": math.log(0.1), "yes": math.log(0.1), " maybe": -1.0}, " no", 0.25),
        ({" y": math.log(0.3), " n": math.log(0.6), " ": 0.0, "": 0.0}, " y", 1 / 3),
        ({" yes": 0.0}, " yes", 1.0),
        ({" no": -0.1}, " no", 0.0),
        ({" it": 0.0}, " yes", None),
        ({" yes": -math.inf, " no": -math.inf}, " yes", None),
        ({" yes": math.nan, " no": 0.0}, " yes", None),
        ({"yes]]": math.log(0.8), "no": math.log(0.2)}, "yes]]", 0.8),
        ({" No.": math.log(0.75), " yes-": math.log(0.25), " not": 0.0, "yesterday": 0.0}, " No.", 0.25),
        ({": yes": math.log(0.9), " no": math.log(0.1)}, ": yes", None),  # the emitted token is neither word
    ],
)
def test_word_probability(near: dict[str, float], word: str, expected: float | None) -> None:
    rest = [("es", {"es": 0.0})] if word == " y" else []
    spelled = spell("12345678", near, word)
    if word.endswith("]]"):
        spelled.pop()
    tokens = [TokenAlternatives(text, tuple(each.items())) for text, each in spelled[:4] + rest + spelled[4:]]
    found = word_probability(tokens, code="12345678")
    assert found is None if expected is None else found == pytest.approx(expected)
    assert word_probability(tokens, code="87654321") is None
    assert word_probability([], code="12345678") is None


def test_logprob_mode_reads_probabilities_and_needs_them() -> None:
    shares = {"answer 0": 0.9, "answer 1": 0.55, "answer 2": 0.2}

    def answer(body: dict[str, Any]) -> Reply:
        code, response = shown(body)
        assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 64)
        if response not in shares:
            return said("No verdict.", tokens=[("No verdict.", {"No verdict.": 0.0})])
        share = shares[response]
        near = {" yes": math.log(share), " no": math.log(1 - share)}
        return said(f"[[{code} yes]]", tokens=spell(code, near))

    with chat_server(answer) as server:
        judge, _ = remote(server.url, judge_mode=JudgeMode.logprob, judge_margin=0.1)
        judge.probe()
        verdicts = judge(questions(4))
    assert [(v.outcome, v.why) for v in verdicts] == [
        (PASSED, None),
        (MISSING, Why.UNDECIDED),
        (FAILED, None),
        (MISSING, Why.UNPARSABLE),
    ]
    with chat_server(lambda body: said(f"[[{shown(body)[0]} yes]]")) as server:
        with pytest.raises(ValueError, match=r"gives no log-probs, which reward\.judge_mode=logprob needs"):
            remote(server.url, judge_mode=JudgeMode.logprob)[0].probe()
        remote(server.url)[0].probe()


@pytest.mark.parametrize("key", ["sk-SECRET\r", "sk-SECRET\n", "sk-SECRET\x00", "sk-SECRÉT", "\u200bsk-SECRET"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key: str) -> None:
    config = RewardConfig(judge_endpoint="http://127.0.0.1:1/v1", judge_model="m", judge_key_variable="MY_KEY")
    with pytest.raises(ValueError, match=r"^reward\.judge_key_variable=MY_KEY: .* printable ASCII") as caught:
        make_endpoint_judge(config, template=TEMPLATE, run_seed=5, environment={"MY_KEY": key})
    assert "SECR" not in "".join(traceback.format_exception(caught.value))


def test_a_start_without_key_or_endpoint_is_refused_with_the_key_to_change() -> None:
    config = RewardConfig(judge_endpoint="http://127.0.0.1:1/v1", judge_model="m", judge_key_variable="MY_KEY")
    with pytest.raises(ValueError, match=r"reward\.judge_key_variable=MY_KEY: no such environment variable"):
        make_endpoint_judge(config, template=TEMPLATE, run_seed=5, environment={"OTHER": "x"})
    with chat_server(lambda body: Reply(b"who?", status=401)) as server:
        config = RewardConfig(judge_endpoint=server.url, judge_model="m", judge_key_variable="MY_KEY")
        judge = make_endpoint_judge(config, template=TEMPLATE, run_seed=5, environment={"MY_KEY": "hush"})
        with pytest.raises(ValueError) as caught:
            judge.probe()
    assert str(caught.value) == (
        f"reward.judge_endpoint={server.url} gives no answer as reward.judge_model=m: HTTP 401: who?"
    )
    assert server.requests[0]["authorization"] == "Bearer hush"


def test_the_call_finds_what_was_asked_ahead() -> None:
    def answer(body: dict[str, Any]) -> Reply:
        code, text = shown(body)
        return said(f"[[{code} {'yes' if text.endswith(('0', '2')) else 'no'}]]")

    asked = questions(5)
    with chat_server(answer) as server:
        judge, _ = remote(server.url)
        threads = [threading.Thread(target=judge.ask_ahead, args=(asked[index],)) for index in (0, 1, 1, 3, 0)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 3, "a question under way is not asked again"
        verdicts = judge(asked)
        assert [verdict.outcome for verdict in verdicts] == [PASSED, FAILED, PASSED, FAILED, FAILED]
        assert len(server.requests) == 5
        assert judge(asked) == verdicts and len(server.requests) == 10, "only the next call has them"


def test_what_fails_ahead_is_asked_with_patience_by_the_call() -> None:
    fails = iter([True, True])

    def answer(body: dict[str, Any]) -> Reply:
        return Reply(status=503) if next(fails, False) else said(f"[[{shown(body)[0]} yes]]")

    asked = questions(3)
    with chat_server(answer) as server:
        judge, waits = remote(server.url, judge_concurrency=1)
        for question in asked:
            judge.ask_ahead(question)
        assert (len(server.requests), waits) == (1, []), "one failure ends the asking ahead"
        assert [verdict.outcome for verdict in judge(asked)] == [PASSED] * 3
        assert len(server.requests) == 5 and len(waits) == 1
        judge.ask_ahead(asked[0])
        assert len(server.requests) == 6, "the next call's questions are asked ahead again"
