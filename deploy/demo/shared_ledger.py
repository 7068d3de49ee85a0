"""One account of what clients were told, for several replicas at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deploy.workload.ledger import Ledger, Moment, Outcome

if TYPE_CHECKING:
    from uuid import UUID


class SharedLedger(Ledger):
    """What clients write here is also written to the ledger of each replica, before their next step."""

    def __init__(self, copies: Sequence[Ledger]) -> None:
        super().__init__()
        self._copies = copies

    def enter(self, token: UUID, kind: str, client: int, sequence: int, commit_issued: Moment) -> None:
        """Note everywhere that COMMIT is about to be sent."""
        super().enter(token, kind, client, sequence, commit_issued)
        for copy in self._copies:
            copy.enter(token, kind, client, sequence, commit_issued)

    def settle(self, token: UUID, outcome: Outcome, commit_returned: Moment) -> None:
        """Note everywhere what became of a COMMIT."""
        super().settle(token, outcome, commit_returned)
        for copy in self._copies:
            copy.settle(token, outcome, commit_returned)

    def roll_back(self, token: UUID, kind: str, client: int, sequence: int) -> None:
        """Note everywhere a transaction that never asked to be committed."""
        super().roll_back(token, kind, client, sequence)
        for copy in self._copies:
            copy.roll_back(token, kind, client, sequence)
