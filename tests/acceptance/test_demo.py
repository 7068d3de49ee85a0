"""``embassy demo``, as scripts call it: true when all is well, red and precise when anything is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import role_configs
from deploy.lab.databases import ADMIN
from deploy.lab.lab import Lab
from deploy.lab.roles import program, roles
from deploy.lab.waiting import Patience
from deploy.workload import catalogue
from embassy.wire.keyring import generate_recipient
from tests.harness.lab import lab_folder

SECONDS = 300
FIGURES = {
    "committed",
    "applied",
    "lost",
    "duplicated",
    "torn",
    "tables_compared",
    "tables_mismatched",
    "latency_p50_ms",
    "latency_p99_ms",
}
NOTES = """
CREATE TABLE note (id integer PRIMARY KEY, words text NOT NULL);
INSERT INTO note SELECT i, 'note ' || i FROM generate_series(1, 100) AS i;
CREATE TABLE loose (a integer, b text);
"""


@dataclass(frozen=True)
class Stage:
    """A folder for a lab of the demonstration's own."""

    folder: Path
    environment: dict[str, str]

    @property
    def home(self) -> Path:
        return self.folder / "lab"

    def registries(self, *names: str) -> Path:
        """A registries file; ``notes`` is known by its SQL only."""
        tables = []
        for name in names:
            text = NOTES if name == "notes" else catalogue.schema_sql(name)
            (self.folder / f"{name}.sql").write_text(text)
            tables.append(f'[registries.{name}]\nschema = "{name}.sql"\n')
        file = self.folder / "registries.toml"
        file.write_text("\n".join(tables))
        return file

    def start(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*program(), "demo", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def run(self, *options: str) -> tuple[int, dict[str, Any], str]:
        """Run a demonstration; return its exit code, its one JSON object and what it said beside."""
        demo = self.start("--json", *options)
        out, said = demo.communicate(timeout=SECONDS)
        return demo.returncode, json.loads(out), said

    def processes(self) -> list[str]:
        """The command lines of everything that runs with a path of this folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                except OSError:
                    continue
                if str(self.folder) in line:
                    found.append(line)
        return found


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    with lab_folder() as folder:
        monkeypatch.setenv("EMBASSY_LAB_HOME", str(folder / "lab"))
        made = Stage(folder, dict(os.environ))
        try:
            yield made
        finally:
            Lab.here(made.home).down()
        assert made.processes() == []


def test_a_demonstration_under_faults_is_true_and_a_changed_row_and_a_wrong_key_make_the_next_ones_red(
    stage: Stage,
) -> None:
    registries = str(stage.registries("treasury", "notes"))
    code, shown, said = stage.run("--seconds", "10", "--seed", "7", "--registries", registries, "--keep")
    assert (code, shown["verdict"], shown["complaints"]) == (0, True, []), said
    assert set(shown) >= {"registries", "faults", "seconds"}
    assert list(shown["registries"]) == ["treasury", "notes"]
    assert all(set(figures) == FIGURES for figures in shown["registries"].values())
    treasury, notes = shown["registries"]["treasury"], shown["registries"]["notes"]
    assert treasury["committed"] == treasury["applied"] > 0
    assert treasury["latency_p99_ms"] >= treasury["latency_p50_ms"] > 0
    assert (notes["committed"], notes["tables_compared"], notes["tables_mismatched"]) == (0, 2, 0)
    assert 10 <= shown["seconds"] < 20
    lab = Lab.attach(stage.home)
    everything = roles(lab.layout, lab.state)
    targets = {role.name for role in everything} | {
        f"{k} {s}" for k in ("kafka", "postgres") for s in lab.state.sites
    }
    assert {fault["target"] for fault in shown["faults"]} == targets
    assert all(set(f) == {"at_seconds", "target", "action", "recovered_seconds"} for f in shown["faults"])
    assert all(f["action"] == "kill -9" and f["recovered_seconds"] > 0 for f in shown["faults"])
    assert all(len(role.running()) == 1 for role in everything), "--keep leaves the roles running"

    with lab.site("embassy-1").postgres.connect(ADMIN, "notes") as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE note SET words = 'forged' WHERE id = 42")
    code, shown, said = stage.run("--seconds", "1", "--faults", "0", "--keep")
    assert (code, shown["verdict"]) == (4, False)
    assert shown["registries"]["notes"]["tables_mismatched"] == 1
    assert shown["registries"]["treasury"]["tables_mismatched"] == 0
    (complaint,) = shown["complaints"]
    assert complaint.startswith("notes on embassy-1: table")
    assert "forged" in complaint
    assert complaint in said

    (consumer,) = (role for role in everything if role.name == "consumer embassy-1")
    consumer.end(Patience())
    change_key(lab)
    code, shown, said = stage.run("--seconds", "2", "--faults", "0")
    assert (code, shown["verdict"]) == (4, False)
    assert any(complaint.startswith("consumer embassy-1") for complaint in shown["complaints"]), said
    assert any("has not caught up" in complaint for complaint in shown["complaints"]), said
    assert not (stage.home / "state.json").exists()


def change_key(lab: Lab) -> None:
    """Give the embassy another private key than the one that home seals for."""
    key = role_configs.recipient(lab.layout, "embassy-1")
    for file in (key, role_configs.public(key)):
        file.rename(file.with_suffix(".right"))
    generate_recipient(key)
    role_configs.public(key).unlink()
    role_configs.public(key).with_suffix(".right").rename(role_configs.public(key))


def test_a_drill_promotes_all_within_the_bound_and_home_finds_out(stage: Stage) -> None:
    registries = str(stage.registries("treasury", "land_register"))
    code, shown, said = stage.run("--promote", "--seconds", "5", "--registries", registries)
    assert (code, shown["verdict"], shown["complaints"]) == (0, True, []), said
    assert shown["approvers"] == ["anna", "bert"]
    assert set(shown["registries"]) == {"treasury", "land_register"}
    for figures in shown["registries"].values():
        assert figures["committed"] > 0
        assert figures["written_abroad"] > 0
        assert figures["loss_seconds"] <= figures["loss_seconds_upper_bound"]
    assert shown["home"] == {
        "producer_exit_code": 5,
        "fence_exit_code": 0,
        "unshipped_kept": shown["lost"],
        "bundled": shown["lost"],
        "bundle_whole": True,
    }
    way = shown["homecoming"]
    assert (way["lost"], way["merged"], way["tables_unequal"]) == (0, 0, 0)
    assert way["told"] > sum(figures["written_abroad"] for figures in shown["registries"].values())


def test_an_interrupted_demonstration_leaves_nothing_behind(stage: Stage) -> None:
    demo = stage.start("--seconds", "600", "--faults", "0", "--registries", str(stage.registries("notes")))
    assert demo.stderr is not None
    for line in demo.stderr:
        if " load" in line:
            break
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=SECONDS)
    assert demo.returncode == 130
    assert not stage.home.exists()
    assert stage.processes() == []


def test_a_lab_of_somebody_else_is_left_alone(lab: Lab) -> None:
    stage = Stage(lab.layout.home.parent, {**os.environ, "EMBASSY_LAB_HOME": str(lab.layout.home)})
    demo = stage.start("--seconds", "1")
    out, said = demo.communicate(timeout=SECONDS)
    assert (demo.returncode, out) == (5, "")
    assert "not made by the demonstration" in said
    assert "EMBASSY_LAB_HOME" in said
    stop = stage.start("--stop")
    _, said = stop.communicate(timeout=SECONDS)
    assert stop.returncode == 5
    assert lab.status()["state"] == "up"
