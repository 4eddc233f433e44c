"""Values from /proc and /sys, in the formats of different kernels."""

from pathlib import Path

import pytest

from job.host import memory_limit, oom_kills, quota_cores, read_host, usable_cores

CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Gold 6271
microcode\t: 0x5003604
flags\t\t: fpu vme sse sse4_2 avx2 avx512f avx512_vnni amx_int8 hypervisor

processor\t: 1
model name\t: Intel(R) Xeon(R) Gold 6271
flags\t\t: fpu
"""


class Machine:
    """Folders with the files of /proc and /sys."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/cpuinfo", CPUINFO)
        self.write("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n")
        self.write("proc/sys/kernel/osrelease", "6.1.0-test\n")
        self.write("proc/self/cgroup", "0::/\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_cpu(machine: Machine) -> None:
    host = read_host(machine.root, affinity=2)
    assert host.cpu_model == "Intel(R) Xeon(R) Gold 6271"
    assert host.flags == ("amx_int8", "avx2", "avx512_vnni", "avx512f", "sse", "sse4_2")
    assert host.has_vnni
    assert (host.microcode, host.cores, host.kernel) == ("0x5003604", 2, "6.1.0-test")
    assert (host.memory_bytes, host.memory_limited) == (16384 * 1024, False)
    assert host.quota_cores is None


def test_report_has_what_its_schema_asks(machine: Machine) -> None:
    assert read_host(machine.root).as_report().keys() == {
        "cpu_model",
        "flags",
        "microcode",
        "cores",
        "quota_cores",
        "memory_bytes",
        "kernel",
        "allocator",
    }


@pytest.mark.parametrize(
    ("library", "name"),
    [("libc.so.6", "glibc"), ("libjemalloc.so.2", "jemalloc"), ("libmimalloc.so.2", "mimalloc")],
)
def test_allocator_is_what_is_loaded(machine: Machine, library: str, name: str) -> None:
    machine.write("proc/self/maps", f"7f00-7f01 r-xp 00000000 fe:00 1 /usr/lib/{library}\n")
    assert read_host(machine.root).allocator == name


def test_arm_and_unknown_files(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.write("proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd sve i8mm\n")
    (tmp_path / "proc/meminfo").unlink()
    host = read_host(tmp_path, affinity=1)
    assert host.flags == ("asimd", "i8mm", "sve")
    assert not host.has_vnni
    assert host.memory_bytes == 0


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000", None), ("150000 100000", 1.5), ("50000 100000", 0.5)]
)
def test_quota_of_version_2(machine: Machine, text: str, cores: float | None) -> None:
    machine.write("sys/fs/cgroup/cpu.max", text)
    assert quota_cores(machine.root) == cores


def test_tightest_quota_of_the_groups_above_counts(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/kube/pod1/box\n")
    machine.write("sys/fs/cgroup/kube/pod1/box/cpu.max", "max 100000")
    machine.write("sys/fs/cgroup/kube/pod1/cpu.max", "200000 100000")
    machine.write("sys/fs/cgroup/kube/cpu.max", "800000 100000")
    assert quota_cores(machine.root) == 2


def test_group_of_the_host_seen_from_a_container(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/system.slice/docker-1.scope\n")
    machine.write("sys/fs/cgroup/cpu.max", "300000 100000")
    assert quota_cores(machine.root) == 3


@pytest.mark.parametrize(("quota", "cores"), [("-1", None), ("250000", 2.5)])
@pytest.mark.parametrize(
    ("listed", "folder"), [("cpu,cpuacct", "cpu,cpuacct"), ("cpuacct,cpu", "cpu"), ("cpu", "cpu")]
)
def test_quota_of_version_1(
    machine: Machine, listed: str, folder: str, quota: str, cores: float | None
) -> None:
    machine.write("proc/self/cgroup", f"4:{listed}:/box\n2:memory:/box\n0::/\n")
    machine.write(f"sys/fs/cgroup/{folder}/box/cpu.cfs_quota_us", f"{quota}\n")
    machine.write(f"sys/fs/cgroup/{folder}/box/cpu.cfs_period_us", "100000\n")
    assert quota_cores(machine.root) == cores


def test_memory_of_version_2(machine: Machine) -> None:
    machine.write("sys/fs/cgroup/memory.max", "1048576\n")
    host = read_host(machine.root)
    assert (host.memory_bytes, host.memory_limited) == (1048576, True)


def test_memory_of_version_1(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "2:memory:/box\n")
    machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert memory_limit(machine.root) is None
    machine.write("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "4096\n")
    assert memory_limit(machine.root) == 4096


def test_oom_kills(machine: Machine) -> None:
    assert oom_kills(machine.root) == 0
    machine.write("sys/fs/cgroup/memory.events", "low 0\noom 3\noom_kill 2\n")
    assert oom_kills(machine.root) == 2


@pytest.mark.parametrize(
    ("quota", "affinity", "cores"),
    [
        ("max 100000", 8, 8),
        ("150000 100000", 8, 1),  # one thread more would be throttled
        ("199900 100000", 8, 2),
        ("400000 100000", 2, 2),
        ("50000 100000", 8, 1),
    ],
)
def test_usable_cores(machine: Machine, quota: str, affinity: int, cores: int) -> None:
    machine.write("sys/fs/cgroup/cpu.max", quota)
    assert read_host(machine.root, affinity=affinity).usable_cores == cores


def test_this_machine() -> None:
    host = read_host()
    assert host.cpu_model
    assert host.memory_bytes > 0
    assert 1 <= usable_cores() <= host.affinity
