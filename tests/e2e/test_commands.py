"""The commands beside ``job run``."""

import json

import pytest
from tiny_run import Run, job, run_json, write_manifest

pytestmark = pytest.mark.e2e

# Twice what an idle machine needs: with another process on each core, CPU time counts for less.
AT_ONCE_CPU_S = 0.6


@pytest.mark.usefixtures("needs_vnni")
class TestDoctor:
    @pytest.mark.full
    def test_table(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        done = job("doctor", cwd=tmp_path_factory.mktemp("doctor"))
        for name in ("avx512f", "avx512_vnni", "amx_int8", "cgroup CPU quota", "paddlepaddle"):
            assert name in done.out
        assert "on avx512_core" in done.out

    def test_json(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        done = job("doctor", "--json", cwd=tmp_path_factory.mktemp("doctor"))
        found = json.loads(done.out)
        assert found["able"] is True
        assert found["smoke"]["kernels"]


def test_report_renders_again(copy: Run) -> None:
    for name in ("report.md", "report.html"):
        (copy.output / name).unlink()
    done = job("report", "out", cwd=copy.folder)
    assert "Table I." in done.out
    assert "out/report.html" in done.out
    assert (copy.output / "report.html").stat().st_size > 10_000
    assert not run_json(copy.folder).worked


def test_validate_many(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("validate")
    write_manifest(folder)
    (folder / "wrong.json").write_text('{"version": 1, "nam": "x"}')
    done = job("validate", "m.json", "wrong.json", "m.json", cwd=folder, expect=2)
    assert [line.split(":")[0] for line in done.out.splitlines()] == ["m.json", "m.json"]
    for name in ("wrong.json", "/nam: ", "'name'", "/data: "):
        assert name in done.err


@pytest.mark.full
@pytest.mark.parametrize(
    "arguments", [("--help",), ("run", "--help"), ("explain", "train.seed"), ("validate", "m.json")]
)
def test_answers_at_once(
    tmp_path_factory: pytest.TempPathFactory, arguments: tuple[str, ...]
) -> None:
    folder = tmp_path_factory.mktemp("quick")
    write_manifest(folder)
    used = [job(*arguments, cwd=folder, executed=True).cpu_seconds for _ in range(3)]
    assert min(used) < AT_ONCE_CPU_S


def test_explain(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("explain")
    done = job("explain", "quantize.weight_quantize_type", cwd=folder)
    for word in ("channel_wise_abs_max", "string", "default"):
        assert word in done.out.lower()
    assert "min_speedup" in job("explain", cwd=folder).out
    unknown = job("explain", "quantize.elmentwise_add", cwd=folder, expect=2)
    assert unknown.err.startswith("error: ")
