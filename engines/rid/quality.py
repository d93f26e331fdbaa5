"""Numbers about protected and about generated portraits: visibility, identity, distribution, naturalness."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import brentq
from scipy.signal import convolve2d
from scipy.special import gammaln

SVM = Path(__file__).resolve().parents[2] / "assets" / "brisque" / "svm.npz"
GREY = np.array([0.2125, 0.7154, 0.0721])
WINDOW, SIGMA, CONTRAST = 7, 7 / 6, 1 / 255  # of the local mean; the last keeps flat regions finite
SHAPES = (0.05, 100.0)  # between which shapes of distributions are looked for


def visibility_metrics(clean: np.ndarray, protected: np.ndarray) -> tuple[int, float, float]:  # uint8, same shape
    """(largest change, mean change, both absolute in grey levels, PSNR in dB, infinite for equal pictures)."""
    counts = np.zeros(256, np.int64)  # of changes by their size: exact, and small whatever the picture
    for one, other in zip(clean, protected, strict=True):
        counts += np.bincount(np.abs(one.astype(np.int16) - other).ravel(), minlength=256)
    change = np.arange(256)
    error, mean = (float(counts @ size / counts.sum()) for size in (change**2, change))
    psnr = float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))
    return int(counts.nonzero()[0][-1]), mean, psnr


def structural_similarity(clean: np.ndarray, other: np.ndarray) -> float:  # uint8 [H, W, 3], same shape -> up to 1
    """SSIM (Wang et al. 2004, eq. 13): Gaussian window of deviation 1.5, mean over pixels and colours."""
    a, b = (torch.from_numpy(x.astype(np.float32)).movedim(-1, 0)[:, None] for x in (clean, other))
    at = torch.arange(11) - 5.0
    line = torch.exp(-at.square() / (2 * 1.5**2))
    kernel = torch.outer(line, line)[None, None] / line.sum() ** 2

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, kernel)

    mu_a, mu_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - mu_a**2, mean(b * b) - mu_b**2
    both = mean(a * b) - mu_a * mu_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    alike = (2 * mu_a * mu_b + c1) * (2 * both + c2) / ((mu_a**2 + mu_b**2 + c1) * (var_a + var_b + c2))
    return float(alike.mean())


def survival(
    clean: np.ndarray,  # uint8 [H, W, 3], as the following
    protected: np.ndarray,
    clean_after: np.ndarray,  # the same two after something was done to them
    protected_after: np.ndarray,
) -> tuple[float, float]:
    """What is left of a perturbation: the energy of the part that still points its way, over that before, and its
    correlation with what it was, both 0 .. 1.

    What was done to the pictures adds changes of its own, as JPEG's blocks do; those that point elsewhere count in
    the correlation alone. Both are 0 where there is nothing left, or was nothing.
    """
    before = protected.astype(np.float64) - clean
    after = protected_after.astype(np.float64) - clean_after
    energy, left = float(np.square(before).sum()), float(np.square(after).sum())
    if not energy or not left:
        return 0.0, 0.0
    along = max(0.0, float((before * after).sum()))
    return min(1.0, along / energy) ** 2, min(1.0, along / np.sqrt(energy * left))


def identity_metrics(
    embeddings: np.ndarray,  # [N, D], one a generated picture
    detected: np.ndarray,  # bool [N], whether it shows a face
    reference_embeddings: np.ndarray,  # [M, D], of clean pictures
) -> tuple[float, float]:
    """(ISM, FDFR): mean cosine to the average reference over pictures with a face, and the share without one.

    ISM is not a number where no face was found at all.
    """
    found = np.asarray(detected, bool)
    failure = float(1 - found.mean())
    if not found.any():
        return float("nan"), failure
    return float(_cosines(np.asarray(embeddings)[found], reference_embeddings).mean()), failure


def kept_identity(
    embeddings: np.ndarray,  # [N, D], one a generated picture
    detected: np.ndarray,  # bool [N], whether it shows a face
    reference_embeddings: np.ndarray,  # [M, D], of true pictures
    threshold: float,  # cosine from which on a judge takes a picture for one of the person
) -> float:  # 0 .. 1
    """The share of all generated pictures that show a face which is taken for the person's.

    Unlike the mean cosine it is known where no face was found: such pictures keep nobody's identity.
    """
    alike = _cosines(embeddings, reference_embeddings) > threshold
    return float((np.asarray(detected, bool) & alike).mean())


def _cosines(embeddings: np.ndarray, references: np.ndarray) -> np.ndarray:  # [N, D], [M, D] -> float64 [N]
    """Of each embedding with the average reference."""
    faces = np.asarray(embeddings, np.float64)
    average = np.asarray(references, np.float64).mean(axis=0)
    return faces @ average / (np.linalg.norm(faces, axis=1) * np.linalg.norm(average))


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:  # [N, D], [M, D]
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), covariances over n - 1.

    Raises ValueError where one side has fewer than two, and so no covariance.
    """
    if min(len(features_a), len(features_b)) < 2:
        raise ValueError("a Frechet distance needs two samples of either side")
    a, b = (np.asarray(x, np.float64) for x in (features_a, features_b))
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ cov_b @ root)  # the eigenvalues of S_a S_b, by a symmetric matrix
    gap = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(gap + np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(mixed.clip(min=0)).sum())


def brisque(image: np.ndarray) -> tuple[np.ndarray, float]:  # uint8 [H, W, 3] or [H, W, 4] -> [36], about 0 .. 100
    """The 36 features and the score; a higher score looks less natural (Mittal, Moorthy and Bovik 2012).

    Raises ValueError for a picture without any texture, for which no distribution can be fitted.
    """
    grey = image[..., :3].astype(np.float64) / 255 @ GREY
    features = np.concatenate([_features(mscn(grey)), _features(mscn(halved(grey)))])
    model = _regression()
    scaled = -1 + 2 / (model["upper"] - model["lower"]) * (features - model["lower"])
    kernel = np.exp(-model["gamma"] * np.square(model["support"] - scaled).sum(axis=1))
    return features, float(model["weights"] @ kernel - model["rho"])


def halved(grey: np.ndarray) -> np.ndarray:  # float64 [H, W] -> half of each side, to the nearest even number
    """As OpenCV's cubic halving: the step is two pixels whatever the size, so nothing is stretched at odd sides."""
    outer, inner = -0.09375, 0.59375  # the cubic of a = -0.75 at distances 1.5 and 0.5
    weights = torch.tensor([outer, inner, inner, outer], dtype=torch.float64)
    padded = F.pad(torch.from_numpy(grey)[None, None], (1, 2, 1, 2), mode="replicate")
    half = F.conv2d(padded, torch.outer(weights, weights)[None, None], stride=2)[0, 0].numpy()
    height, width = (max(1, round(side / 2)) for side in grey.shape)
    return half[:height, :width]


def mscn(grey: np.ndarray) -> np.ndarray:  # float64 [H, W] in [0, 1] -> [H, W]
    """Mean-subtracted, contrast-normalised grey: minus the local mean, over the local deviation."""
    at = np.arange(WINDOW) - WINDOW // 2
    line = np.exp(-np.square(at) / (2 * SIGMA**2))
    kernel = np.outer(line, line) / line.sum() ** 2
    mean = convolve2d(grey, kernel, "same")
    deviation = np.sqrt(np.abs(mean**2 - convolve2d(grey**2, kernel, "same")))
    return (grey - mean) / (deviation + CONTRAST)


def _features(normed: np.ndarray) -> np.ndarray:  # [H, W] -> [18]
    shape, _, left, right = _fit(normed)
    pairs = (
        normed[:, :-1] * normed[:, 1:],
        normed[:-1] * normed[1:],
        normed[:-1, :-1] * normed[1:, 1:],
        normed[1:, :-1] * normed[:-1, 1:],
    )
    return np.array([shape, (left + right) / 2, *(number for pair in pairs for number in _fit(pair))])


def _fit(x: np.ndarray) -> tuple[float, float, float, float]:
    """An asymmetric generalised Gaussian by its moments: shape, mean, left and right variance."""
    below, above = x[x < 0], x[x >= 0]
    if not below.size or not above.any():
        raise ValueError("BRISQUE: the picture has no texture to measure")
    left, right = float(np.square(below).mean()), float(np.square(above).mean())
    skew = np.sqrt(left / right)
    flatness = np.abs(x).mean() ** 2 / np.square(x).mean()
    wanted = flatness * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = _shape(float(wanted))
    spread = np.exp(gammaln(2 / shape) - 0.5 * (gammaln(1 / shape) + gammaln(3 / shape)))
    return shape, float((np.sqrt(right) - np.sqrt(left)) * spread), left, right


def _shape(flatness: float) -> float:
    """The shape whose distribution is as flat as asked; at the ends of the range where none is."""

    def gap(shape: float) -> float:
        return float(np.exp(2 * gammaln(2 / shape) - gammaln(1 / shape) - gammaln(3 / shape))) - flatness

    low, high = SHAPES
    if gap(high) <= 0:
        return high
    return low if gap(low) >= 0 else float(brentq(gap, low, high, xtol=1e-12))


@cache
def _regression() -> dict[str, np.ndarray]:
    with np.load(SVM, allow_pickle=False) as file:
        return dict(file)
