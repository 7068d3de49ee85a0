"""The benchmark in its quick form, so that it cannot rot. What it measures like this means nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.contest import Contest
from benchmarks.contestant import Contestant
from benchmarks.messages import WORKLOADS, Workload
from benchmarks.stages import run
from benchmarks.workloads import QUICK
from deploy.lab.databases import ADMIN
from deploy.lab.lab import Lab
from deploy.lab.waiting import silent
from embassy.model.errors import IntegrityError
from tests.harness.lab import MakeDatabase, lab_folder

SECONDS = 300
PROJECT = Path(__file__).parents[2]


def test_both_contestants_do_all_workloads_and_end_level(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    with lab_folder() as folder:
        home = folder / "lab"
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks", "--quick"],
            cwd=PROJECT,
            env={**os.environ, "EMBASSY_LAB_HOME": str(home), "BENCH_JSON": str(results)},
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        assert not home.exists()
    found = json.loads(results.read_text())
    changes = {"w1": 3 * QUICK.transactions + QUICK.transactions // 50, "w2": QUICK.inserts, "w3": QUICK.updates}
    for workload in ("w1", "w2", "w3"):
        assert found[workload]["ours"] > 0
        assert found[workload]["native"] > 0
        assert found[workload]["ratio"] == pytest.approx(
            found[workload]["ours"] / found[workload]["native"], rel=0.01
        )
        assert found["bytes_per_change"][workload]["home topic"] > 1
        assert found["bytes_per_change"][workload]["foreign topic"] > 1
        assert found["cpu_us_per_change"][workload]["producer"] > 0
    assert {(m["workload"], m["changes"]) for m in found["measurements"] if "changes" in m} == set(changes.items())
    assert found["w4"]["ours"]["p99_ms"] >= found["w4"]["ours"]["p50_ms"] > 0
    for contestant in ("ours", "native"):
        assert found["w4"]["torn"][contestant]["looks"] > 0
        assert found["w4"]["torn"][contestant]["torn"] == 0
    assert set(found["rss_peak_mb"]) == {"producer", "bridge", "consumer"}
    rows = found["tables_equal"]["ours"]
    assert rows == found["tables_equal"]["native"]
    paced = int(QUICK.latency_tps * (QUICK.warm_up_seconds + QUICK.latency_seconds))
    small, deleted = QUICK.transactions + paced, QUICK.transactions // 50 + paced // 50
    assert rows['"public"."property"'] == QUICK.properties + QUICK.inserts + small - deleted


class Apart(Contestant):
    """Two databases that nothing keeps equal."""

    def start(self) -> None:
        with self.source() as source, self.replica() as replica:
            source.execute("CREATE TABLE person (id int); INSERT INTO person VALUES (1)")
            replica.execute("CREATE TABLE person (id int); INSERT INTO person VALUES (2)")

    def stop(self) -> None:
        pass

    def check(self) -> None:
        pass


def test_a_replica_that_differs_makes_the_run_worthless(lab: Lab, make_database: MakeDatabase) -> None:
    name = make_database("home")
    with lab.site(lab.embassies[0]).postgres.connect(ADMIN, "postgres") as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            apart = Apart(name, lab, "none")
            apart.start()
            contest = Contest([apart], QUICK, quiet_seconds=0, announce=silent, settled=False)
            with pytest.raises(IntegrityError, match="1 of 1 tables differ"):
                contest.compare(apart)
            assert contest.results.tables == {}
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: workload.name)
def test_the_stages_take_every_workload_there_and_back(workload: Workload) -> None:
    spent, volume = run(workload, 120, {})
    assert 100 <= volume.changes <= 130
    assert volume.batches == (volume.changes // 3 if workload.alone else 1)
    assert set(spent) >= {"decode and sort", "encode", "open", "decode batch"}
