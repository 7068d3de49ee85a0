"""The time until which a shown certificate is valid is a series, which follows the file where connections do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.lab.certificates import Authority
from embassy.runtime.certificates import CertificateEnds, content_of, end_of
from embassy.runtime.metrics import Metrics
from tests.harness.certificates import ending


def test_a_renewed_certificate_counts_where_each_connection_reads_it(tmp_path: Path) -> None:
    authority = _authority(tmp_path)
    read_once, followed = (tmp_path / name for name in ("once", "followed"))
    metrics = Metrics(version="1", component="producer", site="home")
    ends = CertificateEnds(metrics)
    for folder, follow in ((read_once, False), (followed, True)):
        folder.mkdir()
        ends.shown(ending(authority, "role", folder, timedelta(days=1)).certificate, follow=follow)
    before = {folder: end_of(content_of(folder / "role.pem")) for folder in (read_once, followed)}
    for folder in (read_once, followed):
        ending(authority, "role", folder, timedelta(days=30))
    ends.look()
    after = end_of(content_of(followed / "role.pem"))
    assert after is not None
    assert _told(metrics, read_once) == before[read_once] != end_of(content_of(read_once / "role.pem"))
    assert _told(metrics, followed) == after != before[followed]


def test_a_file_without_a_certificate_has_no_series_until_there_is_one(tmp_path: Path) -> None:
    metrics = Metrics(version="1", component="consumer", site="embassy-1")
    ends = CertificateEnds(metrics)
    ends.shown(tmp_path / "role.pem", follow=True)
    assert _told(metrics, tmp_path) is None
    (tmp_path / "role.pem").write_text("not a certificate")
    ends.look()
    assert _told(metrics, tmp_path) is None
    ending(_authority(tmp_path), "role", tmp_path, timedelta(days=2))
    ends.look()
    assert _told(metrics, tmp_path) == end_of(content_of(tmp_path / "role.pem"))


def _authority(folder: Path) -> Authority:
    made = Authority(folder / "authority", "an authority of the tests")
    made.found(datetime.now(UTC))
    return made


def _told(metrics: Metrics, folder: Path) -> float | None:
    text, _ = metrics.exposition()
    start = f'embassy_certificate_expires_timestamp_seconds{{file="{folder / "role.pem"}"}} '
    found = [line.removeprefix(start) for line in text.decode().splitlines() if line.startswith(start)]
    return float(found[0]) if found else None
