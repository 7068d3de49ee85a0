"""The tables that messages of pgoutput have described so far, for readers that go through them one by one. Pure."""

from __future__ import annotations

from embassy.model.relation import Relation
from producers import pgoutput_decoder as pgoutput
from producers.pgoutput_decoder import TypeName


class Described:
    """Takes in what Relation and Type messages say."""

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}
        self._types: dict[int, TypeName] = {}

    def take(self, message: bytes) -> bool:
        """Note what a message describes; returns whether it is one that describes.

        Raises:
            IntegrityError: it is malformed.
        """
        if message[0] == pgoutput.TYPE:
            named = pgoutput.decode_type(message)
            self._types[named.oid] = named
        elif message[0] == pgoutput.RELATION:
            oid, relation = pgoutput.decode_relation(message, self._types)
            self._relations[oid] = relation
        else:
            return False
        return True

    def relation(self, oid: int, message: bytes) -> Relation:
        """The table that a message names.

        Raises:
            IntegrityError: none before it has described the table.
        """
        found = self._relations.get(oid)
        if found is None:
            raise pgoutput.malformed(message, "its table was not described")
        return found
