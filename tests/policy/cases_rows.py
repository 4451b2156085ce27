"""What each row of the versions table changes, at the tags on both sides: rows that section 12 does not reach.

Each check is small and states what lmkd does at a tag; `test_versions_rows` flips the rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from lmk.engine.target import RunOver
from lmk.policy import api
from tests.policy.cases import row
from tests.policy.cases_later import THRESHOLD, listening, old_device
from tests.policy.cases_psi import after_23, zombie_in_slot_200
from tests.policy.small_world import Device, MakePolicy, Run, pressure, zone, zones

LOW_SWAP: dict[str, Any] = {"SwapFree": 100_000}


def elder(**changes: Any) -> Device:
    """A device whose kernel still has ``workingset_refault``, as lmkd up to 11Q3 needs."""
    layout = zones(zone())
    layout["nodes"][0]["stats"]["workingset_refault"] = 0
    return Device(vs={"workingset_refault": 0}, zi=layout, **changes)


def refaults(count: int) -> dict[str, int]:
    return {"workingset_refault": count}


def critical(t_ms: int = 150, device: Device | None = None) -> Device:
    """Somebody dies of NOT_RESPONDING, in every release."""
    return (device or elder()).event(t_ms, level=2, k=True)


def subscribed(device: Device, event: int) -> Device:
    device.script["setup"].append(["sub", event])
    return device


def sends(run: Run) -> list[str]:
    return [effect[2] for effect in run.effects("send")]


def with_anon_rss(device: Device) -> Device:
    """Status files that have the RssAnon line N3 wants."""

    def read(request: api.ReadProcess, answer: Callable[[Any], object]) -> object:
        text = answer(request)
        return f"{text}RssAnon:\t  1000 kB\n" if request.file == "status" and isinstance(text, str) else text

    device.overrides[api.ReadProcess] = read
    return device


# ---- properties ---------------------------------------------------------------------------------


@row("kill_timeout_default_ms", "11.0", "11Q1")
def kill_timeout_default(tag: str, make: MakePolicy) -> None:
    run = critical(300, critical()).run(tag, make, 310)
    assert len(run.kills()) == (1 if tag == "11.0" else 2)


@row("persist_overrides", "12", "12L")
def persist_overrides(tag: str, make: MakePolicy) -> None:
    name = "persist.device_config.lmkd_native.swap_free_low_percentage"
    run = Device(props={name: "60"}).at(150, k=True, MemFree=44000).run(tag, make, 210)
    assert run.kills() == ([] if tag == "12" else [(3, 201, 1001)])


@row("critical_thrashing_factor", "11Q1", "11Q3", "14.0", "14Q2", "16", "N1")
def critical_thrashing(tag: str, make: MakePolicy) -> None:
    expected = {"11Q1": (201, 201), "11Q3": (0, 0), "14.0": (0, 0), "14Q2": (201, 0), "16": (201, 0), "N1": (201, 201)}
    for limit, min_adj in zip(("100", "50"), expected[tag], strict=True):
        device = elder(props={"ro.lmk.thrashing_limit": limit})
        run = device.at(150, k=True, **LOW_SWAP, vs=refaults(500_000)).run(tag, make, 210)
        assert run.kills() == [(2, min_adj, 1001)], limit


@row("lowmem_min_score", "14Q2", "15.0")
def lowmem_min_score(tag: str, make: MakePolicy) -> None:
    device = Device(props={"ro.lmk.lowmem_min_oom_score": "800"}).event(150, k=True, MemFree=44000)
    assert device.run(tag, make, 160).kills() == [(8, 701 if tag == "14Q2" else 800, 1001)]


@row("delay_monitors", "14.0", "14Q2")
def delay_monitors(tag: str, make: MakePolicy) -> None:
    run = Device(props={"ro.lmk.delay_monitors_until_boot": "true"}).run(tag, make, 10)
    assert monitors(run.initial) == ([] if tag == "14Q2" else ["some 70000 1000000", "full 700000 1000000"])


def monitors(effects: list[Any]) -> list[str]:
    return [effect[2] for effect in effects if effect[0] == "write" and effect[1] == "/proc/pressure/memory"]


@row("psi_window_property", "16", "N1")
def psi_window(tag: str, make: MakePolicy) -> None:
    run = Device(props={"ro.lmk.psi_window_size_ms": "2000"}).run(tag, make, 10)
    assert monitors(run.initial)[0] == ("some 70000 1000000" if tag == "16" else "some 70000 2000000")


def scarce(props: dict[str, str]) -> Device:
    """Low watermark, 144000 kB easily available, plenty of swap."""
    changes: dict[str, Any] = {"MemFree": 44000, "Inactive(file)": 100_000}
    return Device(props=props).at(150, k=True, **changes)


@row("relaxed_memory", "N1", "N2")
def relaxed_memory(tag: str, make: MakePolicy) -> None:
    run = scarce({"ro.lmk.relaxed_available_memory": "true"}).run(tag, make, 210)
    assert run.kills() == [(3, 201, 1001) if tag == "N1" else (8, 701, 1001)]


@row("free_swap", "13Q2", "14.0")
def easily_available(tag: str, make: MakePolicy) -> None:
    assert scarce({}).run(tag, make, 210).kills() == ([] if tag == "13Q2" else [(3, 201, 1001)])


@row("free_swap", "14Q2", "15.0")
def compression_ratio(tag: str, make: MakePolicy) -> None:
    run = scarce({"ro.lmk.swap_compression_ratio": "0"}).run(tag, make, 210)
    assert run.kills() == [(3, 201, 1001) if tag == "14Q2" else (8, 701, 1001)]


@row("free_swap", "N1", "N2")
def compression_divisor(tag: str, make: MakePolicy) -> None:
    props = {"ro.lmk.swap_compression_ratio": "2", "ro.lmk.swap_compression_ratio_div": "2"}
    run = scarce(props).run(tag, make, 210)
    assert run.kills() == [(8, 701, 1001) if tag == "N1" else (3, 201, 1001)]


@row("reinit_if_started", "14Q2")
def reinit_of_delayed_monitors(tag: str, make: MakePolicy) -> None:
    device = Device(props={"ro.lmk.delay_monitors_until_boot": "true"}).at(10, ["cmd", 7])
    run = device.run(tag, make, 20)
    assert "Properties reinitilized" in run.logs()
    assert monitors(run.effects("write")) == []


# ---- reading the kernel -------------------------------------------------------------------------


@row("refault_file_fallback", "11Q3", "12")
def refault_file(tag: str, make: MakePolicy) -> None:
    device = elder()
    del device.script["vs"]["workingset_refault"]
    run = device.at(150, k=True, **LOW_SWAP, R=300_000).run(tag, make, 210)
    assert run.kills() == ([] if tag == "11Q3" else [(2, 201, 1001)])


@row("scan_any_change", "13Q2", "14.0")
def counter_backwards(tag: str, make: MakePolicy) -> None:
    run = Device().at(150, pgscan_kswapd=900, **LOW_SWAP, MemFree=44000).run(tag, make, 210)
    assert run.kills() == ([] if tag == "13Q2" else [(3, 201, 1001)])


@row("pgrefill_is_kswapd", "14.0", "14Q2")
def only_pgrefill(tag: str, make: MakePolicy) -> None:
    run = Device().at(150, pgrefill=2001, **LOW_SWAP, MemFree=44000).run(tag, make, 210)
    assert run.kills() == ([] if tag == "14.0" else [(3, 201, 1001)])


@row("zoneinfo_node_fields", "11Q3", "12")
def node_statistics(tag: str, make: MakePolicy) -> None:
    run = critical(device=Device(vs={"workingset_refault": 0})).run(tag, make, 160)
    assert run.kills() == ([] if tag == "11Q3" else [(1, 0, 1001)])
    assert ("Failed to parse zoneinfo!" in run.logs()) == (tag == "11Q3")


@row("zoneinfo_stats_marker", "15Q1", "15Q2")
def node_without_statistics(tag: str, make: MakePolicy) -> None:
    layout = zones(zone())
    empty = {**zone(), "present": 0}
    layout["nodes"].append({"id": 1, "stats": {}, "zones": [empty]})
    run = critical(device=Device(zi=layout)).run(tag, make, 160)
    assert run.kills() == ([] if tag == "15Q1" else [(1, 0, 1001)])


@row("memevents", "14Q2", "15.0")
def memory_events_command(tag: str, make: MakePolicy) -> None:
    run = listening().event(150, k=True, MemFree=36000).run(tag, make, 160)
    assert run.kills() == ([(8, 701, 1001)] if tag == "14Q2" else [])


@row("vendor_kills", "15Q2", "16")
def vendor_events(tag: str, make: MakePolicy) -> None:
    run = listening().at(150, ["mem", 5, 5, 500, 0]).run(tag, make, 160)
    assert run.kills() == ([] if tag == "15Q2" else [(1005, 500, 1001)])


@row("zoneinfo_events", "15Q2", "16")
def zoneinfo_refresh(tag: str, make: MakePolicy) -> None:
    changed = {"0.0.min": 5000, "0.0.low": 6000, "0.0.high": 7000}
    device = listening().at(400, ["mem", 3, 0, 0, 0]).event(500).at(1000, zi=changed)
    call = device.event(70_000, MemFree=44000).run(tag, make, 70_010).at(70_000)
    assert call.decision is not None
    assert call.decision.evaluations[0].watermark == (3 if tag == "15Q2" else 1)


@row("memevents_at_start", "N1", "N2")
def memory_events_at_start(tag: str, make: MakePolicy) -> None:
    device = Device(cfg={"mem": "111111"}, props={"sys.boot_completed": "1"}).event(150, k=True, MemFree=44000)
    run = device.run(tag, make, 160)
    assert run.kills() == ([(8, 701, 1001)] if tag == "N1" else [])


# ---- the PSI strategy ---------------------------------------------------------------------------


@row("thrashing_windows", "11.0", "11Q1")
def reclaim_period(tag: str, make: MakePolicy) -> None:
    run = elder().at(150, k=True, MemFree=44000, vs=refaults(220_000)).run(tag, make, 210)
    assert run.kills() == ([] if tag == "11.0" else [(4, 201, 1001)])


@row("swap_threshold_each_call", "12L", "13.0")
def swap_threshold(tag: str, make: MakePolicy) -> None:
    device = Device().at(150, k=True, SwapTotal=500_000, SwapFree=100_000, MemFree=44000)
    assert device.run(tag, make, 210).kills() == ([(3, 201, 1001)] if tag == "12L" else [])


@row("watermark_word", "11Q3", "12")
def watermark_word(tag: str, make: MakePolicy) -> None:
    call = elder().at(150, k=True, **LOW_SWAP, MemFree=36000).run(tag, make, 210).at(200)
    assert call.text.startswith("low " if tag == "11Q3" else "min ")


@row("swap_util_rule", "11Q3", "12")
def swap_utilisation(tag: str, make: MakePolicy) -> None:
    props = {"ro.lmk.swap_util_max": "40", "ro.lmk.swap_free_low_percentage": "0"}
    run = elder(props=props).at(150, k=True, SwapFree=0, MemFree=44000).run(tag, make, 210)
    assert run.kills() == ([] if tag == "11Q3" else [(6, 0, 1001)])


@row("filecache_rule", "11Q3", "12")
def filecache(tag: str, make: MakePolicy) -> None:
    device = elder(props={"ro.lmk.filecache_min_kb": "900000"}).process(1001, death=40_000)
    device.at(150, k=True, MemFree=44000, vs=refaults(220_000)).at(220, k=True, MemFree=100_000)
    call = device.run(tag, make, 245).at(240)
    assert call.kills == ([] if tag == "11Q3" else [(7, 201, 1002)])


@row("filecache_needs_watermark", "N2", "N3")
def filecache_and_watermark(tag: str, make: MakePolicy) -> None:
    call = with_anon_rss(after_23()).run(tag, make, 245).at(240)
    assert call.kills == ([(7, 201, 1002)] if tag == "N2" else [])


@row("low_mem_skipped", "16", "N1")
def low_mem_without_candidates(tag: str, make: MakePolicy) -> None:
    device = Device(props={"ro.lmk.lowmem_min_oom_score": "1001"}).event(150, k=True, MemFree=44000)
    decision = device.run(tag, make, 160).at(150).decision
    assert decision is not None and decision.reason == (8 if tag == "16" else -1)


@row("direct_reclaim_stuck_rule", "14Q2", "15.0")
def stuck(tag: str, make: MakePolicy) -> None:
    device = Device(props=THRESHOLD, vs={"pgscan_direct": 0}).at(50, pgscan_direct=1)
    assert device.run(tag, make, 110).kills() == ([] if tag == "14Q2" else [(9, 0, 1001)])


@row("first_kill_rereads", "14Q2", "15.0")
def looks_of_the_first_kill(tag: str, make: MakePolicy) -> None:
    changed = {"0.0.min": 5000, "0.0.low": 6000, "0.0.high": 7000}
    decision = Device().event(150, k=True, MemFree=44000, zi=changed).run(tag, make, 160).at(150).decision
    assert decision is not None
    assert [look.watermark for look in decision.evaluations] == ([1] if tag == "14Q2" else [1, 3])


@row("critical_stall", "12L", "13.0")
def critical_stall(tag: str, make: MakePolicy) -> None:
    device = Device(props={"ro.lmk.stall_limit_critical": "30"})
    device.at(150, k=True, **LOW_SWAP, R=300_000, psi=pressure(35.0))
    assert device.run(tag, make, 210).kills() == [(2, 201 if tag == "12L" else 0, 1001)]


# ---- victims and kills --------------------------------------------------------------------------


@row("heaviest_if_perceptible", "11Q1", "11Q3")
def heaviest(tag: str, make: MakePolicy) -> None:
    device = elder().only(1004, 1005).at(150, k=True, **LOW_SWAP, MemFree=36000)
    assert device.run(tag, make, 210).kills() == [(3, 0, 1004 if tag == "11Q1" else 1005)]


row("lone_record_unread", "15Q2", "16")(zombie_in_slot_200)


@row("status_sizes", "11Q3", "12")
def sizes(tag: str, make: MakePolicy) -> None:
    device = elder().process(1001, res=30_000)
    (event,) = critical(device=device).run(tag, make, 160).effects("evlog")
    assert event[5] == (120_000 if tag == "11Q3" else 100_000)


@row("empty_reads_refused", "15.0", "15Q1")
def empty_command_line(tag: str, make: MakePolicy) -> None:
    device = critical(device=Device())

    def read(request: api.ReadProcess, answer: Callable[[Any], object]) -> object:
        return "" if request.file == "cmdline" else answer(request)

    device.overrides[api.ReadProcess] = read
    assert device.run(tag, make, 160).kills() == ([(1, 0, 1001)] if tag == "15.0" else [])


@row("anon_rss_needed", "N2", "N3")
def anon_rss(tag: str, make: MakePolicy) -> None:
    assert critical(device=Device()).run(tag, make, 160).kills() == ([(1, 0, 1001)] if tag == "N2" else [])


@row("search_fixed", "N2", "N3")
def stale_record(tag: str, make: MakePolicy) -> None:
    device = with_anon_rss(Device()).at(10, ["exit", 1001]).event(150, k=True, MemFree=44000)
    assert device.run(tag, make, 160).kills() == ([] if tag == "N2" else [(8, 701, 1002)])


@row("kill_counter_slots", "N1", "N2")
def kill_counters(tag: str, make: MakePolicy) -> None:
    device = Device()
    for adj in range(960, 1000):
        device.with_process(adj + 2000, adj, 0)
    run = critical(device=device).at(160, ["cmd", 4, -1000, 1000], ["cmd", 4, 1001, 1001]).run(tag, make, 161)
    assert len(run.kills()) == 41
    counted, total = sends(run)
    assert (int(counted[8:], 16), int(total[8:], 16)) == (32 if tag == "N1" else 41, 41)


@row("reaper", "12L", "13.0")
def reaper(tag: str, make: MakePolicy) -> None:
    run = critical(device=Device(cfg={"mrelease": 1})).run(tag, make, 160)
    outside = [effect[2] for _, effect in run.outside if effect[0] == "kill"]
    assert outside == ([] if tag == "12L" else [1001])


@row("kills_group", "N2", "N3")
def kills_group(tag: str, make: MakePolicy) -> None:
    groups: list[bool] = []

    def kill(request: api.Kill, answer: Callable[[Any], object]) -> object:
        groups.append(request.group)
        return answer(request)

    device = with_anon_rss(Device(cfg={"mrelease": 1}))
    device.overrides[api.Kill] = kill
    critical(device=device).run(tag, make, 160)
    assert groups == [tag == "N3"]


@row("synchronous_release", "12L", "13.0", "13Q1", "13Q2")
def synchronous_release(tag: str, make: MakePolicy) -> None:
    requests: list[api.Kill] = []

    def kill(request: api.Kill, answer: Callable[[Any], object]) -> object:
        requests.append(request)
        return answer(attrs_without_queue(request))

    device = critical(device=Device(cfg={"mrelease": 1}))
    device.overrides[api.Kill] = kill
    device.run(tag, make, 160)
    assert [request.release for request in requests] == [tag in ("13.0", "13Q1")]


def attrs_without_queue(request: api.Kill) -> api.Kill:
    """The reapers are busy."""
    return api.Kill(request.pid, request.handle, False, request.release)


@row("reap_order", "16", "N1")
def reap_order(tag: str, make: MakePolicy) -> None:
    device = Device(cfg={"mrelease": 1}).with_process(1007, 960, 2).event(150, k=True, MemFree=44000)
    run = device.run(tag, make, 160)
    order = [effect[2] for _, effect in run.outside if effect[0] == "kill"]
    assert order == ([1001, 1007] if tag == "16" else [1007, 1001])


@row("watchdog", "12L", "13.0")
def watchdog(tag: str, make: MakePolicy) -> None:
    run = Device().at(150, ["bite"]).run(tag, make, 160)
    assert run.kills() == ([] if tag == "12L" else [(-1, 0, 1001)])


@row("record_validity", "13.0", "13Q1")
def victim_of_the_watchdog(tag: str, make: MakePolicy) -> None:
    run = critical(device=Device().at(140, ["bite"])).run(tag, make, 160)
    assert run.at(150).kills == ([(1, 0, 1001)] if tag == "13.0" else [])


# ---- the old strategy ---------------------------------------------------------------------------


@row("old_strategy_needs_v1", "12L", "13.0")
def old_strategy_on_v2(tag: str, make: MakePolicy) -> None:
    run = old_device(cfg={"memcg": "v2"}).run(tag, make, 10)
    assert run.ended == ("done" if tag == "12L" else "main_returned")


@row("low_ram_minfree_adj", "13Q2", "14.0")
def low_ram_minfree(tag: str, make: MakePolicy) -> None:
    device = old_device({"ro.config.low_ram": "true", "ro.config.per_app_memcg": "false"})
    run = device.event(150, MemFree=150_000, Cached=200_000).run(tag, make, 151)
    assert run.kills() == [(-1, 800 if tag == "13Q2" else 900, 1001)]


@row("zero_timeout_waits", "N1", "N2")
def old_strategy_without_timeout(tag: str, make: MakePolicy) -> None:
    device = old_device({"ro.lmk.kill_timeout_ms": "0"}).event(150, MemFree=150_000, Cached=200_000).event(170)
    assert len(device.run(tag, make, 171).kills()) == (2 if tag == "N1" else 1)


@row("adj_word", "11Q3", "12")
def word_for_the_score(tag: str, make: MakePolicy) -> None:
    device = old_device(vs={"workingset_refault": 0}, zi=elder().script["zi"])
    run = device.event(150, MemFree=150_000, Cached=200_000).run(tag, make, 151)
    word = "oom_adj" if tag == "11Q3" else "oom_score_adj"
    assert f"below min(221184kB) for {word} 900" in "\n".join(run.logs())


# ---- polling ------------------------------------------------------------------------------------


@row("start_resets_last_poll", "15Q1", "15Q2")
def first_poll(tag: str, make: MakePolicy) -> None:
    run = Device().event(5000).at(5050, ["purge"]).run(tag, make, 5120)
    assert min(t_ms for t_ms in run.times() if t_ms > 5000) == (5050 if tag == "15Q1" else 5100)


@row("resume_by_update", "11.0", "11Q1")
def resumed_interval(tag: str, make: MakePolicy) -> None:
    run = critical(device=elder().process(1001, death=30_000)).run(tag, make, 185)
    assert run.at(180, "kill_done").update[2] == (100 if tag == "11.0" else 10)


@row("pidfd_hang_up", "15Q1", "15Q2")
def hang_up_of_the_pidfd(tag: str, make: MakePolicy) -> None:
    seen: list[api.ExitEvent] = []

    def wait(request: api.Wait, answer: Callable[[Any], object]) -> object:
        if seen:
            return RunOver("enough")
        wakeup = answer(request)
        assert isinstance(wakeup, api.Wakeup | RunOver)
        if isinstance(wakeup, api.Wakeup):
            seen.extend(event for event in wakeup.events if isinstance(event, api.ExitEvent))
            if seen:
                return api.Wakeup((api.ExitEvent(seen[0].handle, hang_up=True),))
        return wakeup

    device = critical(device=Device().process(1001, death=20_000))
    device.overrides[api.Wait] = wait
    run = device.run(tag, make, 200)
    assert run.policy is not None
    assert (run.policy.state().waiting_pid == 1001) == (tag == "15Q1")


# ---- socket -------------------------------------------------------------------------------------


@row("log_stats_default", "12")
def statistics_by_default(tag: str, make: MakePolicy) -> None:
    run = critical(device=subscribed(elder(), 1)).run(tag, make, 160)
    assert any(data.startswith("00000008") for data in sends(run))


@row("kill_statistics", "11Q3", "12")
def statistics_packet(tag: str, make: MakePolicy) -> None:
    device = elder(props={"ro.lmk.log_stats": "true"})
    run = critical(device=subscribed(device, 1)).run(tag, make, 160)
    assert [data[:8] for data in sends(run) if data.startswith("00000008")] == ([] if tag == "11Q3" else ["00000008"])


@row("state_packets", "11Q3", "12", "14.0", "14Q2")
def state_packets(tag: str, make: MakePolicy) -> None:
    device = elder(props={"ro.lmk.log_stats": "true"})
    run = critical(device=subscribed(device, 1)).run(tag, make, 160)
    states = [data for data in sends(run) if data.startswith("00000009")]
    assert states == (["0000000900000001", "0000000900000002"] if tag in ("12", "14.0") else [])


@row("start_monitoring", "14.0", "14Q2")
def start_monitoring(tag: str, make: MakePolicy) -> None:
    run = Device().at(150, ["cmd", 9]).run(tag, make, 160)
    assert ("Received unknown command code 9" in run.logs()) == (tag == "14.0")


@row("boot_completed", "14Q2", "15.0")
def boot_completed(tag: str, make: MakePolicy) -> None:
    run = Device().at(150, ["cmd", 10]).run(tag, make, 160)
    assert sends(run) == ([] if tag == "14Q2" else ["0000000affffffff"])


@row("procs_prio", "14Q2", "15.0", "15Q1")
def procs_prio(tag: str, make: MakePolicy) -> None:
    device = Device().only().process(1001, no=["status"])
    run = device.at(150, ["cmd", 11, 1001, 10001, 900, 0, 1002, 10002, 700, 0]).run(tag, make, 160)
    assert run.policy is not None
    registered = [row.pid for row in run.policy.processes()]
    assert registered == {"14Q2": [], "15.0": [1002], "15Q1": [1001, 1002]}[tag]


@row("prockill_rss", "15.0", "15Q1")
def prockill_rss(tag: str, make: MakePolicy) -> None:
    run = critical(device=subscribed(Device(), 0)).run(tag, make, 160)
    assert [len(data) // 2 for data in sends(run)] == [12 if tag == "15.0" else 16]


@row("statistics_fallback", "15Q2", "16")
def statistics_without_memcg(tag: str, make: MakePolicy) -> None:
    device = subscribed(Device(props={"ro.config.per_app_memcg": "true"}), 1)
    (packet,) = sends(critical(device=device).run(tag, make, 160))
    faults = int(packet[8:24], 16)
    assert faults == ((1 << 64) - 1 if tag == "15Q2" else 7 * 1001)


@row("soft_limit_by_task", "12L", "13.0")
def soft_limit_path(tag: str, make: MakePolicy) -> None:
    device = Device(props={"ro.config.per_app_memcg": "true"}).only(1001).process(1001, no=["cgroup"])
    run = device.run(tag, make, 10)
    assert run.policy is not None
    assert [row.pid for row in run.policy.processes()] == ([1001] if tag == "12L" else [])


# ---- logs ---------------------------------------------------------------------------------------


@row("failed_kill_is_zero", "13Q2", "14.0")
def kills_that_fail(tag: str, make: MakePolicy) -> None:
    device = Device()
    for pid in (1001, 1002, 1003):
        device.process(pid, kerr=1)
    changes: dict[str, Any] = {**LOW_SWAP, "MemFree": 44000}
    run = device.event(150, k=True, **changes).run(tag, make, 160)
    tried = [effect[2] for effect in run.at(150).effects if effect[0] == "kill"]
    assert tried == ([1001] if tag == "13Q2" else [1001, 1002, 1003])


@row("killinfo_fields", "11.0", "11Q1", "11Q3", "12", "12L", "13.0", "N1", "N2")
def killinfo_fields(tag: str, make: MakePolicy) -> None:
    expected = {"11.0": 25, "11Q1": 29, "11Q3": 29, "12": 31, "12L": 31, "13.0": 38, "N1": 38, "N2": 40}
    (event,) = critical().run(tag, make, 160).effects("evlog")
    assert len(event) - 1 == expected[tag]


@row("line_before_killinfo", "12L", "13.0")
def order_of_logs(tag: str, make: MakePolicy) -> None:
    kinds = [effect[0] for effect in critical().run(tag, make, 160).at(150).effects]
    assert (kinds.index("log") < kinds.index("evlog")) == (tag == "13.0")


_KILL_LINES = {
    "11Q3": r"Kill 'app\.1001' \(1001\), uid 10001, oom_adj 950 to free 100000kB; reason: .*",
    "12": r"Kill 'app\.1001' \(1001\), uid 10001, oom_score_adj 950 to free 100000kB rss, 5000kB swap; reason: .*",
    "N2": r"Kill .* to free 100000kB rss, 5000kB swap, \d+kB dmabuf_pss, \d+kB dmabuf_rss; reason: .*",
    "N3": r"Kill .* to free 100000kB rss, 1000kB anon rss, 5000kB swap, \d+kB dmabuf_pss, .*; reason: .*",
}


@row("kill_line", "11Q3", "12", "N1", "N2", "N3")
def kill_line(tag: str, make: MakePolicy) -> None:
    run = critical(device=with_anon_rss(elder())).run(tag, make, 160)
    (line,) = [line for line in run.logs() if line.startswith("Kill '")]
    assert re.fullmatch(_KILL_LINES["12" if tag == "N1" else tag], line), line


@row("counted_events", "15Q1", "15Q2")
def counted_events(tag: str, make: MakePolicy) -> None:
    run = Device(props={"ro.lmk.debug": "true"}).event(50).run(tag, make, 60)
    counted = [line for line in run.logs() if line == "medium memory pressure event #2 is triggered"]
    assert len(counted) == (0 if tag == "15Q1" else 1)
