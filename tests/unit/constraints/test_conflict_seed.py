"""What seeds demand themselves, and conflicts with it. Precision over recall: what is not clear is not read."""

import pytest

from seif_nemo.constraints.conflict import find_conflicts
from seif_nemo.constraints.seed_demands import read_demands, seed_demands
from seif_nemo.types.constraints import Constraint, Kind, Reading, Spec

ONE_SENTENCE = Spec(Kind.SENTENCES, low=1, high=1)
ONE_WORD = Spec(Kind.WORDS, high=1)


@pytest.mark.parametrize(
    ("seed", "demands"),
    [
        ("Name a river. Your answer must not contain more than one word.", (ONE_WORD,)),
        ("Summarize the given text in one sentence. input: Some long text.", (ONE_SENTENCE,)),
        ("Given an article, summarize it in less than 100 words.\ninput: x", (Spec(Kind.WORDS, high=99),)),
        ("Say something kind to a friend (no more than 50 words).", (Spec(Kind.WORDS, high=50),)),
        ("Explain the idea. Limit your response to no more than 50 words.", (Spec(Kind.WORDS, high=50),)),
        ("Write a one-sentence summary of the following news article. input: y", (ONE_SENTENCE,)),
        ("Your summary should be less than 20 words long.", (Spec(Kind.WORDS, high=19),)),
        (
            'Tell if it is healthy. Output "healthy" or "not so healthy". input: cake',
            (Spec(Kind.WORDS, low=1, high=3),),
        ),
        ('Output "not quite" or "yes, it is so".', (Spec(Kind.WORDS, low=2, high=4),)),
        ("Answer the given question in yes or no. input: Is it wet?", (Spec(Kind.WORDS, low=1, high=1),)),
        ('Explain why it rains. Output "yes" or "no".', (Spec(Kind.WORDS, low=1, high=1),)),
        # what a later sentence asks for besides
        ('Output "yes" or "no". Explain why.', ()),
        ('Output "yes" or "no". Then justify your answer.', ()),
        ("Summarize the text in one word. Then explain your choice at length.", ()),
        ("Answer in one word and explain why.", ()),
        # of the input, of examples, of one of several things, of a part, or unclear
        ("Read the text. input: Answer in one sentence. Use no more than 5 words.", ()),
        ("Here is how to do it. Example: Limit your response to no more than 5 words.", ()),
        ("You are given a story in five sentences.", ()),
        ("Add a transition between the two sentences.", ()),
        ("Write two stories (no more than 50 words each).", ()),
        ("Describe each of the parts in one sentence.", ()),
        ("Is the following statement true or false?", ()),
        ("Write an article about how to explain physics in three sentences.", ()),
        ("A password has at least 6 characters and at most 20 characters.", ()),
        ("Compose a 2000-word article.", ()),
        ("", ()),
    ],
)
def test_seed_demands(seed: str, demands: tuple[Spec, ...]) -> None:
    assert seed_demands(seed) == demands


def test_demands_keep_their_words() -> None:
    (demand,) = read_demands("Look at this.  Summarize the text\tin one sentence. input: x")
    assert demand.text == "Summarize the text in one sentence."


def said(text: str, spec: Spec | None) -> Constraint:
    return Constraint(text, Reading.EQUIVALENT if spec is not None else Reading.NEEDS_JUDGE, spec)


def test_conflicts_with_the_seed_say_who_says_what() -> None:
    constraints = [
        said("be kind", None),
        said("at least 20 words", Spec(Kind.WORDS, low=20)),
        said("3 bullets", Spec(Kind.BULLETS, low=3, high=3)),
    ]
    seed = "Name a river. Your answer must not contain more than one word."
    found = find_conflicts(constraints, seed)
    assert [c.indices for c in found] == [(1,), (2,)]
    assert [d.text for d in found[0].demands] == ["Your answer must not contain more than one word."]
    assert found[0].reason == "words: at least 20 and at most 1"
    assert find_conflicts(constraints, "Name a river.") == ()


def test_one_sentence_cannot_be_three_paragraphs() -> None:
    paragraphs = [said("three paragraphs", Spec(Kind.PARAGRAPHS, low=3, high=3))]
    (found,) = find_conflicts(paragraphs, "Why is the sky blue? Answer in one sentence.")
    assert found.indices == (0,)
    assert found.reason == "sentences: at least 3 (3 paragraphs: each paragraph holds a sentence) and at most 1"
    assert [demand.text for demand in found.demands] == ["Answer in one sentence."]
    assert find_conflicts(paragraphs, "Why is the sky blue? Answer in three sentences.") == ()


def test_a_limit_does_not_contradict_a_seed_that_wants_one_word() -> None:
    few = [said("at most 10 words", Spec(Kind.WORDS, high=10)), said("no commas", Spec(Kind.COMMAS, high=0))]
    for seed in ('Output "formal" or "informal".', "Name a river. Your answer must not contain more than one word."):
        assert find_conflicts(few, seed) == ()
    (found,) = find_conflicts([said("3 words", Spec(Kind.WORDS, low=3, high=3))], 'Output "fact" or "opinion".')
    assert found.reason == "words: at least 3 and at most 1"


def test_conflicts_without_the_seed_name_no_demand() -> None:
    pair = [said("a", Spec(Kind.WORDS, low=20)), said("b", Spec(Kind.WORDS, high=10))]
    (found,) = find_conflicts(pair, "Summarize the text in one sentence.")
    assert (found.indices, found.demands) == ((0, 1), ())


def test_a_seed_at_odds_with_itself_is_not_the_constraints_fault() -> None:
    seed = "Limit your response to no more than 5 words. Use at least 10 words."
    assert len(seed_demands(seed)) == 2
    assert find_conflicts([said("kind", Spec(Kind.KEYWORD, low=1, text="kind"))], seed) == ()


def test_the_seed_itself_is_the_prompt_to_repeat() -> None:
    repeat = [said("repeat", Spec(Kind.REPEAT_PROMPT)), said("short", Spec(Kind.WORDS, high=5))]
    (found,) = find_conflicts(repeat, "Name one long river that runs through Asia.")
    assert found.indices == (0, 1)
    assert find_conflicts(repeat, "Name one long river.") == ()
