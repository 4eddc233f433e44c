"""Rows of table II from made-up samples, and which samples may be compared."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.benchmark import cpu_pinning
from job.benchmark import rounds as benchmark
from job.benchmark import rows as benchmark_rows
from job.benchmark.samples import BenchmarkSetting, Conditions, Samples, require_comparable
from job.benchmark.stability import Observation
from job.errors import IncomparableSamples, MachineError
from job.report.render import schema_check

SETTING = BenchmarkSetting(batch_size=10, threads=1, input_shape=(3, 8, 8))
HOST = {"cpu_model": "a", "cores": 2}
CONDITIONS = Conditions(HOST, "avx512_core_vnni", SETTING)
QUIET = Observation(seconds=5, cores=1, busy_seconds=5, own_seconds=5)
NOTHING = [0.01, 0.02, 0.01]


def samples(label, *rounds, conditions=CONDITIONS):
    """Samples of a single instance."""
    return Samples(label, [[one] for one in rounds], 1000, conditions)


def measured(*each, observed=QUIET):
    nothing = samples("nothing", *([NOTHING] * len(each[0].rounds)))
    return benchmark.Measurement([*each, nothing], observed, [[0.0]])


NATIVE = samples("native", [20.0, 20.0], [20.0, 20.0])
ONEDNN = samples("onednn", [10.0, 10.0], [10.0, 10.0])
INT8 = samples("int8", [5.0, 5.0], [5.0, 5.0])


def test_row_compares_int8_with_the_faster_fp32():
    row = benchmark_rows.row(measured(NATIVE, ONEDNN, INT8))
    assert row["fp32"]["engine"] == "onednn"
    assert row["fp32"]["images_per_second"] == pytest.approx(1000)
    assert row["int8"]["images_per_second"] == pytest.approx(2000)
    assert row["ratio"] == pytest.approx(2)
    assert row["ratio_interval"][0] <= 2 <= row["ratio_interval"][1]
    assert row["fp32_engines"] == pytest.approx({"native": 500, "onednn": 1000})
    assert (row["batch_size"], row["threads"], row["isa"]) == (10, 1, "avx512_core_vnni")
    assert (row["scenario"], row["instances"], row["isa_cap"]) == ("latency", 1, "all")
    assert row["int8"]["samples"] == 4
    assert row["int8"]["latency_ms"] == pytest.approx({"p50": 5, "p90": 5, "p99": 5})
    assert (row["engines"], row["fastest"]) == ({}, "paddle")
    assert row["harness_ms"] == pytest.approx(0.01)
    assert (row["stable"], row["unstable_reasons"]) == (True, [])


def test_row_has_the_keys_of_the_reports_schema():
    row = benchmark_rows.row(measured(NATIVE, ONEDNN, INT8))
    # The last one compares rows, so the stage adds it.
    item = schema_check.schema()["properties"]["benchmark"]["items"]
    assert {*row, "score_difference"} == set(item["properties"])
    # Reports of older versions lack these keys.
    assert {key for key in row if key not in item["required"]} == {
        "fastest_fp32",
        "fastest_fp32_ratio",
        "fastest_fp32_ratio_interval",
    }


def test_one_round_has_no_interval_and_is_not_trusted():
    row = benchmark_rows.row(measured(samples("native", [4.0]), samples("int8", [2.0])))
    assert (row["ratio"], row["ratio_interval"], row["stable"]) == (pytest.approx(2.0), None, False)
    (reason,) = row["unstable_reasons"]
    assert "benchmark.rounds" in reason["advice"]


def test_a_drifting_machine_does_not_change_the_ratio_but_is_named():
    drifting = [samples("native", [2.0], [4.0], [8.0]), samples("int8", [1.0], [2.0], [4.0])]
    row = benchmark_rows.row(measured(*drifting))
    assert row["ratio"] == pytest.approx(2)
    assert not row["stable"]
    (reason,) = row["unstable_reasons"]
    assert "75% slower" in reason["what"]


def test_other_engines_are_compared_with_the_same_fp32():
    openvino = samples("openvino", [2.5, 2.5], [2.5, 2.5])
    row = benchmark_rows.row(measured(NATIVE, ONEDNN, INT8, openvino))
    assert row["fastest"] == "openvino"
    assert row["ratio"] == pytest.approx(2)
    assert row["engines"]["openvino"]["ratio"] == pytest.approx(4)
    assert row["engines"]["openvino"]["engine"] == "openvino"
    assert row["engines"]["openvino"]["images_per_second"] == pytest.approx(4000)


def test_the_fastest_fp32_does_not_change_the_published_ratio():
    engine_fp32 = samples("fp32_paddle_openvino", [8.0, 8.0], [8.0, 8.0])
    engine = samples("paddle_openvino", [2.0, 2.0], [2.0, 2.0])
    row = benchmark_rows.row(
        measured(NATIVE, ONEDNN, INT8, engine_fp32, engine), {"paddle_openvino": "avx2"}
    )
    assert (row["fp32"]["engine"], row["fastest_fp32"]) == ("onednn", "paddle_openvino")
    assert row["fp32_engines"]["paddle_openvino"] == pytest.approx(1250)
    found = row["engines"]["paddle_openvino"]
    assert [row["ratio"], found["ratio"]] == pytest.approx([2, 5])
    assert [row["fastest_fp32_ratio"], found["fastest_fp32_ratio"]] == pytest.approx([1.6, 4])
    assert found["isa"] == "avx2"
    assert (row["fastest"], set(row["engines"])) == ("paddle_openvino", {"paddle_openvino"})


def test_instances_add_up_and_share_their_percentiles():
    setting = replace(SETTING, instances=2)
    conditions = replace(CONDITIONS, setting=setting)
    both = [
        Samples(label, [[[fast], [slow]], [[fast], [slow]]], 1000, conditions)
        for label, fast, slow in (("onednn", 10.0, 20.0), ("int8", 5.0, 10.0))
    ]
    row = benchmark_rows.row(measured(*both))
    assert (row["scenario"], row["threads"], row["instances"]) == ("throughput", 1, 2)
    assert row["fp32"]["images_per_second"] == pytest.approx(1500)
    assert row["int8"]["images_per_second"] == pytest.approx(3000)
    assert row["int8"]["latency_ms"] == pytest.approx({"p50": 5, "p90": 10, "p99": 10})


def test_histogram_holds_every_sample():
    row = benchmark_rows.row(measured(NATIVE, ONEDNN, INT8))
    histogram = row["fp32"]["histogram"]
    assert sum(histogram["counts"]) == 4
    assert len(histogram["edges_ms"]) == len(histogram["counts"]) + 1


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        (replace(CONDITIONS, host={**HOST, "cpu_model": "b"}), "host cpu_model a and b"),
        (replace(CONDITIONS, isa="avx512_core_amx"), "isa avx512_core_vnni and avx512_core_amx"),
        (
            replace(CONDITIONS, setting=replace(SETTING, isa_cap="avx2")),
            "isa_cap all and avx2",
        ),
        (replace(CONDITIONS, setting=replace(SETTING, threads=2)), "threads 1 and 2"),
        (replace(CONDITIONS, setting=replace(SETTING, instances=2)), "instances 1 and 2"),
        (replace(CONDITIONS, setting=replace(SETTING, batch_size=1)), "batch_size 10 and 1"),
    ],
)
def test_samples_of_other_conditions_are_refused(changed, difference):
    other = replace(INT8, conditions=changed)
    with pytest.raises(IncomparableSamples, match=f"^onednn and int8 .*: {difference}\n"):
        require_comparable(ONEDNN, other)
    with pytest.raises(IncomparableSamples, match=r"^onednn and int8 "):
        benchmark_rows.compare(ONEDNN, other)


def test_samples_of_the_same_conditions_are_comparable():
    again = replace(CONDITIONS, host=dict(HOST), setting=replace(SETTING))
    require_comparable(ONEDNN, replace(INT8, conditions=again))


@pytest.mark.parametrize(("native", "expected"), [(10.0, True), (12.9, True), (13.1, False)])
def test_engines_that_are_too_slow_are_dropped(native, expected):
    fastest = {"native": native, "onednn": 10.0, "int8": 1.0}
    assert benchmark.is_competitive("native", fastest) is expected


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([[0.0, 10.0]], 0.0), ([[0.0, 10.2]], 0.02), ([[-0.1, 10.0]], 0.01)],
)
def test_score_difference_is_relative_to_the_range(scores, expected):
    assert benchmark_rows.score_difference(scores, [[0.0, 10.0]]) == pytest.approx(expected)


def test_score_difference_of_constant_scores():
    assert benchmark_rows.score_difference([[1.0, 1.0]], [[1.0, 1.0]]) == 0
    assert benchmark_rows.score_difference([[1.0, 1.5]], [[1.0, 1.0]]) == 1


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (replace(SETTING, threads=3), "^/benchmark/threads: .*3 threads.* 2 cores"),
        (replace(SETTING, instances=4), "^/benchmark/instances: .*4 instances.* 2 cores"),
    ],
)
def test_more_than_the_usable_cores_is_refused_by_its_key(monkeypatch, setting, message):
    monkeypatch.setattr(cpu_pinning, "usable_cores", lambda: 2)
    with pytest.raises(MachineError, match=message):
        cpu_pinning.check([SETTING, setting])


@pytest.mark.parametrize(
    ("sharing", "expected"),
    [
        ([{0}, {1}, {2}, {3}], [0, 1, 2, 3]),
        ([{0, 1}, {0, 1}, {2, 3}, {2, 3}], [0, 2, 1, 3]),
        ([{0, 2}, {1, 3}, {0, 2}, {1, 3}], [0, 1, 2, 3]),
    ],
)
def test_physical_cores_come_first(sharing, expected):
    of = {core: frozenset(shared) for core, shared in enumerate(sharing)}
    assert cpu_pinning.spread([0, 1, 2, 3], of) == expected


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12))
def test_every_core_is_used_once_and_no_physical_core_twice_too_early(physical):
    of = {
        core: frozenset(other for other, same in enumerate(physical) if same == physical[core])
        for core in range(len(physical))
    }
    order = cpu_pinning.spread(range(len(physical)), of)
    assert sorted(order) == list(range(len(physical)))
    first = order[: len(set(physical))]
    assert len({physical[core] for core in first}) == len(first)


@pytest.mark.parametrize(("text", "expected"), [("0\n", {0}), ("0-1\n", {0, 1}), ("0,8", {0, 8})])
def test_siblings_are_read_from_the_kernels_list(tmp_path, text, expected):
    folder = tmp_path / "sys/devices/system/cpu/cpu0/topology"
    folder.mkdir(parents=True)
    (folder / "thread_siblings_list").write_text(text)
    assert cpu_pinning.siblings(0, tmp_path) == expected
    assert cpu_pinning.siblings(7, tmp_path) == {7}


class Fake:
    """A model whose first call takes longer than the others."""

    def __init__(self, label, first, later):
        self.label, self.calls, self.closed = label, [first], False
        self.later, self.timed = later, 0

    def time(self, seconds, batches, limit):
        self.timed += 1
        taken = []
        while not taken or (len(taken) < batches and sum(taken) < 1000 * limit):
            taken.append(self.calls.pop() if self.calls else self.later)
        return [taken]

    def close(self):
        self.closed = True


@pytest.mark.parametrize("warmup_batches", [0, 1, 10])
@pytest.mark.parametrize(
    ("native", "onednn", "kept"),
    [
        ((5000, 5000), (6500, 5000), {"native", "onednn"}),
        ((9000, 9000), (12000, 5000), {"onednn"}),
        ((10, 5), (1000, 6), {"native", "onednn"}),
        ((10, 5), (1000, 9), {"native"}),
    ],
)
def test_first_calls_do_not_decide_between_fp32_engines(warmup_batches, native, onednn, kept):
    fakes = [Fake("native", *native), Fake("onednn", *onednn), Fake("int8", 100, 1)]
    budget = benchmark.TimingBudget(warmup_batches, min_seconds=1.0, min_samples=1, rounds=1)
    kept_groups = benchmark.competitive(fakes, budget)
    assert {fake.label for fake in kept_groups} == kept | {"int8"}
    assert {fake.label for fake in fakes if fake.closed} == {"native", "onednn"} - kept


def test_an_fp32_engine_without_a_rival_is_only_warmed_up():
    fakes = [Fake("onednn", 18000, 17000), Fake("int8", 5000, 4500)]
    budget = benchmark.TimingBudget(1, min_seconds=1.0, min_samples=1, rounds=1)
    assert benchmark.competitive(fakes, budget) == fakes
    assert [fake.timed for fake in fakes] == [1, 1]
