"""How the chain of other people's parts is configured: for throughput, as far as that does not cost it latency.

Avro with a registry of schemas, because JSON that carries its schema is more than twice the bytes and a third more CPU.
Large batches behind a backlog, 5 ms of waiting for company at each hop. zstd where it crosses the border.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.java_clients import prefixed

NAME = "chain"
TABLES = ("person", "property", "mark")
"""Those that it carries; each in a topic of its own, so that a transaction is taken apart by table."""
_TOPIC = f"{NAME}.public."

_PRODUCER = {"linger.ms": "5", "batch.size": "1000000", "buffer.memory": "134217728"}
_CONSUMER = {"max.poll.records": "5000", "fetch.max.bytes": "104857600", "max.partition.fetch.bytes": "52428800"}
_HALF_AN_HOUR = "1800000"
_MEMBER = {"session.timeout.ms": _HALF_AN_HOUR, "max.poll.interval.ms": _HALF_AN_HOUR}
"""A part that is frozen while others are measured stays in its group."""
AVRO_CONVERTER = "io.apicurio.registry.utils.converter.AvroConverter"
_BYTES = "org.apache.kafka.connect.converters.ByteArrayConverter"


def topic(table: str) -> str:
    """The topic of a table's changes, of the same name in both clusters."""
    return f"{_TOPIC}{table}"


def worker(
    client: Mapping[str, str], *, port: int, plugins: str, offsets: str, compression: str
) -> dict[str, str]:
    """A Connect worker of its own for one connector.

    Args:
        client: how it reaches its cluster.
        port: of its REST interface.
        plugins: its plugin path.
        offsets: the file in which it keeps its position.
        compression: of what it writes.
    """
    return {
        **client,
        **prefixed("producer.", {**client, **_PRODUCER, "compression.type": compression}),
        **prefixed("consumer.", {**client, **_CONSUMER, **_MEMBER}),
        **prefixed("admin.", client),
        # A worker asks for converters; each connector has its own.
        "key.converter": _BYTES,
        "value.converter": _BYTES,
        "listeners": f"http://127.0.0.1:{port}",
        "plugin.path": plugins,
        "plugin.discovery": "service_load",
        "offset.storage.file.filename": offsets,
        "offset.flush.interval.ms": "5000",
        "topic.creation.enable": "true",
    }


def avro(registry: str) -> dict[str, str]:
    """The converter of rows into Avro, whose schemas are in a registry."""
    settings = {
        "": AVRO_CONVERTER,
        ".apicurio.registry.url": f"{registry}/apis/registry/v2",
        ".apicurio.registry.auto-register": "true",
        ".apicurio.registry.find-latest": "true",
        # The schema's number before each value, as with other registries, and not in a header of a longer name.
        ".apicurio.registry.headers.enabled": "false",
    }
    return {**prefixed("key.converter", settings), **prefixed("value.converter", settings)}


def source(*, port: int, user: str, tls: Mapping[str, str], registry: str) -> dict[str, str]:
    """Debezium's connector for PostgreSQL; tables begin empty, so it copies nothing."""
    return {
        "name": "source",
        "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
        "tasks.max": "1",
        "database.hostname": "localhost",
        "database.port": str(port),
        "database.user": user,
        "database.dbname": NAME,
        **prefixed("database.", tls),
        "topic.prefix": NAME,
        "plugin.name": "pgoutput",
        "slot.name": NAME,
        "publication.name": NAME,
        "publication.autocreate.mode": "disabled",
        "snapshot.mode": "no_data",
        "tombstones.on.delete": "false",
        # TRUNCATE is left out by default, and rounds begin with one.
        "skipped.operations": "none",
        # Who captured it, in four headers of each record.
        "extended.headers.enabled": "false",
        "schema.name.adjustment.mode": "avro",
        "max.batch.size": "8192",
        "max.queue.size": "32768",
        "poll.interval.ms": "5",
        "topic.creation.default.replication.factor": "1",
        "topic.creation.default.partitions": "1",
        **avro(registry),
    }


def mirror(home: Mapping[str, str], embassy: Mapping[str, str]) -> dict[str, str]:
    """MirrorMaker 2, in a worker at the cluster that it writes to, as its documentation recommends."""
    return {
        "name": "mirror",
        "connector.class": "org.apache.kafka.connect.mirror.MirrorSourceConnector",
        "tasks.max": "2",
        "source.cluster.alias": "home",
        "target.cluster.alias": "embassy",
        **prefixed("source.cluster.", home),
        **prefixed("target.cluster.", embassy),
        **prefixed("source.consumer.", _CONSUMER),
        "topics": rf"{NAME}\.public\..*",
        "replication.policy.class": "org.apache.kafka.connect.mirror.IdentityReplicationPolicy",
        "replication.factor": "1",
        "offset-syncs.topic.replication.factor": "1",
        "sync.topic.acls.enabled": "false",
        "refresh.topics.interval.seconds": "3",
        "key.converter": _BYTES,
        "value.converter": _BYTES,
        "header.converter": _BYTES,
    }


def sinks(*, port: int, user: str, tls: Mapping[str, str], registry: str) -> list[dict[str, str]]:
    """Debezium's connector for JDBC, once for tables whose inserts it can send as arrays (UNNEST), once for person.

    It cannot send bytea as an array, nor dates: with that setting the task of such a table fails.
    """
    options = "&".join(f"{name}={value}" for name, value in {**tls, "reWriteBatchedInserts": "true"}.items())
    common = {
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
        "connection.url": f"jdbc:postgresql://localhost:{port}/{NAME}?{options}",
        "connection.username": user,
        "connection.password": "unused",
        "insert.mode": "upsert",
        "primary.key.mode": "record_key",
        "delete.enabled": "true",
        "truncate.enabled": "true",
        "schema.evolution": "basic",
        "batch.size": "5000",
        # Of several changes of one row in a batch only the last is written.
        "use.reduction.buffer": "true",
        "transforms": "table",
        "transforms.table.type": "org.apache.kafka.connect.transforms.RegexRouter",
        "transforms.table.regex": rf"{NAME}\.public\.(.*)",
        "transforms.table.replacement": "$1",
        "consumer.override.auto.offset.reset": "earliest",
        "consumer.override.metadata.max.age.ms": "3000",
        **avro(registry),
    }
    by_array = [topic(table) for table in TABLES if table != "person"]
    return [
        {
            "name": "sink",
            "topics": ",".join(by_array),
            "tasks.max": str(len(by_array)),
            "dialect.postgres.unnest.insert.enabled": "true",
            **common,
        },
        {"name": "sink-person", "topics": topic("person"), "tasks.max": "1", **common},
    ]
