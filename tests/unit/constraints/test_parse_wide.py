"""What the parser reads beyond plain English counts: labels, lists, markup, parts, languages, Chinese, statements."""

import pytest

from seif_nemo.constraints.parse import parse_constraint
from seif_nemo.constraints.readers_zh import parse_chinese_number
from seif_nemo.constraints.specs import validate
from seif_nemo.types.constraints import Kind, Reading, Scope, Spec

WORDS, SENTENCES, PARAGRAPHS, BULLETS = Kind.WORDS, Kind.SENTENCES, Kind.PARAGRAPHS, Kind.BULLETS
KEYWORD, KEYWORDS, BOLD, EMPHASIS, MARKDOWN = Kind.KEYWORD, Kind.KEYWORDS, Kind.BOLD, Kind.EMPHASIS, Kind.MARKDOWN


def reading_of(text: str, reading: Reading) -> Spec:
    constraint = parse_constraint(text)
    assert constraint.reading is reading, constraint
    assert constraint.spec is not None
    return validate(constraint.spec)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        # labels that demand
        ("Forbidden words: 'alpha', 'beta'", Spec(KEYWORDS, high=0, text="alpha\nbeta")),
        ("Required keywords: 'alpha' and 'beta'.", Spec(KEYWORDS, low=1, text="alpha\nbeta")),
        ("Forbidden words: do not use the word 'alpha'", Spec(KEYWORD, high=0, text="alpha")),
        ("Keywords: include the word 'JSON'", Spec(KEYWORD, low=1, text="JSON")),
        ("Word Count: at least 50 words but less than 100 words.", Spec(WORDS, low=50, high=99)),
        ("Response Language: chinese", Spec(Kind.LANGUAGE, text="zh")),
        ("No Commas — In your entire response, refrain from the use of any commas.", Spec(Kind.COMMAS, high=0)),
        # lists of words
        ("Your response should include at least 2 required keywords: 'a', 'b'.", Spec(KEYWORDS, low=1, text="a\nb")),
        ("Must include the words 'a', 'b', and 'c' exactly once each.", Spec(KEYWORDS, low=1, high=1, text="a\nb\nc")),
        ("must include the term 'a b' and the phrase 'c'", Spec(KEYWORDS, low=1, text="a b\nc")),
        ("The response should not include any of the forbidden words: 'a', 'b'.", Spec(KEYWORDS, high=0, text="a\nb")),
        ("Mandate the use of the terms 'a', 'b', and 'c'.", Spec(KEYWORDS, low=1, text="a\nb\nc")),
        ("Exclude any mention of 'fitness for use'.", Spec(KEYWORD, high=0, text="fitness for use")),
        # markup
        ("Highlight the word 'river' in bold within the response.", Spec(BOLD, text="river")),
        ("Highlight the words 'a' and 'b' using double asterisks for emphasis.", Spec(BOLD, text="a\nb")),
        ("Highlight the word 'a' and the phrase 'b c' in the response.", Spec(EMPHASIS, text="a\nb c")),
        ("Highlight the phrase 'a b' using markdown emphasis in the response.", Spec(EMPHASIS, text="a b")),
        ("The word 'a' should be highlighted in bold.", Spec(BOLD, text="a")),
        ("Highlight the word 'a' in bold to emphasize its importance.", Spec(BOLD, text="a")),
        ("Highlight at least 2 sections in the answer using markdown bold.", Spec(Kind.HIGHLIGHTS, low=2, text="**")),
        ("Output in Markdown format.", Spec(MARKDOWN)),
        ("Use Markdown format for the response.", Spec(MARKDOWN)),
        ("Use bullet points for clarity.", Spec(BULLETS, low=1)),
        ("Exactly 3 bullet points using markdown bullets starting with '*'.", Spec(BULLETS, low=3, high=3, text="*")),
        # counts
        ("Limit the word count to 50.", Spec(WORDS, high=50)),
        ("The word count should be limited to 30 words.", Spec(WORDS, high=30)),
        ("Limit the number of words to exactly 10.", Spec(WORDS, low=10, high=10)),
        ("Answer with a word count of less than 80 words.", Spec(WORDS, high=79)),
        ("Divide the response into two paragraphs.", Spec(PARAGRAPHS, low=2, high=2)),
        ("divided into 2 sentences", Spec(SENTENCES, low=2, high=2)),
        ("Limit the summary to 30 words.", Spec(WORDS, high=30)),
        ("Use no more than 280 characters.", Spec(Kind.CHARACTERS, high=280)),
        ("The poem should have at least 25 lines.", Spec(Kind.LINES, low=25)),
        ("Do not use any exclamation marks.", Spec(Kind.MARKS, high=0, text="!")),
        ("The response should not contain any punctuation marks.", Spec(Kind.MARKS, high=0)),
        ("Do not use any digits", Spec(Kind.DIGITS, high=0)),
        # case and language
        ("Your answer must be in English, and in all lowercase letters; no capital letters allowed.",
         Spec(Kind.LOWERCASE, text="en")),
        ("Your answer must be in English and in ALL CAPS.", Spec(Kind.UPPERCASE, text="en")),
        ("The response should be in French.", Spec(Kind.LANGUAGE, text="fr")),
        ("Write in the Spanish language only.", Spec(Kind.LANGUAGE, text="es")),
        ("Forbidden: commas", None),
    ],
)  # fmt: skip
def test_equivalent(text: str, spec: Spec | None) -> None:
    if spec is None:  # what a label forbids is never read as what it demands
        assert parse_constraint(text).reading is Reading.NEEDS_JUDGE
    else:
        assert reading_of(text, Reading.EQUIVALENT) == spec


@pytest.mark.parametrize("text", ["Forbidden: lowercase letters", "Keywords: JSON", "Exclusion: bullet points"])
def test_labels_that_demand_are_not_dropped(text: str) -> None:
    assert parse_constraint(text).reading is Reading.NEEDS_JUDGE


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("The response should include at least 3 sentences about the shoes.", Spec(SENTENCES, low=3)),
        ("Use exactly three bullet points to list the types.", Spec(BULLETS, low=3)),
        ("Limit the explanation to exactly 30 words.", Spec(WORDS, low=30)),
        ("The essay's answer must be at least 2 paragraphs, each with a different view or fact.", None),
        (
            "Your answer must contain at least 2 paragraphs, each with a different view or fact.",
            Spec(PARAGRAPHS, low=2),
        ),
        ("Include the word 'road' in the title.", Spec(KEYWORD, low=1, text="road")),
        ("The sentence must include the word 'road' exactly twice.", Spec(KEYWORD, low=2, text="road")),
        ("Use the term 'a' instead of 'b'.", Spec(KEYWORD, low=1, text="a")),
        ("must include the phrase 'a b' before beating the eggs", Spec(KEYWORD, low=1, text="a b")),
        ("Do not use words such as 'a' or 'b'.", Spec(KEYWORDS, high=0, text="a\nb")),
        ("Write a haiku that includes the word 'a' in the first line.", Spec(KEYWORD, low=1, text="a")),
        ("Highlight the corrected verb in bold.", Spec(Kind.HIGHLIGHTS, low=1, text="**")),
        ("Highlight the word 'a' in bold within the title.", Spec(BOLD, text="a")),
        ("Output in Markdown format, including headings and bullet points.", Spec(MARKDOWN)),
        ("Format the answer as a numbered list.", Spec(Kind.NUMBERED, low=1)),
        ("Write in simple English.", Spec(Kind.LANGUAGE, text="en")),
        ("Do not use any numbers.", Spec(Kind.DIGITS, high=0)),
    ],
)
def test_necessary(text: str, spec: Spec | None) -> None:
    if spec is None:
        assert parse_constraint(text).reading is Reading.NEEDS_JUDGE
    else:
        assert reading_of(text, Reading.NECESSARY) == spec


EACH, NTH = Scope.EACH_SENTENCE, Scope.NTH_PARAGRAPH


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("Each paragraph must contain at least 3 sentences.", Spec(SENTENCES, low=3, scope=Scope.EACH_PARAGRAPH)),
        ("limit to four sentences per paragraph", Spec(SENTENCES, high=4, scope=Scope.EACH_PARAGRAPH)),
        ("Limit each sentence to 10 words.", Spec(WORDS, high=10, scope=EACH)),
        ("Mandatory use of the term 'a' in every sentence.", Spec(KEYWORD, low=1, text="a", scope=EACH)),
        ("Start each sentence with the word 'well'", Spec(Kind.STARTS_WITH, text="well", scope=EACH)),
        ("Each bullet point should be at most 10 words.", Spec(WORDS, high=10, scope=Scope.EACH_ITEM)),
        ("The response should start the second paragraph with the word 'a'.",
         Spec(Kind.STARTS_WITH, text="a", scope=NTH, index=2)),
        ("Do not use the word 'a' in the last paragraph.", Spec(KEYWORD, high=0, text="a", scope=NTH, index=-1)),
        ("Include the word 'a' in the 1st sentence", Spec(KEYWORD, low=1, text="a", scope=Scope.NTH_SENTENCE, index=1)),
    ],
)  # fmt: skip
def test_scoped(text: str, spec: Spec) -> None:
    assert reading_of(text, Reading.SCOPED) == spec


@pytest.mark.parametrize(
    "text",
    [
        "Each paragraph must start with the word 'Ingredients' or 'Steps'.",
        "Each sentence must have a different length.",
        "The response should not start any paragraph with the word 'the'.",
        "Limit the explanation to 30 words.",
        "Limit the title to 10 words.",
        "Limit the word count to 100 tokens.",
        "Word Count: 20 words.",
        "Use specific terms such as 'a' and 'b'.",
        "Highlight the Great Wall",
        "Highlight any mistakes in bold.",
        "Highlight the code samples with markdown syntax.",
        "The sentence uses the phrase 'a b', which is formal.",
        "Use all capital letters for emphasis.",
        "Include at least 2 characters in the story",
        "Use at least 3 words that rhyme",
        "Translate it into French.",
        "Use French words",
        "Use the word 'a' at most twice in the title",
        "Use Python programming language.",
        "Use imperatives with nouns and verb phrases.",
    ],
)
def test_left_to_the_judge(text: str) -> None:
    constraint = parse_constraint(text)
    assert (constraint.reading, constraint.spec) == (Reading.NEEDS_JUDGE, None)


# --- no rule says what these say, nor a part of it


@pytest.mark.parametrize(
    "text",
    [
        # a negation, a permission or a condition before the part
        "Do not start every sentence with 'The'",
        "Never start each sentence with 'I'",
        "You must not start each paragraph with 'The'",
        "Do not limit each paragraph to 50 words",
        "Don't write all sentences in lowercase",
        "There is no need to limit each sentence to 10 words",
        "You may start each paragraph with 'Now'",
        "Half of the time, start each sentence with 'A'",
        "Forbidden: start each sentence with 'I'",
        "Things to avoid: start each sentence with 'I'",
        "The response should be in Chinese and start the third paragraph with the word '首先'.",
        # "in a sentence" is in one of them, "not in every" is not in none, "in total" is in all together
        "The word 'very' must not appear in every paragraph",
        "Do not use the word 'very' in every sentence",
        "Do not use capital letters in all sentences",
        "Limit all paragraphs to 100 words in total",
        "All paragraphs together must not exceed 100 words",
        # a description of a phrase
        "The response should end with a phrase indicating a sense of contentment or satisfaction.",
        "End with a phrase expressing gratitude",
        "End with the phrase expressing gratitude",
        "Start with an opening phrase summarizing the topic",
        "End with words of wisdom",
        "End with the words of wisdom",
        "End with the phrase used in the title",
        "End with the phrase like thank you",
        "Start with a word meaning hello",
        # labels that forbid
        "Forbidden: more than 3 sentences",
        "Forbidden: at most 3 sentences",
        "Forbidden: no more than 3 sentences",
        "Forbidden: use of the word 'very'",
        "Forbidden words: use 'very'",
        "Exclusion: mention 'politics'",
    ],
)
def test_not_what_it_looks_like(text: str) -> None:
    constraint = parse_constraint(text)
    assert (constraint.reading, constraint.spec) == (Reading.NEEDS_JUDGE, None)


@pytest.mark.parametrize(
    "text",
    [
        # "word" before what is no word
        "Avoid word repetition",
        "Avoid the word repetition",
        "Avoid keyword stuffing",
        "Use a term repeatedly",
        "Do not use any phrase verbatim",
        "Use word play",
        "Use the word sparingly",
        "Use the phrase often",
        # both, all, any, or
        "Do not use both the words 'foo' and 'bar'",
        "Do not use all of the words 'foo' and 'bar'",
        "Do not use all words such as 'foo' and 'bar'",
        "Include any of the words 'a', 'b', 'c'",
        "Use 'a'/'b'",
        "Mandatory keywords: 'a'/'b'",
        "Highlight any of the words 'a' and 'b' in bold",
        # what a later clause takes back
        "No more than 100 words, with the title not included",
        "Use no more than 100 words. The title does not count",
        "Use no more than 100 words. The summary may be longer",
        "Use at most 100 words, with each heading exempt",
        "Do not use commas. Lists are exempt",
        "Do not use commas; numbers are fine",
        "Write at most 3 sentences, apart from the title",
        # another form of the word
        "The document must include the word 'machine learning' in French.",
        "Include the word 'hello' in spanish",
        "Include the words 'hello' and 'bye' in Spanish",
        "Include the word 'hello' translated to French",
        "Include the word 'hello'. Translate it to French",
        "Highlight the word 'hello' in French",
        "Use the word 'run' in the past tense",
        "Use the word 'river' in its plural form",
        "Use the word 'river' spelled backwards",
        "Write a poem using the word 'river' spelled backwards",
        # a number that may be rough, a part, or no case at all
        "Maintain a word count of 200 words",
        "Keep the word count at 150",
        "The maximum number of sentences is exactly 3",
        "Keep it small",
        "The response should be small",
        "Use small text",
        "Mention all capitals",
        "Include all capitals",
        "Use at most twenty twenty words",
        "Use at most one two three words",
        # of the input
        "The original question must contain the word 'why'",
        "The seed sentence must contain the word 'why'",
        "Include the word 'hello' and write it in French",
        "Include the phrase 'hello' in its French version",
        "End with the phrase goodbye in Spanish",
        "Include 'a', 'b' / 'c'",
    ],
)
def test_no_such_word_or_count(text: str) -> None:
    constraint = parse_constraint(text)
    assert (constraint.reading, constraint.spec) == (Reading.NEEDS_JUDGE, None)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("The maximum number of sentences is 3", Spec(SENTENCES, high=3)),
        ("Maximum sentence count: 3", Spec(SENTENCES, high=3)),
        ("Maximum number of paragraphs: 3", Spec(PARAGRAPHS, high=3)),
        ("The maximum number of words is less than 30", Spec(WORDS, high=29)),
        ("Keep the number of paragraphs at 3", Spec(PARAGRAPHS, low=3, high=3)),
        ("Maintain a sentence count of 5", Spec(SENTENCES, low=5, high=5)),
        ("Keep a bullet point count of 4", Spec(BULLETS, low=4, high=4)),
        ("Keep the word count to 150", Spec(WORDS, high=150)),
        ("Maintain a paragraph limit of 3", Spec(PARAGRAPHS, high=3)),
        ("Maintain a word count within 150", Spec(WORDS, high=150)),
        ("Use 0 commas", Spec(Kind.COMMAS, high=0)),
        ("zero exclamation marks", Spec(Kind.MARKS, high=0, text="!")),
        ("between three and five sentences", Spec(SENTENCES, low=3, high=5)),
        ("from one to two sentences", Spec(SENTENCES, low=1, high=2)),
        ("Use at most one hundred and twenty-five words", Spec(WORDS, high=125)),
        ("one hundred and twenty-five words at most", Spec(WORDS, high=125)),
        ("twenty-five sentences", Spec(SENTENCES, low=25, high=25)),
        ("between one hundred and two hundred words", Spec(WORDS, low=100, high=200)),
        ("Use at most a hundred and fifty words", Spec(WORDS, high=150)),
        ("Do not use 'a'/'b'", Spec(KEYWORDS, high=0, text="a\nb")),
        ("Do not use any of the words 'a' and 'b'", Spec(KEYWORDS, high=0, text="a\nb")),
        ("Include all of the words 'a' and 'b'", Spec(KEYWORDS, low=1, text="a\nb")),
        ("Use small letters", Spec(Kind.LOWERCASE)),
        ("Write in all capitals", Spec(Kind.UPPERCASE)),
        ("Write in block letters", Spec(Kind.UPPERCASE)),
        ("End with the exact words hope this helps", Spec(Kind.ENDS_WITH, text="hope this helps")),
        ("End with the words of 'Amazing Grace'", Spec(Kind.ENDS_WITH, text="Amazing Grace")),
    ],
)
def test_what_looks_alike_is_read(text: str, spec: Spec) -> None:
    assert reading_of(text, Reading.EQUIVALENT) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("Use the word 'might' in a sentence.", Spec(KEYWORD, low=1, text="might")),
        ("Use 'river' in a paragraph", Spec(KEYWORD, low=1, text="river")),
        ("Highlight 'a'/'b' in bold", Spec(Kind.HIGHLIGHTS, low=1, text="**")),
        ("Write 5 sentences in a paragraph", Spec(SENTENCES, low=5)),
        (
            "Your answer must contain exactly 2 paragraphs separated by *** and start the second paragraph with the "
            "word 'Therefore'.",
            None,
        ),
    ],
)
def test_a_part_that_is_not_cut_out(text: str, spec: Spec | None) -> None:
    if spec is None:
        assert parse_constraint(text).reading is Reading.NEEDS_JUDGE
    else:
        assert reading_of(text, Reading.NECESSARY) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("Do not use more than 3 sentences in a paragraph", Spec(SENTENCES, high=3, scope=Scope.EACH_PARAGRAPH)),
        ("Use at most 10 words in a sentence", Spec(WORDS, high=10, scope=EACH)),
        ("Do not use the word 'a' in a sentence", Spec(KEYWORD, high=0, text="a", scope=EACH)),
        ("Each sentence must not contain commas", Spec(Kind.COMMAS, high=0, scope=EACH)),
        ("Do not use more than 5 words in each sentence", Spec(WORDS, high=5, scope=EACH)),
    ],
)
def test_scoped_bounds_and_bans(text: str, spec: Spec) -> None:
    assert reading_of(text, Reading.SCOPED) == spec


# --- Chinese


@pytest.mark.parametrize(
    ("text", "n"),
    [
        ("三", 3), ("两", 2), ("十", 10), ("十二", 12), ("二十", 20), ("九十九", 99), ("一百", 100), ("两百五十", 250),
        ("两百五", 250), ("一百零五", 105), ("一千二百", 1200), ("三千五", 3500), ("一万二千", 12_000), ("1,500", 1500),
    ],
)  # fmt: skip
def test_chinese_numbers(text: str, n: int) -> None:
    assert parse_chinese_number(text) == n


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("恰好三个句子", Spec(SENTENCES, low=3, high=3)),
        ("不超过两百字", Spec(WORDS, high=200)),
        ("回答限制在100个汉字以内。", Spec(WORDS, high=100)),
        ("字数限制在150到200之间", Spec(WORDS, low=150, high=200)),
        ("至少写五百字", Spec(WORDS, low=500)),
        ("必须使用至少50个汉字", Spec(WORDS, low=50)),
        ("限定在200-300字之间。", Spec(WORDS, low=200, high=300)),
        ("超过一百字", Spec(WORDS, low=101)),
        ("少于50个单词", Spec(WORDS, high=49)),
        ("分成两个段落。", Spec(PARAGRAPHS, low=2, high=2)),
        ("限制在两句话内回答。", Spec(SENTENCES, high=2)),
        ("限100个字符", Spec(Kind.CHARACTERS, high=100)),
        ("使用3到5个句子", Spec(SENTENCES, low=3, high=5)),
        ("必须包含词语'热气腾腾'和“美味”", Spec(KEYWORDS, low=1, text="热气腾腾\n美味")),
        ("避免使用'文学'一词", Spec(KEYWORD, high=0, text="文学")),
        ("回答中不得出现「可是」或「但是」", Spec(KEYWORDS, high=0, text="可是\n但是")),
        ("以“总之”开头", Spec(Kind.STARTS_WITH, text="总之")),
        ("请以'谢谢'结尾。", Spec(Kind.ENDS_WITH, text="谢谢")),
        ("全部使用大写字母", Spec(Kind.UPPERCASE)),
        ("不要使用大写字母", Spec(Kind.LOWERCASE)),
        ("请用JSON格式输出", Spec(Kind.JSON)),
        ("采用Markdown格式输出", Spec(MARKDOWN)),
        ("必须使用中文回答", Spec(Kind.LANGUAGE, text="zh")),
        ("请用英文作答", Spec(Kind.LANGUAGE, text="en")),
        ("不得使用逗号", Spec(Kind.COMMAS, high=0)),
        ("禁止使用任何标点符号", Spec(Kind.MARKS, high=0)),
        ("禁止使用感叹号", Spec(Kind.MARKS, high=0, text="!")),
        ("不要使用逗号！", Spec(Kind.COMMAS, high=0)),
        ("不超过100字！", Spec(WORDS, high=100)),
        ("用两三句话回答", Spec(SENTENCES, low=2, high=3)),
        ("用三五句话回答", Spec(SENTENCES, low=3, high=5)),
        ("请用七八句话描述", Spec(SENTENCES, low=7, high=8)),
        ("至少一百零五字", Spec(WORDS, low=105)),
        ("限制在50到100字", Spec(WORDS, low=50, high=100)),
    ],
)  # fmt: skip
def test_chinese_equivalent(text: str, spec: Spec) -> None:
    assert reading_of(text, Reading.EQUIVALENT) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("采用Markdown格式，包括标题和列表", Spec(MARKDOWN)),
        ("必須使用繁體中文", Spec(Kind.LANGUAGE, text="zh")),
        ("限用中文回答，并且回答中必须包含至少一个成语。", Spec(Kind.LANGUAGE, text="zh")),
        ("不能包含数字", Spec(Kind.DIGITS, high=0)),
    ],
)
def test_chinese_necessary(text: str, spec: Spec) -> None:
    assert reading_of(text, Reading.NECESSARY) == spec


@pytest.mark.parametrize(
    "text",
    [
        "限50词以内。",  # 词 needs segmentation
        "每步限制在20字以内",
        "必须使用特定的术语如'角色设计'和'场景布局'。",
        "约100字",
        "限制在200行代码以内。",
        "使用问句形式",
        "不超过100字，除非必要",
        "包含三个例子",
        "用中文和英文双语回答问题。",
        "可以使用'创新'一词",  # a permission
        "可以用中文回答",
        "不超过一二百字",  # one or two hundred
        "至少十七八句",
        "用三两句话回答",
        "不超过二零字",
        "不超过50到100字",
        "少于50到100字",
        "至少50到100字",
        "字数不超过50到100",
        "不超过100字,标题除外",
        "不超过100字，不包括标题",
        "不超过100字，标题不计",
        "不超过一百字，标点不算",
        "使用'首先'以外的词",
        "回答是中文？",
    ],
)
def test_chinese_left_to_the_judge(text: str) -> None:
    assert parse_constraint(text).reading is Reading.NEEDS_JUDGE


# --- no constraint


@pytest.mark.parametrize(
    "text",
    [
        "The duration of the period can vary with the method.",
        "The capital of France is Paris.",
        "The quote is 'Life is like riding a bicycle.'",
        "Charlotte Bronte wrote 'Jane Eyre' in the 19th century.",
        "Cheetahs can sprint for up to 30 miles.",
        "There are 7 days in a week",
        "20 - 4 = 16",
        "Sentence 2: The sky is dark and stormy.",
        "Do not use any of the specified keywords.",
        "How many legs has an insect?",
    ],
)
def test_no_constraint(text: str) -> None:
    assert parse_constraint(text).reading is Reading.NOT_A_CONSTRAINT


@pytest.mark.parametrize(
    "text",
    [
        "The story ends with a twist and the hero is dead.",
        "The tone is formal.",
        "Rank the presidents by the years that they held office.",
        "Handle the case where the list is empty.",
        "The map is large. Find the name of the state.",
        "You are a pirate.",
        "Each step is numbered.",
        "The protagonist is a teacher.",
        "Written as if it was 1920.",
        "Formal tone.",
        "scarcity",
    ],
)
def test_what_may_be_a_wish_is_no_statement(text: str) -> None:
    assert parse_constraint(text).reading is Reading.NEEDS_JUDGE
