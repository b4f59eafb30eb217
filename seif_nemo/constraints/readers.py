"""What a demand in English says. `READERS` is the table that `parse_constraint` asks in order.

A reader sees a whole demand and must account for every word of it: what it does not know ("in each paragraph", "except
in the title") makes it decline. It answers with a `Found`, or None to decline.
"""

from seif_nemo.constraints.readers_count import COUNT_READERS, Reader
from seif_nemo.constraints.readers_emphasis import EMPHASIS_READERS
from seif_nemo.constraints.readers_form import FORM_READERS
from seif_nemo.constraints.readers_words import WORD_READERS

READERS: tuple[Reader, ...] = (*COUNT_READERS, *WORD_READERS, *FORM_READERS, *EMPHASIS_READERS)
