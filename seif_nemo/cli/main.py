"""`python -m seif_nemo <command> …`: find the command and run it."""

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches

USAGE = """usage: python -m seif_nemo <command> …

commands
  evolve experiment=NAME key=value …   run SEIF rounds; under torchrun or srun on more ranks
  judge --in ROWS --out VERDICTS       judge responses to instructions, one JSON per line
  report RUN_DIR                       write RUN_DIR/report.html
  convert --from PATH --to PATH        weights between Hugging Face and Megatron, NeMo 2 formats
  inspect PATH                         what a model directory or a checkpoint holds
"""


def _evolve(arguments: Sequence[str]) -> int:
    from seif_nemo.cli.evolve import run_evolve

    return run_evolve(arguments)


def _judge(arguments: Sequence[str]) -> int:
    from seif_nemo.cli.judge import run_judge

    return run_judge(arguments)


def _report(arguments: Sequence[str]) -> int:
    from seif_nemo.cli.report import run_report

    return run_report(arguments)


def _convert(arguments: Sequence[str]) -> int:
    from seif_nemo.cli.convert import run_convert

    return run_convert(arguments)


def _inspect(arguments: Sequence[str]) -> int:
    from seif_nemo.cli.inspect import run_inspect

    return run_inspect(arguments)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "evolve": _evolve,
    "judge": _judge,
    "report": _report,
    "convert": _convert,
    "inspect": _inspect,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. README and docs/judging.md list the codes; 2 is bad input everywhere."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    command = COMMANDS.get(arguments[0])
    if command is None:
        near = get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"seif_nemo: there is no command {arguments[0]!r}{hint}\n{USAGE}", file=sys.stderr, end="")
        return 2
    return command(arguments[1:])
