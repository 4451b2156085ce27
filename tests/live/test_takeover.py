"""The process table of a device where nobody registers with us."""

from __future__ import annotations

from lmk.device.helper_types import TableRow, TableWhich
from lmk.live.takeover import CONNECTION, TakenTable
from lmk.policy import api
from lmk.policy.lmkd.control_packets import ProcPrio, ProcRemove, encode_command


def row(pid: int, adj: int, *, start: int = 0, uid: int = 10001, rss: int = 10) -> TableRow:
    return TableRow(
        pid=pid,
        handle=0,
        start_ticks=start or pid,
        uid=uid,
        oom_score_adj=adj,
        order=0,
        owner_pid=0,
        type=0,
        rss_pages=rss,
        name="x",
    )


class Device:
    def __init__(self, *rows: TableRow) -> None:
        self.rows = rows

    def table(self, which: TableWhich) -> tuple[TableRow, ...]:
        assert which is TableWhich.ALL
        return self.rows


def packets(events: list[api.Event]) -> list[bytes]:
    return [event.data for event in events if isinstance(event, api.PacketEvent)]


def test_first_everything_then_only_what_changed() -> None:
    events: list[api.Event] = []
    device = Device(row(30, 900, start=5), row(20, 0, start=7), row(10, -1000), row(11, -950, uid=0), row(2, 0, rss=0))
    taken = TakenTable(device, events.append)
    assert taken.refresh() == 2
    assert events[0] == api.ConnectEvent(CONNECTION)
    oldest_first = [ProcPrio(pid=30, uid=10001, adj=900), ProcPrio(pid=20, uid=10001, adj=0)]
    assert packets(events) == [encode_command(command) for command in oldest_first]
    events.clear()
    assert taken.refresh() == 0
    device.rows = (row(30, 905, start=5),)
    assert taken.refresh() == 2
    assert packets(events) == [
        encode_command(ProcRemove(pid=20)),
        encode_command(ProcPrio(pid=30, uid=10001, adj=905)),
    ]


def test_a_reused_pid_is_another_process() -> None:
    events: list[api.Event] = []
    device = Device(row(30, 900, start=5))
    taken = TakenTable(device, events.append)
    taken.refresh()
    events.clear()
    device.rows = (row(30, 900, start=9),)
    taken.refresh()
    again: list[ProcRemove | ProcPrio] = [ProcRemove(pid=30), ProcPrio(pid=30, uid=10001, adj=900)]
    assert packets(events) == [encode_command(command) for command in again]


def test_leaving_makes_the_records_anybodys() -> None:
    events: list[api.Event] = []
    TakenTable(Device(), events.append).leave()
    assert events == [api.HangUpEvent(CONNECTION)]


def test_again_delivers_the_whole_slot_so_that_its_order_stays() -> None:
    events: list[api.Event] = []
    taken = TakenTable(Device(row(30, 900, start=5), row(20, 900, start=7), row(10, 0, start=1)), events.append)
    taken.refresh()
    events.clear()
    taken.again(30)
    assert taken.refresh() == 2
    assert packets(events) == [encode_command(ProcPrio(pid=pid, uid=10001, adj=900)) for pid in (30, 20)]
    events.clear()
    assert taken.refresh() == 0
