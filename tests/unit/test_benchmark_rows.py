import pytest

from job import benchmark

SETTING = benchmark.Setting(batch_size=10, threads=1, input_shape=(3, 8, 8))


def samples(label, *rounds):
    return benchmark.Samples(label, rounds, peak_rss_bytes=1000)


ROUNDS = (
    samples("native", [20.0, 20.0], [20.0, 20.0]),
    samples("onednn", [10.0, 10.0], [10.0, 10.0]),
    samples("int8", [5.0, 5.0], [5.0, 5.0]),
)


def test_row_compares_int8_with_the_faster_fp32():
    row = benchmark.row(ROUNDS, SETTING, "avx512_core_vnni")
    assert row["fp32"]["engine"] == "onednn"
    assert row["fp32"]["images_per_second"] == pytest.approx(1000)
    assert row["int8"]["images_per_second"] == pytest.approx(2000)
    assert row["ratio"] == pytest.approx(2)
    assert row["ratio_interval"][0] <= 2 <= row["ratio_interval"][1]
    assert row["fp32_engines"] == pytest.approx({"native": 500, "onednn": 1000})
    assert (row["batch_size"], row["threads"], row["isa"]) == (10, 1, "avx512_core_vnni")
    assert row["int8"]["samples"] == 4
    assert row["int8"]["latency_ms"] == pytest.approx({"p50": 5, "p90": 5, "p99": 5})


def test_one_round_has_an_interval_all_the_same():
    row = benchmark.row([samples("native", [4.0]), samples("int8", [2.0])], SETTING, "x")
    assert row["ratio_interval"] == pytest.approx([2.0, 2.0])


def test_a_drifting_machine_does_not_change_the_ratio():
    drifting = [samples("native", [2.0], [4.0], [8.0]), samples("int8", [1.0], [2.0], [4.0])]
    assert benchmark.row(drifting, SETTING, "x")["ratio"] == pytest.approx(2)


@pytest.mark.parametrize(("native", "expected"), [(10.0, True), (12.9, True), (13.1, False)])
def test_hopeless_candidates_are_given_up(native, expected):
    pilots = {"native": native, "onednn": 10.0, "int8": 1.0}
    assert benchmark.is_competitive("native", pilots) is expected


def test_histogram_holds_every_sample():
    row = benchmark.row(ROUNDS, SETTING, "x")
    histogram = row["fp32"]["histogram"]
    assert sum(histogram["counts"]) == 4
    assert len(histogram["edges_ms"]) == len(histogram["counts"]) + 1
