"""IFEval's own rules (arXiv 2311.07911), one function per instruction id, so that scores are comparable with others'.

The behaviour follows lm_eval/tasks/ifeval/instructions.py of lm-eval 0.4.9.1. The code is our own: offline,
deterministic, safe in threads, and linear in the response. docs/ifeval.md lists the few deliberate differences.
What an instruction means to a reader is another matter: that is constraints/verify.py.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

from seif_nemo.constraints.ifeval import ONE_OF_OPTIONS, from_ifeval, to_ifeval
from seif_nemo.constraints.language import detect_language
from seif_nemo.constraints.punkt import count_capital_tokens, split_sentences
from seif_nemo.types.constraints import Definition, Kind, Spec
from seif_nemo.types.verdicts import Outcome, Source, Verdict

Finding = tuple[bool, str]  # whether the response follows the instruction, and the evidence
Rule = Callable[[Spec, str], Finding]

_WORD = re.compile(r"\w+")
_VISIBLE = re.compile(r"[^\W_]")
_STAR_BULLET = re.compile(r"^[^\S\n]*+\*[^*].*$", re.MULTILINE)  # [^*] may be a line's end: so it is upstream
_DASH_BULLET = re.compile(r"^[^\S\n]*+-", re.MULTILINE)
_HIGHLIGHT = re.compile(r"\*[^\n*]*+\*")
_DOUBLE_HIGHLIGHT = re.compile(r"\*\*[^\n*]*+\*\*")
_DIVIDER = re.compile(r"\s?\*\*\*\s?")
_POSTSCRIPTS = {"P.S.": re.compile(r"p\.\s?s\."), "P.P.S": re.compile(r"p\.\s?p\.\s?s")}
_JSON_FENCES = ("```json", "```Json", "```JSON", "```")
_WORD_ENDS = frozenset(".,?!'\"")


def _bounded(spec: Spec, count: int, noun: str) -> Finding:
    """Whether a count is within the spec's bounds."""
    passed = count >= spec.low and (spec.high is None or count <= spec.high)
    if spec.low == spec.high:
        return passed, f"{count} {noun}, exactly {spec.low}"
    parts = [f"at least {spec.low}"] if spec.low > 0 else []
    parts += [] if spec.high is None else [f"at most {spec.high}"]
    return passed, f"{count} {noun}, {' and '.join(parts)}"


def _told(passed: bool, yes: str, no: str) -> Finding:
    return passed, yes if passed else no


def _find_word(word: str, response: str, *, whole: bool) -> re.Match[str] | None:
    edge = r"\b" if whole else ""
    return re.search(f"{edge}{re.escape(word)}{edge}", response, re.IGNORECASE)


# --- keywords


def existence(spec: Spec, response: str) -> Finding:
    """keywords:existence: each one somewhere, within a word too, in any case."""
    missing = [word for word in (spec.text or "").split("\n") if _find_word(word, response, whole=False) is None]
    return _told(not missing, "holds every keyword", f"{missing[:1]} is missing")


def forbidden_words(spec: Spec, response: str) -> Finding:
    """keywords:forbidden_words: none of them as a whole word, in any case."""
    found = [word for word in (spec.text or "").split("\n") if _find_word(word, response, whole=True) is not None]
    return _told(not found, "holds no forbidden word", f"{found[:1]} is forbidden")


def frequency(spec: Spec, response: str) -> Finding:
    """keywords:frequency: within words too, in any case."""
    keyword = (spec.text or "").strip()
    return _bounded(spec, len(re.findall(re.escape(keyword), response, re.IGNORECASE)), f"times {keyword!r}")


def letter_frequency(spec: Spec, response: str) -> Finding:
    """keywords:letter_frequency: in any case."""
    letter = (spec.text or "").lower()
    return _bounded(spec, response.lower().count(letter), f"times {letter!r}")


# --- length


def number_words(spec: Spec, response: str) -> Finding:
    """length_constraints:number_words: runs of letters, digits and underscores, so that "don't" is two."""
    return _bounded(spec, sum(1 for _ in _WORD.finditer(response)), "words")


def number_sentences(spec: Spec, response: str) -> Finding:
    """length_constraints:number_sentences: as NLTK splits them."""
    return _bounded(spec, len(split_sentences(response)), "sentences")


def number_paragraphs(spec: Spec, response: str) -> Finding:
    """length_constraints:number_paragraphs: what "***" divides; only the first and the last one may be empty."""
    first, *others = _DIVIDER.split(response)
    if any(not part.strip() for part in others[:-1]):
        return False, "an empty paragraph between two dividers"
    # A response without a divider is its own first and last paragraph; if empty, it counts as none.
    return _bounded(spec, sum(bool(part.strip()) for part in (first, *others)), "paragraphs")


def nth_paragraph_first_word(spec: Spec, response: str) -> Finding:
    """length_constraints:nth_paragraph_first_word: paragraphs are what an empty line divides.

    Empty ones do not count, but they keep their place in the order: so it is upstream.
    """
    assert spec.index is not None
    parts = response.split("\n\n")
    passed, evidence = _bounded(spec, sum(bool(part.strip()) for part in parts), "paragraphs")
    words = parts[spec.index - 1].split() if passed and spec.index <= spec.low else []
    if not words:
        return False, evidence
    first = ""
    for char in words[0].lstrip("'").lstrip('"'):
        if char in _WORD_ENDS:
            break
        first += char.lower()
    return first == (spec.text or "").lower(), f"{evidence}; number {spec.index} starts with {first!r}"


# --- detectable content and format


def number_placeholders(spec: Spec, response: str) -> Finding:
    """detectable_content:number_placeholders: pairs of square brackets within a line, empty ones too."""
    count = 0
    for line in response.split("\n"):
        end = 0
        while (start := line.find("[", end)) >= 0 and (close := line.find("]", start)) >= 0:
            count, end = count + 1, close + 1
    return _bounded(spec, count, "placeholders")


def postscript(spec: Spec, response: str) -> Finding:
    """detectable_content:postscript: its marker anywhere, in any case."""
    marker = (spec.text or "").strip()
    known = _POSTSCRIPTS.get(marker)
    lower = response.lower()
    found = known.search(lower) is not None if known is not None else marker.lower() in lower
    return _told(found, f"holds {marker!r}", f"no {marker!r}")


def number_bullet_lists(spec: Spec, response: str) -> Finding:
    """detectable_format:number_bullet_lists: lines that start with one asterisk, or with a dash."""
    stars = sum(1 for _ in _STAR_BULLET.finditer(response))
    return _bounded(spec, stars + sum(1 for _ in _DASH_BULLET.finditer(response)), "bullet points")


def number_highlighted_sections(spec: Spec, response: str) -> Finding:
    """detectable_format:number_highlighted_sections: *this*, and **this** once more."""
    single = sum(bool(found.strip("*").strip()) for found in _HIGHLIGHT.findall(response))
    double = sum(bool(found[2:-2].strip()) for found in _DOUBLE_HIGHLIGHT.findall(response))
    return _bounded(spec, single + double, "highlighted sections")


def multiple_sections(spec: Spec, response: str) -> Finding:
    """detectable_format:multiple_sections: the splitter, in its own case, with a number after it."""
    splitter = (spec.text or "").strip()
    return _bounded(spec, len(re.findall(rf"{re.escape(splitter)}\s?\d+", response)), f"times {splitter!r}")


def title(_: Spec, response: str) -> Finding:
    """detectable_format:title: something between << and >> on one line."""
    for line in response.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start <= end - 3 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True, "has a title"
    return False, "no <<title>>"


def json_format(_: Spec, response: str) -> Finding:
    """detectable_format:json_format: any JSON value, also within one fence."""
    body = response.strip()
    for fence in _JSON_FENCES:
        body = body.removeprefix(fence)
    try:
        json.loads(body.removesuffix("```").strip())
    except (ValueError, RecursionError) as error:
        return False, f"no JSON: {error}"
    return True, "is JSON"


def constrained_response(_: Spec, response: str) -> Finding:
    """detectable_format:constrained_response: one of three sentences, anywhere, in their own case."""
    found = [option for option in ONE_OF_OPTIONS.split("\n") if option in response]
    return _told(bool(found), f"holds {found[:1]}", "holds none of the allowed answers")


# --- combination, start and end, case, punctuation, language


def two_responses(_: Spec, response: str) -> Finding:
    """combination:two_responses: two different ones, divided by six asterisks."""
    parts = [part.strip() for part in response.split("******")]
    if not all(parts[1:-1]):
        return False, "an empty response between two dividers"
    given = [part for part in parts if part]
    return len(given) == 2 and given[0] != given[1], f"{len(given)} responses, {len(set(given))} different"


def repeat_prompt(spec: Spec, response: str) -> Finding:
    """combination:repeat_prompt: the response starts with the prompt, in any case."""
    prompt = (spec.text or "").strip().lower()
    found = bool(prompt) and response.strip().lower().startswith(prompt)
    return _told(found, "repeats the prompt", "does not repeat the prompt")


def end_checker(spec: Spec, response: str) -> Finding:
    """startend:end_checker: the phrase comes last, in any case, but for double quotes."""
    phrase = (spec.text or "").strip().lower()
    return _told(response.strip().strip('"').lower().endswith(phrase), f"ends with {phrase!r}", f"no {phrase!r} at end")


def quotation(_: Spec, response: str) -> Finding:
    """startend:quotation: the first and the last character are straight double quotes."""
    body = response.strip()
    return _told(len(body) > 1 and body[0] == body[-1] == '"', "is quoted", "is not in double quotes")


def _in_english(response: str, case: str) -> Finding:
    found = detect_language(response)
    return found == "en", f"is {case}, in {found or 'no known language'!r}"


def english_capital(_: Spec, response: str) -> Finding:
    """change_case:english_capital: no small letters, and English."""
    return _in_english(response, "in capitals") if response.isupper() else (False, "is not all in capitals")


def english_lowercase(_: Spec, response: str) -> Finding:
    """change_case:english_lowercase: no capital letters, and English."""
    return _in_english(response, "in small letters") if response.islower() else (False, "is not all in small letters")


def capital_word_frequency(spec: Spec, response: str) -> Finding:
    """change_case:capital_word_frequency: NLTK's tokens that are in capitals; a single letter is one too."""
    return _bounded(spec, count_capital_tokens(response), "words in capitals")


def no_comma(spec: Spec, response: str) -> Finding:
    """punctuation:no_comma: the ASCII one."""
    return _bounded(spec, response.count(","), "commas")


def response_language(spec: Spec, response: str) -> Finding:
    """language:response_language: what langdetect says."""
    found = detect_language(response)
    return found == spec.text, f"is in {found or 'no known language'!r}, wanted {spec.text!r}"


RULES: dict[str, Rule] = {
    "keywords:existence": existence,
    "keywords:forbidden_words": forbidden_words,
    "keywords:frequency": frequency,
    "keywords:letter_frequency": letter_frequency,
    "length_constraints:number_words": number_words,
    "length_constraints:number_sentences": number_sentences,
    "length_constraints:number_paragraphs": number_paragraphs,
    "length_constraints:nth_paragraph_first_word": nth_paragraph_first_word,
    "detectable_content:number_placeholders": number_placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": number_bullet_lists,
    "detectable_format:number_highlighted_sections": number_highlighted_sections,
    "detectable_format:multiple_sections": multiple_sections,
    "detectable_format:title": title,
    "detectable_format:json_format": json_format,
    "detectable_format:constrained_response": constrained_response,
    "combination:two_responses": two_responses,
    "combination:repeat_prompt": repeat_prompt,
    "startend:end_checker": end_checker,
    "startend:quotation": quotation,
    "change_case:english_capital": english_capital,
    "change_case:english_lowercase": english_lowercase,
    "change_case:capital_word_frequency": capital_word_frequency,
    "punctuation:no_comma": no_comma,
    "language:response_language": response_language,
}


def _judge(rule: Rule, spec: Spec, response: str) -> Finding:
    if _VISIBLE.search(response) is None:
        return False, "empty response: no words"
    return rule(spec, response)


@lru_cache(maxsize=4096)
def _rule_of(spec: Spec) -> Rule | None:
    if spec.kind is Kind.REPEAT_PROMPT:
        return repeat_prompt
    return RULES.get(to_ifeval(spec)[0].instruction_id)


def verify_ifeval(spec: Spec, response: str, *, prompt: str) -> Verdict | None:
    """The strict verdict on a spec with IFEval's definition. None if no id of IFEval says the spec.

    `prompt` is what is to be repeated where the spec itself does not say it. Never raises for a valid spec.
    """
    assert spec.definition is Definition.IFEVAL, spec
    rule = _rule_of(spec)
    if rule is None:
        return None
    if spec.kind is Kind.REPEAT_PROMPT and spec.text is None:
        spec = replace(spec, text=prompt)
    passed, evidence = _judge(rule, spec, response)
    return Verdict(Outcome.PASSED if passed else Outcome.FAILED, Source.RULE, evidence)


def loose_variants(response: str) -> list[str]:
    """What IFEval's loose score looks at: with or without the first line, the last line and all asterisks."""
    lines = response.split("\n")
    found = [response, response.replace("*", "")]
    for first, last in ((1, 0), (0, 1), (1, 1)):
        part = "\n".join(lines[first : len(lines) - last]).strip()
        found += [part, part.replace("*", "")]
    return list(dict.fromkeys(found))


def check_ifeval(
    instruction_id: str, kwargs: Mapping[str, object], response: str, *, prompt: str, loose: bool = False
) -> Verdict:
    """IFEval's verdict on one instruction: PASSED or FAILED, with evidence.

    Strict looks at the response as it is; loose passes if one of its variants does. `prompt` is what the response
    answers; it is used where a prompt is to be repeated and `kwargs` names none. Raises ValueError for an id that is
    not IFEval's and for kwargs that do not fit it, never for a response.
    """
    if instruction_id == "combination:repeat_prompt" and kwargs.get("prompt_to_repeat") is None:
        kwargs = {**kwargs, "prompt_to_repeat": prompt}
    [spec] = from_ifeval(instruction_id, kwargs)
    strict = verify_ifeval(spec, response, prompt=prompt) if instruction_id in RULES else None
    if strict is None:
        raise ValueError(f"instruction id {instruction_id!r} is not one of IFEval's; its specs are for verify()")
    if strict.outcome is Outcome.PASSED or not loose:
        return strict
    for variant in loose_variants(response)[1:]:
        passed, evidence = _judge(RULES[instruction_id], spec, variant)
        if passed:
            return replace(strict, outcome=Outcome.PASSED, evidence=f"loose: {evidence}")
    return strict
