"""However writes to large objects, their carriage and a verification's snapshots fall, no page is judged wrongly.

A write is in the stream with its transaction, or once a look has carried it; in between home's snapshot shows more than
the stream has. What a carrier brings may also come before a chunk whose snapshot does not show it.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.comparison import Difference, TableTally, differences
from consumers.touched_rows import InFlight, TouchedRows
from embassy.model.large_objects import in_doubt
from embassy.model.verification import Key
from embassy.model.visibility import Visibility

_OBJECTS, _PAGES = ("7", "11"), 6

Pages = dict[Key, int]


def digest(value: int) -> bytes:
    return hashlib.sha256(str(value).encode()).digest()[:8]


@dataclass
class Commit:
    """A transaction whose commit is in the log, and which no snapshot sees yet."""

    xid: int
    seen: Pages
    new: dict[str, int]


@dataclass
class Home:
    """Pages, and from which page on each object is not in the stream; a replica that follows the log."""

    chance: random.Random
    next_xid: int = 3
    pages: Pages = field(default_factory=dict)
    new: dict[str, int] = field(default_factory=dict)
    """By object: the first page that has changed and is not carried."""
    delivered: Pages = field(default_factory=dict)
    """What the replica must have."""
    replica: Pages = field(default_factory=dict)
    hidden: Commit | None = None
    touched: TouchedRows | None = None

    def step(self) -> None:
        kind = self.chance.randrange(6)
        if self.hidden is not None and kind < 3:
            self._show()
        elif kind < 3:
            self._write(together=self.chance.random() < 0.5)
        elif kind == 3:
            self._carry()
        elif kind == 4:
            self._show()
        else:
            key = (self.chance.choice(_OBJECTS), str(self.chance.randrange(_PAGES)))
            self.replica[key] = self.chance.randrange(1000, 2000)

    def _write(self, *, together: bool) -> None:
        """In place, or cut off behind a page, or all of it gone; with its row the pages travel along."""
        loid, first = self.chance.choice(_OBJECTS), self.chance.randrange(_PAGES)
        pages = dict(self.pages)
        if self.chance.random() < 0.5:
            gone = self.chance.random() < 0.3
            first = 0 if gone else first
            pages = {key: value for key, value in pages.items() if key[0] != loid or int(key[1]) < first}
            if not gone:
                pages[loid, str(first)] = self.chance.randrange(1000)
        else:
            pages[loid, str(first)] = self.chance.randrange(1000)
        new = dict(self.new)
        if together and loid not in new:
            self._tell(self._xid(), pages, new, {loid: first})
        else:
            new[loid] = min(first, new.get(loid, first))
            self._commit(self._xid(), pages, new)

    def _carry(self) -> None:
        if self.new and self.hidden is None:
            self._tell(self._xid(), dict(self.pages), {}, self.new)

    def _tell(self, xid: int, pages: Pages, new: dict[str, int], told: dict[str, int]) -> None:
        """A commit that brings objects, each from a page on."""
        for side in (self.delivered, self.replica):
            for loid, first in told.items():
                for page in range(first, _PAGES):
                    key = (loid, str(page))
                    side.pop(key, None)
                    if key in pages:
                        side[key] = pages[key]
        if self.touched is not None:
            self.touched.touch(xid, [(loid, str(first)) for loid, first in told.items()])
        self._commit(xid, pages, new)

    def _commit(self, xid: int, pages: Pages, new: dict[str, int]) -> None:
        self.hidden = Commit(xid, pages, new)
        if self.chance.random() < 0.5:
            self._show()

    def _show(self) -> None:
        if self.hidden is not None:
            self.pages, self.new, self.hidden = self.hidden.seen, self.hidden.new, None

    def _xid(self) -> int:
        self._show()  # whoever writes here has waited for it
        self.next_xid += 1
        return self.next_xid - 1

    def snapshot(self) -> Visibility:
        running = frozenset() if self.hidden is None else frozenset({self.hidden.xid})
        return Visibility(min(running, default=self.next_xid), self.next_xid, running)

    def steps(self, most: int) -> None:
        for _ in range(self.chance.randrange(most)):
            self.step()


@given(st.integers(0, 1 << 32))
@settings(max_examples=300)
def test_no_page_is_judged_wrongly(seed: int) -> None:
    chance = random.Random(seed)
    home = Home(chance)
    home.steps(30)
    home._show()
    touched = home.touched = TouchedRows()
    tally = TableTally()
    for _ in range(3):
        home.steps(10)
        snapshot, pages, behind = home.snapshot(), dict(home.pages), dict(home.new)
        home.steps(8)
        theirs = {key: digest(value) for key, value in pages.items()}
        ours = {key: digest(value) for key, value in home.replica.items()}
        differing, present = differences(theirs, ours), theirs.keys() | ours.keys()
        unseen = touched.in_flight(snapshot, ())
        doubts = unseen.keys | {(loid, str(first)) for loid, first in behind.items()}
        before = dict(tally.found)
        tally.told(0, len(theirs), differing, InFlight(unseen.everything, in_doubt(present, doubts)), present)
        for key in tally.found.keys() - before.keys():
            right, wrong = home.delivered.get(key), home.replica.get(key)
            assert right != wrong, "a difference that is none"
            assert (tally.found[key] is Difference.MISSING) == (wrong is None)
            assert (tally.found[key] is Difference.EXTRA) == (right is None)
        judged = present - in_doubt(present, doubts)
        assert all(key in tally.found for key in judged if home.delivered.get(key) != home.replica.get(key))
