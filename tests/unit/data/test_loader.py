from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fakes import TroubledSource, save_folders, save_image

from job.data import packed
from job.data.listing import DataRoot, class_folders
from job.data.loader import Batch, Loader, Normalisation
from job.data.sources import BadImage, PackedImages, Source
from job.data.transforms import Augment, Evaluate, Ints
from job.errors import DataError

EVALUATE = Evaluate((8, 8))
AUGMENT = Augment(EVALUATE)
NORMALISATION = Normalisation((0.5,), (0.5,))


def loader(source: Source, **settings: Any) -> Loader:
    defaults: dict[str, Any] = {"transform": EVALUATE, "batch_size": 4}
    indices = np.arange(len(source))
    return Loader(source, indices, normalisation=NORMALISATION, **defaults | settings)


def indices(batches: list[Batch]) -> list[list[int]]:
    return [batch.indices.tolist() for batch in batches]


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert indices(one) == indices(other)
    for left, right in zip(one, other, strict=True):
        np.testing.assert_array_equal(left.images, right.images)
        np.testing.assert_array_equal(left.labels, right.labels)


def test_batches_hold_normalised_images_and_their_labels() -> None:
    with loader(TroubledSource(10)) as loading:
        batches = list(loading.batches())
    assert indices(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert loading.batches_per_epoch == 3
    assert batches[1].labels.tolist() == [1, 2, 0, 1]
    assert batches[1].images.shape == (4, 3, 8, 8)
    assert batches[1].images.dtype == np.float32
    assert batches[1].images.flags.c_contiguous
    np.testing.assert_allclose(batches[1].images[2], (6 / 255 - 0.5) / 0.5, atol=1e-6)


def test_a_smaller_last_batch_can_be_dropped() -> None:
    with loader(TroubledSource(10), drop_last=True) as loading:
        assert indices(list(loading.batches())) == [[0, 1, 2, 3], [4, 5, 6, 7]]
        assert loading.batches_per_epoch == 2


def test_only_the_splits_images_are_read() -> None:
    source = TroubledSource(10, bad=(0, 9))
    with Loader(source, np.array([2, 5, 8]), EVALUATE, NORMALISATION, batch_size=2) as loading:
        assert indices(list(loading.batches())) == [[2, 5], [8]]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    source = TroubledSource(50)
    with loader(source, shuffle=True, seed=3) as one, loader(source, shuffle=True, seed=3) as two:
        list(one.batches(0))
        assert indices(list(one.batches(1))) == indices(list(two.batches(1)))
        assert one.order(1).tolist() != one.order(2).tolist()
        assert sorted(one.order(1).tolist()) == list(range(50))
    with loader(source, shuffle=True, seed=4) as other:
        assert other.order(1).tolist() != one.order(1).tolist()


class Relabelled(TroubledSource):
    """The same images with other labels."""

    @property
    def labels(self) -> Ints:
        return (super().labels + 1) % 3


def test_identity_is_that_of_images_labels_and_their_order() -> None:
    source, fewer = TroubledSource(50), TroubledSource(49)
    same = [loader(each, shuffle=True, seed=3) for each in (source, TroubledSource(50))]
    assert len({each.identity for each in same}) == 1
    others = [loader(source, shuffle=True, seed=4), loader(fewer, shuffle=True, seed=3)]
    others.append(loader(Relabelled(50), shuffle=True, seed=3))
    assert len({each.identity for each in (same[0], *others)}) == 4


def test_any_number_of_workers_gives_the_same_batches(tmp_path: Path) -> None:
    save_folders(tmp_path, ["cat", "dog"], 30)
    save_image(tmp_path / "dog/5.png", size=(500, 500))
    (tmp_path / "cat/7.png").write_bytes(b"broken")
    source, _ = class_folders(DataRoot(tmp_path, "set"), ".", classes=2, channels=3)
    settings = {
        "transform": AUGMENT,
        "shuffle": True,
        "replace_bad": True,
        "max_bad_fraction": 0.1,
        "seed": 5,
    }
    results = []
    for workers in (0, 1, 2):
        with loader(source, workers=workers, **settings) as loading:
            results.append([*loading.batches(0), *loading.batches(1)])
            list(zip(range(2), loading.batches(2), strict=False))
            results[-1] += loading.batches(3, start_batch=4)
            assert [bad.path for bad in loading.bad_images] == ["cat/7.png"]
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


def test_resuming_gives_the_tail_of_the_epoch() -> None:
    source = TroubledSource(50, bad=(3, 30))
    settings = {"transform": AUGMENT, "shuffle": True, "replace_bad": True, "max_bad_fraction": 1.0}
    with loader(source, **settings) as loading:
        whole = list(loading.batches(7))
    for start in (1, 5, 12, 13):
        with loader(source, **settings) as loading:
            assert_same(list(loading.batches(7, start_batch=start)), whole[start:])


def test_bad_training_images_are_replaced_by_the_next_good_one() -> None:
    source = TroubledSource(12, bad=(1, 3, 4, 5, 6, 7))
    told: list[BadImage] = []
    settings = {"replace_bad": True, "max_bad_fraction": 0.5, "on_bad": told.append}
    with loader(source, **settings) as loading:
        batches = list(loading.batches())
        assert indices(batches) == [[0, 2, 2, 0], [8, 8, 8, 8], [8, 9, 10, 11]]
        assert loading.batches_per_epoch == 3
        assert indices(list(loading.batches(1))) == indices(batches)
    assert batches[0].images[1, 0, 0, 0] == batches[0].images[2, 0, 0, 0]
    assert [bad.path for bad in told] == [f"{index}.jpg" for index in (1, 3, 4, 5, 6, 7)]
    assert told[0].reason == "the file is empty"


def test_a_bad_last_batch_is_replaced_from_the_epochs_beginning() -> None:
    source = TroubledSource(10, bad=(0, 8, 9))
    with loader(source, replace_bad=True, max_bad_fraction=0.5) as loading:
        assert indices(list(loading.batches(0, start_batch=2))) == [[1, 1]]


def test_bad_evaluation_images_are_left_out() -> None:
    source = TroubledSource(12, bad=(1, 4, 5, 6, 7))
    with loader(source, max_bad_fraction=0.5) as loading:
        assert indices(list(loading.batches())) == [[0, 2, 3], [8, 9, 10, 11]]


def test_too_many_bad_images_end_the_job_with_their_names() -> None:
    source = TroubledSource(20, bad=tuple(range(3, 20)))
    for allowed in (0.0, 0.3):
        # The message names all bad images, not only the first image above the limit.
        message = r"at least 17 of 20 (.|\n)*7\.jpg: the file is empty\n  and 12"
        with (
            loader(source, max_bad_fraction=allowed) as loading,
            pytest.raises(DataError, match=message),
        ):
            list(loading.batches())
    begun = iter(loader(TroubledSource(1000, bad=(0, 150, 800))).batches())
    with pytest.raises(DataError, match="at least 2 of 1,000 images"):
        next(begun)


def test_names_that_are_not_utf8_can_be_reported(tmp_path: Path) -> None:
    save_folders(tmp_path, ["cat", "dog"], 1)
    name = b"caf\xe9.png".decode(errors="surrogateescape")
    (tmp_path / "cat" / name).touch()
    source, _ = class_folders(DataRoot(tmp_path, "set"), ".", classes=2, channels=3)
    with loader(source, max_bad_fraction=1.0) as loading:
        list(loading.batches())
        assert [bad.path for bad in loading.bad_images] == ["cat/caf\\udce9.png"]


def test_no_good_image_at_all_is_an_error() -> None:
    source = TroubledSource(3, bad=(0, 1, 2))
    settings = {"replace_bad": True, "max_bad_fraction": 1.0}
    with (
        loader(source, **settings) as loading,
        pytest.raises(DataError, match="the 3 images"),
    ):
        list(loading.batches())


def test_packed_images_are_taken_as_they_stand(tmp_path: Path) -> None:
    images = np.random.default_rng(0).normal(size=(6, 3, 8, 8)).astype(np.float32)
    labels = np.arange(6)
    path = tmp_path / "a.bin"
    packed.write(path, [(images, labels)], shape=(3, 8, 8), transform="none")
    source = PackedImages(path=path, shape=(3, 8, 8), labels=labels)
    with loader(source, workers=2) as loading:
        batches = list(loading.batches())
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), images)
