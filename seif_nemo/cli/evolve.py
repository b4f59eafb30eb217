"""`python -m seif_nemo evolve experiment=NAME key=value …`: run SEIF rounds from wherever the run directory stands."""

import faulthandler
import os
import socket
import sys
import time
from collections.abc import Sequence

from seif_nemo.cli.compose import CONF_DIR, compose_config, default_lines
from seif_nemo.config.root import Config

EXIT_FAULT = 1
EXIT_BAD_INPUT = 2
EXIT_GATE = 3
EXIT_JUDGE = 4
EXIT_NOT_FINITE = 5
EXIT_NOT_SAVED = 6
EXIT_STOPPED = 130


def run_evolve(arguments: Sequence[str]) -> int:
    """Compose, build, run; the exit code. Users' errors are one line, faults are tracebacks."""
    if "-h" in arguments or "--help" in arguments:
        print(usage())
        return 0
    try:
        config = compose_config(arguments)
    except ValueError as error:
        return _refuse(str(error))
    return _run(config)


def usage() -> str:
    """The command's arguments: experiments and every key with its default."""
    experiments, recipes = (
        ", ".join(sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))) for group in ("experiment", "recipe")
    )
    keys = "\n".join(f"  {line}" for line in default_lines())
    return (
        "usage: python -m seif_nemo evolve [experiment=NAME] [recipe=NAME] [key=value …]\n\n"
        f"experiments: {experiments}\n\n"
        f"recipes (algorithms): {recipes}\n\n"
        f"keys and defaults (??? must be given; seif_nemo/config says what they mean)\n{keys}"
    )


def _run(config: Config) -> int:
    from seif_nemo.observability.logging import quiet_known_warnings, set_up_logging

    quiet_known_warnings()
    # These take seconds to import, and a mistyped key must not cost seconds.
    from seif_nemo.checkpointing.manifest import CheckpointError, WriteError
    from seif_nemo.components.missing_budget import TooManyMissingVerdictsError
    from seif_nemo.components.updates import NonFiniteGradientsError
    from seif_nemo.evolution.build import build_context, set_determinism
    from seif_nemo.evolution.changed_files import ChangedFileError
    from seif_nemo.evolution.rewarded import BadRewardError
    from seif_nemo.evolution.rounds import evolve
    from seif_nemo.evolution.run_directory import open_run
    from seif_nemo.evolution.stopping import StopRequestedError
    from seif_nemo.evolution.synthesis import GateKeptTooLittleError
    from seif_nemo.observability.metrics import read_metrics
    from seif_nemo.observability.report import write_report
    from seif_nemo.observability.summary import round_table
    from seif_nemo.parallel.collectives import speaks_of_refusal
    from seif_nemo.parallel.lost_ranks import LostRankError, naming_lost_ranks
    from seif_nemo.parallel.topology import build_topology, shutdown

    started = time.monotonic()
    set_up_logging(int(os.environ.get("RANK", "0")))
    set_determinism(config.run)
    faulthandler.enable()  # NCCL's watchdog aborts the process: the stacks then say in which phase
    try:
        topology = build_topology(
            config.parallel,
            seed=config.run.seed,
            threads=config.run.threads_per_rank,
            rendezvous_timeout_s=config.cluster.rendezvous_timeout_s,
        )
    except ValueError as error:
        return _refuse(str(error))
    try:
        with naming_lost_ranks(topology, lambda error: "the start of the run"):
            paths, attempt = open_run(config, topology)
            context = build_context(config, topology, paths, attempt=attempt)
    except ValueError as error:  # after this point a ValueError is a fault of ours
        if speaks_of_refusal(topology, wait_s=config.cluster.refusal_wait_s):
            where = "" if topology.is_main else f"rank {topology.rank} on {socket.gethostname()}: "
            print(f"seif_nemo: {where}{error}", file=sys.stderr, flush=True)
        return EXIT_BAD_INPUT
    except LostRankError as error:
        return _lost(error)
    context.stop.listen()
    code = 0
    try:
        evolve(context)
    except StopRequestedError:
        code = EXIT_STOPPED
    except GateKeptTooLittleError as error:
        code = _refuse(str(error), EXIT_GATE)
    except TooManyMissingVerdictsError as error:
        code = _refuse(str(error), EXIT_JUDGE)
    except (NonFiniteGradientsError, BadRewardError) as error:
        code = _refuse(str(error), EXIT_NOT_FINITE)
    except ChangedFileError as error:
        code = _refuse(str(error))
    except WriteError as error:
        code = _refuse(str(error), EXIT_NOT_SAVED)
    except CheckpointError as error:
        hint = "checkpoint.resume=latest_good goes on from the newest one before that is whole"
        code = _refuse(f"{error}. {hint}", EXIT_FAULT)
    except LostRankError as error:
        return _lost(error)
    if context.progress is not None:
        context.progress.close()
        print(round_table(read_metrics(paths.metrics)))
        print(f"report: {write_report(paths.root)}")
        print(f"this attempt took {time.monotonic() - started:.0f} s", flush=True)
    if code == EXIT_STOPPED:
        _say("seif_nemo: stopped as asked; the same command continues from here")
    context.sync()
    shutdown(topology)
    return code


def _refuse(message: str, code: int = EXIT_BAD_INPUT) -> int:
    _say(f"seif_nemo: {message}")
    return code


def _lost(error: Exception) -> int:
    """On every rank that waited. Nothing collective may follow."""
    print(f"seif_nemo: {error}", file=sys.stderr, flush=True)
    return EXIT_FAULT


def _say(line: str) -> None:
    """On the main rank only: all ranks come to the same line."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(line, file=sys.stderr, flush=True)
