"""Memory as machines and control groups say it: both versions, nested, with and without limits."""

import os
from pathlib import Path

import pytest

from edge_agent.meter import Meter
from edge_agent.room import Memory

KB = 1024
MEMINFO = "MemTotal:  1000 kB\nMemFree: 100 kB\nMemAvailable:  600 kB\nHugePages_Total: 0\n"
PID = 77


def machine(root: Path, files: dict[str, str]) -> Meter:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Meter(root=root, pid=PID)


def group(path: str, limit: int | str, used: int, cached: int) -> dict[str, str]:
    where = f"sys/fs/cgroup/{path}"
    return {
        f"{where}/memory.max": f"{limit}\n",
        f"{where}/memory.current": f"{used}\n",
        f"{where}/memory.stat": f"anon 5\ninactive_file {cached}\n",
    }


def old_group(path: str, limit: int, used: int, cached: int) -> dict[str, str]:
    where = f"sys/fs/cgroup/memory/{path}"
    return {
        f"{where}/memory.limit_in_bytes": f"{limit}\n",
        f"{where}/memory.usage_in_bytes": f"{used}\n",
        f"{where}/memory.stat": f"cache 9\ntotal_inactive_file {cached}\n",
    }


HERE = {f"proc/{PID}/cgroup": "0::/system.slice/agent.service\n"}
HERE_OLD = {f"proc/{PID}/cgroup": "5:cpu:/\n4:memory:/agent\n0::/\n"}


@pytest.mark.parametrize(
    "files, found",
    [
        pytest.param({}, Memory(600 * KB, 1000 * KB), id="a machine without groups"),
        pytest.param(HERE, Memory(600 * KB, 1000 * KB), id="a group that is not shown"),
        pytest.param(
            HERE | group("system.slice/agent.service", "max", 5, 0),
            Memory(600 * KB, 1000 * KB),
            id="a group without a limit",
        ),
        pytest.param(
            HERE | group("system.slice/agent.service", 200 * KB, 150 * KB, 30 * KB),
            Memory(80 * KB, 200 * KB),
            id="MemoryMax of the unit, and page cache counts as free",
        ),
        pytest.param(
            HERE
            | group("system.slice/agent.service", 200 * KB, 0, 0)
            | group("system.slice", 100 * KB, 90 * KB, 0),
            Memory(10 * KB, 100 * KB),
            id="the slice around it is tighter",
        ),
        pytest.param(
            HERE | group("system.slice/agent.service", 200 * KB, 300 * KB, 0),
            Memory(0, 200 * KB),
            id="more than the limit is used",
        ),
        pytest.param(
            HERE_OLD | old_group("agent", 200 * KB, 150 * KB, 30 * KB),
            Memory(80 * KB, 200 * KB),
            id="version 1",
        ),
        pytest.param(
            HERE_OLD | old_group("agent", 9223372036854771712, 5, 0),
            Memory(600 * KB, 1000 * KB),
            id="version 1 without a limit",
        ),
        pytest.param(
            HERE | {"sys/fs/cgroup/system.slice/memory.max": "rubbish"},
            Memory(600 * KB, 1000 * KB),
            id="a group that cannot be read",
        ),
    ],
)
def test_the_tightest_limit_counts(tmp_path, files, found):
    assert machine(tmp_path, files).memory(()) == found


def test_a_machine_that_does_not_say_is_unknown(tmp_path):
    assert Meter(root=tmp_path).memory(()) is None
    assert Meter(root=tmp_path).held(PID) == 0


def test_an_own_limit_counts_what_agent_and_runners_use(tmp_path):
    machine(
        tmp_path,
        {
            f"proc/{PID}/smaps_rollup": "55-7f ---p [rollup]\nPss_Anon:  100 kB\nPss_File: 9 kB\n",
            "proc/78/smaps_rollup": "Pss_Anon: 50 kB\nPrivate_Dirty: 40 kB\nSwap: 3 kB\n",
        },
    )
    meter = Meter(400 * KB, tmp_path, PID)
    assert meter.memory((78, 79)) == Memory(250 * KB, 400 * KB)
    assert meter.held(78) == 43 * KB


def test_this_machine_can_be_read():
    found = Meter().memory((os.getpid(),))
    assert found is not None
    assert 0 < found.free_bytes <= found.total_bytes
    assert Meter().held(os.getpid()) > 1_000_000
