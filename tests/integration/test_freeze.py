"""What operators and thresholds say about applying a stream, on a whole stream with real roles."""

from __future__ import annotations

import json
import os
import tomllib
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.lab import databases, role_configs
from deploy.lab.postgres_server import PostgresServer
from embassy.cli import main
from embassy.pg import control_store, replica_schema
from embassy.wire.approval import Order
from embassy.wire.keyring import load_operator
from tests.harness.lab import MakeDatabase
from tests.harness.pipeline import MakePipeline, Pipeline, poll_until

_SCHEMA = """
CREATE TABLE public.deed (id bigint PRIMARY KEY, owner text NOT NULL);
GRANT ALL ON ALL TABLES IN SCHEMA public TO registry_owner;
"""

DOWN = "port=1"
"""Added to a connection string: nothing listens there."""


def key(pipeline: Pipeline, person: str) -> str:
    return str(role_configs.operator(pipeline.lab.layout, person))


def said(pipeline: Pipeline, *arguments: str, code: int = 0, role: str = "embassy-admin") -> str:
    done = pipeline.embassy_command(role, *arguments)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def status(pipeline: Pipeline) -> dict[str, Any]:
    done = pipeline.embassy_command("embassy-admin", "--json", "status")
    found: dict[str, Any] = json.loads(done.stdout)["registries"][pipeline.name]
    return found


def lift(pipeline: Pipeline, order: Path, *options: str) -> None:
    said(pipeline, "unfreeze", "plan", str(order), "--reason", "looked into", *options)
    for person in ("anna", "bert"):
        said(pipeline, "unfreeze", "approve", str(order), "--yes", "--key", key(pipeline, person))
    said(pipeline, "unfreeze", "run", str(order))


def write(pipeline: Pipeline, first: int, last: int) -> None:
    """One transaction a row."""
    with pipeline.source(databases.ADMIN) as connection:
        for number in range(first, last):
            connection.execute("INSERT INTO public.deed VALUES (%s, 'somebody')", (number,))


def count(pipeline: Pipeline) -> int:
    with pipeline.replica() as connection:
        (found,) = connection.execute("SELECT count(*) FROM public.deed").fetchone() or (0,)
    return int(found)


def site(pipeline: Pipeline) -> PostgresServer:
    return pipeline.lab.site(pipeline.embassy).postgres


def admin(pipeline: Pipeline, role: str, **changes: Any) -> str:
    """An administrator's configuration with other sections."""
    content = tomllib.loads(pipeline.config("embassy-admin").read_text(encoding="utf-8"))
    role_configs._write(pipeline.config(role), {**content, **changes})
    return role


def entry(pipeline: Pipeline, database: str, stream: str = "", more: str = "") -> dict[str, Any]:
    """A stream's section, with a replica in a database of the site; ``more`` is added to its connection string."""
    enrolment = str(role_configs.enrolment(pipeline.lab.layout, pipeline.stream))
    dsn = site(pipeline).dsn(databases.ADMIN, database)
    return {"stream": stream or pipeline.stream, "enrolment": enrolment, "replica": {"dsn": f"{dsn} {more}"}}


@pytest.fixture
def pipeline(make_pipeline: MakePipeline) -> Pipeline:
    found = make_pipeline(_SCHEMA)
    for stage in ("producer", "bridge"):
        found.start(stage)
    return found


def test_one_person_freezes_and_two_lift_it(pipeline: Pipeline, tmp_path: Path) -> None:
    address = tmp_path / "address"
    consumer = pipeline.start("consumer", EMBASSY_ADDRESS_FILE=str(address))
    write(pipeline, 0, 10)
    pipeline.wait_level()

    own = pipeline.names[pipeline.embassy]
    away = entry(pipeline, own, os.urandom(16).hex(), DOWN)
    down = admin(pipeline, "down", streams={"another": away, pipeline.name: entry(pipeline, own)})
    done = pipeline.embassy_command(
        down, "--json", "freeze", "--reason", "rows vanish", "--key", key(pipeline, "anna")
    )
    assert done.returncode == 3, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["registries"] == {pipeline.name: {"frozen": True, "already": False, "by": "anna"}}
    assert list(report["failed"]) == ["another"]
    assert "error: another: " in done.stderr
    before = count(pipeline)  # from here on, nothing is committed
    write(pipeline, 10, 30)
    metrics = f"http://{address.read_text().strip()}/metrics"
    poll_until(
        lambda: b'embassy_frozen{registry="registry"} 1.0' in urllib.request.urlopen(metrics).read(),
        "the consumer shows it",
        5,
    )
    assert count(pipeline) == before == 10
    seen = status(pipeline)
    assert (seen["state"], seen["healthy"]) == ("frozen", False)
    assert "rows vanish" in seen["cause"]["text"]

    order = tmp_path / "order.json"
    said(pipeline, "unfreeze", "plan", str(order), "--reason", "looked into")
    said(pipeline, "unfreeze", "approve", str(order), "--yes", "--key", key(pipeline, "anna"))
    assert "1 of the 2 persons" in said(pipeline, "unfreeze", "run", str(order), code=6)
    for lie in ({"frozen_because": "a small thing"}, {"registry": "another"}, {"suspect": "one row"}):
        assert run(pipeline, "unfreeze", "run", altered(pipeline, order, tmp_path / "altered.json", lie)) == 5
    said(pipeline, "unfreeze", "approve", str(order), "--yes", "--key", key(pipeline, "bert"))
    said(pipeline, "unfreeze", "run", str(order))
    pipeline.wait_level()
    assert "lifted by this order before" in said(pipeline, "unfreeze", "run", str(order))
    assert pipeline.alive(consumer)
    assert said(pipeline, "audit", "log", "--verify")


def test_a_mass_deletion_freezes_a_whole_stream_and_a_run_ends_at_a_point(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    with pipeline.config("consumer").open("a") as file:
        file.write("\n[streams.registry.protection]\nmax_deletes_per_transaction = 100\n")
    consumer = pipeline.start("consumer")
    write(pipeline, 0, 150)
    with pipeline.source(databases.ADMIN) as connection:
        connection.execute("DELETE FROM public.deed WHERE id < 120")
    poll_until(lambda: status(pipeline)["state"] == "frozen", "it freezes")
    assert "deletes 120 rows or more (public.deed: 120)" in status(pipeline)["cause"]["text"]
    assert count(pipeline) == 150
    assert "protection" in said(pipeline, "audit", "log")
    lift(pipeline, tmp_path / "order.json")
    pipeline.wait_level()
    with pipeline.replica(
        databases.ADMIN
    ) as connection:  # as if home had emptied its table while that was not published
        connection.execute("SET session_replication_role = replica")
        connection.execute(
            "INSERT INTO public.deed SELECT id, 'of the embassy' FROM generate_series(1000, 1119) AS id"
        )
    for times in (1, 2):
        said(pipeline, "resync", "public.deed", "--reason", "to see", role="home-admin")
        if times == 1:
            poll_until(lambda: status(pipeline)["state"] == "frozen", "it freezes")
            assert "takes 120 rows out of public.deed" in status(pipeline)["cause"]["text"]
            assert count(pipeline) == 150
            lift(pipeline, tmp_path / "copy.json")
        pipeline.wait_level()
    pipeline.compare()
    assert pipeline.stop(consumer) == 0

    write(pipeline, 200, 203)
    with pipeline.source(databases.ADMIN) as connection:
        (now,) = connection.execute("SELECT clock_timestamp()::text").fetchone() or ("",)
    write(pipeline, 203, 206)
    done = pipeline.embassy_command("consumer", "consumer", "run", "--stop-at", f"{now}:00")
    assert done.returncode == 0, done.stderr
    assert count(pipeline) == 33
    pipeline.start("consumer")
    pipeline.wait_level()


def altered(pipeline: Pipeline, order: Path, target: Path, lie: dict[str, str]) -> str:
    """An order that tells those who approve it something else of the freeze than what the replica knows."""
    fields = Order.read(order).fields("unfreeze", order)
    fields["streams"][0] |= lie
    told = Order.draft("unfreeze", {name: fields[name] for name in fields.keys() - {"version", "action"}})
    for person in ("anna", "bert"):
        told = told.signed(load_operator(Path(key(pipeline, person))))
    target.write_text(told.render())
    return str(target)


def run(pipeline: Pipeline, *arguments: str, role: str = "embassy-admin") -> int:
    """A command that needs no process of its own."""
    return main.run(["-c", str(pipeline.config(role)), *arguments])


def is_frozen(pipeline: Pipeline, database: str, stream: str = "") -> bool:
    with site(pipeline).connect(databases.ADMIN, database) as connection:
        control = control_store.read(connection, bytes.fromhex(stream or pipeline.stream))
    assert control.freezes == 1
    return control.freeze is not None


def approved(pipeline: Pipeline, order: Path, role: str = "embassy-admin") -> str:
    assert run(pipeline, "unfreeze", "plan", str(order), "--reason", "looked into", role=role) == 0
    for person in ("anna", "bert"):
        assert run(pipeline, "unfreeze", "approve", str(order), "--yes", "--key", key(pipeline, person)) == 0
    return str(order)


@dataclass
class Twins:
    """Two databases of one site, in both of which a stream is frozen for the first time."""

    pipeline: Pipeline
    own: str
    other: str


@pytest.fixture
def twins(make_pipeline: MakePipeline, make_database: MakeDatabase) -> Twins:
    pipeline = make_pipeline("", provision=False)
    found = Twins(pipeline, pipeline.names[pipeline.embassy], make_database(pipeline.embassy))
    for database in (found.own, found.other):
        with site(pipeline).connect(databases.ADMIN, database) as connection:
            replica_schema.ensure(connection)
            assert control_store.freeze(connection, bytes.fromhex(pipeline.stream), by="anna", reason="to see")
    return found


def test_an_order_lifts_the_freeze_that_it_names_and_none_with_its_number(
    twins: Twins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = twins.pipeline
    order = approved(pipeline, tmp_path / "order.json")
    assert f"registry at {pipeline.embassy}: freeze 1, by anna" in capsys.readouterr().out
    elsewhere = admin(pipeline, "elsewhere", site="embassy-9")
    assert run(pipeline, "unfreeze", "run", order, role=elsewhere) == 7
    assert f"is for site {pipeline.embassy}, and this is embassy-9" in capsys.readouterr().err
    delayed = admin(pipeline, "delayed", streams={"delayed": entry(pipeline, twins.other)})
    assert run(pipeline, "unfreeze", "run", order, role=delayed) == 7
    assert "delayed is not in the freeze for which" in capsys.readouterr().err
    assert is_frozen(pipeline, twins.own)
    assert is_frozen(pipeline, twins.other)
    assert run(pipeline, "unfreeze", "run", order) == 0
    assert not is_frozen(pipeline, twins.own)
    assert is_frozen(pipeline, twins.other)


def test_an_order_goes_on_with_what_it_could_not_lift(
    twins: Twins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline, another = twins.pipeline, os.urandom(16).hex()
    own = entry(pipeline, twins.own)
    up = admin(pipeline, "up", streams={"another": entry(pipeline, twins.other, another), "registry": own})
    down = admin(
        pipeline, "down", streams={"another": entry(pipeline, twins.other, another, DOWN), "registry": own}
    )
    assert run(pipeline, "freeze", "--reason", "both", "--key", key(pipeline, "anna"), role=up) == 0
    order = approved(pipeline, tmp_path / "order.json", role=up)
    capsys.readouterr()
    assert run(pipeline, "--json", "unfreeze", "run", order, role=down) == 3
    told = capsys.readouterr()
    assert json.loads(told.out)["registries"] == {"registry": {"lifted": True, "already": False}}
    assert "error: another: " in told.err
    assert not is_frozen(pipeline, twins.own)
    assert is_frozen(pipeline, twins.other, another)
    assert run(pipeline, "unfreeze", "run", order, role=up) == 0
    assert "another: lifted\nregistry: lifted by this order before\n" in capsys.readouterr().out
    assert not is_frozen(pipeline, twins.other, another)
    with site(pipeline).connect(databases.ADMIN, twins.own) as connection:
        connection.execute("UPDATE embassy.control SET frozen_at = now(), freeze_id = gen_random_uuid()")
    assert run(pipeline, "unfreeze", "run", order, role=up) == 7, "a new freeze needs an order of its own"
    assert is_frozen(pipeline, twins.own)


def test_a_freeze_of_an_earlier_version_can_be_lifted_once_the_replica_is_provisioned_again(
    twins: Twins, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = twins.pipeline
    with site(pipeline).connect(databases.ADMIN, twins.own) as connection:
        connection.execute(
            "ALTER TABLE embassy.control DROP COLUMN freeze_id, DROP COLUMN lifted_by,"
            " DROP COLUMN suspect_record, DROP COLUMN admitted_record"
        )
        order = tmp_path / "order.json"
        assert run(pipeline, "unfreeze", "plan", str(order), "--reason", "looked into") == 5
        assert "or that of an earlier version" in capsys.readouterr().err
        replica_schema.ensure(connection)
        assert run(pipeline, "unfreeze", "run", approved(pipeline, order)) == 0
        # A consumer that was not restarted yet still freezes as it used to.
        connection.execute("UPDATE embassy.control SET frozen_at = now(), frozen_by = 'protection'")
        again = tmp_path / "again.json"
        assert run(pipeline, "unfreeze", "plan", str(again), "--reason", "looked into") == 5
        assert "embassy provision apply gives it a name" in capsys.readouterr().err
        replica_schema.ensure(connection)
        assert run(pipeline, "unfreeze", "run", approved(pipeline, again)) == 0
