"""Sentences and tokens as NLTK sees them, without NLTK's data files.

IFEval counts the sentences of NLTK's Punkt splitter (Kiss and Strunk 2006) with parameters that NLTK downloads, and the
tokens of NLTK's word tokenizer. The algorithms here are NLTK's. The parameters of the splitter are our own: which
abbreviations there are, which words open sentences, and which words are ordinary ones, so that a capital letter after
an abbreviation means a new sentence. docs/ifeval.md says how often that makes a difference.
"""

from functools import lru_cache
from typing import Any

# Read with a stop after them, in small letters: titles, firms, months, days, states of the USA, units, initials.
_ABBREVIATIONS = """
mr mrs ms dr prof rep reps sen gen col lt maj adm st jr sr messrs
inc corp co cos ltd bros cie
jan feb aug sep sept oct nov dec tues wed fri
ala ariz calif colo conn fla ga ill kan ky mich minn nev okla ore pa tenn va vt wash wis w.va
ave ft ct mg yr vs v chg a.m p.m ph.d m.b.a
u.s u.s.a u.s.s.r u.k u.n d.c l.a n.y n.j n.c n.d n.h n.m n.v s.c r.i b.v s.a l.p c.v s.p.a
c d e f g h k l m n p r s t w
a.d a.s e.m j.b j.j j.k j.p j.r r.j r.k t.j
"""
# Open a sentence even after an abbreviation.
_OPENERS = """
according although among both but despite even he however i if in indeed instead it many meanwhile moreover
nevertheless nonetheless nor similarly since so some the there these they this though thus under when while yet
"""
# Ordinary words that titles and "All rights reserved" write with a capital too.
_IN_TITLES = "a all and be do for from name no or our shall subject then to use you"
# Ordinary words: written with a capital only where a sentence begins.
_ORDINARY = """
about above according across actually adapted add after afterwards again against ago almost along already also always
am amount an animal another answer any anyone anything are area around article as ask at author authors away back bad
ball because become been before began begin behind being below best better between beyond big body book both box boy
bring brought build business but buy by call called came can cannot car care case change check child children choose
city class clear come comment common company complete consider contact contains contributed cook copying copyright
could country course create created cut data day days did different do does done door down draw each early easy eat
education either else enjoy enough ensure even ever every everyone everything example experience eye face fact family
far feel few files finally find fine first follow food form found free friend full game gave general get girl give
given go goal going good got great group had half hand happy hard has have he head health hear help her here hers high
him his history home hope hot hour house how however human idea if imagine important in include indeed information
inside instead into is it item its job join just keep kind knew know language large last later law learn least leave
less let letter licensed life light like list little live local long look lot love low made main make man many may
maybe me mean meet men might mind mix money month more morning most mother move much music must my near need never new
next night no nobody none nor not note nothing now number of off offer often old on once one only open order other
others our out over own page paper part pay people performance perhaps permission person pick place plan play please
point possible power present preserve problem process product program project provide public put quality question
quick quite rather read ready real really reason redistribution released remember report requirements research rest
result return review right room rule run said same saw say school science second see seem send service set several
share she short should show side simple simply since small so social some someone something sometimes soon sorry sound
space speak special start state stay step still stop story student study such sun system table take talk team tell
terms test text than thank that the their them there these they thing think this those though thought three through
time today together told tomorrow tonight too took top town tree true try turn two type under until up upon us used
using value very view visit wait walk want was water way we week welcome well went were what whatever when where which
while white who whole whose why will wish with without woman wonderful word words work world would write written year
yes yesterday yet young your yours
"""


@lru_cache(maxsize=1)
def _splitter() -> Any:
    import nltk.tokenize.punkt as nltk  # pyright: ignore[reportMissingTypeStubs]  # slow to import

    parameters: Any = nltk.PunktParameters()
    parameters.abbrev_types = set(_ABBREVIATIONS.split())
    parameters.sent_starters = set(_OPENERS.split())
    small, capital = 1 << 5, 1 << 2  # the splitter's marks for how a word was seen within sentences
    parameters.ortho_context.update(dict.fromkeys(_ORDINARY.split(), small))
    parameters.ortho_context.update(dict.fromkeys(_IN_TITLES.split(), small | capital))
    return nltk.PunktSentenceTokenizer(parameters)


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    import nltk.tokenize.destructive as nltk  # pyright: ignore[reportMissingTypeStubs]

    return nltk.NLTKWordTokenizer()


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, in order. White space alone has none."""
    return [str(sentence) for sentence in _splitter().tokenize(text)]


def tokenize(text: str) -> list[str]:
    """Words and punctuation marks of a text: "can't (USA)." is ca, n't, (, USA, ), "."."""
    return [str(token) for sentence in split_sentences(text) for token in _tokenizer().tokenize(sentence)]
