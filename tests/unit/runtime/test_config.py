from __future__ import annotations

import re
from pathlib import Path

import pytest

from embassy.model.errors import ConfigurationError
from embassy.runtime import config
from embassy.runtime.config_origins import Origin, complaints, effective, redacted

_MINIMAL = """
site = "home"
[streams.land]
stream = "00112233445566778899aabbccddeeff"
enrolment = "land.json"
"""


def _file(folder: Path, text: str) -> Path:
    path = folder / "embassy.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[metrics]\nlisten_at = 'x'", "metrics.listen_at: unknown key, did you mean 'listen'?"),
        ("[prodcer]\nbatch_bytes = 1", "prodcer: unknown key, did you mean 'producer'?"),
        ("[producer]\nbatch_byte = 2000", "producer.batch_byte: unknown key, did you mean 'batch_bytes'?"),
        ("[kafka.hom]\nbootstrap = 'x'", "kafka.hom: unknown key, did you mean 'home'?"),
        ("[streams.people]\nstrem = 'x'", "streams.people.strem: unknown key, did you mean 'stream'?"),
        ("[producer]\nbatch_bytes = 1", "producer.batch_bytes: 1 is less than 1024"),
        ("[keys]\nthreshold = 'two'", "keys.threshold: not a whole number"),
        ("[keys]\nthreshold = 1.5", "keys.threshold: not a whole number"),
        ("[keys]\nthreshold = true", "keys.threshold: not a number"),
        ("[keys]\noperators = 'anna.pub.json'", "keys.operators: not a list; the environment has one as JSON"),
        ("[keys]\noperators = [1]", "keys.operators: not a text"),
        ("[kafka]\nhome = 'localhost:9092'", "kafka.home: not a table"),
        ("[kafka.home]\nbootstrap = 'h'\nca = 'c'\ncertificate = 'c'", "kafka.home.key: is missing"),
        ("[producer]\ncopy_tables = 17", "producer.copy_tables: 17 is more than 16"),
        ("[producer]\nrotate_seconds = 0", "producer.rotate_seconds: 0.0 is not more than 0"),
        ("[producer]\nrotate_seconds = nan", "producer.rotate_seconds: not a number"),
        (
            "[streams.people]\nstream = 'AB'\nenrolment = 'p'",
            "streams.people.stream: not 32 hexadecimal digits in",
        ),
        (
            "[streams.land.protection]\ntruncate = 'stop'",
            "streams.land.protection.truncate: not one of 'allow', 'freeze'",
        ),
        ("[streams.land.source]\ndsn = ['password=s3cret']", "streams.land.source.dsn: not a text"),
    ],
)
def test_a_typo_is_an_error_that_names_the_key_and_the_near_one(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.load(_file(tmp_path, _MINIMAL + text))
    assert complaint in str(caught.value)
    assert caught.value.place == str(tmp_path / "embassy.toml")
    assert "s3cret" not in str(caught.value)


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.load(_file(tmp_path, "[keys]\nthreshold = 0\noperator = []\n[streams]\nland = 1\n"))
    assert caught.value.args[0].split("; ") == [
        "site: is missing",
        "keys.operator: unknown key, did you mean 'operators'?",
        "keys.threshold: 0 is less than 1",
        "streams.land: not a table",
    ]


def test_paths_are_beside_the_file_defaults_too(tmp_path: Path) -> None:
    settings = config.load(_file(tmp_path, _MINIMAL + "[keys]\nidentity = 'a'\nrecipients = ['/b', 'c']\n"))
    assert settings.keys.identity == tmp_path / "a"
    assert settings.keys.recipients == (Path("/b"), tmp_path / "c")
    assert settings.streams["land"].enrolment == tmp_path / "land.json"
    assert settings.audit.file == tmp_path / "audit.jsonl"


def test_a_number_may_be_whole_and_is_what_the_section_says(tmp_path: Path) -> None:
    settings = config.load(_file(tmp_path, _MINIMAL + "[producer]\nbatch_bytes = 4e6\nrotate_seconds = 60\n"))
    for number, kind in ((settings.producer.batch_bytes, int), (settings.producer.rotate_seconds, float)):
        assert type(number) is kind
    assert settings.producer.batch_bytes == 4_000_000


def test_the_environment_overrides_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "EMBASSY_SITE": "oslo",
        "EMBASSY_CONFIG": "no value of the file",
        "EMBASSY_KEYS__THRESHOLD": "3",
        "EMBASSY_KEYS__OPERATORS": '["anna", "/bert"]',
        "EMBASSY_KEYS__IDENTITY": '["now", "next"]',
        "EMBASSY_KEYS__RECIPIENT": "riga",
        "embassy_metrics__listen": "[::1]:9464",
        "EMBASSY_PRODUCER": '{"batch_bytes": 2048, "copy_tables": 5}',
        "EMBASSY_PRODUCER__COPY_TABLES": "7",
        "EMBASSY_STREAMS__LAND__SOURCE__DSN": "host=h",
    }.items():
        monkeypatch.setenv(name, value)
    settings = config.load(_file(tmp_path, _MINIMAL + "[producer]\nrecord_bytes = 8192\ncopy_tables = 3\n"))
    assert (settings.site, settings.metrics.listen, settings.keys.threshold) == ("oslo", "[::1]:9464", 3)
    assert settings.keys.operators == (tmp_path / "anna", Path("/bert"))
    assert settings.keys.identity == (tmp_path / "now", tmp_path / "next")
    assert settings.keys.recipient == tmp_path / "riga"
    tuning = settings.producer
    assert (tuning.batch_bytes, tuning.record_bytes, tuning.copy_tables) == (2048, 8192, 7)
    source = settings.streams["land"].source
    assert source is not None
    assert (source.dsn, source.publication) == ("host=h", "embassy")


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("EMBASSY_PRODUCER__BATCH_BYTE", "2048", "producer.batch_byte: unknown key, did you mean 'batch_bytes'?"),
        ("EMBASSY_PRODUCER__BATCH_BYTES", "", "producer.batch_bytes: not a whole number"),
        ("EMBASSY_KEYS__OPERATORS", "anna", "keys.operators: not a list"),
        ("EMBASSY_PRODUCER", "{batch", "not an object in JSON"),
    ],
)
def test_what_is_wrong_in_the_environment_is_told_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=re.escape(complaint)):
        config.load(_file(tmp_path, _MINIMAL))


def test_two_streams_with_one_identity_are_refused(tmp_path: Path) -> None:
    twin = '[streams.people]\nstream = "00112233445566778899aabbccddeeff"\nenrolment = "p.json"\n'
    with pytest.raises(ConfigurationError, match="'land' and 'people' have the same identity"):
        config.load(_file(tmp_path, _MINIMAL + twin))


def test_each_value_names_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBASSY_PRODUCER__BATCH_BYTES", "2048")
    monkeypatch.setenv("EMBASSY_STREAMS__LAND__RPO_SECONDS", "5")
    path = _file(tmp_path, _MINIMAL + "[producer]\nbatch_bytes = 4096\nrecord_bytes = 8192\n")
    found = {value.key: value for value in effective(config.load(path), path)}
    assert found["producer.batch_bytes"][1:] == (2048, Origin.ENVIRONMENT, "EMBASSY_PRODUCER__BATCH_BYTES")
    assert found["producer.record_bytes"][1:] == (8192, Origin.FILE, "EMBASSY_PRODUCER__RECORD_BYTES")
    assert found["producer.rotate_seconds"].origin is Origin.DEFAULT
    assert found["streams.land.rpo_seconds"][1:] == (5, Origin.ENVIRONMENT, "EMBASSY_STREAMS__LAND__RPO_SECONDS")
    assert found["streams.land.enrolment"].value == str(tmp_path / "land.json")


@pytest.mark.parametrize(
    "dsn",
    [
        "host=h password=s3cret user=u",
        "host=h password = 's3 \\' cret' user=u",
        "host=h PASSWORD='s3cret",
        "host=h sslpassword=s3cret",
        "postgresql://u:s3cret@h/d?sslmode=verify-full",
        "postgresql://u:s3@cr/et@h/d",
        "postgresql://u@h/d?password=s3cret&sslmode=verify-full",
    ],
)
def test_passwords_are_never_shown(dsn: str) -> None:
    shown = redacted(dsn)
    assert "cret" not in shown
    assert "s3" not in shown
    assert "***" in shown
    assert "h" in shown


def test_what_is_not_a_password_is_shown_whole() -> None:
    for dsn in ("host=h user=u sslkey=/k passfile=/p", "postgresql://u@h:5432/d?sslmode=verify-full"):
        assert redacted(dsn) == dsn


def test_files_that_cannot_serve_are_named(tmp_path: Path) -> None:
    (tmp_path / "id.json").write_text("{}")
    (tmp_path / "id.json").chmod(0o640)
    (tmp_path / "land.json").write_text("{}")
    keys = '[keys]\nidentity = "id.json"\noperators = ["anna.pub.json"]\n'
    settings = config.load(_file(tmp_path, _MINIMAL + keys))
    assert list(complaints(settings)) == [
        f"keys.identity: {tmp_path / 'id.json'}: others may read it (mode 0640); chmod 600",
        f"keys.operators: {tmp_path / 'anna.pub.json'}: no such file",
    ]
    (tmp_path / "id.json").chmod(0o600)
    (tmp_path / "anna.pub.json").write_text("{}")
    assert list(complaints(settings)) == []
