"""Our IFEval rules against the public checkers of lm-eval, on every instruction of IFEval.

Needs the extra `ifeval` (docs/ifeval.md) and the instructions in shared/data. Every response is judged as it is and in
its loose variants. Where the two differ, a reason in `explain` must hold: they are the rows of docs/ifeval.md.
"""

import importlib
import importlib.metadata
import logging
import random
import sys
import types
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from seif_nemo.constraints import punkt
from seif_nemo.constraints.ifeval_rules import RULES, check_ifeval, loose_variants
from seif_nemo.constraints.language import detect_language
from seif_nemo.types.verdicts import Outcome
from tests.unit.constraints.ifeval_answers import MAKERS, answers

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "seif_reference" / "test.parquet"
TABLE = Path(__file__).resolve().parents[3] / "docs" / "ifeval.md"
SEED = "2024"
LANGUAGE_IDS = ("language:response_language", "change_case:english_capital", "change_case:english_lowercase")


@dataclass(frozen=True)
class Reference:
    """lm-eval's checkers and the splitter that they use."""

    utils: Any
    registry: Any
    splitter: Any

    def count_sentences(self, text: str) -> int:
        return len(self.splitter.tokenize(text))

    def verdict(self, instruction_id: str, kwargs: Mapping[str, Any], response: str, *, loose: bool) -> bool:
        item = self.utils.InputExample(0, [instruction_id], "", [dict(kwargs)])
        test = self.utils.test_instruction_following_loose if loose else self.utils.test_instruction_following_strict
        return test(item, response).follow_instruction_list[0]


@pytest.fixture(scope="module")
def reference() -> Iterator[Reference]:
    """Without lm_eval/__init__ and lm_eval/tasks/__init__, which import all of the harness."""
    try:
        root = Path(str(importlib.metadata.distribution("lm-eval").locate_file("lm_eval")))
        data = importlib.metadata.distribution("llama-index-core")
        nltk = importlib.import_module("nltk")
        importlib.import_module("immutabledict")
    except ImportError as error:
        pytest.skip(f"no reference checkers (extra 'ifeval'): {error}")
    for name, version in (("lm-eval", "0.4.9.1"), ("nltk", "3.9.4")):
        if importlib.metadata.version(name) != version:
            pytest.skip(f"the reference is {name} {version}, not {importlib.metadata.version(name)}")
    langdetect = importlib.import_module("langdetect")
    before = dict(sys.modules)
    seed, path = langdetect.DetectorFactory.seed, list(nltk.data.path)
    langdetect.DetectorFactory.seed = 0  # else the reference has no opinion of its own; see test_..._is_random
    nltk.data.path.insert(0, str(data.locate_file("llama_index/core/_static/nltk_cache")))
    for name, folder in (("lm_eval", root), ("lm_eval.tasks", root / "tasks")):
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    try:
        utils = importlib.import_module("lm_eval.tasks.ifeval.utils")
        registry = importlib.import_module("lm_eval.tasks.ifeval.instructions_registry")
        tools = importlib.import_module("lm_eval.tasks.ifeval.instructions_util")
        logging.disable(logging.ERROR)  # the reference logs every text without a language
        yield Reference(utils, registry, tools._get_sentence_tokenizer())
    finally:
        logging.disable(logging.NOTSET)
        langdetect.DetectorFactory.seed = seed
        nltk.data.path[:] = path
        for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
            del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if name.split(".")[0] == "lm_eval"})


@pytest.fixture(scope="module")
def items() -> list[tuple[str, dict[str, Any], str]]:
    if not DATA.exists():
        pytest.skip("no IFEval instructions in shared/data")
    import pyarrow.parquet as pq

    return [
        (instruction_id, {name: value for name, value in kwargs.items() if value is not None}, row["prompt"])
        for row in pq.read_table(DATA).to_pylist()
        for instruction_id, kwargs in zip(row["instruction_id_list"], row["kwargs"], strict=True)
    ]


def own_splitter() -> Any:
    """NLTK's splitter with our parameters."""
    nltk: Any = importlib.import_module("nltk.tokenize.punkt")
    parameters = nltk.PunktParameters()
    parameters.abbrev_types = set(punkt.ABBREVIATIONS)
    parameters.sent_starters = set(punkt.OPENERS)
    small, capital = 1 << 5, 1 << 2  # seen so within a sentence
    parameters.ortho_context.update(dict.fromkeys(punkt.ORDINARY, small))
    parameters.ortho_context.update(dict.fromkeys(punkt.IN_TITLES, small | capital))
    return nltk.PunktSentenceTokenizer(parameters)


def other_breaks(reference: Reference, response: str) -> bool:
    """Whether the parameters differ on a text, and only after abbreviations, initials, numbers and dots in a row."""
    mine, theirs = (
        {decision["period_index"]: decision for decision in splitter.debug_decisions(response)}
        for splitter in (own_splitter(), reference.splitter)
    )
    assert mine.keys() == theirs.keys()
    differ = [at for at in mine if bool(mine[at]["break_decision"]) != bool(theirs[at]["break_decision"])]
    for at in differ:
        word = mine[at]["type1"]
        is_abbreviation = mine[at]["type1_in_abbrs"] or theirs[at]["type1_in_abbrs"]
        assert is_abbreviation or theirs[at]["type1_is_initial"] or set(word) == {"."} or "##number##" in word, word
    return bool(differ)


def explain(reference: Reference, instruction_id: str, response: str, *, ours: bool) -> str | None:
    """The deliberate difference that applies to one text, if one does."""
    if not ours and not any(c.isalnum() for c in response):
        return "no words"
    if not ours and instruction_id in LANGUAGE_IDS and detect_language(response) is None:
        return "no language"
    if instruction_id == "length_constraints:number_sentences" and other_breaks(reference, response):
        return "abbreviations"
    return None


def test_agreement_with_the_public_checkers(
    reference: Reference, items: list[tuple[str, dict[str, Any], str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(RULES) == set(reference.registry.INSTRUCTION_DICT)
    texts = random.Random(SEED)
    compared: Counter[str] = Counter()
    followed: Counter[str] = Counter()
    differ: Counter[tuple[str, str, str]] = Counter()
    wrong: list[tuple[object, ...]] = []
    for number, (instruction_id, kwargs, prompt) in enumerate(items):
        some_prompt = texts.choice(items)[2]
        for kind, response in answers(f"{SEED}/{number}", some_prompt, instruction_id, kwargs).items():
            for loose in (False, True):
                ours = check_ifeval(instruction_id, kwargs, response, prompt=prompt, loose=loose)
                passed = ours.outcome is Outcome.PASSED
                theirs = reference.verdict(instruction_id, kwargs, response, loose=loose)
                compared[instruction_id] += 1
                followed[instruction_id] += theirs
                if passed == theirs:
                    continue
                if instruction_id == "keywords:letter_frequency" and not kwargs["letter"].isalpha():
                    differ[instruction_id, "loose" if loose else "strict", "not a letter"] += 1
                    continue  # the reference draws another letter for each call
                reasons: set[str | None] = set()
                for variant in loose_variants(response) if loose else [response]:
                    mine = check_ifeval(instruction_id, kwargs, variant, prompt=prompt).outcome is Outcome.PASSED
                    if mine != reference.verdict(instruction_id, kwargs, variant, loose=False):
                        reasons.add(explain(reference, instruction_id, variant, ours=mine))
                if not reasons or None in reasons:
                    wrong.append((instruction_id, kwargs, kind, loose, response, ours.evidence, theirs))
                for reason in reasons:
                    differ[instruction_id, "loose" if loose else "strict", str(reason)] += 1
    with capsys.disabled():
        print(f"\nIFEval rules against lm-eval 0.4.9.1, seed {SEED!r}: comparisons, passed by lm-eval, differences")
        for instruction_id in RULES:
            why = {f"{how}: {reason}": n for (i, how, reason), n in differ.items() if i == instruction_id}
            print(f"  {instruction_id:45} {compared[instruction_id]:6} {followed[instruction_id]:6} {why or ''}")
    assert not wrong, wrong[:5]
    rows = {line.split("`")[1] for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")}
    assert {reason for _, _, reason in differ} <= rows
    for instruction_id in RULES:  # both verdicts were seen, and often
        assert min(followed[instruction_id], compared[instruction_id] - followed[instruction_id]) >= 10, instruction_id


def test_sentences_and_capital_words_are_those_of_nltk(reference: Reference) -> None:
    """With our parameters on both sides: the algorithm is the same."""
    nltk: Any = importlib.import_module("nltk")
    words, splitter = nltk.NLTKWordTokenizer(), own_splitter()
    rng = random.Random(SEED)
    marks = [*"aAbB1.,:;!?'\"-()[]*` \n\t…’”", "\u00a0", " ", " ", "..", "--", "''", "\x1c"]
    marks += ["DON'T", "CAN'T", "I'LL", "CANNOT", "gonna", "'TIS", "Mr.", "e.g.", "U.S.", "No."]
    texts = ["".join(rng.choice(marks) for _ in range(rng.randint(1, 60))) for _ in range(4000)]
    texts += [make(rng, "") for _ in range(300) for make in MAKERS.values()]
    for text in texts:
        sentences = splitter.tokenize(text)
        assert punkt.split_sentences(text) == sentences
        theirs = [word for sentence in sentences for word in words.tokenize(sentence) if word.isupper()]
        assert len([word for word in punkt.tokens(text) if word.isupper()]) == len(theirs), text


def test_other_sentences_are_rare(reference: Reference, items: list[tuple[str, dict[str, Any], str]]) -> None:
    """On real text, the prompts of IFEval, which the parameters were not chosen on."""
    prompts = sorted({prompt for _, _, prompt in items})
    differ = [prompt for prompt in prompts if len(punkt.split_sentences(prompt)) != reference.count_sentences(prompt)]
    assert len(prompts) > 500
    assert len(differ) <= len(prompts) // 100, differ
