"""What is no constraint at all: facts, answers, questions, sums, lists of words that are not there.

Precision comes first here: a demand that is taken for a fact is lost. So a text counts as a statement only if it has a
finite verb, nothing in it demands, and its subject is nothing that a response is made of ("the story ends well" may be
a wish).
"""

import re

from seif_nemo.constraints.numbers import NUMBER
from seif_nemo.constraints.phrasing import CLOSE, OPEN

# "any forbidden words" without a list of them.
_ASKED = "forbidden|banned|prohibited|specified|required|given|provided|listed|mandatory"
_WORDS = r"(?:key)?(?:words?|phrases?|terms?)"
_VACUOUS = re.compile(
    rf"(?:(?:any|the|some|these|of|following|certain|all|use) )*+(?:(?:{_ASKED}) )+{_WORDS}(?: (?:or|and) {_WORDS})?"
    r"(?: (?:or|and) (?:key)?phrases)?(?: (?:in|throughout|within) (?:the|your) (?:response|answer|text|output))?",
    re.IGNORECASE,
)
_DEMAND = re.compile(
    r"\b(?:must|should|shall|need|needs|needed|have to|has to|require|required|requires|requirements?|mandatory|ensure|"
    r"avoid|without|only|exactly|precisely|at least|at most|no more|limited to|do not|don't|never|allowed|instead|"
    r"cannot|can't|please|ought|response|answer|reply|output|constraints?|prompt|instructions?|you|your)\b",
    re.IGNORECASE,
)
# What a description of the wanted response speaks of ("the tone is formal", "it uses short sentences").
_MANNER = re.compile(
    r"\b(?:tone|style|format|formatted|language|written|sentences?|paragraphs?|words?|bullets?|text|content|limit|"
    r"maximum|"
    r"minimum|length|uses?|using|includes?|including|contains?|mentions?|voice|audience|point of view|perspective|"
    r"story|stories|poem|poetry|character|characters|protagonist|narrator|narrative|dialogue|scene|plot|setting|ending|"
    r"title|headline|explanation|summary|description|examples?|list|table|essay|article|letter|email|code|function|"
    r"program|solution|question|questions|conversation|speech|readers?|verse|stanza|lines?|rhyme|song|lyrics|"
    r"introduction|conclusion|section|sections|steps?|analysis|report|review|recipe|translation|document|dish|"
    r"tweet|caption|slogan|post|blog|script|joke|riddle|focus|theme|role|assistant|expert)\b",
    re.IGNORECASE,
)
_PERSON = re.compile(r"(?:he|she|they|we|i)(?:'s|'re|'m|'d|'ve|'ll)? [a-z']+", re.IGNORECASE)
_FINITE_WORDS = """
is are was were has had does did can could may might will would isn't aren't wasn't weren't hasn't hadn't didn't
became becomes went goes took takes made makes came comes wrote writes said says saw sees gave gives found finds got
gets felt feels kept keeps knew knows led leads left leaves lost loses met meets paid pays ran runs sat sits sold sells
sent sends spoke speaks stood stands told tells thought thinks won wins began begins bought buys built builds caught
fell falls flew flies grew grows heard hears held holds hit lives lived lies lay works worked plays played walks walked
looks looked helps helped allows allowed causes caused provides provided offers offered serves served wants wanted
loves loved likes liked needs enjoys enjoyed believes believed refers referred consists consisted occurs occurred
belongs represents represented produces produced plans planned decides decided visits visited arrives arrived
increases increased decreases decreased affects affected improves improved remains remained appears appeared
happens happened moves moved turns turned opens opened rises rose shines shone rhymes equals means meant
"""
_FINITE = "|".join(re.escape(word) for word in _FINITE_WORDS.split())
_VERB = rf"(?:{_FINITE})(?![\w'])"
_IT = re.compile(rf"(?:it|there|this|these|those)(?:'s|'re| {_VERB})", re.IGNORECASE)
_NAMES = r"(?!You\b|Your\b|If\b|When\b|Where\b|While\b|Use\b|No\b|Any\b|Each\b|Every\b|All\b)[A-Z][\w'\-]*+"
_THING = re.compile(
    rf"(?:(?i:the|a|an|his|her|their|its|our|my|some|many|most)|{_NAMES}),? (?:(?!{_VERB})[^\s:;]++ ){{0,12}}?{_VERB} "
)
_QUESTION = re.compile(
    r"(?:what|who|whom|whose|when|where|why|which|how|is|are|was|were|do|does|did|can|could|will|would|has|have)\b.*\?",
    re.IGNORECASE | re.DOTALL,
)
_NUMBER_ONLY = re.compile(rf"(?:{NUMBER})", re.IGNORECASE)
_SUM = re.compile(r"(?=\D*+\d)[\d\s.,+\-*/^=()$%x×÷]++")
_LABEL = re.compile(
    r"(?:sentence|input|output|hypothesis|premise|option|statement|claim|fact|passage|event|person ?[a-z]|speaker)"
    r" ?[\da-d]?(?: ?: ?| - )",
    re.IGNORECASE,
)
_IMPERATIVE_WORDS = """
use write include describe explain provide give make keep add list identify discuss analyze analyse compare create
summarize mention highlight focus start begin end finish limit format present state answer respond output return show
find calculate compute determine classify categorize convert translate rewrite rephrase replace change remove delete
sort order arrange organize structure divide split separate combine avoid exclude omit refrain follow adhere maintain
adopt emulate simulate imagine assume consider incorporate integrate emphasize evaluate assess justify support
illustrate demonstrate define outline detail specify select choose suggest recommend propose generate produce design
develop construct compose draft craft edit revise correct fix check verify confirm count name label tag mark match
link connect relate refer cite quote repeat restate paraphrase simplify clarify elaborate expand shorten condense
reduce increase ensure tailor address target adapt adjust apply implement solve prove derive infer predict estimate
explore examine investigate research reflect share tell talk speak ask invite encourage persuade convince
handle rank roleplay insert mandate prohibit prohibited restrict utilize employ mimic pretend act assign annotate append
attach capitalize center cover consult complete conduct contrast defend differentiate distinguish document draw embed
enclose engage enumerate establish express extend extract fill filter form frame group guess guide help hint ignore
initialize introduce invent judge leave let localize log map maximize measure merge minimize modify mix move narrate
number observe offer optimize paint pair parse perform place plan pick position practice prefix prepare prioritize print
process promote quantify query rate read recall record reference reformat reframe refine reorder report request resolve
respect reverse review round save scan score search set shift signal sketch stick stop store stress study style submit
subtract sum surround swap switch take teach test think trace track train transform transition treat trim turn type
update validate vary view visualize vote walk watch weigh wrap bold italicize underline preserve retain reveal showcase
recognize acknowledge allow enable permit calculate remember note close open based given limited written
"""
_IMPERATIVES = frozenset(_IMPERATIVE_WORDS.split())
_FIRST_WORDS = re.compile(r"(?:^|[.!?] )[\"'(*]*+([A-Za-z']+)")


def is_vacuous(rest: str) -> bool:
    """ "any forbidden words", "the given keywords": a list that is not there. Of a demand without its wrapping."""
    return _VACUOUS.fullmatch(rest) is not None


def is_statement(text: str, raw: str) -> bool:
    """Clearly no demand: a question, a number, a sum, or a plain sentence about the world.

    `text` is normalised, `raw` is not.
    """
    if _NUMBER_ONLY.fullmatch(text) is not None or (len(text) > 4 and _SUM.fullmatch(text) is not None):
        return True
    label = _LABEL.match(text)
    body = text[label.end() :] if label is not None else text
    body = re.sub(rf"{OPEN}[^{CLOSE}]*{CLOSE}?", "X", body)
    if ":" in body or _DEMAND.search(body) is not None:
        return False
    if _QUESTION.fullmatch(raw) is not None:
        return True
    if any(match.group(1).lower() in _IMPERATIVES for match in _FIRST_WORDS.finditer(body)):
        return False
    if _PERSON.match(body) is not None:
        return True
    if _IT.match(body) is not None:
        return _MANNER.search(body) is None
    thing = _THING.match(body)
    return thing is not None and _MANNER.search(thing.group()) is None
