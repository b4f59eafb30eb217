"""Free text to specs: what is read, what is left to the judge, and what is no constraint."""

import pathlib
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seif_nemo.constraints.numbers import parse_number
from seif_nemo.constraints.parse import MAX_LENGTH, parse_constraint
from seif_nemo.constraints.specs import validate
from seif_nemo.types.constraints import Constraint, Kind, Reading, Spec

REFERENCE = pathlib.Path(__file__).resolve().parents[3].parent / "shared" / "data" / "seif_reference"

WORDS, SENTENCES, BULLETS = Kind.WORDS, Kind.SENTENCES, Kind.BULLETS
KEYWORD, KEYWORDS, LETTER = Kind.KEYWORD, Kind.KEYWORDS, Kind.LETTER


def read(text: str) -> Spec | Reading:
    """The spec of an EQUIVALENT reading, else the reading."""
    constraint = parse_constraint(text)
    assert constraint.text == text
    if constraint.reading is Reading.EQUIVALENT:
        assert constraint.spec is not None
        return validate(constraint.spec)
    return constraint.reading


# --- the closed phrasings of the tiny world


@pytest.mark.parametrize("stop", ["", "."])
@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("use at least {n} words", lambda n: Spec(WORDS, low=n)),
        ("write {n} or more words", lambda n: Spec(WORDS, low=n)),
        ("use at most {n} words", lambda n: Spec(WORDS, high=n)),
        ("write no more than {n} words", lambda n: Spec(WORDS, high=n)),
        ("use exactly {n} bullet points", lambda n: Spec(BULLETS, low=n, high=n)),
        ("write exactly {n} sentences", lambda n: Spec(SENTENCES, low=n, high=n)),
        ("include at least {n} placeholders in square brackets", lambda n: Spec(Kind.PLACEHOLDERS, low=n)),
    ],
)
def test_tiny_world_counts(text: str, stop: str, spec) -> None:
    for n in range(1, 41):
        assert read(text.format(n=n) + stop) == spec(n)


@pytest.mark.parametrize("word", ["river", "the", "a", "people", "hammer", "of", "is", "and"])
def test_tiny_world_words(word: str) -> None:
    assert read(f"include the word {word}") == Spec(KEYWORD, low=1, text=word)
    assert read(f"do not use the word {word}") == Spec(KEYWORD, high=0, text=word)
    for n in (2, 3, 5):
        assert read(f"use the word {word} at least {n} times") == Spec(KEYWORD, low=n, text=word)
    assert read(f'include the word "{word}"') == Spec(KEYWORD, low=1, text=word)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("use only lowercase letters", Spec(Kind.LOWERCASE)),
        ("use only capital letters", Spec(Kind.UPPERCASE)),
        ("do not use commas", Spec(Kind.COMMAS, high=0)),
        ("end with the phrase that is all", Spec(Kind.ENDS_WITH, text="that is all")),
        ("end with the phrase hope this helps", Spec(Kind.ENDS_WITH, text="hope this helps")),
        ("end with the phrase thank you", Spec(Kind.ENDS_WITH, text="thank you")),
        ("end with the phrase good luck", Spec(Kind.ENDS_WITH, text="good luck")),
        ("start with the word well", Spec(Kind.STARTS_WITH, text="well")),
        ("start with the word today", Spec(Kind.STARTS_WITH, text="today")),
        ("add a title in double angle brackets", Spec(Kind.TITLE)),
        ("wrap the answer in double quotes", Spec(Kind.QUOTED)),
    ],
)
def test_tiny_world_forms(text: str, spec: Spec) -> None:
    assert read(text) == spec
    assert read(text + ".") == spec
    assert read(text[0].upper() + text[1:]) == spec


# --- numbers and bounds


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("one", 1),
        ("a single", 1),
        ("twelve", 12),
        ("twenty-five", 25),
        ("ninety nine", 99),
        ("one hundred", 100),
        ("a hundred", 100),
        ("hundred", 100),
        ("two hundred", 200),
        ("two hundred and fifty", 250),
        ("three thousand one hundred", 3100),
        ("1,000", 1000),
        ("0042", 42),
    ],
)
def test_parse_number(text: str, n: int) -> None:
    assert parse_number(text) == n


@pytest.mark.parametrize("number", ["7", "seven"])
@pytest.mark.parametrize(
    ("bound", "low", "high"),
    [
        ("at least {} sentences", 7, None),
        ("no fewer than {} sentences", 7, None),
        ("not less than {} sentences", 7, None),
        ("a minimum of {} sentences", 7, None),
        ("{} or more sentences", 7, None),
        ("{} sentences or more", 7, None),
        ("{} sentences at least", 7, None),
        ("{}+ sentences", 7, None),
        ("more than {} sentences", 8, None),
        ("at most {} sentences", 0, 7),
        ("no more than {} sentences", 0, 7),
        ("up to {} sentences", 0, 7),
        ("a maximum of {} sentences", 0, 7),
        ("{} or fewer sentences", 0, 7),
        ("{} sentences or less", 0, 7),
        ("{} sentences max", 0, 7),
        ("fewer than {} sentences", 0, 6),
        ("less than {} sentences", 0, 6),
        ("under {} sentences", 0, 6),
        ("exactly {} sentences", 7, 7),
        ("precisely {} sentences", 7, 7),
        ("{} sentences", 7, 7),
        ("between 5 and {} sentences", 5, 7),
        ("5 to {} sentences", 5, 7),
        ("from 5 to {} sentences", 5, 7),
        ("at least 5 but no more than {} sentences", 5, 7),
    ],
)
def test_bounds(bound: str, low: int, high: int | None, number: str) -> None:
    if bound == "{}+ sentences" and number == "seven":
        return
    spec = Spec(SENTENCES, low=low, high=high)
    demand = bound.format(number)
    assert read(f"Write {demand}.") == spec
    assert read(f"Your response should contain {demand}") == spec
    assert read(f"The answer must have {demand} in total.") == spec
    assert read(demand) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("Your response should be at least 100 words long.", Spec(WORDS, low=100)),
        ("Your entire response must be two hundred words or more.", Spec(WORDS, low=200)),
        ("The answer should not exceed 100 words.", Spec(WORDS, high=100)),
        ("Do not use more than 50 words", Spec(WORDS, high=50)),
        ("do not write fewer than 20 words", Spec(WORDS, low=20)),
        ("Limit your response to 30 words.", Spec(WORDS, high=30)),
        ("Limit the response to exactly 50 words.", Spec(WORDS, low=50, high=50)),
        ("Keep your answer under 40 words.", Spec(WORDS, high=39)),
        ("Answer in 50-60 words.", Spec(WORDS, low=50, high=60)),
        ("The response should have a word count less than 80.", Spec(WORDS, high=79)),
        ("Word Count: at least 100", Spec(WORDS, low=100)),
        ("Bullet Points Count — The answer must contain exactly 2 bullet points.", Spec(BULLETS, low=2, high=2)),
        ("Sentence count: 3", Spec(SENTENCES, low=3, high=3)),
        ("Length constraint: use at most 15 words", Spec(WORDS, high=15)),
        ("The number of sentences must be at least 3.", Spec(SENTENCES, low=3)),
        ("The number of sentences must not exceed 3.", Spec(SENTENCES, high=3)),
        ("Make sure that your reply contains no bullet points", Spec(BULLETS, high=0)),
        ("Use 5 markdown bullet points.", Spec(BULLETS, low=5, high=5)),
        ("The response must contain exactly 3 bullet points using markdown bullets.", Spec(BULLETS, low=3, high=3)),
        ("There should be exactly 2 paragraphs.", Spec(Kind.PARAGRAPHS, low=2, high=2)),
        ("Use 3 paragraphs separated by '***'.", Spec(Kind.PARAGRAPHS, low=3, high=3, text="***")),
        ("Include a minimum of two placeholders, such as [name]", Spec(Kind.PLACEHOLDERS, low=2)),
        ("Highlight at least 3 sections in your answer with markdown", Spec(Kind.HIGHLIGHTS, low=3)),
        ("Use at least 4 sections marked with 'Part X'", Spec(Kind.SECTIONS, low=4, text="Part")),
        ("Use at least five words in all capital letters.", Spec(Kind.CAPITAL_WORDS, low=5)),
        ("Words in ALL CAPS should appear at least twice.", Spec(Kind.CAPITAL_WORDS, low=2)),
        ("Use at least 3 commas", Spec(Kind.COMMAS, low=3)),
        ("Refrain from the use of any commas.", Spec(Kind.COMMAS, high=0)),
        ("Your answer must not contain any commas", Spec(Kind.COMMAS, high=0)),
        ("The use of commas is not allowed", Spec(Kind.COMMAS, high=0)),
        ("No commas, please.", Spec(Kind.COMMAS, high=0)),
        ("Include the words 'alpha', 'beta' and 'gamma'.", Spec(KEYWORDS, low=1, text="alpha\nbeta\ngamma")),
        ("Use the words 'alpha' and 'beta' at least twice each.", Spec(KEYWORDS, low=2, text="alpha\nbeta")),
        ("Do not use the words 'alpha' or 'beta'.", Spec(KEYWORDS, high=0, text="alpha\nbeta")),
        ("Your answer must be in English and in all lowercase letters.", Spec(Kind.LOWERCASE, text="en")),
        ("Highlight the word 'river' in bold", Spec(Kind.BOLD, text="river")),
        ("Include the keyword 'apple pie'.", Spec(KEYWORD, low=1, text="apple pie")),
        ("Include the keyword “apple”.", Spec(KEYWORD, low=1, text="apple")),
        ("Include the keyword ‘it’s here’.", Spec(KEYWORD, low=1, text="it's here")),
        ("Include the keyword «apple».", Spec(KEYWORD, low=1, text="apple")),
        ("Include the keyword `apple`.", Spec(KEYWORD, low=1, text="apple")),
        ("Include the keyword **apple**.", Spec(KEYWORD, low=1, text="apple")),
        ("Mention the phrase \"at least 3\" twice or more", Spec(KEYWORD, low=2, text="at least 3")),
        ("Use the phrase \"at least 3\" at least twice", Spec(KEYWORD, low=2, text="at least 3")),
        ("Include the word 'likes' exactly once", Spec(KEYWORD, low=1, high=1, text="likes")),
        ("The word 'river' must not appear more than once.", Spec(KEYWORD, high=1, text="river")),
        ("The word river should appear at least 3 times", Spec(KEYWORD, low=3, text="river")),
        ("Avoid the word 'very'.", Spec(KEYWORD, high=0, text="very")),
        ("Don't use the word “very”", Spec(KEYWORD, high=0, text="very")),
        ("Mandatory use of the term 'aggregate'.", Spec(KEYWORD, low=1, text="aggregate")),
        ("Lexical content constraint: Must include the word 'unipolar'.", Spec(KEYWORD, low=1, text="unipolar")),
        ("Use the letter e at least 10 times", Spec(LETTER, low=10, text="e")),
        ("Include at least 5 instances of the letter 'Q'.", Spec(LETTER, low=5, text="Q")),
        ("The letter 'z' should appear less than 3 times", Spec(LETTER, high=2, text="z")),
        ("Your entire response should be in lowercase letters.", Spec(Kind.LOWERCASE)),
        ("Do not use any capital letters", Spec(Kind.LOWERCASE)),
        ("Write in all caps", Spec(Kind.UPPERCASE)),
        ("Answer entirely in uppercase.", Spec(Kind.UPPERCASE)),
        ("End your response with \"Any questions?\"", Spec(Kind.ENDS_WITH, text="Any questions?")),
        ("Finish with the exact phrase 'The end.' and nothing after it", Spec(Kind.ENDS_WITH, text="The end")),
        ("The response should begin with the phrase 'Dear Sir,'", Spec(Kind.STARTS_WITH, text="Dear Sir")),
        ("Include a title wrapped in double angular brackets, such as <<sunny day>>.", Spec(Kind.TITLE)),
        ("Wrap your entire response in double quotation marks.", Spec(Kind.QUOTED)),
        ("Format your entire output as a valid JSON object", Spec(Kind.JSON)),
        ("- Use at least 5 words", Spec(WORDS, low=5)),
        ("2. **Use at least 5 words**", Spec(WORDS, low=5)),
    ],
)  # fmt: skip
def test_wide_phrasings(text: str, spec: Spec | Reading) -> None:
    assert read(text) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("Keep your response within 5 sentences.", Spec(SENTENCES, high=5)),
        ("Answer within 3 paragraphs.", Spec(Kind.PARAGRAPHS, high=3)),
        ("Respond within three sentences", Spec(SENTENCES, high=3)),
        ("Keep your answer within 100 words", Spec(WORDS, high=100)),
        ("Keep your answer within 100 words or less", Spec(WORDS, high=100)),
        ("Answer within 3-5 sentences", Spec(SENTENCES, low=3, high=5)),
        ("Answer within a maximum of 5 sentences", Spec(SENTENCES, high=5)),
    ],
)
def test_within_is_an_upper_bound(text: str, spec: Spec) -> None:
    assert read(text) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("Provide your entire response in JSON", Spec(Kind.JSON)),
        ("Include the response in a JSON structure.", Spec(Kind.JSON)),
        ("Use JSON format for output.", Spec(Kind.JSON)),
        ("Your response should be a valid JSON object.", Spec(Kind.JSON)),
        ("Give your answer in uppercase", Spec(Kind.UPPERCASE)),
        ("Include only lowercase letters in your output.", Spec(Kind.LOWERCASE)),
        ("Your response must only contain capital letters", Spec(Kind.UPPERCASE)),
        ("Use lowercase letters.", Spec(Kind.LOWERCASE)),
        ("Use uppercase letters for the output.", Spec(Kind.UPPERCASE)),
        ("State your answer in double quotes", Spec(Kind.QUOTED)),
    ],
)
def test_the_whole_response_is_meant(text: str, spec: Spec) -> None:
    assert read(text) == spec


# --- what is not read


@pytest.mark.parametrize(
    "text",
    [
        "Use a formal tone.",
        "Use at least 5 words that rhyme",
        "Use about 100 words",
        "Write approximately 50 words",
        "Write 100 words",  # exact, or roughly?
        "Use at least 20 words or use a table",
        "Use at least 20 words unless the topic is short",
        "Do not use at least 20 words",
        "Include the word 'a' or 'b'.",
        "Use terms such as 'alpha' and 'beta'",
        "Include the word count at the end",
        "include the word count",
        "Include the word below",
        "end with the phrase that sums up the answer",
        "End with a question.",
        "Start with a greeting",
        "end with the phrase thank you and include a title",
        "The response should be 'yes'",
        "Use lowercase for all numbers",
        "Add a title",
        "Title: at most 5 words",
        "Do not use the words 'a', 'b', and 'c' in the title",
        "Do not use commas and write at most 3 sentences in the introduction",
        "Sentence length: at most 10 words",
        "Sentence length: at most 10",
        "Ending: at least 3 words",
        "Paragraph 2: at least 30 words",
        "The number of words in each sentence must be at least 5",
        "Use placeholders",
        "Do not end with the phrase thank you",
        "Do not start with the word well",
        "You are a pirate.",
        "使用正式的语气回答",
        "The headline must have at most 5 words",
        "The tone is formal and the language is simple",
        "Do not avoid commas",
        "The word 'x' must not be avoided",
        "The word 'x' should not be excluded",
        "The word 'x' should never be avoided more than twice",
        "Include a valid JSON object in your response.",
        "Mention JSON in your response",
        "Provide a JSON object",
        "Use a JSON object in your response",
        "The response must include the JSON structure and be less than 50 words.",
        "There should be a JSON object in your response",
        "Include capital letters.",
        "Use capital letters",
        "Mention it in capital letters",
        "There must be uppercase letters in the answer",
        "Your response should contain lowercase letters.",
        "Add lowercase letters to your response",
        "Mention it in double quotes",
        "Keep your answer within 100 words or more",
        "Do not answer within 5 sentences",
    ],
)
def test_left_to_the_judge(text: str) -> None:
    assert read(text) is Reading.NEEDS_JUDGE
    assert parse_constraint(text).spec is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n",
        "...",
        "42",
        "She wrote a book.",
        "They all considered her to be insane.",
        "Marseille is a major port city, famous for its beaches.",
        "The train has departed late.",
        "This is a wasted opportunity.",
        "It was raining.",
        "What is the capital of France?",
        "Do not include any forbidden words.",
        "The response should not contain any forbidden words.",
        "Include the required keywords.",
        "use at most 0 words",
        "use fewer than 1 words",
        "write exactly 0 sentences",
        "use at least 0 words",
        "use at least 1000000000 words",
        "use at most 1,000,000 words",
        "write exactly 99999999999999999999999 sentences",
        "write between 9 and 3 sentences",
        "use at least 10 but no more than 5 words",
        "use fewer than 0 bullet points",
    ],
)
def test_no_constraint(text: str) -> None:
    assert parse_constraint(text) == Constraint(text, Reading.NOT_A_CONSTRAINT)


def test_zero_is_a_ban_where_a_response_can_do_without() -> None:
    assert read("use at most 0 bullet points") == Spec(BULLETS, high=0)
    assert read("use the word river at most 0 times") == Spec(KEYWORD, high=0, text="river")
    assert read("use at most 100,000 words") == Spec(WORDS, high=100_000)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("Use at least 10 words and maintain a formal tone.", Spec(WORDS, low=10)),
        ("Write exactly 3 sentences, and include a joke.", Spec(SENTENCES, low=3, high=3)),
        ("Use the words 'alpha' and 'beta' at least twice.", Spec(KEYWORDS, low=1, text="alpha\nbeta")),
        ("Do not use words such as 'alpha' or 'beta'.", Spec(KEYWORDS, high=0, text="alpha\nbeta")),
        ("Include the word 'likes' instead of 'mag'.", Spec(KEYWORD, low=1, text="likes")),
        ("Use at most 9 words and avoid jargon in your answer", Spec(WORDS, high=9)),
        ("Include 2 placeholders in square brackets", Spec(Kind.PLACEHOLDERS, low=2)),
        ("Use the word river three times", Spec(KEYWORD, low=3, text="river")),
    ],
)
def test_necessary(text: str, spec: Spec) -> None:
    assert parse_constraint(text) == Constraint(text, Reading.NECESSARY, spec)


# --- it never fails, and is fast

_PIECES = [
    *("use ", "at least ", "no more than ", "two hundred ", "and ", "words ", '"', "'", "“", "**", "the word "),
    *("river ", "forbidden words "),
    *("do not ", "between 3 and ", "5 ", "- ", ": ", "<<", "[", "\n", "each ", "sentences ", ".", ","),
    *("\ue000", "one "),
    *("each paragraph ", "in the first sentence ", "highlight ", "in bold ", "for clarity ", "markdown ", "至少"),
    *("三百", "字", "段", "不得使用", "，", "以", "the title ", "such as ", "Forbidden: ", "separated by ***"),
    *("times ", "end with ", "the phrase ", "or ", "number of ", "\\", "(", "+", "*", "Keyword: ", "json ", "文"),
]  # fmt: skip


@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from(_PIECES), max_size=25).map("".join)))
@settings(max_examples=400, deadline=None)
def test_never_raises_and_specs_are_valid(text: str) -> None:
    constraint = parse_constraint(text)
    assert constraint.text == text
    has_spec = constraint.reading in (Reading.EQUIVALENT, Reading.NECESSARY, Reading.SCOPED)
    assert (constraint.spec is not None) is has_spec
    if constraint.spec is not None:
        validate(constraint.spec)


@pytest.mark.parametrize("piece", [*_PIECES, "a ", "a", " ", "1", "1,", "x'", "'x", "and the ", "words or more "])
def test_no_text_is_slow(piece: str) -> None:
    """The longest text that is read, made of one piece: the worst that backtracking could meet."""
    for text in ((piece * MAX_LENGTH)[:MAX_LENGTH], ("use at least " + piece * MAX_LENGTH)[: MAX_LENGTH - 1] + "!"):
        started = time.process_time()
        parse_constraint(text)
        assert time.process_time() - started < 0.25


def test_overlong_texts_are_left_to_the_judge_unread() -> None:
    text = "use at least 5 words" + " " * MAX_LENGTH
    assert parse_constraint(text) == Constraint(text, Reading.NEEDS_JUDGE)


def test_real_constraints() -> None:
    """2,000 constraints that trained Instructors wrote."""
    files = [REFERENCE / name for name in ("qwen7b_q_T1.parquet", "qwen7b_q_T4.parquet", "qwen1.5b_q_T3.parquet")]
    if not all(file.exists() for file in files):
        pytest.skip(f"{REFERENCE} is absent")
    import pyarrow.parquet as pq

    texts = [text for file in files for row in pq.read_table(file)["constraint"].to_pylist() for text in row]
    sample = random.Random(1).sample(texts, 2000)
    times: list[float] = []
    for _ in range(2):  # the better of two: other processes share the caches
        started = time.process_time()
        readings = [parse_constraint(text).reading for text in sample]
        times.append((time.process_time() - started) / len(sample))
    assert min(times) <= 1e-3
    shares = {reading: readings.count(reading) / len(sample) for reading in Reading}
    assert 0.15 < shares[Reading.EQUIVALENT] < 0.4
    assert shares[Reading.NOT_A_CONSTRAINT] < 0.15
