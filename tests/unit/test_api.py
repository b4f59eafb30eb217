import inspect
import json
import math
import re
import sys
import types
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pytest

from seif_nemo import api
from seif_nemo.types.questions import Question
from seif_nemo.types.verdicts import Outcome, Source, Verdict
from tests.unit.source_tree import ROOT

IDS = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
WARM = {"constraints": ["At most 9 words.", "Use a warm tone."]}


def ask(questions: Sequence[Question]) -> list[Verdict]:
    return [Verdict(Outcome.FAILED, Source.MODEL, question.constraint) for question in questions]


def test_one_response() -> None:
    score = api.judge_response("one two", constraints=["At most 9 words.", "At most 1 word."])
    assert [verdict.outcome for verdict in score.verdicts] == [Outcome.PASSED, Outcome.FAILED]
    assert api.follow_rate("one two", constraints=["At most 9 words.", "At most 1 word."]) == 0.5
    assert api.follow_rate("one, two", **IDS) == 0.0
    assert api.follow_rate("one, two", specs=[{"kind": "commas", "low": 1}]) == 1.0
    assert api.follow_rate("one, two", **WARM) is None
    assert api.follow_rate("one, two", **WARM, ask=ask) == 0.5
    assert api.follow_rate("Sure, ok:\none two", **IDS, loose=True) == 1.0


def test_what_is_not_said_is_an_error() -> None:
    with pytest.raises(ValueError, match="none of 'instruction_id_list', 'constraints', 'specs'"):
        api.judge_response("one two")
    with pytest.raises(ValueError, match="'kwargs' is missing"):
        api.judge_response("one two", instruction_id_list=["punctuation:no_comma"])
    with pytest.raises(TypeError):
        api.follow_rate("one two", constraint=["No commas."])


def test_a_bad_row_among_rows_is_named() -> None:
    with pytest.raises(ValueError, match=r"^row 1: 'response' is missing$"):
        api.judge_rows([{"response": "a", **IDS}, IDS])


@pytest.mark.parametrize(
    "row, message",
    [
        (None, "not an object but null"),
        ("{}", "not an object but a string"),
        (3, "not an object but a number"),
        ([1], "not an object but a list"),
    ],
)
def test_a_row_that_is_no_object_is_named(row: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^row 1: {message}$"):
        api.judge_rows([{"response": "a", **IDS}, row])
    with pytest.raises(ValueError, match=rf"^{message}$"):
        api.undecided(row)


def nested(depth: int) -> list[object]:
    value: list[object] = []
    for _ in range(depth):
        value = [value]
    return value


def test_a_row_that_is_nested_too_deeply_is_named() -> None:
    with pytest.raises(ValueError, match=r"^row 0: nested too deeply$"):
        api.judge_rows([{"response": "a", "mine": nested(100_000), **IDS}])
    with pytest.raises(ValueError, match=r"^ground_truth: JSON is nested too deeply$"):
        api.compute_score("x", "a", '{"a": ' + "[" * 100_000)


def test_which_constraints_rules_leave_open() -> None:
    assert api.undecided(WARM) == [1]
    assert api.undecided(IDS) == []
    assert api.undecided({"constraints": ["She wrote a book.", "No commas."]}) == [0]


def test_arrays_of_data_frames_are_lists() -> None:
    ids = np.array(["length_constraints:number_words"], dtype=object)
    kwargs = np.array([{"num_words": np.float64(3), "relation": "at least", "keywords": None}], dtype=object)
    assert api.compute_score("x", "one two three", {"instruction_id_list": ids, "kwargs": kwargs})["score"] == 1.0
    assert api.compute_score("x", "one two", {"instruction_id_list": ids, "kwargs": kwargs})["score"] == 0.0


# --- verl


def test_verl_calls_by_these_names_and_gets_numbers() -> None:
    truth = json.dumps({"constraints": ["At most 9 words.", "No commas."]})
    result = api.compute_score(
        data_source="mine", solution_str="one, two", ground_truth=truth,
        extra_info={"num_turns": 2}, reward_router_address=None, reward_model_tokenizer=object(),
    )  # fmt: skip
    assert result == {"score": 0.5, "missing": 0.0, "passed": 1.0, "failed": 1.0}
    assert all(type(value) is float for value in result.values())


def test_verl_gets_an_error_or_the_users_number_for_a_missing_verdict() -> None:
    with pytest.raises(
        api.MissingVerdictError, match=r"no verdict on constraint 1: no rule covers all of it\. Find such"
    ):
        api.compute_score("mine", "one, two", json.dumps(WARM))
    result = api.compute_score("mine", "one, two", json.dumps(WARM), missing_score=0.25)
    assert result == {"score": 0.25, "missing": 1.0, "passed": 1.0, "failed": 0.0}
    for value in (-1, cast(float, np.float32(-1))):
        score = api.compute_score("mine", "one, two", json.dumps(WARM), missing_score=value)["score"]
        assert (score, type(score)) == (-1.0, float)


@pytest.mark.parametrize("value", [0, 1, 0.0, 1.0, True, math.nan, math.inf, "0", "0.5", [0.5], 2j])
def test_a_missing_verdict_is_worth_neither_0_nor_1(value: Any) -> None:
    expected = re.escape(f"missing_score={value!r} must be a finite number other than 0 and 1")
    with pytest.raises(ValueError, match=expected):
        api.compute_score("mine", "one, two", json.dumps(IDS), missing_score=value)
    with pytest.raises(ValueError, match=r"missing_reward=.* must be a finite number other than 0 and 1"):
        api.nemo_rl_rewards([], [], missing_reward=value)


@pytest.mark.parametrize(
    "truth, message",
    [
        ("18", "not a JSON object but a number"),
        ("no", "not JSON"),
        ([1], "^ground_truth: not an object but a list$"),
        (None, "^ground_truth: not an object but null$"),
        ({"response": "x", **IDS}, "'response' is given twice"),
        ({}, "none of"),
    ],
)
def test_a_ground_truth_that_is_no_row_is_an_error(truth: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        api.compute_score("mine", "one", truth)


def test_a_misspelt_reward_kwarg_is_an_error() -> None:
    with pytest.raises(TypeError, match="missing_scores"):
        api.compute_score("mine", "one", json.dumps(IDS), missing_scores=0.5)  # type: ignore[call-arg]


# --- TRL


def test_trl_calls_by_these_names_with_its_own_columns() -> None:
    rewards = api.trl_reward(
        prompts=["Hi!", "Hi!"], completions=["one, two", "one two"], completion_ids=[[1], [2]],
        trainer_state=object(), log_metric=print, instruction_id_list=[["punctuation:no_comma"]] * 2,
        kwargs=[[{"num_words": None}]] * 2, constraints=[None] * 2,
    )  # fmt: skip
    assert rewards == [0.0, 1.0]
    assert not inspect.iscoroutinefunction(api.trl_reward)
    assert api.trl_reward.__name__ == "follow_rate_reward"


def test_trl_gets_none_for_a_missing_verdict_unless_a_model_is_asked() -> None:
    columns = {"constraints": [WARM["constraints"], ["No commas."]]}
    call = {"prompts": ["Hi!"] * 2, "completions": ["one two"] * 2, **columns}
    assert api.trl_reward(**call) == [None, 1.0]
    assert api.make_trl_reward(ask=ask)(**call) == [0.5, 1.0]


def test_trl_conversations() -> None:
    prompts = [[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Name a river."}]] * 3
    completions = [
        [{"role": "assistant", "content": "The Rhine."}],
        [{"role": "assistant", "content": "", "tool_calls": []}, {"role": "tool", "content": "a, b"},
         {"role": "assistant", "content": [{"type": "text", "text": "The "}, {"type": "text", "text": "Po, too."}]}],
        [{"role": "assistant", "content": "Name a river."}],
    ]  # fmt: skip
    specs = [[{"kind": "words", "high": 2}]] * 3
    assert api.trl_reward(prompts=prompts, completions=completions, specs=specs) == [1.0, 0.0, 0.0]
    constraints = [["At most 9 words."]] * 3
    assert api.trl_reward(prompts=prompts, completions=completions, constraints=constraints) == [1.0, 1.0, 0.0]


def test_trl_columns_of_another_length_and_bad_rows_are_errors() -> None:
    with pytest.raises(ValueError, match="'specs' has 1 entries but 'completions' has 2"):
        api.trl_reward(prompts=["a", "b"], completions=["a", "b"], specs=[[]])
    with pytest.raises(ValueError, match="row 1: 'specs' is empty"):
        api.trl_reward(prompts=["a", "b"], completions=["a", "b"], specs=[[{"kind": "words", "low": 1}], []])
    with pytest.raises(ValueError, match="row 0: 'response' is missing"):
        api.trl_reward(prompts=["a"], completions=[[{"role": "tool", "content": "a"}]], specs=[[{"kind": "json"}]])
    with pytest.raises(ValueError, match=r"^row 1: a message must be an object .*, not null$"):
        api.trl_reward(prompts=["a", "a"], completions=["a", [None]], specs=[[{"kind": "json"}]] * 2)


# --- NeMo-RL


def test_nemo_rl_judges_the_last_answer() -> None:
    logs = [
        [{"role": "user", "content": "Hi!"}, {"role": "assistant", "content": "one, two", "token_ids": object()}],
        [{"role": "assistant", "content": "one, two"}, {"role": "user", "content": "Again, please."},
         {"role": "assistant", "content": "one two"}, {"role": "environment", "content": "a, b"}],
    ]  # fmt: skip
    assert api.nemo_rl_rewards(logs, [IDS, IDS]) == [0.0, 1.0]
    with pytest.raises(ValueError, match="'metadata' has 1 entries but 'message_log_batch' has 2"):
        api.nemo_rl_rewards(logs, [IDS])
    with pytest.raises(ValueError, match=r"^row 1: not an object but null$"):
        api.nemo_rl_rewards(logs, [IDS, None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"^row 0: 'response' is given twice"):
        api.nemo_rl_rewards(logs, [{"response": "a", **IDS}, IDS])
    with pytest.raises(ValueError, match=r"^row 1: a message must be an object .*, not a string$"):
        api.nemo_rl_rewards([logs[0], ["a"]], [IDS, IDS])  # type: ignore[list-item]


def test_nemo_rl_gets_an_error_or_the_users_number_for_a_missing_verdict() -> None:
    logs = [[{"role": "assistant", "content": "one two"}]]
    with pytest.raises(api.MissingVerdictError, match="set missing_reward"):
        api.nemo_rl_rewards(logs, [WARM])
    assert api.nemo_rl_rewards(logs, [WARM], missing_reward=-0.5) == [-0.5]
    assert api.nemo_rl_rewards(logs, [WARM], ask=ask) == [0.5]


# --- the examples in the documents


def examples(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


def test_the_readme_s_example_runs() -> None:
    [code] = [code for code in examples("README.md") if "seif_nemo.api" in code]
    namespace: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), namespace)
    assert {"trl_reward", "compute_score", "nemo_rl_rewards"} < set(namespace)


class EnvironmentReturn(NamedTuple):
    """The fields of NeMo-RL's, in its order (nemo_rl/environments/interfaces.py)."""

    observations: list[dict[str, str]]
    metadata: list[dict[str, object]]
    next_stop_strings: list[None]
    rewards: "np.ndarray"
    terminateds: "np.ndarray"
    answers: list[str | None] | None = None


def test_the_documents_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray, torch and NeMo-RL are stand-ins with the few names that the example uses."""
    interface = type("EnvironmentInterface", (), {})
    stand_ins = {
        "ray": {"remote": lambda cls: cls},
        "torch": {"tensor": np.array, "ones": np.ones},
        "nemo_rl": {},
        "nemo_rl.environments": {},
        "nemo_rl.environments.interfaces": {
            "EnvironmentInterface": interface,
            "EnvironmentReturn": EnvironmentReturn,
        },
    }
    for name, members in stand_ins.items():
        module = types.ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    namespace: dict[str, object] = {}
    found = examples("docs/judging.md")
    assert len(found) == 2
    for code in found:
        exec(compile(code, "docs/judging.md", "exec"), namespace)
    environment = namespace["InstructionFollowingEnvironment"]()  # type: ignore[operator]
    logs = [[{"role": "assistant", "content": text}] for text in ("one, two", "one two")]
    result = environment.step(logs, [IDS, IDS])
    assert result.rewards.tolist() == [0.0, 1.0]
    assert result.terminateds.tolist() == [1.0, 1.0]
    assert [message["content"] for message in result.observations] == ["follow rate 0.00", "follow rate 1.00"]
    assert (result.metadata, result.next_stop_strings, result.answers) == ([IDS, IDS], [None, None], [None, None])
    batch = {"rewards": result.rewards}
    assert environment.global_post_process_and_metrics(batch) == (batch, {"follow_rate": 0.5})
