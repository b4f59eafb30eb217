from seif_nemo.evolution.diversity import constraint_template, distinct_template_share
from seif_nemo.types.constraints import Constraint, Instruction, Kind, Reading, Spec


def _constraint(text, spec=None):
    return Constraint(text, Reading.EQUIVALENT if spec else Reading.NEEDS_JUDGE, spec)


def test_arguments_are_blanked():
    assert constraint_template(_constraint("Use at least 20 words.")) == "use at least # words"
    assert constraint_template(_constraint('End with "good luck"')) == "end with …"
    keyword = Spec(Kind.KEYWORD, low=1, text="river")
    assert constraint_template(_constraint("Include the word River", keyword)) == "include the word …"


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
