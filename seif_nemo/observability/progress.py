"""What global rank 0 shows in the terminal while a run goes on."""

import shutil
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from seif_nemo.observability.metrics import chronological
from seif_nemo.observability.summary import PHASE_NAMES, format_duration, value_of
from seif_nemo.types.records import Phase, StepMetrics, UnitKey

_RECENT_STEPS = 20  # per phase kind: responses grow and shrink over a run, old steps say little
_PLAIN_INTERVAL_S = 10.0  # between two lines in a log file

# Where a kind has not been measured yet, the kind that is most like it stands in.
_STAND_IN = {
    Phase.INSTRUCTOR: Phase.FOLLOWER,
    Phase.FOLLOWER: Phase.INSTRUCTOR,
    Phase.PROBE_BEFORE: Phase.PROBE_AFTER,
    Phase.PROBE_AFTER: Phase.PROBE_BEFORE,
}


@dataclass(frozen=True, slots=True)
class PlannedPhase:
    """A phase the run will do. Phases without steps have `num_steps` 1, or 0 if nothing is left to do in them."""

    round: int
    phase: Phase
    num_steps: int


@dataclass(frozen=True, slots=True)
class TimeLeft:
    """Seconds to the end of the run; a lower bound (`complete` False) while some kind of phase is not measured."""

    seconds: float
    complete: bool

    def __str__(self) -> str:
        return f"{'about' if self.complete else 'over'} {format_duration(self.seconds)} left"


class Progress:
    """One live line on a terminal; in a log file plain lines: a phase's first and last step, and every 10 s between.

    `plan` is the whole run in order, done parts included. A step takes its `time_s/total`; without that value, the time
    since the last call. `clock` counts seconds.
    """

    def __init__(
        self, plan: Sequence[PlannedPhase], stream: TextIO, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._clock = clock
        self._last_call = clock()
        self._last_line: float | None = None
        self._open_line = False
        self._done: set[UnitKey] = set()
        self._seconds: dict[Phase, deque[float]] = {phase: deque(maxlen=_RECENT_STEPS) for phase in Phase}
        self._plan: list[PlannedPhase] = []
        self.replan(plan)

    def replan(self, plan: Sequence[PlannedPhase]) -> None:
        """Takes a better plan: the Follower's steps are known only when the round's instructions are written."""
        self._plan = sorted(plan, key=lambda p: chronological(UnitKey(p.round, p.phase, 0)))

    def resume(self, history: Sequence[StepMetrics]) -> None:
        """Counts the steps of an earlier attempt as done and learns how long they took. Prints nothing."""
        for metrics in history:
            self._count(metrics, value_of(metrics, "time_s/total"))
        self._last_call = self._clock()

    def update(self, metrics: StepMetrics) -> None:
        """Shows that a step is finished."""
        now = self._clock()
        seconds = value_of(metrics, "time_s/total")
        self._count(metrics, now - self._last_call if seconds is None else seconds)
        self._last_call = now
        done, planned = self._steps_of(metrics.key)
        line = self._line(metrics, done, planned)
        if self._live:
            width = shutil.get_terminal_size().columns
            self._stream.write(f"\r{line[: width - 1]}\x1b[K")
            self._open_line = True
            if done >= planned:  # a finished phase stays on the screen
                self.close()
        elif done == 1 or done >= planned or self._last_line is None or now - self._last_line >= _PLAIN_INTERVAL_S:
            self._last_line = now
            self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Ends the live line, so that whatever prints next starts on a new one."""
        if self._open_line:
            self._stream.write("\n")
            self._stream.flush()
            self._open_line = False

    def time_left(self) -> TimeLeft:
        """Steps left times the median of the phase kind's recent steps. A phase that a later one followed is over."""
        reached = max((chronological(key)[:2] for key in self._done), default=(0, -1))
        seconds, complete = 0.0, True
        for planned in self._plan:
            key = UnitKey(planned.round, planned.phase, 0)
            if chronological(key)[:2] < reached:
                continue
            left = max(0, planned.num_steps - self._steps_of(key)[0])
            per_step = self._seconds_per_step(planned.phase)
            if per_step is None:
                complete = complete and left == 0
            else:
                seconds += left * per_step
        return TimeLeft(seconds, complete)

    def _count(self, metrics: StepMetrics, seconds: float | None) -> None:
        self._done.add(metrics.key)
        if seconds is not None:
            self._seconds[metrics.key.phase].append(seconds)

    def _steps_of(self, key: UnitKey) -> tuple[int, int]:
        """Done and planned steps of the phase of `key`; a phase outside the plan has as many planned as done."""
        done = sum((k.round, k.phase) == (key.round, key.phase) for k in self._done)
        planned = [p.num_steps for p in self._plan if (p.round, p.phase) == (key.round, key.phase)]
        return done, max(planned, default=done)

    def _seconds_per_step(self, phase: Phase) -> float | None:
        measured = self._seconds[phase]
        if not measured and phase in _STAND_IN:
            measured = self._seconds[_STAND_IN[phase]]
        return statistics.median(measured) if measured else None

    def _line(self, metrics: StepMetrics, done: int, planned: int) -> str:
        last_round = max((p.round for p in self._plan), default=metrics.key.round)
        parts = [f"Round {metrics.key.round}/{last_round}", PHASE_NAMES[metrics.key.phase]]
        if planned > 1:
            parts.append(f"step {done}/{planned}")
        for name, label in (
            ("reward/mean", "reward"),
            ("eval/follow_rate", "follow rate"),
            ("probe/difficulty", "difficulty"),
        ):
            if (value := value_of(metrics, name)) is not None:
                parts.append(f"{label} {value:.3f}")
        if (kept := value_of(metrics, "synthesis/kept")) is not None:
            parts.append(f"kept {kept:.0f}")
        if (speed := value_of(metrics, "generate/tokens_per_s")) is not None:
            parts.append(f"{speed:,.0f} tokens/s")
        left = self.time_left()
        if left.seconds > 0 or not left.complete:
            parts.append(str(left))
        return " | ".join(parts)  # ASCII: a log stream may take nothing else
