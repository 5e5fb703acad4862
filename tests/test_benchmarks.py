"""
The benchmarks at a tiny size, so that no program rots: they count right and print well-formed JSON.

How fast anything was is none of a test's business.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import re
import sys
from argparse import Namespace
from pathlib import Path
from random import Random
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import callbacks  # noqa: E402
import chaos  # noqa: E402
import download  # noqa: E402
import imports  # noqa: E402
import journal  # noqa: E402
import journalled  # noqa: E402
import kills  # noqa: E402
import paid_twice  # noqa: E402
import postgres as shared_journal  # noqa: E402
import run  # noqa: E402
import scale  # noqa: E402
import schedule  # noqa: E402
import sessions  # noqa: E402
import side_by_side  # noqa: E402
import throttled  # noqa: E402
from _draw import bars  # noqa: E402
from _report import judged, report  # noqa: E402
from _server import server  # noqa: E402

from tests.postgres.server import Postgres, do  # noqa: E402

FASTER = 200.0  # times than life


def tables_of(printed: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed)
    assert {"tables", "wanted"} == found.keys()
    return found


@pytest.mark.parametrize("who", ["ours", "floor", "vendor, warm"])
def test_every_client_settles_every_job(who: str) -> None:
    """Each client buys each video once, and knows how late it learnt of every end."""
    found = side_by_side.run(who, 3, 1, faster=FASTER)
    assert 3 == len(found["lags"])
    assert found["requests"] >= 4


@pytest.mark.parametrize("who", ["our submits", "bare submits"])
def test_submits_alone_are_submits_alone(who: str) -> None:
    """Where no task ends, nothing is bought beyond what was asked for."""
    found = side_by_side.run(who, 5, 1, endless=True)
    assert ([], 5) == (found["lags"], found["requests"])


def test_every_row_of_the_comparison_is_judged() -> None:
    """The figures that are wanted of a thousand and of three thousand jobs all find their numbers."""
    one = {"lags": [1.0, 2.0], "requests": 4, "CPU": 1.0, "wall": 3.0, "beyond": 1.0, "server": 1.0}
    rows = [
        side_by_side.row(who, jobs, [one, one])
        for jobs, clients in side_by_side.PLAN.items()
        for who in clients
    ]
    verdicts = side_by_side.judge(rows)
    assert 8 == len(verdicts)
    assert {"requests per job", "median lag", "95 % lag", "client CPU ms per job"} == {
        *side_by_side.drawn(rows)
    }


@pytest.mark.parametrize("name", [callbacks.AT_ONCE, callbacks.HALF])
def test_every_way_of_learning_settles_every_job(name: str) -> None:
    """With callbacks, and with half of them lost, every job comes to its video."""
    found = callbacks.run(name, 4, 1, faster=FASTER)
    assert 4 == len(found["lags"])
    assert 4 == callbacks.row(name, 4, [found])["jobs"]


def test_a_throttled_batch_settles_in_virtual_time() -> None:
    """Polls are refused, each refusal but those that were out comes after a pause, and every job settles."""
    found = throttled.WAYS["virtual time"](40, 1, throttled.LENGTH)
    assert 40 == len(found.ends)
    assert found.refused
    assert 0 == found.crowded
    assert 4 == len(throttled.judge("virtual time", *(throttled.row("", "", [found]) for _ in range(2))))


def test_a_throttled_batch_settles_over_sockets() -> None:
    """The server says which polls it refused."""
    found = throttled.over_sockets(5, 1, 0.1, faster=FASTER)
    assert 5 == len(found.ends)


def test_waiting_jobs_are_weighed() -> None:
    """Each waiting job takes some bytes."""
    assert asyncio.run(scale.weigh(50, traced=True)) > 0


def test_the_event_loop_is_watched() -> None:
    """All waiting jobs are taken, and each phase has its longest turn."""
    found = scale.held(60, ends_after=0.1)
    assert {"entering", "taking", "leaving", "looks"} == found.keys()
    assert 3 == len(scale.held_rows([found]))


def test_jobs_come_and_go_in_virtual_time() -> None:
    """Each of them is bought and settled once."""
    assert 30 == scale.PARTS["lived"](30, 1)["jobs"]


def test_the_schedule_is_measured_alone() -> None:
    """Every part of it comes to rows that can be judged."""
    lone = [schedule.lone_row(schedule.JUDGED, "prior", 1)]
    weights, crowds = schedule.weight(100), [schedule.many_row(jobs, 1) for jobs in (50, 60)]
    assert 4 == len(schedule.wanted(lone, weights, crowds))
    assert 2 == len(schedule.play("learned", [1.0, 2.0])[1]) == len(schedule.floor([1.0, 2.0])[1])


def test_imports_are_timed_and_everything_is_written_down(tmp_path: Path) -> None:
    """The one command leaves the program's JSON, its figure, and what was wanted beside what was reached."""
    assert 0 == run.main(["imports", "--quick", "--out", str(tmp_path)])
    assert 1 == len(tables_of((tmp_path / "imports.json").read_text(encoding="utf-8"))["wanted"])
    [line] = json.loads((tmp_path / "wanted.json").read_text(encoding="utf-8"))
    assert "imports" == line["program"]
    assert (tmp_path / "import.svg").read_text(encoding="utf-8").startswith("<svg")
    assert {*imports.WAYS} == {imports.FOUR, imports.OURS}


def test_the_one_command_knows_every_program() -> None:
    """A new benchmark is run with the others, save the one that needs a database, and named in the README."""
    programs = {path.stem for path in BENCHMARKS.glob("*.py") if not path.name.startswith("_")} - {"run"}
    assert programs == {*run.PROGRAMS, "postgres"}
    words = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    assert [] == [name for name in programs if f"`{name}.py`" not in words]


def test_a_program_that_prints_no_json_has_failed(tmp_path: Path) -> None:
    """What a broken program leaves behind is not taken for a result."""
    (tmp_path / "broken.json").write_text("Traceback", encoding="utf-8")
    assert run.read(tmp_path / "broken.json") is None


def test_a_journalled_run_buys_each_video_once(tmp_path: Path) -> None:
    """With the journal as without, as many submits arrive as there are jobs."""
    with server(seed=1, jobs=3, faster=FASTER) as (at, end):
        asyncio.run(journalled.buy(at["url"], at["token"], 3, str(tmp_path / "batch.db")))
        assert 3 == end()["requests"]["submit"]


def test_the_journal_is_measured(tmp_path: Path) -> None:
    """Some facts become durable."""
    assert journal.measure(tmp_path, 2, 1, 0.05)["facts_per_second"] > 0


def test_the_shared_journal_is_measured(postgres: Postgres, tmp_path: Path) -> None:
    """Some facts become durable in both journals, and nothing is left of them."""
    assert 0 < shared_journal.measure(postgres.dsn, tmp_path, 2, 1, 0.05)["share"]
    schema = f"SELECT to_regnamespace('{shared_journal.SCHEMA}')"
    assert [(None,)] == do(postgres.dsn, schema)


def test_downloads_are_measured(tmp_path: Path) -> None:
    """Both ways fetch a whole file."""
    options = Namespace(files=1, size=1, repeats=1, directory=str(tmp_path))
    assert {"bare", "ours"} <= download.measure(options).keys()


def test_our_client_buys_once() -> None:
    """This package's row of the comparison counts one purchase for each mishap."""
    [row] = asyncio.run(paid_twice.measure(peers=False, clients=("veo-async",)))
    assert [1, 1, 1] == [row[mishap]["paid"] for mishap in paid_twice.MISHAPS]


def test_the_readme_tells_which_versions_were_compared() -> None:
    """The README's table has a row with a version for each client of the comparison, and no other, and a date."""
    readme = (BENCHMARKS.parent / "README.md").read_text(encoding="utf-8")
    [(date, table)] = re.findall(
        r"on (\d{4}-\d\d-\d\d):\n\n\| client \| version (.*?)\n\n", readme, re.DOTALL
    )
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()[2:]]
    versions = {name.split()[0].replace("_", "-"): version for _, name, version, *_ in rows}
    assert {*paid_twice.OF_THIS_API, *paid_twice.PEERS} == versions.keys()
    assert all(re.fullmatch(r"\d+(\.\d+)+", version) for version in versions.values())
    assert date == datetime.date.fromisoformat(date).isoformat()


def test_sessions_of_one_account_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """More sessions ask more often about as many tasks."""
    assert 0 == sessions.main(["--quick"])
    one, four, sixteen = map(float, capsys.readouterr().out.split()[-3:])
    assert 1 < one < four < sixteen


def test_seeds_of_chaos_are_played() -> None:
    """Each seed comes to an outcome."""
    assert [20_000, 20_001] == [outcome.seed for outcome in chaos.played(range(20_000, 20_002))]


def test_a_kill_is_planned() -> None:
    """The plan of a series is decided by its seed; the suite has a series of its own."""
    series: Any = Namespace(simulator=Namespace(core=Namespace(accepted=0)), jobs=kills.JOBS, forgetful=False)
    assert kills.plan(Random(1), series) == kills.plan(Random(1), series)


def test_a_report_is_json_and_its_status_tells_of_what_is_missed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A missed figure makes the status 1, save in a quick run; the figures are drawn where wanted."""
    missed = [judged("much", 2.0, most=1.0), judged("little", 2.0, least=1.0)]
    chosen = Namespace(json=True, quick=False, out=tmp_path / "new")
    drawn = {"a figure": ("units", {"our own": 1.0, "another": 100.0})}
    assert 1 == report(chosen, {"a table": [{"one": 1}]}, missed, drawn)
    assert [False, True] == [row["met"] for row in tables_of(capsys.readouterr().out)["wanted"]]
    assert (tmp_path / "new" / "a-figure.svg").exists()
    assert 0 == report(Namespace(json=False, quick=True, out=None), {}, missed, {})
    assert "MISSED" in capsys.readouterr().out


def test_bars_are_drawn_in_any_range() -> None:
    """Nothing at all, values alike, and values far apart all make a figure."""
    for values in ({"one": 0.0}, {"one": 1.0, "two": 1.5}, {"one": 0.001, "two": 1000.0}):
        assert bars("title", "unit", values, bound=1.0).count("<rect") == 1 + len(values)
