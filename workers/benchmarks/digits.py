"""Which classifier should read this digit? scikit-learn's 8 x 8 images and real classifiers of different size."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Benchmark, Floats, Model, Source

#: USD per 1M multiply-adds; a comparison of a decision tree counts as one.
PRICE = 0.01
_FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A candidate model: how to make it, and what one prediction takes."""

    name: str
    #: Makes an unfitted scikit-learn classifier.
    make: Callable[[], Any]
    #: Multiply-adds of a fitted classifier on each image: (classifier, images [n, 64]) -> [n] or a scalar.
    work: Callable[[Any, Floats], npt.ArrayLike]


def _naive_bayes() -> Any:
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB(var_smoothing=0.1)


def _tree() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(random_state=0)


def _linear() -> Any:
    from sklearn.linear_model import RidgeClassifier

    return RidgeClassifier(alpha=1.0)


def _quadratic() -> Any:
    from sklearn.linear_model import RidgeClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures

    return make_pipeline(PolynomialFeatures(2, include_bias=False), RidgeClassifier(alpha=1.0))


def _svc() -> Any:
    from sklearn.svm import SVC

    return SVC(kernel="rbf", gamma="scale", C=1.0)


def _nearest_neighbour() -> Any:
    from sklearn.neighbors import KNeighborsClassifier

    return KNeighborsClassifier(n_neighbors=1, algorithm="brute")


#: A squared distance or a scalar product of 64 pixels is 64 multiply-adds; naive Bayes also weighs its squares.
#: The quadratic features of 64 pixels are
#: 64 + 64 * 65 / 2 = 2144 numbers, 2080 of them products. Each support vector is one distance and enters the votes of
#: its class against the nine others.
CLASSIFIERS: tuple[Classifier, ...] = (
    Classifier(name="linear", make=_linear, work=lambda fitted, images: 64 * 10),
    Classifier(name="naive-bayes", make=_naive_bayes, work=lambda fitted, images: 2 * 64 * 10),
    Classifier(
        name="nearest-neighbour", make=_nearest_neighbour, work=lambda fitted, images: 64 * fitted.n_samples_fit_
    ),
    Classifier(name="quadratic", make=_quadratic, work=lambda fitted, images: 2080 + 2144 * 10),
    Classifier(name="svc-rbf", make=_svc, work=lambda fitted, images: (64 + 9) * len(fitted.support_)),
    Classifier(
        name="tree",
        make=_tree,
        work=lambda fitted, images: np.asarray(fitted.decision_path(images).sum(axis=1)).ravel() - 1,
    ),
)


class Digits(Source):
    """Images of handwritten digits; score = out-of-fold correctness, cost = multiply-adds of the prediction.

    There are no tasks: the digit is what the candidates have to find out, so a router must not be told.
    """

    name: ClassVar[str] = "digits"
    summary: ClassVar[str] = "1797 images of digits that six scikit-learn classifiers really read; images only"

    def load(self) -> Benchmark:
        """Fit every classifier on every fold and grade it on the rest."""
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        S, C = grade_out_of_fold(pixels, labels)
        return Benchmark.build(
            name=self.name,
            queries=[f"digit-{i:04d}" for i in range(len(pixels))],
            prompts=[""] * len(pixels),
            images=[encode_png(image) for image in pixels],
            models=[Model(name=classifier.name, family="scikit-learn") for classifier in CLASSIFIERS],
            S=S,
            C=C,
            embedded="image",
            meta={
                "licence": "CC BY 4.0 (UCI Optical Recognition of Handwritten Digits), as shipped by scikit-learn",
                "source": "sklearn.datasets.load_digits",
                "cost": f"multiply-adds of one prediction, {PRICE} USD per 1M; a tree's comparison counts as one",
            },
        )


def grade_out_of_fold(pixels: Floats, labels: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Correctness (0 or 1) and cost in USD of every classifier on images it was not fitted on.

    Equal images share a fold. One BLAS thread, because sums in another order could turn a close call.

    Args:
        pixels: Whole numbers 0 to 16. [n, 64]
        labels: Digits. [n]

    Returns:
        Scores and costs, both [n, len(CLASSIFIERS)].
    """
    from threadpoolctl import threadpool_limits

    S = np.zeros((len(pixels), len(CLASSIFIERS)))
    C = np.zeros_like(S)
    folds = assign_folds(pixels)
    scaled = pixels / 16
    with threadpool_limits(limits=1):
        for fold in range(_FOLDS):
            train, rest = folds != fold, folds == fold
            for j, classifier in enumerate(CLASSIFIERS):
                fitted = classifier.make().fit(scaled[train], labels[train])
                S[rest, j] = fitted.predict(scaled[rest]) == labels[rest]
                C[rest, j] = np.asarray(classifier.work(fitted, scaled[rest])) * PRICE / 1e6
    return S, C


def assign_folds(pixels: Floats) -> npt.NDArray[np.int64]:
    """Fold of each image: equal images share one, and neighbours in lexicographic order get different ones."""
    _, distinct = np.unique(pixels, axis=0, return_inverse=True)
    return np.asarray(distinct.ravel() % _FOLDS, dtype=np.int64)


def encode_png(image: Floats) -> bytes:
    """A grey 8 x 8 PNG of 64 pixels from 0 to 16; uncompressed, so that its bytes depend on no zlib version."""
    from PIL import Image

    grey = np.rint(image.reshape(8, 8) * 255 / 16).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG", compress_level=0)
    return buffer.getvalue()
