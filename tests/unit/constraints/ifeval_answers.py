"""Responses to IFEval instructions: some that follow them, some that nearly do, and many that are merely awkward."""

import json
import random
from collections.abc import Callable, Mapping
from typing import Any

SENTENCES = """
The river rose by 3.5 metres, and Mr. Jones moved the boats before noon.
Dr. A. B. Cole met her at 5 p.m. on Main St. near the U.S. embassy.
Is it too late? I do not think so!
We've tried e.g. tea, i.e. the green one, but nobody liked it.
Well... it was a long day... Nobody slept.
She said, "Leave now." He did not.
"Who goes there?" asked the guard (a tall man).
In 1999 the firm, Acme Inc. of Ohio, sold 1,000 units.
NASA and the F.B.I. agreed; the BBC did not.
See no. 5, fig. 2 and vol. 3 of the report.
The state-of-the-art lab can't open until Jan. 5.
It's John's book, isn't it?
I am the first, you are the second.
Visit www.example.org or write to a.b@example.com today.
Water boils at 100 degrees; ice melts at 0.
The price went from $4.50 to $6 (a rise of 33%).
Gov. Lee and Sen. Ray spoke to J. K. Rowling.
OK. Fine! What?! No way...
Section 2 describes the plan. Day 1 starts early.
My answer is yes. My answer is maybe.
Finally, add 2 tsp. of salt, 3 cups of flour, etc. Then bake it.
The cat sat on the mat and the dog ran away to the forest.
Unfortunately the story of the war was replaced by peace.
I would like to thank everyone for the wonderful future of our brand.
""".strip().split("\n")

LANGUAGES = {
    "en": "The children went to the market in the morning and bought some apples for their mother.",
    "de": "Die Kinder gingen am Morgen auf den Markt und kauften Äpfel für ihre Mutter.",
    "fr": "Les enfants sont allés au marché le matin et ont acheté des pommes pour leur mère.",
    "es": "Los niños fueron al mercado por la mañana y compraron manzanas para su madre.",
    "pt": "As crianças foram ao mercado pela manhã e compraram maçãs para a mãe.",
    "it": "I bambini sono andati al mercato la mattina e hanno comprato delle mele per la madre.",
    "fi": "Lapset menivät aamulla torille ja ostivat omenoita äidilleen.",
    "vi": "Bọn trẻ đi chợ vào buổi sáng và mua táo cho mẹ của chúng.",
    "sw": "Watoto walienda sokoni asubuhi na kununua matofaa kwa ajili ya mama yao.",
    "ru": "Дети утром пошли на рынок и купили яблоки для своей матери.",
    "bg": "Децата отидоха на пазара сутринта и купиха ябълки за майка си.",
    "ar": "ذهب الأطفال إلى السوق في الصباح واشتروا التفاح لأمهم.",
    "fa": "بچه‌ها صبح به بازار رفتند و برای مادرشان سیب خریدند.",
    "ur": "بچے صبح بازار گئے اور اپنی ماں کے لیے سیب خریدے۔",
    "hi": "बच्चे सुबह बाज़ार गए और अपनी माँ के लिए सेब खरीदे।",
    "mr": "मुले सकाळी बाजारात गेली आणि त्यांनी आईसाठी सफरचंद आणले.",
    "ne": "केटाकेटीहरू बिहान बजार गए र आमाका लागि स्याउ किने।",
    "bn": "শিশুরা সকালে বাজারে গিয়ে মায়ের জন্য আপেল কিনেছে।",
    "pa": "ਬੱਚੇ ਸਵੇਰੇ ਬਾਜ਼ਾਰ ਗਏ ਅਤੇ ਆਪਣੀ ਮਾਂ ਲਈ ਸੇਬ ਖਰੀਦੇ।",
    "gu": "બાળકો સવારે બજારમાં ગયા અને તેમની માતા માટે સફરજન ખરીદ્યા.",
    "ta": "குழந்தைகள் காலையில் சந்தைக்குச் சென்று தாய்க்கு ஆப்பிள் வாங்கினர்.",
    "te": "పిల్లలు ఉదయం మార్కెట్‌కు వెళ్లి తమ తల్లి కోసం ఆపిల్స్ కొన్నారు.",
    "kn": "ಮಕ್ಕಳು ಬೆಳಿಗ್ಗೆ ಮಾರುಕಟ್ಟೆಗೆ ಹೋಗಿ ತಾಯಿಗಾಗಿ ಸೇಬುಗಳನ್ನು ಖರೀದಿಸಿದರು.",
    "th": "เด็กๆ ไปตลาดในตอนเช้าและซื้อแอปเปิลให้แม่ของพวกเขา",
    "ko": "아이들은 아침에 시장에 가서 어머니를 위해 사과를 샀다.",
    "ja": "子供たちは朝、市場へ行って、母のためにりんごを買いました。",
    "zh": "孩子们早上去市场，给妈妈买了苹果。",
}
TINY = [
    "",
    " ",
    "\n\n",
    ":",
    "***",
    "******",
    "…",
    "!!!",
    "A",
    "a",
    "I",
    "12",
    "12345 67",
    "{}",
    "[]",
    '""',
    '"',
    "[x]",
    "<<a>>",
]
TINY += [
    "<<>>",
    "<<<>>",
    "**",
    "* a",
    "-",
    "p.s.",
    "P. P. S",
    "yes",
    "😀",
    "😀 ok",
    "\u200b",
    "\u00a0",
    "文",
    "None",
    "NaN",
    "5",
    '"a"',
]
MARKS = [
    "*",
    "**",
    "***",
    "-",
    "_",
    "#",
    "[",
    "]",
    "<<",
    ">>",
    '"',
    "'",
    ".",
    ",",
    "!",
    "?",
    ":",
    ";",
    "(",
    ")",
    "`",
    "…",
]
SPACES = [" ", " ", " ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u2028", "\x0b", ""]
SCRAPS = [
    "a",
    "I",
    "Dr",
    "U.S",
    "x1",
    "don't",
    "Section 1",
    "SECTION  2",
    "Day\n3",
    "P.S.",
    "p. p.s",
    "é",
    "ß",
    "İ",
    "文学",
]
SCRAPS += ["“q”", "‘q’", "，", "。", "e.g.", "3.5", "No", "the", "***", "******", "My answer is no.", "1.", "B.", "..."]


def prose(rng: random.Random, most: int = 8) -> str:
    """Sentences in paragraphs."""
    text = ""
    for _ in range(rng.randint(1, most)):
        text += rng.choice(SENTENCES) + rng.choice([" ", " ", " ", "\n", "\n\n"])
    return text.strip()


# {} is some words.
_LINES = """
* {}|- {}|  * **{}**|+ {}|*{}*|**{}**|# {}|***|***{}***|---||1. {}|* * {}|*{}|**{}*|[{}]|[{}](x)|<<{}>>|Section 1
SECTION 2.|*|- x|{} and {}|**{}** and *x* and [y]|******|* |**  **|* *
""".strip().replace("\n", "|")


def markdown(rng: random.Random, _: str) -> str:
    lines: list[str] = []
    for _number in range(rng.randint(2, 14)):
        words = rng.choice(SENTENCES).split()
        lines.append(rng.choice(_LINES.split("|")).replace("{}", " ".join(words[: rng.randint(1, 9)])))
    return "\n".join(lines)


def soup(rng: random.Random, _: str) -> str:
    """No text at all: marks, white space and scraps, where off-by-one errors of rules show."""
    pieces = [rng.choice([MARKS, MARKS, SPACES, SCRAPS]) for _ in range(rng.randint(1, 40))]
    return "".join(rng.choice(kind) for kind in pieces)


def curly(rng: random.Random, _: str) -> str:
    text = prose(rng)
    for plain, other in (('"', "“"), ("'", "’"), (",", "，"), ("-", "‑"), (" ", "\u00a0"), ("...", "…"), (". ", "。")):
        if rng.random() < 0.6:
            text = text.replace(plain, other)
    return rng.choice(["“{}”", '"{}"', "'{}'", '"{}”', "{}", '"{}', ' "{}"\n']).replace("{}", text)


def code(rng: random.Random, _: str) -> str:
    value: Any = {rng.choice("abc"): rng.choice([1, None, "x, y", [True, 2.5], {"k": prose(rng, 1)}]) for _ in range(3)}
    body = rng.choice([json.dumps(value), json.dumps(value, indent=2), str(value), "def f(x):\n    return x[0]  # ok"])
    fence = rng.choice(["{}", "```json\n{}\n```", "```\n{}\n```", "```JSON{}```", "```Json\n{}", "```python\n{}\n```"])
    return (
        rng.choice(["", "", "Sure! Here it is:\n", "\n "]) + fence.replace("{}", body) + rng.choice(["", "", "\nDone."])
    )


def foreign(rng: random.Random, _: str) -> str:
    some = [rng.choice(list(LANGUAGES.values())) for _ in range(rng.randint(1, 2))]
    return rng.choice(["{}", "Sure:\n{}", "**{}**", "{}\n\n{}"]).replace("{}", " ".join(some * rng.randint(1, 2)))


def shouting(rng: random.Random, _: str) -> str:
    text = prose(rng)
    return rng.choice([text.upper(), text.lower(), text.title(), text.swapcase(), text.upper() + "\n\nBye."])


def _lines_around(rng: random.Random, text: str) -> str:
    """What the loose score is meant to forgive."""
    first, last = (
        rng.choice(["", "", "Sure! Here it is.\n\n", "**Answer**\n"]),
        rng.choice(["", "", "\n\nHope this helps!"]),
    )
    return first + text + last


def aimed(rng: random.Random, prompt: str, instruction_id: str, kwargs: Mapping[str, Any], off: int) -> str:
    """Follows the instruction if `off` is 0, and misses it by about as much as `off` says; more or less."""
    build = _AIMS[instruction_id]
    return _lines_around(rng, build(rng, kwargs, off, prompt))


Aim = Callable[[random.Random, Mapping[str, Any], int, str], str]


def _goal(kwargs: Mapping[str, Any], number: str, relation: str | None, off: int) -> int:
    goal = kwargs[number] + off
    return max(goal - 1 if relation is not None and kwargs[relation] == "less than" else goal, 0)


def _repeat(number: str, relation: str | None, piece: str, glue: str) -> Aim:
    def build(rng: random.Random, kwargs: Mapping[str, Any], off: int, _: str) -> str:
        text = piece
        for name, value in kwargs.items():
            text = text.replace("{" + name + "}", str(value))
        goal = _goal(kwargs, number, relation, off)
        return glue.join(text.replace("{n}", str(n + 1)) for n in range(goal)) or "Some other text here"

    return build


def _keywords(name: str) -> Aim:
    def build(rng: random.Random, kwargs: Mapping[str, Any], off: int, _: str) -> str:
        found = list(kwargs[name])
        rng.shuffle(found)
        keep = found[max(off, 0) :] if name == "keywords" else found[: max(off, 0)]
        if off < 0:  # within longer words
            keep = [f"un{word}s" for word in found]
        return " and ".join(
            [rng.choice([word, word.upper(), f"({word})"]) for word in keep] + ["that is all there was."]
        )

    return build


def _sentences(rng: random.Random, kwargs: Mapping[str, Any], off: int, _: str) -> str:
    ends = [".", ".", "!", "?", '."', ".)", " etc.", "..."]
    goal = _goal(kwargs, "num_sentences", "relation", off)
    starts = ["The cat sat", "Then we left", "He told Mr. Cole", "At 5 p.m. it rained", "Prices fell to 3.5"]
    return " ".join(rng.choice(starts) + rng.choice(ends) for _ in range(goal))


def _first_word(rng: random.Random, kwargs: Mapping[str, Any], off: int, _: str) -> str:
    parts = [prose(rng, 2).replace("\n\n", " ") for _ in range(kwargs["num_paragraphs"] + max(off, 0))]
    at = kwargs["nth_paragraph"] - 1 + min(off, 0)
    start = kwargs["first_word"].title()
    parts[at] = (
        rng.choice([f"{start} is", f'"{start}," said', f"{start}'s", f"{start}: well", f"  {start}\nthen"]) + parts[at]
    )
    return rng.choice(["\n\n", "\n\n", "\n\n\n\n", "\n\n\n"]).join(parts)


def _paragraphs(rng: random.Random, kwargs: Mapping[str, Any], off: int, _: str) -> str:
    parts = [prose(rng, 2) for _ in range(max(kwargs["num_paragraphs"] + off, 1))]
    text = rng.choice(["\n***\n", "***", "\n\n***\n\n", " *** "]).join(parts)
    return rng.choice([text, text, "***\n" + text, text + "\n***", text + "\n***\n***"])


def _postscript(rng: random.Random, kwargs: Mapping[str, Any], off: int, _: str) -> str:
    marker = kwargs["postscript_marker"]
    marker = (
        [marker, marker.lower(), marker.replace(".", ". ")][rng.randint(0, 2)] if off == 0 else marker.replace(".", "")
    )
    return f"{prose(rng, 2)}\n\n{marker} {prose(rng, 1)}"


def _case(change: Callable[[str], str]) -> Aim:
    def build(rng: random.Random, _: Mapping[str, Any], off: int, __: str) -> str:
        text = change(prose(rng, 5) + " " + LANGUAGES["en"])
        return text if off == 0 else rng.choice([text + " Bye", change(LANGUAGES["de"]), text.title()])

    return build


def _end(rng: random.Random, kwargs: Mapping[str, Any], off: int, _: str) -> str:
    phrase = kwargs["end_phrase"]
    tail = rng.choice(["", '"', "\n", ' "']) if off == 0 else rng.choice(["!", " Bye.", "”", "'"])
    return f"{prose(rng, 3)} {rng.choice([phrase, phrase.upper()])}{tail}"


def _repeat_prompt(rng: random.Random, kwargs: Mapping[str, Any], off: int, prompt: str) -> str:
    text = kwargs["prompt_to_repeat"]
    text = (
        rng.choice([text, text.upper(), f"  {text}"])
        if off == 0
        else rng.choice([f'"{text}"', text[1:], text[:-2], prompt])
    )
    return f"{text}\n\n{prose(rng, 3)}"


def _two(rng: random.Random, _: Mapping[str, Any], off: int, __: str) -> str:
    parts = [prose(rng, 2), prose(rng, 2)]
    if off:
        parts = rng.choice([parts[:1], parts[:1] * 2, [*parts, prose(rng, 1)], ["", *parts], [parts[0], "", parts[1]]])
    return rng.choice(["\n******\n", "******", "\n\n******\n\n", "*******"]).join(parts)


def _fixed(yes: list[str], no: list[str]) -> Aim:
    return lambda rng, _, off, __: rng.choice(yes if off == 0 else no).replace("{}", prose(rng, 3))


_AIMS: dict[str, Aim] = {
    "keywords:existence": _keywords("keywords"),
    "keywords:forbidden_words": _keywords("forbidden_words"),
    "keywords:frequency": _repeat("frequency", "relation", "the {keyword} here", ", "),
    "keywords:letter_frequency": _repeat("let_frequency", "let_relation", "{letter}", " "),
    "length_constraints:number_words": _repeat("num_words", "relation", "word", " "),
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "detectable_content:number_placeholders": _repeat("num_placeholders", None, "your [name {n}]", ",\n"),
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _repeat("num_bullets", None, "* Point {n}, which matters.", "\n"),
    "detectable_format:number_highlighted_sections": _repeat("num_highlights", None, "A *bright part {n}* here", "\n"),
    "detectable_format:multiple_sections": _repeat("num_sections", None, "{section_spliter} {n}\nSome text.", "\n\n"),
    "detectable_format:title": _fixed(
        ["<<My Title>>\n{}", "{} <<a>> <<b>>"], ["<< >>\n{}", "<Title>\n{}", "<<a\nb>>{}"]
    ),
    "detectable_format:json_format": lambda rng, _, off, __: json.dumps({"a": prose(rng)}) + "}" * off,
    "detectable_format:constrained_response": _fixed(
        ["My answer is no.", "{} My answer is maybe. {}"], ["my answer is no."]
    ),
    "combination:two_responses": _two,
    "combination:repeat_prompt": _repeat_prompt,
    "startend:end_checker": _end,
    "startend:quotation": _fixed(['"{}"', ' "{}"\n'], ['"{}', "“{}”", '"{}".', "'{}'"]),
    "change_case:english_capital": _case(str.upper),
    "change_case:english_lowercase": _case(str.lower),
    "change_case:capital_word_frequency": _repeat("capital_frequency", "capital_relation", "LOUD", " and "),
    "punctuation:no_comma": lambda rng, _, off, __: prose(rng).replace(",", "，" if off else "") + "," * max(off, 0),
    "language:response_language": lambda rng, kwargs, off, __: LANGUAGES["en" if off else kwargs["language"]] * 2,
}

Maker = Callable[[random.Random, str], str]
MAKERS: dict[str, Maker] = {
    "prose": lambda rng, _: prose(rng, 12),
    "markdown": markdown,
    "soup": soup,
    "curly": curly,
    "code": code,
    "foreign": foreign,
    "shouting": shouting,
    "tiny": lambda rng, _: rng.choice(TINY),
    "prompt": lambda _, prompt: prompt,
}


def answers(seed: str, prompt: str, instruction_id: str, kwargs: Mapping[str, Any]) -> dict[str, str]:
    """One response of each kind; `prompt` is any real text."""
    rng = random.Random(seed)
    found = {name: make(rng, prompt) for name, make in MAKERS.items()}
    for name, off in (("follows", 0), ("short", -1), ("over", 1)):
        found[name] = aimed(rng, prompt, instruction_id, kwargs, off)
    return found
