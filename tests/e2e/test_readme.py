"""What the README and the pages of docs/ show, run as it stands."""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from ranks import LAUNCH, TOGETHER
from sklearn.datasets import load_digits
from tiny_run import LIMIT_S, SLOW, Run, job, same_arrays

from job import errors

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = (ROOT / "docs/commands.md").read_text()
S3_PAGE = (ROOT / "docs/s3.md").read_text()
AS_JSON = ("--log-format", "json")


def blocks(language: str, page: str) -> list[str]:
    """The code blocks of a page in a language."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", page, re.DOTALL | re.MULTILINE)
    return ["".join(f"{line[len(pad) :]}\n" for line in text.splitlines()) for pad, text in found]


def test_first_screen_sets_up_and_runs_the_digits() -> None:
    commands = [line.split("#")[0].strip() for line in blocks("sh", README)[0].splitlines()]
    assert commands == ["make run", "make test"]
    plan = subprocess.run(["make", "-n", "run"], cwd=ROOT, capture_output=True, text=True)
    assert "job run manifests/digits.json" in plan.stdout


def test_every_command_and_option_exists() -> None:
    rows = re.findall(r"^\| `job ([a-z0-9 ]+?)(?: [^a-z`|]+)?` \|([^|]*)\|", COMMANDS, re.MULTILINE)
    names = [
        "run",
        "init",
        "anchors",
        "schema",
        "validate",
        "explain",
        "doctor",
        "report",
        "compare",
        "fetch",
        "merge",
        "score",
    ]
    assert [name for name, _ in rows] == [*names, "k8s render", "pack", "predict"]
    for name, text in rows:
        shown = subprocess.run(
            [sys.executable, "-m", "job", *name.split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        for option in re.findall(r"--[a-z-]+", text):
            assert option in shown.stdout, f"job {name} {option}"


def shown_commands(program: str, finished: Run) -> list[list[str]]:
    """The testers' commands that begin with a program, for the tiny run."""
    text = "".join(block for block in blocks("sh", COMMANDS) if "digits.bin" in block)
    text = text.replace("manifests/digits.json", str(finished.folder / "m.json"))
    text = text.replace("runs/digits", str(finished.output))
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith(f"{program} ")]


def test_the_testers_commands_run(finished: Run, tmp_path: Path) -> None:
    packing, tested, as_json = shown_commands("job", finished)
    assert "1x8x8" in job(*packing, cwd=tmp_path).out
    assert job(*tested, cwd=tmp_path).out.startswith("INT8 model ")
    assert json.loads(job(*as_json, cwd=tmp_path).out)["model"]["kind"] == "fp32"


@pytest.mark.full
def test_the_native_testers_command_runs(finished: Run, tmp_path: Path) -> None:
    if not shutil.which("cmake") or not shutil.which("c++"):
        pytest.skip("cmake and a C++ compiler are not installed")
    (arguments,) = shown_commands("make", finished)
    data = tmp_path / "digits.bin"
    shutil.copyfile(finished.output / "data" / "test.bin", data)
    command = [word for word in arguments if not word.startswith("DATA=")]
    # -o: these tests use the installed environment as it is.
    command += [f"DATA={data}", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/installed"]
    done = subprocess.run(["make", "-s", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[done.stdout.index("{") :])["model"]["kind"] == "int8"


@pytest.mark.full
def test_the_commands_for_s3_run(finished: Run, tmp_path: Path) -> None:
    """As they stand, but for the virtual environment, the port, and the size of the network."""
    (text,) = (block for block in blocks("sh", S3_PAGE) if "moto.server" in block)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    text = text.replace("5000", port).replace(". .venv/bin/activate\n", "")
    text = text.replace("manifests/digits.json", " ".join(["m.json", *AS_JSON, *SLOW]))
    shutil.copyfile(finished.folder / "m.json", tmp_path / "m.json")
    done = subprocess.run(
        ["bash", "-e", "-c", text],
        cwd=tmp_path,
        env=os.environ
        | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        | {"JOB_SCRATCH": str(tmp_path / "scratch"), "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines() if '"worked"' in line]
    assert [result["worked"] for result in results] == [True, False]
    assert (tmp_path / "report/report.html").exists()
    assert same_arrays(
        tmp_path / "runs/from-s3/fp32/weights.npz", finished.output / "fp32/weights.npz"
    )


def test_exit_codes_are_those_of_the_errors() -> None:
    table = set(re.findall(r"^\| (\d) \|", COMMANDS, re.MULTILINE))
    codes = {
        str(kind.exit_code)
        for kind in vars(errors).values()
        if isinstance(kind, type)
        and issubclass(kind, errors.JobError)
        and kind is not errors.Stopped
    }
    assert table == codes | {str(errors.DONE)}


def test_the_int8_model_loads_in_plain_paddle_inference(finished: Run) -> None:
    (snippet,) = blocks("python", COMMANDS)
    code = snippet.replace("runs/digits", str(finished.output))
    code += "\nassert predictor.get_input_names() == ['image']\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_command_for_several_processes_is_the_one_that_is_tested() -> None:
    """By test_distributed, in full."""
    page = (ROOT / "docs/kubernetes.md").read_text()
    shown = [shlex.split(line) for line in page.splitlines() if "paddle.distributed" in line]
    command = ["python", *LAUNCH, "job", "run", "m.json", *TOGETHER]
    assert [line for line in shown if line[0] == "python"] == [command]


@pytest.mark.full
def test_five_steps_lead_to_a_label(needs_vnni: None, tmp_path: Path) -> None:
    """As they stand, but for a small network, a short benchmark and the active environment."""
    for number, name in enumerate(load_digits().target_names[:3]):
        chosen = load_digits().images[load_digits().target == number][:60]
        for index, image in enumerate(chosen):
            path = tmp_path / f"photos/{'cat' if number == 0 else f'class-{name}'}/{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            gray = np.rint(image * 255 / 16).astype(np.uint8)
            Image.fromarray(gray).resize((32, 32)).save(path)
    part = README[README.index("## Your own model") : README.index("## The three ways")]
    text = "".join(blocks("sh", part)).replace("source .venv/bin/activate\njob doctor\n", "")
    lines = [line for line in text.splitlines() if "--weights" not in line and "export" not in line]
    script = "\n".join(lines).replace("--data photos", "--data photos --model convnet")
    script = script.replace("cat/1.jpg", "cat/1.png").replace("--compare", "--compare --json")
    short = "job run m.json --set benchmark.rounds=2 --set benchmark.min_seconds=0.2"
    script = script.replace("job run m.json", short)
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout[done.stdout.rindex("\n[") :])
    assert row["answer"]["label"] in ("cat", "class-1", "class-2")
