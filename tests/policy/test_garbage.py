"""Whatever the kernel, a client or the target says: the policy never raises and always waits again."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lmk.policy import api
from lmk.policy.decision import Decision
from lmk.policy.lmkd.control_packets import ProcPrio, Subscribe, Target, encode_command
from lmk.policy.lmkd.policy import LmkdPolicy
from lmk.policy.lmkd.versions import TAGS, VENDORS

ODD_TOKENS = (
    *("", "-1", "0", "18446744073709551616", "99999999999999999999999999", "-99999999999999999999", "0x10", "1e9"),
    *("kB", "nr_free_pages", "Node", "\x00", "\t", "é", "\udcff", "١٢", "1_000", "+5", "--3", "NaN", "inf"),
)
MEMINFO = "".join(
    f"{name}:{number:>12} kB\n"
    for name, number in {
        "MemFree": 30000, "Cached": 400000, "SwapCached": 100, "Buffers": 10, "Shmem": 500, "Unevictable": 7,
        "SwapTotal": 2000000, "SwapFree": 1000, "Active(anon)": 900000, "Inactive(anon)": 100000,
        "Active(file)": 5000, "Inactive(file)": 6000, "CmaFree": 0,
    }.items()
)  # fmt: skip
VMSTAT = (
    "nr_free_pages 5000\nnr_inactive_file 9000\nnr_active_file 7000\nworkingset_refault_file 500000\n"
    "pgrefill 12\npgscan_kswapd 400\npgscan_direct 55\npgskip_dma 3\npgskip_normal 8\n"
)
ZONEINFO = (
    "Node 0, zone   Normal\n  per-node stats\n      nr_inactive_file 9000\n      nr_active_file 7000\n"
    "  pages free     5000\n        min      10000\n        low      12500\n        high     15000\n"
    "        spanned  500000\n        present  500000\n        managed  490000\n        protection: (0, 0)\n"
    "      nr_free_pages 5000\n      nr_free_cma 0\n  pagesets\n"
)
PRESSURE = "some avg10=50.00 avg60=1.00 avg300=0.10 total=123\nfull avg10=40.00 avg60=1.00 avg300=0.10 total=99\n"
STATUS = "Name:\tapp\nTgid:\t{pid}\nVmRSS:\t  50000 kB\nVmSwap:\t    100 kB\n"
TEXTS = {
    "/proc/meminfo": MEMINFO,
    "/proc/vmstat": VMSTAT,
    "/proc/zoneinfo": ZONEINFO,
    "/proc/pressure/memory": PRESSURE,
    "/proc/pressure/io": PRESSURE,
    "/proc/pressure/cpu": PRESSURE,
    "/dev/memcg/memory.usage_in_bytes": "1000000\n",
    "/dev/memcg/memory.memsw.usage_in_bytes": "2000000\n",
}


def damaged(text: str, chance: random.Random) -> str:
    """The text with a line lost, doubled or cut, a token replaced, or nothing but noise."""
    for _ in range(chance.randrange(4)):
        lines = text.split("\n")
        at = chance.randrange(len(lines))
        kind = chance.randrange(6)
        if kind == 0:
            del lines[at]
        elif kind == 1:
            lines.insert(at, lines[at])
        elif kind == 2:
            lines = lines[: at + 1]
            lines[at] = lines[at][: chance.randrange(len(lines[at]) + 1)]
        elif kind == 3:
            words = lines[at].split(" ")
            words[chance.randrange(len(words))] = chance.choice(ODD_TOKENS)
            lines[at] = " ".join(words)
        elif kind == 4:
            lines[at] = chance.choice(ODD_TOKENS) * chance.randrange(1, 4)
        else:
            lines[at] = "".join(chance.choice("Node ,:zone0123456789(). \n\t\0kBavg=") for _ in range(30))
        text = "\n".join(lines)
    return text


class Noise:
    """A target whose answers have the right type and otherwise any content."""

    def __init__(self, seed: int, properties: dict[str, str]) -> None:
        self.chance = random.Random(seed)
        self.properties = properties
        self.handle = 100
        self.answers: dict[type, Callable[[Any], object]] = {
            api.DescribeMachine: lambda _: api.Machine(self.chance.choice([4096, 16384, 65536]), 100),
            api.DescribeMemcg: lambda _: api.Memcg(self.chance.choice([0, 1, 1, 2])),
            api.CgroupAttributePath: self.attribute,
            api.CheckWritable: lambda _: self.chance.random() < 0.05,
            api.GetProperties: lambda _: self.properties,
            api.ProbePidfd: lambda _: self.chance.random() < 0.7,
            api.StartReaper: lambda _: self.chance.random() < 0.5,
            api.ReadFile: self.file,
            api.ReadProcess: self.process_file,
            api.ReadSizes: lambda request: [self.size(pid) for pid in request.pids],
            api.ReadGpuTotal: lambda _: self.chance.choice([None, 0, 1 << 40]),
            api.ProcessExists: lambda _: self.chance.random() < 0.5,
            api.SetOomScoreAdj: self.set_adj,
            api.OpenPidfd: self.open_pidfd,
            api.WatchExit: lambda _: self.chance.choice([0, 0, 0, 9]),
            api.Kill: lambda _: api.Killed(self.chance.choice([0, 0, 0, 1, 3])),
            api.Send: lambda _: self.chance.choice([0, 0, 32]),
            api.WriteFile: lambda _: self.maybe_error("write"),
            api.ArmPsi: lambda _: self.maybe_error("open"),
            api.ArmVmpressure: lambda _: self.maybe_error("event_control"),
            api.TakeVmpressure: lambda _: tuple(self.chance.randrange(2) for _ in range(3)),
            api.TakeMemoryEvents: lambda _: self.memory_events(),
            api.OpenMemoryEvents: lambda _: api.MemoryEventSupport(True, True, True, True, True, 5),
            api.OpenKernelKills: lambda _: 0,
        }

    def maybe_error(self, op: str) -> api.FileError | None:
        return api.FileError(op, 22) if self.chance.random() < 0.1 else None

    def attribute(self, request: api.CgroupAttributePath) -> str | None:
        if self.chance.random() < 0.1:
            return None
        names = {"MemUsage": "memory.usage_in_bytes", "MemAndSwapUsage": "memory.memsw.usage_in_bytes"}
        return f"/dev/memcg/{names.get(request.attribute, request.attribute)}"

    def file(self, request: api.ReadFile) -> object:
        if self.chance.random() < 0.05:
            return api.FileError(self.chance.choice(["open", "read"]), self.chance.choice([2, 3, 5, 250]))
        text = TEXTS.get(request.path, "total_rss 5\ntotal_swap x\n")
        if request.path == "/proc/vmstat":
            text = text.replace("400", str(self.chance.randrange(10**6))).replace(
                "500000", str(self.chance.getrandbits(70))
            )
        return damaged(text, self.chance) if self.chance.random() < 0.5 else text

    def process_file(self, request: api.ReadProcess) -> object:
        if self.chance.random() < 0.1:
            return api.FileError("open", 2)
        text = {"status": STATUS.format(pid=request.pid), "cmdline": "app.name\0", "stat": "1 (a) S 1 1 1 1 1 1 1 2 3"}
        return damaged(text[request.file], self.chance) if self.chance.random() < 0.5 else text[request.file]

    def size(self, pid: int) -> object:
        return self.chance.choice(
            [api.FileError("open", 2), pid, 0, f"9 {pid} 3 ", damaged(f"9 {pid} 3 4\n", self.chance)]
        )

    def set_adj(self, request: api.SetOomScoreAdj) -> api.AdjWritten:
        tgid = self.chance.choice([None, request.pid, request.pid, 7])
        return api.AdjWritten(tgid, self.maybe_error("open"))

    def open_pidfd(self, _: api.OpenPidfd) -> api.Opened:
        self.handle += 1
        return api.Opened(self.handle) if self.chance.random() < 0.95 else api.Opened(-1, 3)

    def memory_events(self) -> api.MemoryEvents:
        if self.chance.random() < 0.1:
            return api.MemoryEvents(None)
        kinds = self.chance.choices(range(8), k=self.chance.randrange(3))
        return api.MemoryEvents(tuple(api.MemoryEvent(kind, self.chance.choice([-1, 0, 1999, 2000])) for kind in kinds))

    def event(self) -> api.Event:
        chance = self.chance
        connection = chance.randrange(6)
        packets = (
            encode_command(ProcPrio(chance.randrange(1, 40), 10000, chance.choice([-1000, 0, 200, 650, 900, 1001]))),
            encode_command(Target(((chance.randrange(1 << 20), 900), (10, 0)))),
            encode_command(Subscribe(chance.randrange(-3, 40))),
            bytes(chance.randrange(256) for _ in range(chance.randrange(70))),
        )
        credentials = None if chance.random() < 0.05 else (chance.randrange(3), 1000)
        events: list[api.Event] = [
            api.PressureEvent(chance.randrange(3)),
            api.PressureEvent(chance.randrange(3)),
            api.PacketEvent(connection, chance.choice(packets), credentials, chance.choice([0, 0, 0, 104])),
            api.PacketEvent(connection, packets[0], (1, 1000)),
            api.ConnectEvent(connection),
            api.HangUpEvent(connection),
            api.ExitEvent(self.handle, chance.random() < 0.1),
            api.ReaperFailureEvent(chance.randrange(40)),
            api.MemoryEventsReady(),
            api.KernelKillEvent(damaged("1 2 1 3 4 5 900 0 77\nname\n", chance)),
        ]
        return chance.choice(events)


def drive(policy: LmkdPolicy, noise: Noise, turns: int) -> None:
    now_ns = noise.chance.choice([0, 999_999_999, 70_500_000_000])
    request: Any = policy.start(now_ns)
    for _ in range(turns):
        requests = 0
        while not isinstance(request, api.Wait):
            if isinstance(request, api.Exit):
                return
            requests += 1
            assert requests < 5000, "no wait in sight"
            answer = noise.answers.get(type(request))
            assert answer is not None or type(request) in SILENT, request
            request = policy.step(answer(request) if answer else None, now_ns)
        if noise.chance.random() < 0.3 and request.timeout_ms is not None:
            now_ns += request.timeout_ms * 1_000_000
            request = policy.step(api.Wakeup(), now_ns)
            continue
        now_ns += noise.chance.choice([0, 1, 999_999, 10_000_000, 1_100_000_000, 64_000_000_000])
        kind = noise.chance.random()
        events: tuple[api.Event, ...] = tuple(noise.event() for _ in range(noise.chance.randrange(1, 4)))
        if kind < 0.03:
            events = (api.WatchdogEvent(),)
        elif kind < 0.06:
            events = (api.ReapedEvent(5, noise.chance.choice([0, 3]), noise.chance.choice([0, 3]), 7),)
        request = policy.step(api.Wakeup(events), now_ns)


SILENT = {
    *(api.Log, api.EventLog, api.HandlerBegin, api.HandlerEnd, api.UnwatchExit, api.ClosePidfd, api.SetProperty),
    *(api.CloseConnection, api.Disarm, Decision),
}
PROPERTIES = st.dictionaries(
    st.sampled_from(
        [
            *("ro.lmk.use_new_strategy", "ro.lmk.use_minfree_levels", "ro.lmk.use_psi", "ro.lmk.debug"),
            *("ro.config.low_ram", "ro.config.per_app_memcg", "sys.boot_completed", "ro.lmk.kill_heaviest_task"),
            *("ro.lmk.kill_timeout_ms", "ro.lmk.thrashing_limit", "ro.lmk.swap_free_low_percentage"),
            *("ro.lmk.filecache_min_kb", "ro.lmk.swap_util_max", "ro.lmk.direct_reclaim_threshold_ms"),
        ]
    ),
    st.sampled_from(
        ["true", "false", "0", "1", "100", "-5", "2147483647", "9223372036854775807", "garbage", "", "0x20"]
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    tag=st.sampled_from([*TAGS, *VENDORS]), seed=st.integers(0, 2**32), properties=PROPERTIES, turns=st.integers(1, 60)
)
def test_never_raises(tag: str, seed: int, properties: dict[str, str], turns: int) -> None:
    drive(LmkdPolicy(tag), Noise(seed, properties), turns)


def test_a_long_run() -> None:
    kills = 0
    for seed in range(6):
        policy = LmkdPolicy("16")
        drive(policy, Noise(seed, {"sys.boot_completed": "1", "ro.lmk.debug": "true"}), 1500)
        kills += policy.kill_count()
    assert kills > 20, "the noise hardly reaches the kill path"


def test_no_kill_on_unreadable_memory() -> None:
    """Files that lmkd gives up on end the call: nothing is killed on garbage."""
    for path in ("/proc/vmstat", "/proc/meminfo", "/proc/zoneinfo"):
        noise = Noise(1, {})
        texts = {**TEXTS, path: "one_word_only\n"}
        noise.answers[api.ReadFile] = partial(_text_of, texts)
        noise.answers.update({api.CheckWritable: lambda _: False, api.ArmPsi: lambda _: None})
        noise.answers[api.SetOomScoreAdj] = lambda request: api.AdjWritten(request.pid)
        noise.answers[api.Kill] = _no_kill
        policy = LmkdPolicy("14Q2")
        request: Any = policy.start(10**11)
        wakeups = iter(
            [
                api.Wakeup((api.ConnectEvent(0),)),
                api.Wakeup((api.PacketEvent(0, encode_command(ProcPrio(9, 1, 999)), (1, 1)),)),
                api.Wakeup((api.PressureEvent(2),)),
            ]
        )
        while (wakeup := next(wakeups, None) if isinstance(request, api.Wait) else api.Wakeup()) is not None:
            if isinstance(request, api.Wait):
                request = policy.step(wakeup, 10**11)
            else:
                answer = noise.answers.get(type(request))
                request = policy.step(answer(request) if answer else None, 10**11)


def _text_of(texts: dict[str, str], request: api.ReadFile) -> str:
    return texts.get(request.path, "")


def _no_kill(request: object) -> object:
    raise AssertionError(f"killed on garbage: {request}")
