"""The ledger: one line per finished unit of work, the only truth about progress.

A unit is finished when its line is in the file: everything that it made (checkpoints, parquet parts) was complete on
disk before. A line is written with one `write` to a file opened for appending and then synced, so a kill can leave at
most a torn last line, which the next attempt removes. Attempts are numbered by files in `attempts/`; one that finds a
newer one's there may write nothing any more.

Lines are never changed. Where a run has to go back (a checkpoint was damaged on the disk), a line
`{"rewind": {"kept": 12, …}}` says that of the units which counted until then only the first 12 still do.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from seif_nemo.data.files import append_line
from seif_nemo.parallel.digest import join_digests
from seif_nemo.types.records import Phase, UnitKey


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    key: UnitKey
    attempt: int
    digests: dict[str, str] = field(default_factory=dict[str, str])  # of what the unit made, by name
    checkpoint: str | None = None  # relative to the run directory


@dataclass(frozen=True, slots=True)
class Rewind:
    kept: int  # of the units that counted until then
    attempt: int
    reason: str


class FencedOutError(RuntimeError):
    """A newer attempt of the same run has started; this one must stop without writing."""


class Ledger:
    """Reads on every rank, writes on the main rank only; all ranks append in step and so know the same entries.

    Raises ValueError naming file and line for a damaged line that is not the last, FencedOutError on the main rank if
    a newer attempt has started.
    """

    def __init__(self, path: Path, *, attempt: int, writable: bool) -> None:
        self._path = path
        self._attempts = path.with_name("attempts")
        self._attempt = attempt
        self._writable = writable
        if writable:
            self.check_fence()  # a torn end may be a line that a newer attempt is writing
        self._entries = {entry.key: entry for entry in read_ledger(path, repair=writable)}

    def __iter__(self) -> Iterator[LedgerEntry]:
        return iter(self._entries.values())

    @property
    def attempt(self) -> int:
        return self._attempt

    @property
    def digest(self) -> str:
        """Digest of all entries: what this rank believes to be done."""
        return join_digests([json.dumps(asdict(entry), sort_keys=True) for entry in self])

    def find(self, round: int, phase: Phase, step: int = 0) -> LedgerEntry | None:
        return self._entries.get(UnitKey(round, phase, step))

    def is_done(self, round: int, phase: Phase, step: int = 0) -> bool:
        return self.find(round, phase, step) is not None

    def next_step(self, round: int, phase: Phase) -> int:
        """The first step of a phase that is not finished. A line for step s says that all steps up to s are."""
        return 1 + max((key.step for key in self._entries if key.round == round and key.phase is phase), default=-1)

    def last_checkpoint(self, phase: Phase, *, until_round: int) -> LedgerEntry | None:
        """The newest entry of a training phase, in round `until_round` or an earlier one, that has a checkpoint."""
        return last_checkpoint(self, phase, until_round=until_round)

    def append(self, key: UnitKey, *, digests: dict[str, str], checkpoint: str | None = None) -> None:
        """Record a finished unit. Raises FencedOutError if a newer attempt has started."""
        entry = self.entry(key, digests=digests, checkpoint=checkpoint)
        if self._writable:
            self.write(entry)
        self.remember(entry)

    def entry(self, key: UnitKey, *, digests: dict[str, str], checkpoint: str | None = None) -> LedgerEntry:
        """What this attempt records of a finished unit."""
        assert key not in self._entries, f"{key} is finished already"
        return LedgerEntry(key, self._attempt, digests, checkpoint)

    def write(self, entry: LedgerEntry) -> None:
        """The file's part of `append`, in any one thread of the main rank. Raises FencedOutError as it does."""
        assert self._writable
        self.check_fence()
        append_line(self._path, json.dumps(asdict(entry), ensure_ascii=False))

    def remember(self, entry: LedgerEntry) -> None:
        """The other part of `append`: this rank knows the entry from now on."""
        assert entry.key not in self._entries, f"{entry.key} is finished already"
        self._entries[entry.key] = entry

    def rewind(self, kept: int, reason: str) -> None:
        """Let only the first `kept` entries count from now on. Raises FencedOutError as `append` does."""
        assert 0 <= kept < len(self._entries)
        if self._writable:
            self.check_fence()
            row = {"rewind": asdict(Rewind(kept, self._attempt, reason))}
            append_line(self._path, json.dumps(row, ensure_ascii=False))
        self._entries = {entry.key: entry for entry in list(self)[:kept]}

    def check_fence(self) -> None:
        """Raises FencedOutError if a newer attempt has started."""
        if _claim(self._attempts, self._attempt + 1).exists():
            raise FencedOutError(
                f"attempt {self._attempt} of this run was overtaken by attempt {newest_attempt(self._attempts)} "
                f"({self._attempts}); this one stops and writes nothing"
            )


def last_checkpoint(entries: Iterable[LedgerEntry], phase: Phase, *, until_round: int) -> LedgerEntry | None:
    """As `Ledger.last_checkpoint`."""
    found = [
        entry
        for entry in entries
        if entry.key.phase is phase and entry.checkpoint is not None and entry.key.round <= until_round
    ]
    return max(found, key=lambda entry: (entry.key.round, entry.key.step), default=None)


def latest_checkpoints(run_directory: Path) -> dict[Phase, Path]:
    """The newest whole checkpoint of each training phase: what the ledger says, so never one that is being written."""
    entries = read_ledger(run_directory / "ledger.jsonl")
    found = {phase: last_checkpoint(entries, phase, until_round=len(entries)) for phase in Phase}
    return {
        phase: run_directory / entry.checkpoint
        for phase, entry in found.items()
        if entry is not None and entry.checkpoint is not None
    }


def newest_attempt(attempts: Path) -> int:
    """The number of the newest attempt in this folder; 0 before the first."""
    return max((int(path.stem) for path in attempts.glob("*.json")), default=0)


def take_attempt(attempts: Path, facts: dict[str, str]) -> int:
    """Start a new attempt, which becomes the newest: claim its number and file `facts` about it. Main rank only."""
    attempts.mkdir(parents=True, exist_ok=True)
    number = newest_attempt(attempts) + 1
    while True:
        try:
            with _claim(attempts, number).open("x", encoding="utf-8") as file:  # no two attempts get one number
                json.dump(facts, file, indent=2)
            return number
        except FileExistsError:
            number += 1


def _claim(attempts: Path, number: int) -> Path:
    return attempts / f"{number:04d}.json"


def read_ledger(path: Path, *, repair: bool = False) -> list[LedgerEntry]:
    """The entries of a ledger file that count. With `repair`, a torn last line is cut off the file."""
    if not path.exists():
        return []
    data = path.read_bytes()
    complete = data[: data.rfind(b"\n") + 1]
    if repair and len(complete) < len(data):
        os.truncate(path, len(complete))
    entries: list[LedgerEntry] = []
    for number, line in enumerate(complete.decode().splitlines(), start=1):
        try:
            row = json.loads(line)
            if "rewind" in row:
                del entries[Rewind(**row["rewind"]).kept :]
                continue
            key = UnitKey(row["key"]["round"], Phase(row["key"]["phase"]), row["key"]["step"])
            entries.append(LedgerEntry(key, row["attempt"], row["digests"], row["checkpoint"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: not a ledger entry ({error})") from error
    return entries
