"""What ``embassy promote`` shows to people: the plan with its checklist, steps as they are taken, and the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from embassy.cli.promote_planning import Outlook
from embassy.model.wording import instant
from embassy.wire.promotion_plan import Plan
from failover.loss import ahead
from failover.promotion import NO_RETURN, Mode, Step, steps

CHECKLIST = {
    Mode.DISASTER: (
        "An incident is declared, and someone leads it.",
        "Two independent vantage points confirm that home cannot be reached; a telephone counts.",
        "It is not only the bridge or the monitoring that is down: then do not promote, extend retention.",
        "Automation that could start anything at home or restart the bridge is switched off.",
        "Whatever reaches home is about to be cut: names, credentials, bridge keys.",
        "From now on home counts as possibly writable until it is fenced there.",
    ),
    Mode.SWITCHOVER: (
        "Both sides are up, embassy doctor --strict finds nothing, and the lag is seconds.",
        "The owners of the registries know when writing stops at home.",
    ),
}


_WIDTH = 120
_LATEST_SECONDS = 253_402_300_799
"""The end of the year 9999; a plan may name any number."""


def console(*, stderr: bool = False) -> Console:
    """A console that is wide enough where there is no terminal."""
    found = Console(stderr=stderr)
    return found if found.is_terminal else Console(stderr=stderr, width=_WIDTH)


def show_plan(console: Console, plan: Plan, outlooks: Sequence[Outlook]) -> None:
    """The checklist, the steps, and what is predicted."""
    console.print(f"Plan {plan.nonce.hex()[:8]}: [bold]{plan.mode}[/bold] at {plan.site}")
    console.print("\nBefore anyone approves:")
    for line in CHECKLIST[Mode(plan.mode)]:
        console.print(f"  [ ] {line}", markup=False)
    console.print("\nSteps:")
    for number, step in enumerate(steps(Mode(plan.mode)), 1):
        mark = "  ── POINT OF NO RETURN" if step is NO_RETURN else ""
        console.print(f"  {number:2} {step.value}{mark}", markup=False)
    accepted = [f"a loss of up to {plan.accept_loss_seconds} s"] if plan.accept_loss_seconds else []
    accepted += ["records that cannot be applied"] if plan.waivers.undrained else []
    accepted += ["broken constraints"] if plan.waivers.violations else []
    accepted += ["rows known to differ from home"] if plan.waivers.differences else []
    accepted += ["TABLES WITHOUT ALL THEIR ROWS"] if plan.waivers.incomplete else []
    console.print(f"\nAccepted: {', '.join(accepted) or 'no loss'}\n")
    table = _table("registry", "epoch", "record", "last commit", "loss ≤", "consumer", "gate")
    for outlook in outlooks:
        planned = outlook.planned
        table.add_row(
            planned.name,
            f"{planned.from_epoch}→{planned.to_epoch}",
            str(planned.minimum_sequence),
            _clock(outlook.last_commit_at),
            "?" if outlook.loss is None else f"{outlook.loss.seconds:.1f} s",
            "applies" if outlook.holder else "none",
            Text("ready" if not outlook.obstacles else f"blocked: {'; '.join(outlook.obstacles)}"),
        )
    console.print(table)
    for outlook in outlooks:
        if outlook.no_reverse:
            console.print(
                f"! {outlook.planned.name}: nothing would be kept for the way home, which then copies all rows: "
                + "; ".join(outlook.no_reverse),
                markup=False,
            )
        if outlook.loss is not None and outlook.loss.home_ahead_seconds:
            console.print(
                f"! {outlook.planned.name}: what would be lost is {ahead(outlook.loss.home_ahead_seconds)}",
                markup=False,
            )
        if outlook.loss is None and outlook.beyond(plan.accept_loss_seconds):
            console.print(
                f"! {outlook.planned.name}: it is not known how much would be lost, for the replica has applied no "
                "transaction yet: unless the embassy's topic holds one, promote run refuses",
                markup=False,
            )
        elif outlook.loss is not None and outlook.beyond(plan.accept_loss_seconds):
            console.print(
                f"! {outlook.planned.name}: {outlook.loss.seconds:.1f} s would be lost now, and the plan accepts "
                f"{plan.accept_loss_seconds} s: unless the embassy's topic holds newer commits, promote run refuses",
                markup=False,
            )
    expires = min(planned.expires_at for planned in plan.streams)
    console.print(f"\nThe plan expires at {_clock(expires)} by the replicas' clock.")


def show_terms(console: Console, plan: Plan, persons: frozenset[str]) -> None:
    """What a person is asked to approve."""
    console.print(f"Plan {plan.nonce.hex()}: {plan.mode} at {plan.site}", markup=False)
    for planned in plan.streams:
        console.print(
            f"  {planned.name}: epoch {planned.from_epoch} to {planned.to_epoch}, from record "
            f"{planned.minimum_sequence} on, until {_clock(planned.expires_at)}, stream {planned.stream.hex()}",
            markup=False,
        )
    console.print(f"  its report is signed by the embassy's key {plan.identity.id.hex()}", markup=False)
    console.print(f"  accepts a loss of up to {plan.accept_loss_seconds or 0} s", markup=False)
    if plan.waivers.undrained:
        console.print(
            "  leaves behind records that cannot be applied, or be read: the embassy's cluster may be lost"
        )
    if plan.waivers.violations:
        console.print("  leaves rows that break constraints as they are")
    if plan.waivers.differences:
        console.print("  leaves rows that are known to differ from home as they are")
    if plan.waivers.incomplete:
        console.print("  opens tables WITHOUT ALL THEIR ROWS, where a copy has not come to its end")
    console.print(f"  approved so far by: {', '.join(sorted(persons)) or 'nobody'}", markup=False)


class StepLines:
    """Tells each step on one line, in the order in which things happen; quiet where several registries are at one."""

    def __init__(self, console: Console, mode: Mode, streams: int) -> None:
        self._console = console
        self._order = steps(mode)
        self._wide = streams > 1
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def tell(self, name: str, step: Step, words: str) -> None:
        """A step begins (no words), or was taken and found something."""
        if not words and self._wide:
            return
        number = self._order.index(step) + 1
        text = f"[{number}/{len(self._order)}] {name}: {step.value}" + (f": {words}" if words else " …")
        with self._lock:
            self._console.print(f"{time.monotonic() - self._began:6.2f} s  {text}", markup=False, highlight=False)

    def announce(self, plan: Plan, names: Sequence[str]) -> None:
        """Say that the point of no return is next."""
        number = self._order.index(NO_RETURN) + 1
        epochs = ", ".join(f"{p.name} {p.from_epoch}→{p.to_epoch}" for p in plan.streams if p.name in names)
        with self._lock:
            self._console.print(
                f"{time.monotonic() - self._began:6.2f} s  [{number}/{len(self._order)}] epoch: {epochs} "
                "── POINT OF NO RETURN, passed now",
                markup=False,
                highlight=False,
            )


def show_report(console: Console, streams: Sequence[Mapping[str, Any]], persons: frozenset[str]) -> None:
    """What became of each stream."""
    table = _table("registry", "epoch", "last commit", "loss ≤", "left behind", "took", "first write")
    for entry in streams:
        if entry.get("aborted"):
            table.add_row(str(entry["name"]), "given up")
            continue
        table.add_row(
            str(entry["name"]),
            f"{entry['from_epoch']}→{entry['to_epoch']}",
            str(entry.get("last_commit_at") or "?")[11:23],
            f"{entry.get('loss_seconds_upper_bound', 0):.1f} s",
            "unread" if (left := entry.get("records_left_behind", 0)) is None else f"{left} records",
            f"{entry['seconds']:.1f} s",
            str(entry.get("smoke_write_at") or "?")[11:23],
        )
    console.print(table)
    console.print(f"Approved by {' and '.join(sorted(persons))}.")


def _table(*titles: str) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _clock(seconds: float | None) -> str:
    return "?" if seconds is None else instant(min(seconds, _LATEST_SECONDS), now=time.time())
