"""What ``embassy doctor`` says: remarks, each with the code of a check, and what the codes mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from typing import NamedTuple


class Level(IntEnum):
    """How bad it is."""

    OK = 0
    UNSEEN = 1
    """This role may not look."""
    WARN = 2
    FAIL = 3


class Remark(NamedTuple):
    """What a check found at a place, and the way out."""

    code: str
    level: Level
    place: str
    text: str
    fix: str = ""

    def __str__(self) -> str:
        way_out = f" → {self.fix}" if self.fix else ""
        return f"{self.level.name:<6} {self.code} {self.place}: {self.text}{way_out}"


CHECKS: Mapping[str, str] = {
    "PG01": "the source answers, lets this role in, over TLS that checks its name, and its version is known (14 to 18)",
    "PG02": "wal_level is logical, fsync and full_page_writes are on",
    "PG03": "replication slots and walsenders are left",
    "PG04": "the stream's slot is there, of this database, and has lost nothing",
    "PG05": "the producer's role may replicate, and no more than it needs",
    "PG06": "the publication is the one that the stream began with, leaves nothing out, and has left nothing out",
    "PG07": "each published table can say which row an update or delete means; otherwise home could not change its rows",
    "PG08": "no table is unlogged: its rows are never in the log, and never in the stream",
    "PG09": "each table is published",
    "PG10": "max_slot_wal_keep_size is set, and far: without it an outage fills the disk, too near it ends the stream",
    "PG11": "idle_replication_slot_timeout is 0 (18): an outage must not cost the stream its slot",
    "PG12": "no generated column is what a table's rows are told apart by",
    "PG13": "large objects are carried: who looks for them may, has done so lately, and has carried what was found",
    "PG14": "the source's clock is this machine's",
    "PG15": "the schema embassy is there, safe from a session's own types, and the producer's role may use it",
    "PG16": "no transaction has been open for hours: home keeps log for it, and no slot can be made meanwhile",
    "PG17": "standbys of the source keep the slot too (17): the promotion of one must not end the stream",
    "PG18": "the server is a primary",
    "PG19": "DDL goes into the stream: its event triggers are there, and fire in every session",
    "PG20": "the producer's role may read all rows of what is published: they can be copied and verified",
    "RP01": "the replica answers, lets this role in, over TLS that checks its name, and its version is known (14 to 18)",
    "RP02": "the schema embassy is there",
    "RP03": "each table has its guard: nobody but the consumer writes before promotion",
    "RP04": "no trigger, rule or event trigger fires while the stream is applied",
    "RP05": "the progress row is there, and of the enrolment",
    "RP06": "the consumer's role may apply",
    "RP07": "application roles cannot log in before promotion: whoever owns a table can drop its guard",
    "RP08": "no subscription writes here",
    "RP09": "no table is unlogged: a crash would empty it",
    "RP10": "fsync and full_page_writes are on",
    "RP11": "the replica's clock is this machine's",
    "RP12": "the server is a primary",
    "RP13": "the registry's tables are there",
    "RP14": "large objects are taken as they come",
    "KA01": "the cluster answers this client's certificate",
    "KA02": "the stream's topic is there",
    "KA03": "the topic has one partition: commit order is the only order",
    "KA04": "cleanup.policy is delete: compaction would remove records",
    "KA05": "retention is at least twice the outage to survive, and not by size",
    "KA06": "max.message.bytes holds the largest record (producer.record_bytes)",
    "KA07": "compression.type is producer or uncompressed: what is sealed does not compress",
    "KA08": "three replicas, of which two must have a record before it is acknowledged",
    "KA09": "no broker that misses records may become leader",
    "KA10": "brokers do not create topics by themselves",
    "KA11": "access lists decide who reads and writes, and no entry is for everyone",
    "KY01": "each key file can be read, by its owner only, and is of its kind",
    "KY02": "each stream's enrolment is signed by enough operators",
    "KY03": "the enrolment names this producer's identity",
    "KY04": "the producer wraps data keys for somebody",
    "KY05": "the configuration shows no password to others",
    "KY06": "the certificates that clusters and databases are shown are valid for three weeks more",
}
"""Every check by its code; codes are never used again for something else."""


def worst_level(remarks: Iterable[Remark]) -> Level:
    """The worst of what was found."""
    return max((remark.level for remark in remarks), default=Level.OK)
