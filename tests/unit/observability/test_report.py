import json
import math
import re
import shutil
import statistics
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from seif_nemo.observability.metrics import MetricsWriter, read_metrics
from seif_nemo.observability.report import write_report
from seif_nemo.types.records import Phase, StepMetrics, UnitKey
from tests.unit.observability.fake_run import HOSTILE, START_TIME, FakeRun, write_fake_run
from tests.unit.observability.html_tree import Node, parse

NOW = START_TIME + 1800


def read_page(run_dir: Path, now: float = NOW) -> Node:
    path = write_report(run_dir, now=now)
    assert path == run_dir / "report.html"
    assert [p.name for p in run_dir.iterdir() if p.name.startswith(".")] == []
    return parse(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return write_fake_run(tmp_path_factory.mktemp("runs") / "folder")


@pytest.fixture(scope="module")
def page(run: FakeRun) -> Node:
    return read_page(run.path)


def tile(page: Node, name: str) -> tuple[str, str]:
    """Number and explanation of a tile of the header."""
    (found,) = [t for t in page.all("div", "tile") if t.one("div", "name").text == name]
    return found.one("div", "number").text, found.one("div", "about").text


def prompt_rates(run: FakeRun, round_: int) -> list[float]:
    lines = (run.path / "rounds" / f"{round_:02d}" / "evaluation_samples.jsonl").read_text().splitlines()
    outcomes = [[v["outcome"] == "passed" for v in json.loads(line)["verdicts"]] for line in lines]
    return [sum(found) / len(found) for found in outcomes]


def test_header(run: FakeRun, page: Node) -> None:
    assert page.one("h1").text == "tiny-world"
    assert page.one("head").one("title").text == "tiny-world: SEIF report"
    assert page.one("span", "state").text == "finished"
    assert "All 3 rounds are done" in page.one("header").text
    before, after = prompt_rates(run, 0), prompt_rates(run, 3)
    error = statistics.stdev(after) / math.sqrt(120)
    assert tile(page, "Held-out follow rate") == (f"{statistics.fmean(after):.3f}", f"after round 3 ± {error:.3f}")
    gains = [b - a for a, b in zip(before, after, strict=True)]
    paired = statistics.stdev(gains) / math.sqrt(120)
    assert tile(page, "Gain") == (f"{statistics.fmean(gains):+.3f}", f"round 0 to 3; ± {paired:.3f}, paired by prompt")
    assert tile(page, "Instructor difficulty") == ("0.44 → 0.71", "before → after the phase of round 3")
    # Per round: 10 × 3 s + 40 × 2.5 s + 2 × 10.5 s + 9 s; and 9 s for round 0.
    assert tile(page, "Rounds done") == ("3 of 3", "wall time in steps: 8 min 09 s")


def test_follow_rate_per_round(run: FakeRun, page: Node) -> None:
    section = page.by_id("follow-rate")
    (rows,) = section.tables()
    assert rows[0][:5] == ["round", "follow rate", "±", "change", "all constraints"]
    for round_ in range(4):
        rates = prompt_rates(run, round_)
        mean = statistics.fmean(rates)
        assert mean == pytest.approx(run.follow_rates[round_])
        change = "-" if round_ == 0 else f"{mean - run.follow_rates[round_ - 1]:+.3f}"
        strict = sum(r == 1 for r in rates) / 120
        assert rows[round_ + 1] == [
            str(round_), f"{mean:.3f}", f"{statistics.stdev(rates) / math.sqrt(120):.3f}", change, f"{strict:.3f}",
            "120", "0", "16.5",
        ]  # fmt: skip
    tips = [c.one("title").text for c in section.all("circle")]
    assert tips[:4] == [f"follow rate, {r}: {run.follow_rates[r]:.2f}" for r in range(4)]
    assert len(section.all("polyline")) == 2


def test_kinds_by_round(run: FakeRun, page: Node) -> None:
    (rows,) = page.by_id("kinds").tables()
    assert rows[0] == ["kind", "constraints", "round 0", "round 1", "round 2", "round 3", "change"]
    by_kind = {row[0]: row for row in rows[1:]}
    assert set(by_kind) == {kind.replace("_", " ") for kind in run.kinds[0]}
    for kind in run.kinds[0]:
        rates = [run.kinds[r][kind] for r in range(4)]
        assert by_kind[kind.replace("_", " ")][2:] == [*(f"{r:.2f}" for r in rates), f"{rates[3] - rates[0]:+.2f}"]
    counts = [int(row[1]) for row in rows[1:]]
    assert counts == sorted(counts, reverse=True)
    heat = page.by_id("kinds").all("td", "heat")[0]
    assert float(heat.attributes["style"].removeprefix("--v:")) == pytest.approx(float(heat.text), abs=0.006)


def test_difficulty(page: Node) -> None:
    (rows,) = page.by_id("difficulty").tables()
    assert rows[1:] == [
        ["1", "0.280", "0.550", "+0.270", "0.97 → 0.97", "0.95 → 0.90", "0.04 → 0.04"],
        ["2", "0.360", "0.630", "+0.270", "0.97 → 0.97", "0.95 → 0.90", "0.05 → 0.05"],
        ["3", "0.440", "0.710", "+0.270", "0.97 → 0.97", "0.95 → 0.90", "0.06 → 0.06"],
    ]
    assert [t.text for t in page.by_id("difficulty").all("text", "value")][:2] == ["0.28", "0.55"]


def test_gate_counts(page: Node) -> None:
    (rows,) = page.by_id("gate").tables()
    names = ["unparsable", "wrong number", "repeated", "no rule", "conflict by rule", "duplicate"]
    assert rows[0] == ["round, for", "asked", "kept", "kept share", *names]
    # Training: sums over 10 steps. Data set: the merged counts of the last step, not the sums over its batches.
    assert rows[1] == ["1, training", "1,440", "1,200", "0.833", "90", "0", "60", "0", "90", "0"]
    assert rows[2] == ["1, data set", "1,200", "960", "0.800", "70", "20", "40", "30", "60", "20"]
    assert len(rows) == 7
    tips = [r.one("title").text for r in page.by_id("gate").all("rect", "bar")]
    assert tips[:2] == ["R1 training: kept 83.3%", "R1 training: unparsable 6.25%"]


def test_curves_show_every_step_with_rounds_marked(run: FakeRun, page: Node) -> None:
    section = page.by_id("curves")
    titles = [f.one("figcaption").text for f in section.all("figure")]
    assert titles == [
        "Instructor: mean reward", "Follower: mean reward", "Instructor: KL to the reference",
        "Follower: KL to the reference", "Instructor: train/generate ratio", "Follower: train/generate ratio",
    ]  # fmt: skip
    instructor, follower = section.all("figure")[:2]
    rewards = [m.values["reward/mean"] for m in read_metrics(run.path / "metrics.jsonl") if m.key.phase == "instructor"]
    tips = [c.one("title").text for c in instructor.all("circle")]
    assert tips == [f"Instructor: mean reward, {i}: {r:.4g}" for i, r in enumerate(rewards, start=1)]
    assert [t.text for t in instructor.all("text") if t.text.startswith("round")] == ["round 1", "round 2", "round 3"]
    # 40 steps a round are smoothed: a faint line of all steps and one of means, for each round.
    lines = follower.all("polyline")
    assert [("faint" in p.classes, len(p.attributes["points"].split())) for p in lines] == [(True, 40), (False, 40)] * 3
    assert len(section.all("line", "rule")) == 2


def test_phase_table(run: FakeRun, page: Node) -> None:
    (rows,) = page.by_id("curves").tables()
    steps = [
        m.values for m in read_metrics(run.path / "metrics.jsonl") if m.key.phase == "follower" and m.key.round == 2
    ]
    rewards = [s["reward/mean"] for s in steps]
    (row,) = [r for r in rows if r[0] == "2, Follower"]
    assert row == [
        "2, Follower", "40", f"{statistics.fmean(rewards[:10]):.3f} → {statistics.fmean(rewards[30:]):.3f}",
        f"{steps[-1]['train/kl']:.4f}", f"{max(s['train/grad_norm'] for s in steps):.2f}", "0.0040",
        f"{max(s['mismatch/ratio'] for s in steps):.4f}", f"{5 / 24:.3f}", "18.0",
        f"{statistics.fmean(s['generate/tokens_per_s'] for s in steps):,.0f}", "1",
    ]  # fmt: skip


def test_diversity_and_frequent_constraints(page: Node) -> None:
    shares, *frequent = page.by_id("diversity").tables()
    assert shares[1:] == [
        ["1", "0.840", "0.880", "0.880", "0.002"],
        ["2", "0.780", "0.830", "0.830", "0.002"],
        ["3", "0.720", "0.780", "0.780", "0.002"],
    ]
    assert len(frequent) == 3
    for table in frequent:
        assert table[1] == ["use no commas", "100", "0.250"]  # in every fourth of 400 rows
        assert len(table) == 6


def test_samples_side_by_side(run: FakeRun, page: Node) -> None:
    section = page.by_id("samples")
    cards = section.all("div", "sample")
    assert len(cards) == 12
    rows = {
        round_: [json.loads(line) for line in (run.path / "rounds" / name / "evaluation_samples.jsonl").open()]
        for round_, name in ((0, "00"), (3, "03"))
    }
    for place, card in enumerate(cards):
        first, last = rows[0][place * 10], rows[3][place * 10]  # 12 of 120, evenly spaced
        assert card.one("div", "asked").text == first["seed_question"]
        assert card.all("div", "said")[1].text == last["response"].replace("\x1b", "�").replace("\u202e", "�")
        passed = [sum(v["outcome"] == "passed" for v in row["verdicts"]) for row in (first, last)]
        total = len(first["constraints"])
        headings = [f"Round {r} · {p} of {total} followed" for r, p in zip((0, 3), passed, strict=True)]
        assert [h.text for h in card.all("h4")] == headings
        (table,) = card.tables()
        assert [row[0] for row in table[1:]] == first["constraints"]
        marks = [m.text for m in card.all("span", "mark")]
        outcomes = [row["verdicts"][i]["outcome"] for i in range(total) for row in (first, last)]
        assert marks == [{"passed": "✓ passed", "failed": "✗ failed"}[o] for o in outcomes]
    gains = [b - a for a, b in zip(prompt_rates(run, 0), prompt_rates(run, 3), strict=True)]
    up, down = sum(g > 0 for g in gains), sum(g < 0 for g in gains)
    assert f"{up} follow more constraints than at first, {down} fewer, {120 - up - down} as many." in section.text


def test_instructor_outputs_and_refusals(run: FakeRun, page: Node) -> None:
    section = page.by_id("instructor")
    cards = section.all("div", "probe")
    assert len(cards) == 6
    before = json.loads((run.path / "rounds/01/probe_before_samples.jsonl").read_text().splitlines()[0])
    assert cards[0].all("div", "said")[0].text == "\n".join(f"• {c}" for c in before["constraints"])
    assert cards[0].all("h4")[0].text == (
        f"before the phase of round 1 · kept; the frozen Follower follows {before['follow_rate']:.2f}"
    )
    (refused,) = section.tables()
    assert [row[0] for row in refused[1:]] == ["conflict by rule", "unparsable"]
    assert refused[1][1] == "at least 9 words / at most 3 words"
    assert refused[2][2].startswith("</script></div><img src=x onerror=alert(1)>")


def test_wall_time(page: Node) -> None:
    section = page.by_id("time")
    (rows,) = section.tables()
    assert rows[0] == ["round", "Instructor", "synthesis", "Follower", "evaluation", "sum"]
    assert rows[1] == ["0", "-", "-", "-", "9 s", "9 s"]
    assert rows[2] == ["1", "30 s", "21 s", "1 min 40 s", "9 s", "2 min 40 s"]
    assert "No time was recorded for: Probing the Instructor (before), Probing the Instructor (after)." in section.text
    tips = [r.one("title").text for r in section.all("rect", "bar")]
    # Three rounds of 10 Instructor steps of 3 s: .9 generating, .5 answering, .2 reference, 1.1 training; in minutes.
    assert tips[:5] == [
        "Instructor: generate 0.45", "Instructor: answer 0.25", "Instructor: reference 0.1", "Instructor: train 0.55",
        "Instructor: other 0.15",
    ]  # fmt: skip


def test_rows_used_and_dropped(page: Node) -> None:
    (rows,) = page.by_id("data").tables()
    assert rows == [["rows", "used", "empty"], ["seeds", "5,001", "3"], ["held-out prompts", "120", "-"]]


def test_environment_and_configuration(run: FakeRun, page: Node) -> None:
    fold = page.by_id("environment")
    (rows,) = fold.tables()
    assert ["megatron-core", "0.16.1"] in rows
    assert ["layout", "tp2 pp1 dp1"] in rows
    assert fold.one("pre").text == (run.path / "config.yaml").read_text()


def test_hostile_text_stays_text_and_nothing_is_requested(run: FakeRun, page: Node) -> None:
    raw = (run.path / "report.html").read_text()
    assert HOSTILE[:20] not in raw
    assert "&lt;/script&gt;&lt;/div&gt;&lt;img src=x onerror=alert(1)&gt;" in raw
    names = {n.name for n in page.walk()}
    assert not names & {
        "script",
        "img",
        "link",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "use",
        "image",
        "foreignobject",
    }
    for node in page.walk():
        for name, value in node.attributes.items():
            assert not name.startswith("on")
            assert name not in ("src", "srcset", "xlink:href", "action", "background", "poster")
            assert name != "href" or value.startswith("#")
            assert "://" not in value
    style = page.one("style").text
    assert not re.search(r"url\(|@import|://", style)
    targets = {n.attributes["href"].removeprefix("#") for n in page.all("a")}
    assert targets <= {n.attributes["id"] for n in page.walk() if "id" in n.attributes}
    assert page.all("meta")[2].attributes["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_every_colour_on_the_page_is_defined(page: Node) -> None:
    used = {c for n in page.walk() for c in n.classes if c.startswith("c-")}
    defined = set(re.findall(r"\.(c-[a-z]+) \{", page.one("style").text))
    assert used <= defined


def test_an_empty_directory_gives_a_page_of_not_yet(tmp_path: Path) -> None:
    page = read_page(tmp_path)
    assert page.one("h1").text == tmp_path.name
    assert page.one("span", "state").text == "no steps yet"
    assert tile(page, "Held-out follow rate")[0] == "not yet"
    sections = page.all("section")
    assert len(sections) == 11
    assert all(s.all("p", "empty") for s in sections)
    assert page.all("p", "notice") == []


def test_a_run_in_its_first_rounds(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "run", rounds=1, planned=3, prompts=20)
    with MetricsWriter(run.path / "metrics.jsonl") as writer:
        for number in range(2):
            key = UnitKey(2, Phase.INSTRUCTOR, number)
            writer.write(
                StepMetrics(key, START_TIME + 600, {"reward/mean": math.nan, "gate/asked": 10, "gate/kept": 7})
            )
    page = read_page(run.path, now=START_TIME + 900)
    assert page.one("span", "state").text == "running"
    assert "Last step: round 2, training the Instructor (2 steps done), ended 2026-01-01 00:10 UTC." in page.text
    assert tile(page, "Rounds done")[0] == "1 of 3"
    gate = page.by_id("gate").tables()[0]
    assert gate[0][-1] == "unaccounted"
    assert gate[-1] == ["2, training", "20", "14", "0.700", *["0"] * (len(gate[0]) - 5), "6"]
    later = read_page(run.path, now=START_TIME + 600 + 7200)
    assert later.one("span", "state").text == "stopped"
    assert "nothing in the 2 h 00 min since" in later.text


def test_a_run_that_the_gate_stopped(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "run", rounds=1, planned=3, prompts=20)
    folder = run.path / "rounds" / "02"
    shutil.copytree(run.path / "rounds" / "01", folder)
    columns = {"seed_question": ["a"] * 3, "raw": ["x"] * 3, "reason": ["unparsable", "conflict", "unparsable"]}
    pq.write_table(pa.table(columns | {"detail": [""] * 3}), folder / "rejected.parquet")
    pq.write_table(pq.read_table(folder / "q.parquet").slice(0, 1), folder / "q.parquet")
    with MetricsWriter(run.path / "metrics.jsonl") as writer:
        writer.write(StepMetrics(UnitKey(2, Phase.SYNTHESIS, 0), START_TIME + 600, {"gate/asked": 4, "gate/kept": 1}))
    page = read_page(run.path, now=START_TIME + 700)
    assert page.one("span", "state").text == "stopped at the gate"
    assert "Round 2: the gate kept 1 of 4 (unparsable 2, conflict 1)." in page.one("header").text
    with MetricsWriter(run.path / "metrics.jsonl") as writer:
        writer.write(StepMetrics(UnitKey(2, Phase.SYNTHESIS, 1), START_TIME + 650, {"synthesis/kept": 1}))
    assert read_page(run.path, now=START_TIME + 700).one("span", "state").text == "running"


def test_a_run_given_more_rounds_than_its_configuration_says_is_not_finished(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "run", rounds=1, planned=1, prompts=5)
    with MetricsWriter(run.path / "metrics.jsonl") as writer:
        writer.write(StepMetrics(UnitKey(2, Phase.PROBE_BEFORE, 0), START_TIME + 600, {"probe/difficulty": 0.5}))
    page = read_page(run.path, now=START_TIME + 700)
    assert tile(page, "Rounds done")[0] == "1 of 2"
    assert page.one("span", "state").text == "running"
    assert tile(page, "Instructor difficulty") == ("0.50 → -", "before → after the phase of round 2")


def test_a_run_without_held_out_prompts(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        for round_ in range(2):
            writer.write(StepMetrics(UnitKey(round_, Phase.EVALUATION, 0), START_TIME, {}))
    (tmp_path / "config.yaml").write_text("run: {name: x}\nevolution: {rounds: 1}\n")
    page = read_page(tmp_path)
    assert page.one("span", "state").text == "finished"
    assert "the evaluation had no held-out prompts" in page.by_id("follow-rate").text


def sample_rows(run: FakeRun, round_: int) -> list[dict[str, object]]:
    path = run.path / "rounds" / f"{round_:02d}" / "evaluation_samples.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_errors_are_over_prompts_whose_rates_are_over_all_their_answers(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "run", rounds=1, planned=1, prompts=30, answers=4)
    before, after = ([float(str(row["follow_rate"])) for row in sample_rows(run, r)] for r in (0, 1))
    assert statistics.fmean(after) == pytest.approx(run.follow_rates[1])
    assert statistics.fmean(prompt_rates(run, 1)) != pytest.approx(run.follow_rates[1], abs=1e-3)  # first answers alone
    page = read_page(run.path)
    error = statistics.stdev(after) / math.sqrt(30)
    rate = tile(page, "Held-out follow rate")
    assert rate == (f"{run.follow_rates[1]:.3f}", f"after round 1 ± {error:.3f}")
    paired = statistics.stdev([b - a for a, b in zip(before, after, strict=True)]) / math.sqrt(30)
    assert tile(page, "Gain")[1] == f"round 0 to 1; ± {paired:.3f}, paired by prompt"
    (rows,) = page.by_id("follow-rate").tables()
    assert [rows[2][2], rows[2][5]] == [f"{error:.3f}", "120"]


def test_samples_without_a_rate_of_their_own_are_rated_by_their_verdicts(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "run", rounds=1, planned=1, prompts=20)
    rows = [{key: value for key, value in row.items() if key != "follow_rate"} for row in sample_rows(run, 1)]
    samples = run.path / "rounds/01/evaluation_samples.jsonl"
    samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    error = statistics.stdev(prompt_rates(run, 1)) / math.sqrt(20)
    assert tile(read_page(run.path), "Held-out follow rate")[1] == f"after round 1 ± {error:.3f}"


def test_prompts_that_lost_some_verdicts_still_give_a_standard_error(tmp_path: Path) -> None:
    """Two answers to each of three prompts: rates 1 and missing, 0 and .5, missing twice."""
    folder = tmp_path / "rounds" / "01"
    folder.mkdir(parents=True)
    rows = [
        {"seed_question": p, "prompt": p, "constraints": [], "response": "", "verdicts": [], "follow_rate": rate}
        for p, rate in (("a", 1.0), ("b", 0.25), ("c", None))
    ]
    (folder / "evaluation_samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with MetricsWriter(tmp_path / "metrics.jsonl") as writer:
        values = {"eval/follow_rate": 0.5, "eval/num_responses": 6.0, "eval/missing": 3.0}
        writer.write(StepMetrics(UnitKey(1, Phase.EVALUATION, 0), START_TIME, values))
    # The standard deviation of 1 and .25 is .5303.
    assert tile(read_page(tmp_path), "Held-out follow rate") == ("0.500", "after round 1 ± 0.375")


def test_samples_of_another_attempt_give_no_standard_error(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "run", rounds=1, planned=1, prompts=20)
    samples = run.path / "rounds/01/evaluation_samples.jsonl"
    samples.write_text("".join(line + "\n" for line in samples.read_text().splitlines()[:7]))
    page = read_page(run.path)
    assert tile(page, "Held-out follow rate") == (f"{run.follow_rates[1]:.3f}", "after round 1")
    assert tile(page, "Gain")[1] == "round 0 to 1"
    assert page.by_id("follow-rate").tables()[0][2][2] == "-"


def test_missing_verdicts_are_marked_and_never_counted_as_failures(tmp_path: Path) -> None:
    folder = tmp_path / "rounds" / "00"
    folder.mkdir(parents=True)
    verdicts = [
        {"outcome": "passed", "source": "rule", "evidence": ""},
        {"outcome": "missing", "source": "model", "evidence": "no verdict in: <b>"},
    ]
    row = {"seed_question": "s", "prompt": "s\na\nb", "constraints": ["a", "b"], "response": "", "verdicts": verdicts}
    (folder / "evaluation_samples.jsonl").write_text(json.dumps(row) + "\n")
    page = read_page(tmp_path)
    card = page.one("div", "sample")
    assert card.one("h4").text == "Round 0 · 1 of 2 followed, 1 without a verdict"
    assert card.one("div", "said").text == "(empty)"
    assert [m.text for m in card.all("span", "mark")] == ["✓ passed", "? missing"]
    assert card.all("div", "why")[1].text == "by model: no verdict in: <b>"


def test_unreadable_files_are_named_on_the_page(tmp_path: Path) -> None:
    run = write_fake_run(tmp_path / "run", rounds=1, planned=1, prompts=5)
    (run.path / "config.yaml").write_text("run: [unclosed\n")
    (run.path / "provenance.json").write_text("[1]")
    (run.path / "metrics.jsonl").write_text("{}\n{}\n")
    (run.path / "rounds/01/q.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"raw": ["x"]}), run.path / "rounds/01/rejected.parquet")
    samples = run.path / "rounds/01/evaluation_samples.jsonl"
    samples.write_text(samples.read_text()[:-20])
    (run.path / "rounds/01/probe_before_samples.jsonl").write_text('{"seed_question": "x"}\n')
    page = read_page(run.path)
    notices = [n.text for n in page.all("p", "notice")]
    named = [
        "config.yaml", "provenance.json", "metrics.jsonl", "rounds/01/evaluation_samples.jsonl",
        "rounds/01/probe_before_samples.jsonl", "rounds/01/q.parquet", "rounds/01/rejected.parquet",
    ]  # fmt: skip
    assert [next(name for name in named if n.startswith(name)) for n in notices] == named
    assert "metrics.jsonl:1" in notices[2]
    assert len(page.all("div", "sample")) == 4  # all but the torn one
    assert page.by_id("environment").one("pre").text == "run: [unclosed\n"  # shown all the same


def test_lone_surrogates_of_a_byte_level_tokenizer_do_not_stop_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "rounds" / "01"
    folder.mkdir(parents=True)
    row = {"seed_question": "s", "raw": "a\ud83db", "constraints": None, "reason": "unparsable", "follow_rate": None}
    (folder / "probe_after_samples.jsonl").write_text(json.dumps(row) + "\n")
    card = read_page(tmp_path).one("div", "probe")
    assert card.one("div", "said").text == "a�b"
    assert card.one("h4").text == "after the phase of round 1 · refused: unparsable"


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a directory"):
        write_report(tmp_path / "absent")
