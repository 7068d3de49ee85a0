from __future__ import annotations

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
        ("[producer]\nrotate_seconds = nan", "producer.rotate_seconds: Input should be a finite number"),
        ("[producer]\nbatch_bytes = 1", "producer.batch_bytes: Input should be greater than or equal to 1024"),
        ("[keys]\nthreshold = 'two'", "keys.threshold: Input should be a valid integer"),
    ],
)
def test_a_typo_is_an_error_that_names_the_key_and_the_near_one(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.load(_file(tmp_path, _MINIMAL + text))
    assert complaint in str(caught.value)
    assert caught.value.place == str(tmp_path / "embassy.toml")


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
    (tmp_path / "anna.pub.json").chmod(0o646)
    assert list(complaints(settings)) == [
        f"keys.operators: {tmp_path / 'anna.pub.json'}: others may write to it (mode 0646); chmod o-w",
    ]


def test_a_table_in_the_environment_that_is_no_json_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBASSY_PRODUCER", "{batch")
    with pytest.raises(ConfigurationError, match=r"not JSON: .*producer"):
        config.load(_file(tmp_path, _MINIMAL))


@pytest.mark.parametrize(
    ("streams", "rpo_seconds", "tuning", "expected"),
    [
        (10, 60, "", 5.0),
        (50, 60, "", 5.0),
        (100, 60, "", 10.0),
        (1000, 60, "", 20.0),  # three beats fit into what the replica may be behind
        (100, 6, "", 2.0),
        (10, 60, "idle_heartbeat_seconds = 8", 8.0),
        (100, 60, "idle_heartbeat_seconds = 15", 15.0),
        (10, 1, "", 1.0),  # never quicker than a busy heart
    ],
)
def test_an_idle_heart_is_slower_among_many(
    tmp_path: Path, streams: int, rpo_seconds: int, tuning: str, expected: float
) -> None:
    tables = [
        f'[streams.s{i}]\nstream = "{i:032x}"\nenrolment = "s.json"\nrpo_seconds = {rpo_seconds}\n'
        for i in range(streams)
    ]
    settings = config.load(_file(tmp_path, f'site = "home"\n[producer]\n{tuning}\n' + "".join(tables)))
    assert settings.slowest_beat_seconds(settings.streams["s0"]) == expected
