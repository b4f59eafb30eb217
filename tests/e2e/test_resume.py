"""A run that is killed again and again ends exactly as one that is left alone."""

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from seif_nemo.observability.metrics import read_metrics
from seif_nemo.observability.summary import value_of
from seif_nemo.types.records import Phase
from tests.e2e.attempts import Attempt, num_ledger_lines, outcome, parquet_bytes

WORLD_SIZE = 2
NUM_KILLS = 14
ROUNDS = 2


def overrides(tiny_model: Path, root: Path, name: str, *more: str) -> list[str]:
    """Two short rounds with every phase in them: 24 units of work."""
    return [
        "experiment=quickstart",
        f"run.root={root}",
        f"run.name={name}",
        f"model.path={tiny_model}",
        f"data.seeds={tiny_model}/data/probe_seeds.parquet",
        f"data.probe_seeds={tiny_model}/data/probe_seeds.parquet",
        f"data.heldout={tiny_model}/data/heldout.parquet",
        "data.max_probe_seeds=24",
        "data.max_heldout_prompts=24",
        f"evolution.rounds={ROUNDS}",
        "evolution.evaluation_samples=1",
        "evolution.synthesis_batch=120",
        "evolution.min_kept_share=0.01",
        "algorithm.instructor.max_steps=3",
        "algorithm.instructor.prompts_per_step=8",
        "algorithm.follower.max_steps=4",
        "algorithm.follower.prompts_per_step=8",
        *more,
    ]


@pytest.fixture(scope="module")
def undisturbed(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of an uninterrupted run."""
    root = tmp_path_factory.mktemp("undisturbed")
    attempt = Attempt(WORLD_SIZE, overrides(tiny_model, root, "run"), root / "log")
    codes = attempt.wait(timeout_s=300)
    assert codes == [0] * WORLD_SIZE, (root / "log.0").read_text()
    return root / "run"


def kill_points(run_dir: Path, rng: random.Random) -> list[int]:
    """Numbers of finished units at which to kill: at least one inside every phase, the rest anywhere, in order."""
    phases = [json.loads(line)["key"]["phase"] for line in (run_dir / "ledger.jsonl").read_text().splitlines()]
    phases.pop()  # a kill there could come after the last unit
    points = {rng.choice([i for i, name in enumerate(phases) if name == phase.value]) for phase in Phase}
    assert len(points) == len(Phase)
    rest = sorted(set(range(len(phases))) - points)
    return sorted(points | set(rng.sample(rest, NUM_KILLS - len(points))))


def test_fourteen_kills_change_nothing(tiny_model: Path, undisturbed: Path, tmp_path: Path) -> None:
    rng = random.Random(20)
    arguments = overrides(tiny_model, tmp_path, "run")
    run_dir = tmp_path / "run"
    for number, point in enumerate(kill_points(undisturbed, rng)):
        attempt = Attempt(WORLD_SIZE, arguments, tmp_path / f"log-{number}")
        reached = attempt.wait_until(lambda point=point: num_ledger_lines(run_dir) >= point, timeout_s=180)
        assert reached, (tmp_path / f"log-{number}.0").read_text()
        deadline = time.monotonic() + rng.uniform(0.0, 1.0)  # somewhere inside the unit after it, or at its end
        while time.monotonic() < deadline and num_ledger_lines(run_dir) <= point:
            time.sleep(0.002)
        attempt.kill()
    assert num_ledger_lines(run_dir) < num_ledger_lines(undisturbed)
    attempt = Attempt(WORLD_SIZE, arguments, tmp_path / "log-last")
    assert attempt.wait(timeout_s=300) == [0] * WORLD_SIZE, (tmp_path / "log-last.0").read_text()
    assert outcome(run_dir) == outcome(undisturbed)
    assert parquet_bytes(run_dir) == parquet_bytes(undisturbed)
    weights = "export/follower-02/model.safetensors"
    assert (run_dir / weights).read_bytes() == (undisturbed / weights).read_bytes()


def test_a_request_to_stop_ends_after_the_step_and_the_run_goes_on(
    tiny_model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    arguments = overrides(tiny_model, tmp_path, "run")
    run_dir = tmp_path / "run"
    attempt = Attempt(WORLD_SIZE, arguments, tmp_path / "log-a")
    assert attempt.wait_until(lambda: num_ledger_lines(run_dir) >= 3, timeout_s=180)
    attempt.signal(signal.SIGINT)
    assert attempt.wait(timeout_s=60) == [130] * WORLD_SIZE
    assert "the same command continues" in (tmp_path / "log-a.0").read_text()
    attempt = Attempt(WORLD_SIZE, arguments, tmp_path / "log-b")
    assert attempt.wait(timeout_s=300) == [0] * WORLD_SIZE
    assert outcome(run_dir) == outcome(undisturbed)


def test_a_request_to_stop_loses_no_step_between_two_checkpoints(tiny_model: Path, tmp_path: Path) -> None:
    arguments = overrides(
        tiny_model, tmp_path, "run", "checkpoint.every_steps=100", "algorithm.instructor.max_steps=40"
    )
    run_dir = tmp_path / "run"
    attempt = Attempt(WORLD_SIZE, arguments, tmp_path / "log")
    metrics = run_dir / "metrics.jsonl"
    assert attempt.wait_until(lambda: metrics.exists() and b'"instructor"' in metrics.read_bytes(), timeout_s=180)
    attempt.signal(signal.SIGINT)
    assert attempt.wait(timeout_s=60) == [130] * WORLD_SIZE
    steps = [m.key.step for m in read_metrics(metrics) if m.key.phase is Phase.INSTRUCTOR]
    entry = json.loads((run_dir / "ledger.jsonl").read_text().splitlines()[-1])
    assert entry["key"] == {"round": 1, "phase": "instructor", "step": steps[-1]}
    assert steps == list(range(len(steps))) and len(steps) < 40
    assert (run_dir / entry["checkpoint"]).is_dir()


def test_other_files_under_the_same_names_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.parquet"
    shutil.copy(tiny_model / "data" / "probe_seeds.parquet", seeds)
    arguments = [*overrides(tiny_model, tmp_path, "run"), f"data.seeds={seeds}"]
    attempt = Attempt(1, arguments, tmp_path / "log-a")
    assert attempt.wait_until(lambda: num_ledger_lines(tmp_path / "run") >= 1, timeout_s=120)
    attempt.kill()
    ledger = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    shutil.copy(tiny_model / "data" / "seeds.parquet", seeds)
    assert Attempt(1, arguments, tmp_path / "log-b").wait(timeout_s=120) == [2]
    assert f"data.seeds={seeds} has changed since this run began" in (tmp_path / "log-b.0").read_text()
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == ledger


def test_instructions_that_the_synthesis_did_not_write_are_not_learned_from(
    tiny_model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    ledger = tmp_path / "run" / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    first_of_follower = next(i for i, line in enumerate(lines) if json.loads(line)["key"]["phase"] == "follower")
    ledger.write_text("".join(lines[:first_of_follower]))
    q = tmp_path / "run" / "rounds" / "01" / "q.parquet"
    pq.write_table(pq.read_table(q).slice(1), q)
    arguments = overrides(tiny_model, tmp_path, "run")
    assert Attempt(1, arguments, tmp_path / "log").wait(timeout_s=120) == [2]
    assert "q.parquet is not the file that the synthesis of round 1 wrote" in (tmp_path / "log.0").read_text()


def test_damage_is_named_and_the_whole_checkpoint_before_it_leads_to_the_same_end(
    tiny_model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """Round 2 was killed before its evaluation; a bit of one checkpoint has flipped, another was cut short."""
    run_dir = tmp_path / "run"
    shutil.copytree(undisturbed, run_dir)
    ledger = run_dir / "ledger.jsonl"
    lines = ledger.read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:-1]))
    flipped, cut = (run_dir / "rounds" / "02" / "follower" / f"step-000{step}" / "__1_0.distcp" for step in (3, 2))
    data = bytearray(flipped.read_bytes())
    data[len(data) // 3] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-1])
    arguments = overrides(tiny_model, tmp_path, "run")
    assert Attempt(WORLD_SIZE, arguments, tmp_path / "log-strict").wait(timeout_s=120) == [1] * WORLD_SIZE
    said = (tmp_path / "log-strict.0").read_text()
    assert f"{flipped} is damaged" in said and "checkpoint.resume=latest_good goes on from" in said
    assert "Traceback" not in said

    attempt = Attempt(WORLD_SIZE, [*arguments, "checkpoint.resume=latest_good"], tmp_path / "log-good")
    assert attempt.wait(timeout_s=300) == [0] * WORLD_SIZE, (tmp_path / "log-good.0").read_text()
    said = (tmp_path / "log-good.0").read_text()
    assert f"{flipped} is damaged" in said and f"{cut} has {len(data) - 1} bytes" in said
    assert "4 units are done again" in said
    assert (run_dir / "rounds" / "02" / "follower" / "set-aside" / "step-0003.attempt-3" / flipped.name).is_file()
    assert (run_dir / "export" / "set-aside" / "follower-02.attempt-3").is_dir()
    noted = [value_of(metrics, "resume/superseded_units") for metrics in read_metrics(run_dir / "metrics.jsonl")]
    assert [value for value in noted if value is not None] == [4.0]
    assert ledger.read_text().startswith("".join(lines[:-1])), "history was changed"
    assert outcome(run_dir) == outcome(undisturbed)
    weights = "export/follower-02/model.safetensors"
    assert (run_dir / weights).read_bytes() == (undisturbed / weights).read_bytes()


def test_a_disk_without_room_ends_the_run_with_one_line(tiny_model: Path, undisturbed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(undisturbed, run_dir)
    lines = (run_dir / "ledger.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "ledger.jsonl").write_text("".join(lines[:-2]))
    full = overrides(tiny_model, tmp_path, "run", "checkpoint.min_free_gib=1e9")
    assert Attempt(WORLD_SIZE, full, tmp_path / "log-full").wait(timeout_s=120) == [6] * WORLD_SIZE
    said = [line for line in (tmp_path / "log-full.0").read_text().splitlines() if line.startswith("seif_nemo: ")]
    assert len(said) == 1 and "checkpoint.min_free_gib=1e+09 must stay free" in said[0]
    assert num_ledger_lines(run_dir) == len(lines) - 2
    attempt = Attempt(WORLD_SIZE, overrides(tiny_model, tmp_path, "run"), tmp_path / "log-room")
    assert attempt.wait(timeout_s=300) == [0] * WORLD_SIZE, (tmp_path / "log-room.0").read_text()
    assert outcome(run_dir) == outcome(undisturbed)


def test_another_configuration_is_refused_and_named(tiny_model: Path, undisturbed: Path, tmp_path: Path) -> None:
    before = outcome(undisturbed)
    changed = overrides(tiny_model, undisturbed.parent, "run", "algorithm.clip_high=0.25")
    attempt = Attempt(WORLD_SIZE, changed, tmp_path / "log")
    assert attempt.wait(timeout_s=120) == [2] * WORLD_SIZE
    assert "algorithm.clip_high: 0.2 is now 0.25" in (tmp_path / "log.0").read_text()
    assert outcome(undisturbed) == before


def test_a_mistake_before_the_first_unit_does_not_bind_the_run_directory(tiny_model: Path, tmp_path: Path) -> None:
    good = overrides(tiny_model, tmp_path, "run")
    bad = [argument for argument in good if not argument.startswith("data.seeds=")] + ["data.seeds=nowhere.parquet"]
    assert Attempt(1, bad, tmp_path / "log-bad").wait(timeout_s=120) == [2]
    assert "nowhere.parquet: no such file" in (tmp_path / "log-bad.0").read_text()
    attempt = Attempt(1, good, tmp_path / "log-good")
    assert attempt.wait_until(lambda: num_ledger_lines(tmp_path / "run") >= 1, timeout_s=120)
    attempt.kill()
