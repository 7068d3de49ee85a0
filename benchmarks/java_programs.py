"""Kafka Connect, MirrorMaker 2, Debezium and a registry of Avro schemas, from Maven, kept beside the lab's servers."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chain_settings import AVRO_CONVERTER
from deploy.lab.artifacts import KAFKA_VERSION, ArtifactCache, find_java
from deploy.lab.lab import Lab
from embassy.model.errors import ConfigurationError

DEBEZIUM_VERSION = "3.6.0.Final"
"""The newest of which both connectors are published as archives: the sink's stops there."""
REGISTRY_VERSION = "2.6.13.Final"
_HERE = Path(__file__).parent
_CONVERTERS = "META-INF/services/org.apache.kafka.connect.storage.Converter"
_ENDS = ("postgres", "jdbc")


@dataclass(frozen=True, slots=True)
class JavaPrograms:
    """Where they are, fetched when they are first asked for."""

    cache: ArtifactCache

    @classmethod
    def of(cls, lab: Lab) -> JavaPrograms:
        """Those of a lab's cache."""
        workshop = lab.workshop
        return cls(ArtifactCache(lab.layout.cache, workshop.account, workshop.patience, workshop.announce))

    @property
    def java(self) -> Path:
        """The launcher."""
        return find_java(self.cache.account)

    @property
    def connect(self) -> Path:
        """The folder of the jars of Kafka Connect, MirrorMaker 2 among them."""
        return self._jars(f"mirror-{KAFKA_VERSION}", "mirror-pom.xml", f"-Dkafka.version={KAFKA_VERSION}")

    @property
    def plugins(self) -> str:
        """Connect's ``plugin.path``: the connectors and the Avro converter, each isolated from the rest."""
        found = [
            self._archive(f"io.debezium:debezium-connector-{name}", DEBEZIUM_VERSION, "plugin") for name in _ENDS
        ]
        # A folder in plugin.path holds folders of jars, or jars that are a plugin each: so not the converter's own.
        found.append(self.cache.kept(f"converter-{REGISTRY_VERSION}", self._fetch_converter))
        return ",".join(map(str, found))

    @property
    def registry(self) -> Path:
        """The registry of schemas, a jar that runs by itself."""
        folder = self._archive("io.apicurio:apicurio-registry-app", REGISTRY_VERSION, "all")
        return only(folder.glob("*-runner.jar"), folder)

    def _jars(self, name: str, pom: str, *properties: str) -> Path:
        return self.cache.jars(name, str(_HERE / pom), *properties)

    def _fetch_converter(self, target: Path) -> None:
        jars = target / "avro"
        version = f"-Dregistry.version={REGISTRY_VERSION}"
        # Connect has its own jars, and finds a second converter among them that it cannot load.
        self.cache.fetch_jars(
            jars, str(_HERE / "converter-pom.xml"), version, "-DexcludeGroupIds=org.apache.kafka"
        )
        # Connect finds plugins by this entry; without it, it would have to load every class there is, for a minute.
        with zipfile.ZipFile(jars / "services.jar", "w") as services:
            services.writestr(_CONVERTERS, f"{AVRO_CONVERTER}\n")

    def _archive(self, artifact: str, version: str, classifier: str) -> Path:
        """An artifact that is an archive, unpacked."""

        def fetch(target: Path) -> None:
            self.cache.maven(
                "dependency:copy",
                f"-Dartifact={artifact}:{version}:tar.gz:{classifier}",
                f"-DoutputDirectory={target}",
            )
            packed = only(target.glob("*.tar.gz"), target)
            with tarfile.open(packed) as tar:
                tar.extractall(target, filter="data")
            packed.unlink()

        return self.cache.kept(f"{artifact.partition(':')[2]}-{version}", fetch)


def only(found: Iterable[Path], folder: Path) -> Path:
    """The only path there is.

    Raises:
        ConfigurationError: there is none, or more than one.
    """
    paths = list(found)
    if len(paths) != 1:
        raise ConfigurationError(
            f"an artifact does not hold what it should: {[path.name for path in paths]}",
            place=str(folder),
            hint="remove the folder, then run it again",
        )
    return paths[0]
