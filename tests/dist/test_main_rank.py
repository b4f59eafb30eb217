"""Only the main rank works; all ranks get the result, and hear of it while it takes long."""

import time
from typing import Any

import pytest

from seif_nemo.components.main_rank import MainRankError, on_main_rank
from seif_nemo.components.remote_judge import connect_remote_judge
from seif_nemo.config.parallel import ParallelConfig
from seif_nemo.config.reward import RewardConfig
from seif_nemo.parallel.topology import build_topology, shutdown
from seif_nemo.roles.judger import question_seed
from seif_nemo.roles.prompts import judger_template, secret_code
from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Outcome
from tests.chat_server import Reply, chat_server, said
from tests.dist.harness import run_ranks

QUESTIONS = [Question("Tell me.", "be kind", f"answer {index}") for index in range(6)]
TEMPLATE = judger_template("single_constraint")


def _work(seconds: float, heartbeat_s: float) -> Any:
    topology = build_topology(ParallelConfig(), seed=0, threads=1, rendezvous_timeout_s=60)

    def work() -> tuple[int, list[str]]:
        time.sleep(seconds)
        return topology.rank, ["a", "é"]

    def fail() -> None:
        raise KeyError("x")

    results = [on_main_rank(work, topology, heartbeat_s=heartbeat_s) for _ in range(2)]
    with pytest.raises(KeyError if topology.is_main else MainRankError) as caught:
        on_main_rank(fail, topology, heartbeat_s=heartbeat_s)
    again = on_main_rank(lambda: 5, topology, heartbeat_s=heartbeat_s)
    shutdown(topology)
    return results, str(caught.value), again


@pytest.mark.parametrize(("seconds", "heartbeat_s"), [(0.0, 5.0), (0.2, 0.03)])
def test_every_rank_gets_the_main_ranks_result_or_error(seconds: float, heartbeat_s: float) -> None:
    for rank, (results, error, again) in enumerate(run_ranks(3, _work, seconds, heartbeat_s)):
        assert results == [(0, ["a", "é"])] * 2
        assert error == ("'x'" if rank == 0 else "KeyError: 'x'")
        assert again == 5


def _slow_work() -> str:
    topology = build_topology(ParallelConfig(collective_timeout_s=2.0), seed=0, threads=1)
    said = on_main_rank(lambda: time.sleep(3.5) or "done", topology)
    shutdown(topology)
    return said


def test_the_heartbeat_is_quicker_than_a_collectives_time_out() -> None:
    assert run_ranks(2, _slow_work) == ["done", "done"]


def _judge(url: str) -> Any:
    topology = build_topology(ParallelConfig(), seed=0, threads=1, rendezvous_timeout_s=60)
    config = RewardConfig(
        judge_endpoint=url, judge_model="m", judge_attempts=1, judge_first_delay_s=0.0, judge_timeout_s=5.0
    )
    try:
        judge = connect_remote_judge(config, topology, template=TEMPLATE, run_seed=5)
    except ValueError as error:
        return str(error)
    else:
        assert judge is not None
        return judge.name, judge.identity, judge(QUESTIONS)
    finally:
        shutdown(topology)


def test_only_the_main_rank_asks_and_all_get_the_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = [secret_code(question_seed(5, question)) for question in QUESTIONS]

    def answer(body: dict[str, Any]) -> Reply:
        code = body["messages"][-1]["content"].split("<<< ")[1][:8]
        return said(f"[[{code} {'yes' if code in codes[:2] else 'no'}]]")

    monkeypatch.setenv("no_proxy", "*")
    with chat_server(answer) as server:
        first, second = run_ranks(2, _judge, server.url)
        assert len(server.requests) == 1 + len(QUESTIONS), "a trial and the questions, from one rank"
    assert first == second
    assert [verdict.outcome for verdict in first[2]] == [Outcome.PASSED] * 2 + [Outcome.FAILED] * 4
    with chat_server(lambda _: Reply(b"nobody", status=404)) as server:
        first, second = run_ranks(2, _judge, server.url)
    assert first == second and first.startswith(f"reward.judge_endpoint={server.url} gives no answer")
