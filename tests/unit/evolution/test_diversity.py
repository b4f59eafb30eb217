import pytest

from seif_nemo.evolution.diversity import common_shares, constraint_template, distinct_template_share
from seif_nemo.types.constraints import Constraint, Instruction, Kind, Reading, Spec


def _constraint(text, spec=None):
    return Constraint(text, Reading.EQUIVALENT if spec else Reading.NEEDS_JUDGE, spec)


def test_arguments_are_blanked():
    assert constraint_template(_constraint("Use at least 20 words.")) == "use at least # words"
    assert constraint_template(_constraint('End with "good luck"')) == "end with …"
    keyword = Spec(Kind.KEYWORD, low=1, text="river")
    assert constraint_template(_constraint("Include the word River", keyword)) == "include the word …"


def test_an_argument_is_blanked_in_quotes_or_as_a_whole_word_only():
    def letter(text, argument):
        return constraint_template(_constraint(text, Spec(Kind.LETTER, low=3, text=argument)))

    quoted = 'the letter "{}" should appear in a text at least 3 times'
    assert letter(quoted.format("e"), "e") == "the letter … should appear in a text at least # times"
    assert letter(quoted.format("e"), "e") == letter(quoted.format("T"), "t") == letter(quoted.format("a"), "a")
    assert letter("Use the letter E often", "e") == "use the letter … often"
    assert letter('Don\'t use the letter "e" twice', "e") == letter('Don\'t use the letter "t" twice', "t")
    word = Spec(Kind.KEYWORD, low=1, text="sun")
    assert constraint_template(_constraint("in sunlight, say sun", word)) == "in sunlight, say …"
    assert constraint_template(_constraint("包含词语河流三次", Spec(Kind.KEYWORD, text="河流"))) == "包含词语…三次"


@pytest.mark.parametrize(
    "text, template",
    [
        ("Mention Albert Einstein and his wife.", "mention … and his wife"),
        ("Write it in French, not in German", "write it in …, not in …"),
        ("Be brief. Name no person", "be brief. name no person"),  # starts a sentence
        ("Reply as JSON with a P.S. at the end", "reply as json with a p.s. at the end"),  # no names
        ("Use Exactly Two Bullet Points", "use exactly # bullet points"),  # a headline: its capitals say nothing
        ("Write exactly twenty-five words or 1,000 characters", "write exactly # words or # characters"),
        ("someone should be thanked", "someone should be thanked"),
    ],
)
def test_names_and_numbers_in_words_are_blanked(text, template):
    assert constraint_template(_constraint(text)) == template


def _instruction(*texts):
    return Instruction("s", tuple(_constraint(text) for text in texts), "p")


def test_how_common_an_instruction_is_counts_the_others_that_share_its_demands():
    instructions = [
        _instruction("use exactly 2 bullet points", "be kind"),
        _instruction("use exactly 3 bullet points", "be brief"),
        _instruction("use exactly 5 bullet points", "be kind"),
        _instruction("sing", "dance"),
        _instruction("be kind"),
    ]
    # Of the four others, bullets are in 2 for each of the three that hold them; kindness likewise; brevity in none.
    assert common_shares(instructions) == [(2 / 4 + 2 / 4) / 2, (2 / 4 + 0) / 2, (2 / 4 + 2 / 4) / 2, 0.0, 2 / 4]


def test_a_demand_made_twice_weighs_twice_and_counts_once():
    shares = common_shares([_instruction("use 3 words", "use 5 words", "be kind"), _instruction("use 4 words")])
    assert shares == [2 / 3, 1.0]


def test_what_nobody_else_asks_costs_nothing():
    assert common_shares([]) == []
    assert common_shares([_instruction("be kind")]) == [0.0]
    assert common_shares([_instruction("be kind"), _instruction("sing")]) == [0.0, 0.0]


def test_share_counts_sets_of_templates():
    instructions = [
        _instruction("use 3 words", "be kind"),
        _instruction("be kind", "use 5 words"),  # the same templates in another order
        _instruction("use 5 words"),
    ]
    assert distinct_template_share(instructions) == 2 / 3
    assert distinct_template_share([]) == 0.0
