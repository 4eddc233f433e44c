"""Loading the weight files that a run exports."""

import numpy as np
import pytest
import tiny
import torch_files

from job.engine.training.baseline import export
from job.engine.training.network_weights import load_weights
from job.engine.training.programs import read_variables, static, write_variables
from job.engine.weights.match import read_weights
from job.errors import DataError

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def fp32(tmp_path_factory):
    return tiny.train_baseline(tmp_path_factory.mktemp("training") / "fp32", max_iters=24)


def test_a_single_number_keeps_its_shape():
    scope = static.Scope()
    write_variables(scope, {"norm": np.array(3, "float32")})
    assert read_variables(scope, ["norm"])["norm"].shape == ()


def test_exported_weights_can_be_loaded_again(fp32, tmp_path):
    images, _ = tiny.examples(20, 0)
    path = fp32.out / "weights.pdparams"
    arrays = read_weights(path, None).arrays
    assert list(arrays) == list(fp32.session.classifier.weight_names)
    session = tiny.open_tiny(seed=77)
    assert load_weights(session, path, sha256=None, reset_classifier=False).missing == ()
    export(session, tmp_path)
    expected = tiny.scores(fp32.out / "model", "native", images)
    np.testing.assert_array_equal(tiny.scores(tmp_path / "model", "native", images), expected)


def test_the_npz_of_a_run_and_torch_files_give_the_same_weights(fp32, tmp_path):
    """The file for PyTorch has its names, and fully connected weights as [outputs, inputs]."""
    classifier = fp32.session.classifier
    exported = read_weights(fp32.out / "weights.pdparams", None).arrays
    tensors = {
        name.replace("._mean", ".running_mean").replace("._variance", ".running_var"): value.T
        if value.ndim == 2
        else value
        for name, value in exported.items()
    }
    torch_files.save(tmp_path / "w.pth", {"state_dict": tensors})
    torch_files.save_safetensors(tmp_path / "w.safetensors", tensors)
    for path in (fp32.out / "weights.npz", tmp_path / "w.pth", tmp_path / "w.safetensors"):
        session = tiny.open_tiny(seed=77)
        assert load_weights(session, path, sha256=None, reset_classifier=False).missing == ()
        values = read_variables(session.scope, list(classifier.weight_names.values()))
        for name, value in session.classifier.for_network(values).items():
            np.testing.assert_array_equal(value, exported[name])


def test_weights_of_another_model_are_refused(fp32):
    path = fp32.out / "weights.pdparams"
    with pytest.raises(DataError, match=r"shape \[.*\[") as caught:
        load_weights(tiny.open_tiny(width=1.0), path, sha256=None, reset_classifier=True)
    assert "/model/width" in caught.value.hint
    with pytest.raises(DataError, match="of 10 weights"):
        session = tiny.open_tiny(name="lenet", input_shape=(1, 28, 28), width=1.0)
        load_weights(session, path, sha256=None, reset_classifier=True)


def test_classifier_of_another_size_is_refused_or_reset(fp32):
    path = fp32.out / "weights.pdparams"
    session = tiny.open_tiny(classes=7)
    with pytest.raises(DataError, match=r"\[64, 4\].*\[64, 7\]") as caught:
        load_weights(session, path, sha256=None, reset_classifier=False)
    assert "/model/reset_classifier" in caught.value.hint
    names, _ = load_weights(session, path, sha256=None, reset_classifier=True)
    assert names == ("head.2.weight", "head.2.bias")


def test_weights_of_a_network_with_other_heads_can_be_loaded_again(tmp_path):
    """The two auxiliary outputs of GoogLeNet, which are not trained, have class weights, too."""

    def open_(classes):
        return tiny.open_tiny(
            name="googlenet", input_shape=(3, 224, 224), width=1.0, classes=classes
        )

    export(open_(4), tmp_path)
    path = tmp_path / "weights.pdparams"
    assert load_weights(open_(4), path, sha256=None, reset_classifier=False).missing == ()
    reset, _ = load_weights(open_(7), path, sha256=None, reset_classifier=True)
    assert reset == ("_fc_out.weight", "_fc_out.bias")
