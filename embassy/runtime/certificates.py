"""Until when the certificates that a process shows to others are valid."""

from __future__ import annotations

from pathlib import Path

from embassy.runtime.metrics import CERTIFICATE_EXPIRES, Gauge, Metrics


def content_of(path: Path) -> bytes:
    """A certificate file's content; empty if it cannot be read: whoever uses it says so."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def end_of(content: bytes) -> float | None:
    """Until when a file's first certificate is valid, seconds since 1970 UTC; None: none can be read."""
    from cryptography import x509  # noqa: PLC0415 - a command has no use for it

    try:
        return x509.load_pem_x509_certificates(content)[0].not_valid_after_utc.timestamp()
    except ValueError:
        return None


class CertificateEnds:
    """Tells until when each certificate is valid, for alerts long before."""

    def __init__(self, metrics: Metrics) -> None:
        """Nothing is shown yet."""
        self._metrics = metrics
        self._series: dict[Path, Gauge] = {}
        self._followed: dict[Path, bytes] = {}

    def shown(self, path: Path, *, follow: bool) -> None:
        """A certificate is in use.

        Args:
            path: its file.
            follow: whether each connection reads the file anew; else the process uses what is there now until it ends.
        """
        content = content_of(path)
        self._tell(path, content)
        if follow:
            self._followed[path] = content

    def look(self) -> None:
        """Look whether others are in the place of those that are followed."""
        for path, known in self._followed.items():
            content = content_of(path)
            if content != known:
                self._followed[path] = content
                self._tell(path, content)

    def _tell(self, path: Path, content: bytes) -> None:
        end = end_of(content)
        if end is None:
            return
        if path not in self._series:
            self._series[path] = self._metrics.gauge(CERTIFICATE_EXPIRES, file=str(path))
        self._series[path].set(end)
