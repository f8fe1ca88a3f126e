"""The digits: pictures survive, equal images share a fold, scores are out of fold, costs are counted work."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from workers.benchmarks.base import embedded_sources
from workers.benchmarks.digits import CLASSIFIERS, PRICE, Digits, assign_folds, encode_png

NAMES = [classifier.name for classifier in CLASSIFIERS]


@pytest.fixture(scope="module")
def benchmark():
    return Digits().load()


@pytest.fixture(scope="module")
def data():
    return load_digits(return_X_y=True)


def test_it_is_found_and_complete(benchmark, data):
    assert embedded_sources()["digits"] is Digits
    assert benchmark.n_queries == len(data[0])
    assert [model.name for model in benchmark.models] == NAMES
    assert benchmark.n_models >= 5
    assert benchmark.complete.all()
    assert set(benchmark.S.ravel()) == {0.0, 1.0}


def test_no_text_and_no_task_tells_the_digit(benchmark):
    assert set(benchmark.texts) == set(benchmark.tasks) == {""}


def test_pictures_hold_the_pixels(benchmark, data):
    for image, pixels in zip(benchmark.images[::50], data[0][::50], strict=True):
        decoded = np.asarray(Image.open(io.BytesIO(image)))
        assert decoded.shape == (8, 8)
        np.testing.assert_array_equal(np.rint(decoded / 255 * 16).ravel(), pixels)


def test_equal_images_share_group_and_fold(data):
    pixels, _ = data
    doubled = np.vstack([pixels, pixels[:100]])
    folds = assign_folds(doubled)
    np.testing.assert_array_equal(folds[-100:], folds[:100])
    assert encode_png(doubled[0]) == encode_png(doubled[-100])
    sizes = np.bincount(assign_folds(pixels))
    assert len(sizes) == 5 and sizes.max() - sizes.min() <= 1


def test_scores_are_out_of_fold(benchmark, data):
    """Refitting by hand on the other folds gives the same cells; a tree fitted on its test fold would be perfect."""
    pixels, labels = data[0] / 16, data[1]
    folds = assign_folds(data[0])
    rest = folds == 3
    svc = SVC(kernel="rbf", gamma="scale").fit(pixels[~rest], labels[~rest])
    np.testing.assert_array_equal(benchmark.S[rest, NAMES.index("svc-rbf")], svc.predict(pixels[rest]) == labels[rest])
    np.testing.assert_allclose(benchmark.C[rest, NAMES.index("svc-rbf")], svc.n_support_.sum() * 73 * PRICE / 1e6)
    assert benchmark.S[:, NAMES.index("tree")].mean() < 0.95


def test_a_tree_pays_for_the_comparisons_it_makes(benchmark, data):
    pixels, labels = data[0] / 16, data[1]
    rest = assign_folds(data[0]) == 0
    tree = DecisionTreeClassifier(random_state=0).fit(pixels[~rest], labels[~rest]).tree_
    for i in np.flatnonzero(rest)[:50]:
        node, comparisons = 0, 0
        while tree.children_left[node] != -1:
            left = np.float32(pixels[i, tree.feature[node]]) <= tree.threshold[node]
            node = tree.children_left[node] if left else tree.children_right[node]
            comparisons += 1
        assert benchmark.C[i, NAMES.index("tree")] == pytest.approx(comparisons * PRICE / 1e6)


def test_work_of_the_fixed_size_classifiers(benchmark, data):
    folds = assign_folds(data[0])
    per_operation = Fraction(PRICE).limit_denominator() / 10**6
    work = {
        "linear": 640,
        "naive-bayes": 1280,
        # 2080 products of two pixels, then ten scalar products with all 64 + 2080 features.
        "quadratic": 2080 + 10 * (64 + 64 * 65 // 2),
        "nearest-neighbour": 64 * int((folds != folds[0]).sum()),
    }
    for name, operations in work.items():
        assert benchmark.C[0, NAMES.index(name)] == pytest.approx(float(operations * per_operation))


def test_loading_twice_gives_the_same_bits(benchmark):
    assert Digits().load().fingerprint == benchmark.fingerprint
