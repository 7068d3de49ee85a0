"""Showing a demonstration: a live table on a terminal, a line now and then elsewhere, the verdict at the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.demo.drill_report import DrillReport
from deploy.demo.faults import Fault
from deploy.demo.report import ReplicaResult, Report
from deploy.demo.snapshot import Row, Snapshot, State

_FRAMES_PER_SECOND = 4
_LINE_SECONDS = 5.0
_FAULTS_SHOWN = 6
_COLOURS = {
    State.PREPARING: "dim",
    State.FOLLOWING: "green",
    State.CATCHING_UP: "yellow",
    State.WAITING: "yellow",
    State.HALTED: "bold red",
    State.NO_CLIENTS: "dim",
}
_NUMBERS = ("committed", "on replica", "in flight", "lag", "per s")


@contextmanager
def shown(console: Console, snapshot: Callable[[], Snapshot]) -> Iterator[None]:
    """Show a demonstration on a console for as long as it runs; what was shown on a terminal goes at the end."""
    if console.is_terminal:
        with Live(
            get_renderable=lambda: rendered(snapshot()),
            console=console,
            refresh_per_second=_FRAMES_PER_SECOND,
            transient=True,
        ):
            yield
        return
    over = threading.Event()

    def tell() -> None:
        while not over.wait(_LINE_SECONDS):
            console.print(line(snapshot()), soft_wrap=True, highlight=False, markup=False)

    teller = threading.Thread(target=tell, name="progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def rendered(snapshot: Snapshot) -> RenderableType:
    """The live table."""
    several = len({row.embassy for row in snapshot.rows}) > 1
    load = "" if snapshot.load_seconds is None else f", load for {snapshot.load_seconds:.0f} s"
    parts: list[RenderableType] = [
        Text(f"{snapshot.phase} ({snapshot.elapsed_seconds:.0f} s{load})", style="bold")
    ]
    if snapshot.rows:
        table = _table("registry", *(["embassy"] if several else []), "state")
        for name in _NUMBERS:
            table.add_column(name, justify="right")
        for row in snapshot.rows:
            table.add_row(*_cells(row, several=several))
        parts.append(table)
    if snapshot.faults_planned:
        parts.append(Text(f"faults {len(snapshot.faults)} of {snapshot.faults_planned}", style="bold"))
        parts += [Text.from_markup(_fault_line(fault)) for fault in snapshot.faults[-_FAULTS_SHOWN:]]
    return Group(*parts)


def line(snapshot: Snapshot) -> str:
    """The same in one line."""
    start = f"{snapshot.elapsed_seconds:4.0f} s  {snapshot.phase}"
    counted = [row for row in snapshot.rows if row.committed is not None]
    if snapshot.load_seconds is None or not counted:
        return start
    worst = max(counted, key=lambda row: row.lag_seconds or 0.0)
    halted = sum(row.state is State.HALTED for row in snapshot.rows)
    down = [fault.target for fault in snapshot.faults if fault.recovered_seconds is None and not fault.error]
    parts = [
        start,
        f"committed {sum(row.committed or 0 for row in counted)}",
        f"on replica {sum(row.on_replica or 0 for row in counted)}",
        f"worst lag {worst.lag_seconds or 0.0:.1f} s ({worst.registry})",
    ]
    if snapshot.faults_planned:
        parts.append(f"faults {len(snapshot.faults)}/{snapshot.faults_planned}")
    if down:
        parts.append(f"down: {', '.join(dict.fromkeys(down))}")
    if halted:
        parts.append(f"halted: {halted}")
    return "  ".join(parts)


def print_verdict(console: Console, report: Report) -> None:
    """The table of the end, what was broken, and the verdict with its reasons."""
    several = any(len(registry.replicas) > 1 for registry in report.registries)
    table = _table("", "registry", *(["embassy"] if several else []))
    for title in ("committed", "applied", "lost", "double", "torn", "tables", "p50", "p99"):
        table.add_column(title, justify="right", no_wrap=True)
    for registry in report.registries:
        for replica in registry.replicas:
            names = [registry.name, replica.embassy] if several else [registry.name]
            table.add_row("[bold red]✗" if replica.complaints else "[green]✓", *names, *_figures(replica))
    console.print(table)
    kinds = sorted({str(fault.action) for fault in report.faults})
    if report.faults:
        recovered = [fault.recovered_seconds for fault in report.faults if fault.recovered_seconds is not None]
        longest = f", the slowest back after {max(recovered):.1f} s" if recovered else ""
        console.print(
            f"{len(report.faults)} faults ({', '.join(kinds)}){longest}; seed {report.seed}", highlight=False
        )
    for complaint in report.complaints:
        console.print(Text(f"  {complaint}", style="red"), soft_wrap=True)
    if report.is_true:
        console.print(
            "[bold green]Every committed transaction is on every replica, once and whole, and all tables are equal.",
            soft_wrap=True,
        )
    else:
        console.print(f"[bold red]NOT WELL: {len(report.complaints)} complaints, above.")


def _table(*columns: str) -> Table:
    """A table that ten registries fit into on a terminal of eighty columns."""
    return Table(*columns, box=box.SIMPLE_HEAD, padding=0, show_edge=False, pad_edge=False)


def _cells(row: Row, *, several: bool) -> list[str]:
    names = [row.registry, row.embassy] if several else [row.registry]
    state = f"[{_COLOURS[row.state]}]{row.state.value}"
    if row.committed is None:
        return [*names, state, *["-"] * len(_NUMBERS)]
    return [
        *names,
        state,
        f"{row.committed:,}",
        f"{row.on_replica:,}",
        f"{row.in_flight:,}",
        f"{row.lag_seconds:.1f} s",
        f"{row.per_second:.1f}",
    ]


def _fault_line(fault: Fault) -> str:
    if fault.error:
        end = f"[bold red]{fault.error.replace('[', chr(92) + '[')}"
    elif fault.recovered_seconds is None:
        end = "[yellow]down"
    else:
        end = f"[green]back after {fault.recovered_seconds:.1f} s"
    return f"  {fault.at_seconds:5.1f} s  {fault.action}  {fault.target}  {end}"


def _figures(replica: ReplicaResult) -> list[str]:
    return [
        f"{replica.committed:,}",
        f"{replica.applied:,}",
        str(replica.lost),
        str(replica.duplicated),
        str(replica.torn),
        f"{replica.tables_compared - replica.tables_mismatched}/{replica.tables_compared}",
        _milliseconds(replica.latency_p50_ms),
        _milliseconds(replica.latency_p99_ms),
    ]


def _milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms"


def print_drill(console: Console, report: DrillReport) -> None:
    """The verdict of a promotion drill."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for title in (
        "registry",
        "committed at home",
        "lost",
        "over",
        "bound",
        "drained",
        "verified",
        "first write",
        "written",
    ):
        table.add_column(title, justify="left" if title == "registry" else "right")
    for registry in report.registries:
        seconds = registry.step_seconds
        table.add_row(
            registry.name,
            f"{registry.committed:,}",
            str(registry.lost),
            f"{registry.loss_seconds:.2f} s",
            f"{registry.bound_seconds:.1f} s",
            f"{seconds.get('drain', 0):.2f} s",
            f"{seconds.get('verify', 0):.2f} s",
            "-" if registry.first_write_seconds is None else f"{registry.first_write_seconds:.2f} s",
            f"{registry.written_abroad:,}",
        )
    console.print(table)
    console.print(
        f"Home was killed after {report.load_seconds:.0f} s of load; planned and approved by "
        f"{' and '.join(report.approvers)} in {report.approving_seconds:.1f} s; promoted in "
        f"{report.promoting_seconds:.1f} s."
    )
    last = report.last_first_write
    if last is not None:
        console.print(
            f"From promote run to the application's first write: {last.seconds:.2f} s in the last registry "
            f"({last.registry}), of which draining {last.drain_seconds:.2f} s ({last.share(last.drain_seconds)} %), "
            f"verification {last.verify_seconds:.2f} s ({last.share(last.verify_seconds)} %), the rest "
            f"{last.rest_seconds:.2f} s ({last.share(last.rest_seconds)} %).",
            highlight=False,
        )
    console.print(
        f"Of {report.told:,} transactions that clients were told are committed, {report.lost} are lost, over at most "
        f"{report.loss_seconds:.2f} s; the report's bound is {report.bound_seconds:.1f} s. {report.bundled} of the lost "
        "are in home's conflict bundle.",
        highlight=False,
    )
    way = report.homecoming.to_json()
    console.print(
        f"Home followed in {way['failback_seconds']} s, level to the row while the embassy worked on. It was promoted in "
        f"{way['switching_seconds']} s and written to {way['last_first_write_seconds'] or '?'} s after the embassy was "
        f"fenced, which followed it in {way['following_seconds']} s. Of {way['told']:,} transactions told since the "
        f"promotion {way['lost']} are lost; {way['merged']} that never shipped were merged; {way['tables_compared']} "
        f"tables compared, {way['tables_unequal']} differ."
    )
    for complaint in report.complaints:
        console.print(f"✗ {complaint}", style="red", markup=False)
    if report.is_true:
        console.print(
            "The loss is within the report's bound, what home never shipped is kept apart, home is the registry again, "
            "and nothing was lost on the way back."
        )
