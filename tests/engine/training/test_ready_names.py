"""A ready model whose variables have the names that the job would create."""

from pathlib import Path

import numpy as np
import pytest
import tiny

from job.engine.inference.paddle_format import read_parameters, read_program, write_model
from job.engine.quantize import qat
from job.engine.training import baseline, programs
from job.engine.training.evaluation_trace import rename
from job.engine.training.ready_names import RESERVED, free_name
from job.host import read_host

pytestmark = pytest.mark.engine


def created_names(prefix: Path, folder: Path) -> list[str]:
    """Return the names of the variables that training and quantization of a model create."""
    session = tiny.open_tiny(name=None, inference_model=prefix)
    tiny.pack(folder / "calibration.bin", 16, seed=1)
    np.savez(
        folder / "weights.npz",
        **programs.read_variables(
            session.scope, programs.persistables(session.classifier.evaluation)
        ),
    )
    trainer = qat.open_trainer(
        session,
        tiny.recipe(),
        tiny.SETTINGS,
        weights=folder / "weights.npz",
        pact=False,
        start=None,
        freeze_bn_stats=False,
        data="",
        meeting=None,
    )
    used = {v.name for v in read_program(Path(f"{prefix}.pdmodel")).blocks[0].vars}
    return sorted({v.name for v in trainer.program.list_vars()} - used)


def renamed(prefix: Path, names: list[str], out: Path) -> None:
    """Write a copy of a model whose variables have other names."""
    program = read_program(Path(f"{prefix}.pdmodel"))
    values = read_parameters(Path(f"{prefix}.pdiparams"), program)
    mine = [v.name for v in program.blocks[0].vars if v.name not in ("feed", "fetch", "image")]
    chosen = dict(zip(mine, names, strict=False))
    assert len(chosen) == len(mine)
    rename(program.blocks[0], chosen)
    write_model(out, program, {chosen.get(name, name): value for name, value in values.items()})


def test_models_with_names_of_the_job_are_trained_and_quantized(tmp_path):
    target = tiny.open_tiny(width=0.25)
    with target.active():
        baseline.export(target, tmp_path)
    names = created_names(tmp_path / "model", tmp_path)
    assert {"label"} < set(names)
    # Each third name, so that names of all kinds are among them.
    chosen = [*names[::3], *names[1::3], *names[2::3]]
    renamed(tmp_path / "model", chosen, tmp_path / "clashing")
    (tmp_path / "out").mkdir()
    images = tiny.quantize(target, tmp_path / "out").images
    session = tiny.open_tiny(name=None, inference_model=tmp_path / "clashing")
    with session.active():
        feed = {programs.IMAGE: images}
        evaluation = session.classifier.evaluation
        (scores,) = session.executor.run(evaluation, feed, [session.classifier.logits])
    (tmp_path / "again").mkdir()
    made = tiny.quantize(session, tmp_path / "again")
    np.testing.assert_array_equal(scores, made.fp32)
    assert made.fake_error < 0.1
    # Without VNNI, halved weights make INT8 inexact.
    assert tiny.error(made.int8, made.fake) < (0.1 if read_host().has_vnni else 0.2)
    trained = tiny.train_baseline(
        tmp_path / "trained",
        open_=lambda: tiny.open_tiny(name=None, inference_model=tmp_path / "clashing"),
    )
    losses = [entry["loss"] for entry in trained.record["history"]]
    assert np.isfinite(losses).all()


def test_free_names_are_not_reserved():
    assert not RESERVED.search(free_name("a@GRAD".replace("@", "_"), set()))
    assert free_name("a", {"model_a"}) == "model_a_1"
