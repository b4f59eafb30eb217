from seif_nemo.evolution.diversity import constraint_template, distinct_template_share
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
    assert constraint_template(_constraint("On Sunday, say sun", word)) == "on sunday, say …"
    assert constraint_template(_constraint("包含词语河流三次", Spec(Kind.KEYWORD, text="河流"))) == "包含词语…三次"


def test_share_counts_sets_of_templates():
    def instruction(*texts):
        return Instruction("s", tuple(_constraint(text) for text in texts), "p")

    instructions = [
        instruction("use 3 words", "be kind"),
        instruction("be kind", "use 5 words"),  # the same templates in another order
        instruction("use 5 words"),
    ]
    assert distinct_template_share(instructions) == 2 / 3
    assert distinct_template_share([]) == 0.0
