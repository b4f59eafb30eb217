from io import StringIO

from seif_nemo.observability.meter import Meter


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_on_a_terminal_and_none_elsewhere() -> None:
    seconds = iter([0.0, 0.0, 1.0, 1.1, 2.0])
    stream = Terminal()
    meter = Meter(stream, clock=lambda: next(seconds))
    meter.start("reading", 3, 4_000_000_000)
    meter.add(1_000_000_000)
    meter.add(1_000_000_000)  # too soon for another line
    meter.add(2_000_000_000)
    meter.close()
    first, second = stream.getvalue().rstrip("\n").split("\r\x1b[K")[1:]
    assert first == "reading: 1/3 tensors, 1.00/4.00 GB, 1.00 GB/s, about 3 s left"
    assert second == "reading: 3/3 tensors, 4.00/4.00 GB, 2.00 GB/s, about 0 s left"
    quiet = StringIO()
    meter = Meter(quiet)
    meter.start("reading", 1, 1)
    meter.add(1)
    meter.close()
    assert quiet.getvalue() == ""
