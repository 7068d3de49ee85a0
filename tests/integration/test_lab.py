"""The lab's servers: who gets in, and who does not."""

from __future__ import annotations

import socket
import ssl
import struct
import uuid
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined] # re-exported without saying so
from psycopg.conninfo import make_conninfo

from deploy.lab.certificates import Authority, now_utc
from deploy.lab.lab import Lab
from tests.harness.kafka import MakeTopic, deliver, first_record

SITES = ("home", "embassy-1")
TLS13_ALERT = b"\x15\x03"


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """An authority that no server of the lab trusts; it certifies the names that the lab's own does."""
    authority = Authority(tmp_path / "stranger", "home kafka authority")
    authority.found(now_utc())
    for role in ("admin", "embassy_admin"):
        authority.issue_client(role)
    return authority


def client_context(authority: Authority, role: str | None, ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    if role is not None:
        files = authority.client(role)
        context.load_cert_chain(files.certificate, files.key)
    return context


def api_versions(port: int, context: ssl.SSLContext | None) -> bytes:
    """Ask a broker for its API versions, the first request of any client; returns the answer's first bytes."""
    client = b"probe"
    request = struct.pack(">hhih", 18, 0, 7, len(client)) + client
    with socket.create_connection(("localhost", port), timeout=20) as plain:
        connection = context.wrap_socket(plain, server_hostname="localhost") if context else plain
        with connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            return connection.recv(8)


@pytest.mark.parametrize("site", SITES)
def test_a_broker_answers_a_client_with_a_certificate(lab: Lab, site: str) -> None:
    kafka = lab.site(site).kafka
    answer = api_versions(kafka.port, client_context(kafka.authority, "bridge", kafka.authority.ca))
    assert struct.unpack(">i", answer[4:8]) == (7,)


@pytest.mark.parametrize("site", SITES)
def test_a_broker_refuses_plaintext(lab: Lab, site: str) -> None:
    for port in lab.state.sites[site].kafka.ports:
        try:
            answer = api_versions(port, None)
        except ConnectionResetError:
            continue
        assert answer == b"" or answer.startswith(TLS13_ALERT)


@pytest.mark.parametrize("site", SITES)
def test_a_broker_refuses_a_client_without_a_certificate(lab: Lab, site: str) -> None:
    kafka = lab.site(site).kafka
    for port in kafka.ledger.server.ports:
        with pytest.raises(ssl.SSLError, match="alert"):
            api_versions(port, client_context(kafka.authority, None, kafka.authority.ca))


@pytest.mark.parametrize("site", SITES)
def test_a_broker_refuses_a_strangers_certificate_in_the_name_of_the_administrator(
    lab: Lab, site: str, stranger: Authority
) -> None:
    kafka = lab.site(site).kafka
    for port in kafka.ledger.server.ports:
        with pytest.raises(ssl.SSLError, match="alert"):
            api_versions(port, client_context(stranger, "admin", kafka.authority.ca))


def test_an_embassys_certificate_does_not_open_home(lab: Lab) -> None:
    home, embassy = lab.site("home").kafka, lab.site("embassy-1").kafka
    with pytest.raises(ssl.SSLError, match="alert"):
        api_versions(home.port, client_context(embassy.authority, "bridge", home.authority.ca))


def test_a_certificate_for_the_database_does_not_open_the_broker(lab: Lab) -> None:
    home = lab.site("home")
    with pytest.raises(ssl.SSLError, match="alert"):
        api_versions(
            home.kafka.port, client_context(home.postgres.authority, "embassy_admin", home.kafka.authority.ca)
        )


def test_a_broker_refuses_older_tls(lab: Lab) -> None:
    kafka = lab.home.kafka
    context = client_context(kafka.authority, "bridge", kafka.authority.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="alert"):
        api_versions(kafka.port, context)


def test_a_client_refuses_a_broker_of_another_authority(lab: Lab, stranger: Authority) -> None:
    kafka = lab.home.kafka
    with pytest.raises(ssl.SSLCertVerificationError):
        api_versions(kafka.port, client_context(kafka.authority, "bridge", stranger.ca))


def test_each_role_carries_what_it_must(lab: Lab, make_topic: MakeTopic) -> None:
    stream = make_topic("home")
    assert make_topic("embassy-1", stream) == stream
    make_topic("home", "positions")
    make_topic("embassy-1", "positions")
    home, abroad = lab.site("home").kafka.client_config, lab.site("embassy-1").kafka.client_config

    assert deliver(home("producer"), stream, b"sealed") is None
    assert first_record(home("producer"), stream).value() == b"sealed"
    assert first_record(home("bridge"), stream).value() == b"sealed"
    assert deliver(abroad("bridge"), stream, b"carried") is None
    assert first_record(abroad("bridge"), stream).value() == b"carried"
    assert first_record(abroad("consumer"), stream).value() == b"carried"
    assert deliver(abroad("consumer"), "positions", b"here") is None
    assert first_record(abroad("bridge"), "positions").value() == b"here"
    assert deliver(home("bridge"), "positions", b"here") is None


@pytest.mark.parametrize(
    ("site", "role", "name"),
    [
        ("embassy-1", "consumer", "s-"),
        ("home", "producer", "positions"),
        ("embassy-1", "bridge", "positions"),
    ],
)
def test_a_role_cannot_write_what_is_not_its_own(
    lab: Lab, make_topic: MakeTopic, site: str, role: str, name: str
) -> None:
    stream = make_topic(site, None if name == "s-" else name)
    error = deliver(lab.client_config(site, role), stream, b"forged")
    assert error is not None
    assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


@pytest.mark.parametrize(("site", "role"), [("home", "bridge"), ("embassy-1", "consumer")])
def test_a_role_cannot_read_what_it_may_only_write(lab: Lab, make_topic: MakeTopic, site: str, role: str) -> None:
    make_topic(site, "positions")
    error = first_record(lab.client_config(site, role), "positions").error()
    assert error is not None
    assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_a_role_cannot_see_what_is_not_its_own(lab: Lab, make_topic: MakeTopic) -> None:
    make_topic("home", "positions")
    client = AdminClient({**lab.client_config("home", "producer"), "log_level": 0})
    error = client.list_topics("positions", timeout=20).topics["positions"].error
    assert error is not None
    assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_a_valid_certificate_of_an_unknown_name_opens_nothing(
    lab: Lab, make_topic: MakeTopic, request: pytest.FixtureRequest
) -> None:
    kafka = lab.home.kafka
    stream = make_topic("home")
    name = f"nobody-{uuid.uuid4().hex[:8]}"
    files = kafka.authority.issue_client(name)
    request.addfinalizer(files.key.unlink)
    request.addfinalizer(files.certificate.unlink)
    error = deliver(kafka.client_config(name), stream, b"x")
    assert error is not None
    assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


@pytest.mark.parametrize(("site", "role"), [("home", "producer"), ("home", "bridge"), ("embassy-1", "consumer")])
def test_only_the_administrator_makes_topics(lab: Lab, site: str, role: str) -> None:
    kafka = lab.site(site).kafka
    name = f"s-{uuid.uuid4().hex}"
    client = AdminClient({**kafka.client_config(role), "log_level": 0})
    with pytest.raises(KafkaException) as refused:
        client.create_topics([NewTopic(name, 1, 1)])[name].result(30)
    assert refused.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_asking_for_a_topic_does_not_make_it(lab: Lab) -> None:
    client = lab.admin_client("home")
    name = f"s-{uuid.uuid4().hex}"
    for _ in range(2):
        error = client.list_topics(name, timeout=20).topics[name].error
        assert error is not None
        assert error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sslmode": "disable"}, "no encryption"),
        ({"sslcert": "", "sslkey": "", "sslcertmode": "disable"}, "valid client certificate"),
        ({"user": "postgres"}, "certificate authentication failed"),
        ({"host": "127.0.0.2", "hostaddr": "127.0.0.1"}, "does not match host name"),
    ],
)
def test_a_database_refuses(lab: Lab, site: str, change: dict[str, str], complaint: str) -> None:
    dsn = lab.site(site).postgres.dsn("embassy_admin", "ledger")
    with psycopg.connect(dsn) as connection:
        assert connection.execute(
            "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        ).fetchone() == (
            True,
            "TLSv1.3",
        )
    with pytest.raises(psycopg.OperationalError, match=complaint):
        psycopg.connect(make_conninfo(dsn, **change))


@pytest.mark.parametrize("site", SITES)
def test_a_database_and_its_clients_refuse_strangers(lab: Lab, site: str, stranger: Authority) -> None:
    dsn = lab.site(site).postgres.dsn("embassy_admin", "ledger")
    forged = stranger.client("embassy_admin")
    with pytest.raises(psycopg.OperationalError, match="unknown ca"):
        psycopg.connect(make_conninfo(dsn, sslcert=str(forged.certificate), sslkey=str(forged.key)))
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        psycopg.connect(make_conninfo(dsn, sslrootcert=str(stranger.ca)))


def test_the_readers_cannot_write_and_the_owner_can(lab: Lab) -> None:
    update = "UPDATE account SET balance = balance WHERE id = 1"
    with psycopg.connect(lab.source_dsn("ledger", "embassy_producer")) as connection:
        assert connection.execute("SELECT count(*) FROM account WHERE id = 1").fetchone() == (1,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(update)
    with (
        psycopg.connect(lab.replica_dsn("embassy-1", "ledger")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("CREATE TABLE public.mine ()")
    with psycopg.connect(lab.source_dsn("ledger")) as connection:
        assert connection.execute(update).rowcount == 1


def test_both_sides_have_the_settings_of_the_design_and_home_has_the_tables(lab: Lab) -> None:
    wanted = {"wal_level": "logical", "fsync": "on", "data_checksums": "on", "TimeZone": "UTC"}
    for site, timestamps in (("home", "off"), ("embassy-1", "on")):
        with lab.site(site).postgres.connect(database="ledger") as connection:
            found = {name: value for name, value, *_ in connection.execute("SHOW ALL")}
            assert {name: found[name] for name in wanted} == wanted
            assert found["track_commit_timestamp"] == timestamps
            assert found["server_version"].split(".")[0] == lab.state.postgres
            assert connection.execute(
                "SELECT tableowner FROM pg_tables WHERE tablename = 'account'"
            ).fetchall() == ([("registry_owner",)] if site == "home" else [])
            assert connection.execute(
                "SELECT datcollate, pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'ledger'"
            ).fetchone() == ("C.UTF-8", "UTF8")


def test_keys_are_for_their_owners_only(lab: Lab) -> None:
    keys = [*lab.layout.certificates.rglob("*.key"), *lab.layout.sites.resolve().rglob("server.key")]
    assert len(keys) > 20
    assert {oct(key.stat().st_mode & 0o777) for key in keys} == {"0o600"}
