"""The linear probe: logistic regression on frozen vectors."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rule = Literal["samples", "features"]
"""What n counts in C = c x n / 100."""


@dataclass(frozen=True)
class Probe:
    """What a probe predicted, and how it was fitted."""

    predicted: NDArray[np.int64]
    """m class numbers."""
    classes: NDArray[np.int64]
    """The c class numbers that it learned, rising."""
    shares: NDArray[np.float64]
    """m x c probabilities, as the model has them: not calibrated."""
    C: float
    """Inverse strength of the L2 penalty, as scikit-learn counts it."""
    iterations: int
    converged: bool
    """Whether the solver met its tolerance within `max_iter`."""


def inverse_strength(classes: int, samples: int, features: int, rule: Rule = "samples") -> float:
    """C = c x n / 100 (DinoBloom, section 3, Downstream evaluations).

    The paper says that n is the number of training samples (`samples`). Its code multiplies
    by the length of the vector instead (`features`), as UNI does; both are offered because
    published scores came from the code, and readers will compute the formula of the paper.
    In both, the number is scikit-learn's `C`, so a larger one means a weaker penalty.
    """
    return classes * (samples if rule == "samples" else features) / 100


def linear_probe(
    train: NDArray[np.floating],
    labels: NDArray[np.int64],
    test: NDArray[np.floating],
    *,
    rule: Rule = "samples",
    max_iter: int = 1000,
) -> Probe:
    """Fit multinomial logistic regression (L-BFGS) and predict.

    Args:
        train: n x dim vectors, used as they are: no scaling, as in the papers.
        labels: n class numbers; not all classes need occur.
        test: m x dim vectors.
        rule: See `inverse_strength`.
        max_iter: The papers' 1,000.

    Raises:
        ValueError: fewer than two classes to learn from.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    classes = len(np.unique(labels))
    if classes < 2:
        raise ValueError(f"a linear probe needs two classes to learn from, got {classes}")
    strength = inverse_strength(classes, len(train), train.shape[1], rule)
    model = LogisticRegression(C=strength, max_iter=max_iter)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(train, labels)
    stopped = [w for w in caught if issubclass(w.category, ConvergenceWarning)]
    for other in caught:
        if other not in stopped:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    return Probe(
        predicted=np.asarray(model.predict(test), np.int64),
        classes=np.asarray(model.classes_, np.int64),
        shares=np.asarray(model.predict_proba(test), np.float64),
        C=strength,
        iterations=int(np.max(model.n_iter_)),
        converged=not stopped,
    )
