import os
import random
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import tiny_demos
import tiny_world
from tiny_world import Demand, TinyConstraint

from seif_nemo.constraints.conflict import conflicts
from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.constraints.verify import verify
from seif_nemo.types.constraints import Reading
from seif_nemo.types.verdicts import Outcome

TOOLS = Path(tiny_world.__file__).parent


def c(demand: Demand, number: int = 0, word: str = "") -> TinyConstraint:
    return TinyConstraint(demand, number, word)


def test_splits_are_disjoint_and_of_the_promised_size() -> None:
    splits = tiny_world.seed_splits()
    parts = (splits.training, splits.probe, splits.dev, splits.heldout)
    assert [len(part) for part in parts] == [2000, 240, 300, 300]
    assert len(set().union(*parts)) == 2840
    # 24 nouns with 5 places, with 12 adjectives in four templates, with 23 other nouns in three
    assert len(tiny_world.all_seeds()) == 24 * 5 + 4 * 24 * 12 + 3 * 24 * 23
    assert "Describe an ancient tiger for me." in tiny_world.all_seeds()


def test_the_world_is_the_same_in_another_process() -> None:
    code = (
        "import random, tiny_demos as d, tiny_world as w; s = w.seed_splits(); r = random.Random(3);"
        "print([d.draw_follower_demo(r, x) for x in s.training[:20]], d.draw_instructor_demo(r, s.probe[0]), s.dev[:5])"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": str(TOOLS), "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert tiny_world.seed_splits().training[0] in outputs[0]


@pytest.mark.parametrize("demand", Demand)
def test_the_parser_reads_every_phrasing_in_full(demand: Demand) -> None:
    rng = random.Random(0)
    drawn = [draw for _ in range(3000) if (draw := tiny_world.draw_constraint(rng, 0.7)).demand is demand]
    texts = {(tiny_world.render(constraint, rng), constraint) for constraint in drawn}
    assert len(texts) >= len(tiny_world.PHRASINGS[demand])
    for text, constraint in texts:
        read = parse_constraint(text)
        assert (read.reading, read.spec) == (Reading.EQUIVALENT, constraint.spec), text


def test_demonstrations_satisfy_what_they_take_up_and_not_the_rest() -> None:
    rng = random.Random(1)
    seeds = tiny_world.seed_splits().training
    passed: dict[tuple[Demand, float], list[bool]] = defaultdict(list)
    for _ in range(1500):
        prompt = tiny_demos.draw_prompt(rng, rng.choice(seeds), rng.randint(1, 4), 0.6)
        for keep in (0.0, 1.0):
            response = tiny_demos.demonstrate(rng, prompt.constraints, keep=keep)
            for constraint in prompt.constraints:
                verdict = verify(constraint.spec, response, seed_question=prompt.seed)
                passed[constraint.demand, keep].append(verdict.outcome is Outcome.PASSED)
    rates = {key: sum(values) / len(values) for key, values in passed.items()}
    for demand in Demand:
        assert rates[demand, 1.0] >= 0.97, (demand, rates[demand, 1.0])
    # What text without any effort does not satisfy by accident.
    effortless = {Demand.MIN_WORDS, Demand.MAX_WORDS, Demand.FORBID, Demand.NO_COMMAS, Demand.SENTENCES, Demand.INCLUDE}
    for demand in set(Demand) - effortless:
        assert rates[demand, 0.0] <= 0.05, (demand, rates[demand, 0.0])
    assert 0.3 <= rates[Demand.NO_COMMAS, 0.0] <= 0.7
    assert rates[Demand.INCLUDE, 0.0] <= 0.25


def test_a_demonstration_by_hand() -> None:
    constraints = [
        c(Demand.CAPITALS),
        c(Demand.START, word="well"),
        c(Demand.END, word="good luck"),
        c(Demand.SENTENCES, 2),
        c(Demand.QUOTE),
        c(Demand.TITLE),
    ]
    response = tiny_demos.demonstrate(random.Random(5), constraints, keep=1.0)
    title, body = response.split("\n")
    assert title.startswith('"<<')
    assert title.endswith(">>")
    assert body.startswith("WELL ")
    assert body.endswith(' GOOD LUCK."')
    assert body.count(".") == 2
    assert response == response.upper()


@pytest.mark.parametrize(
    ("constraints", "expected"),
    [
        ([c(Demand.LOWERCASE), c(Demand.CAPITALS)], False),
        ([c(Demand.LOWERCASE), c(Demand.QUOTE)], True),
        ([c(Demand.MIN_WORDS, 9), c(Demand.MAX_WORDS, 8)], False),
        ([c(Demand.MIN_WORDS, 8), c(Demand.MAX_WORDS, 8)], True),
        ([c(Demand.MIN_WORDS, 2), c(Demand.MIN_WORDS, 3)], False),  # two of one type
        ([c(Demand.INCLUDE, word="tiger"), c(Demand.FORBID, word="tiger")], False),
        ([c(Demand.BULLETS, 2), c(Demand.SENTENCES, 2)], False),
        ([c(Demand.SENTENCES, 4), c(Demand.MAX_WORDS, 7)], False),  # two words a sentence
        ([c(Demand.SENTENCES, 4), c(Demand.MAX_WORDS, 8)], True),
    ],
)
def test_what_goes_together(constraints: list[TinyConstraint], expected: bool) -> None:
    assert tiny_world.compatible(constraints) is expected


def test_instructor_demonstrations_are_noisy_by_the_given_shares() -> None:
    rng = random.Random(2)
    malformed, conflicting = 0, 0
    for _ in range(2000):
        demo = tiny_demos.draw_instructor_demo(rng, "Why?", unfiltered=1.0, hard=0.5)
        pieces = demo.response.removeprefix('{"c1": "').removesuffix('"}').replace('", "c2": "', "|")
        texts = pieces.replace('", "c3": "', "|").split("|")
        specs = [parse_constraint(text).spec for text in texts]
        if not demo.response.endswith('"}') or len(texts) != 3 or None in specs:
            malformed += 1
        elif conflicts(specs):
            conflicting += 1
    assert 0.08 <= malformed / 2000 <= 0.12  # 10%, standard deviation 0.7%
    assert 0.02 <= conflicting / 2000 <= 0.25  # nobody filtered these
    clean = [tiny_demos.draw_instructor_demo(rng, "Why?", unfiltered=0.0, malformed=0.0) for _ in range(300)]
    assert all(demo.response.startswith('{"c1": "') and demo.response.count('", "c') == 2 for demo in clean)


def test_copy_drills_are_always_satisfied() -> None:
    rng = random.Random(4)
    for _ in range(200):
        demo = tiny_demos.draw_copy_drill(rng, "Why is the tiger so bright?")
        seed, *lines = demo.prompt.split("\n* ")
        for line in lines:
            spec = parse_constraint(line).spec
            assert spec is not None
            assert verify(spec, demo.response, seed_question=seed).outcome is Outcome.PASSED, demo


def test_evaluation_prompts() -> None:
    splits = tiny_world.seed_splits()
    prompts = tiny_demos.evaluation_prompts(splits.dev, "dev")
    assert [prompt.seed for prompt in prompts] == list(splits.dev)
    assert Counter(len(prompt.texts) for prompt in prompts) == {2: 75, 3: 75, 4: 75, 5: 75}
    assert all(tiny_world.compatible(prompt.constraints) for prompt in prompts)
    first = prompts[0]
    assert first.prompt == f"{first.seed}\n* {first.texts[0]}\n* {first.texts[1]}"
    assert tiny_demos.evaluation_prompts(splits.dev, "other")[0].texts != first.texts
