"""One account for several replicas."""

from __future__ import annotations

import uuid

from deploy.demo.shared_ledger import SharedLedger
from deploy.workload.ledger import Ledger, Moment, Outcome


def test_every_replica_has_the_whole_account_and_its_own_sightings() -> None:
    near, far = Ledger(), Ledger()
    told = SharedLedger([near, far])
    committed, undone = uuid.uuid4(), uuid.uuid4()
    told.enter(committed, "transfer", 1, 1, Moment(1, 1))
    told.settle(committed, Outcome.COMMITTED, Moment(2, 2))
    told.roll_back(undone, "transfer", 1, 2)
    near.see([committed], Moment(3, 3))
    for ledger in (told, near, far):
        assert ledger.counts() == {Outcome.COMMITTED: 1, Outcome.ROLLED_BACK: 1}
    assert [ledger.standing().unseen for ledger in (told, near, far)] == [1, 0, 1]
    assert far.standing().unseen_since == Moment(2, 2)
    assert near.standing().unseen_since is None
