"""Principal components in closed form, against scikit-learn's: of the model's own data, and of photographs."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data
from sklearn.decomposition import PCA

from selfsup.parts.patch import patchify
from selfsup.parts.pca import CHANNELS, NEIGHBORS, components


def field(*lengths: int) -> NDArray[np.float64]:
    """-> (2P, P): values whose covariance is the model's: neighbors along each axis, then channels."""
    covariance = np.ones((1, 1))
    for length, correlation in zip(lengths, [NEIGHBORS] * (len(lengths) - 1) + [CHANNELS], strict=True):
        place = np.arange(length)
        covariance = np.kron(covariance, correlation ** np.abs(place[:, None] - place))
    root = np.linalg.cholesky(covariance).T
    return np.concatenate([root, -root])


@pytest.mark.parametrize(("lengths", "number"), [((4, 4, 3), 48), ((4, 4, 3), 1), ((4, 4, 3), 9), ((6, 1), 4)])
def test_components_are_scikit_learns_on_data_of_the_model(lengths: tuple[int, ...], number: int) -> None:
    """As planes: components of equal variance, one along each axis, can be turned into each other."""
    *axes, channels = lengths
    ours = components(number, sides=tuple(axes), channels=channels).double().numpy()
    theirs = PCA(number).fit(field(*lengths))
    np.testing.assert_allclose(ours @ ours.T, theirs.components_.T @ theirs.components_, atol=1e-5)
    np.testing.assert_allclose((field(*lengths) @ ours).var(axis=0, ddof=1), theirs.explained_variance_, rtol=1e-4)


@pytest.mark.parametrize(("patch", "number"), [(16, 96), (8, 24)])
def test_they_hold_nearly_as_much_of_photographs_as_their_own(patch: int, number: int) -> None:
    """98 % of the variance of two photographs' patches that the best components for these hold."""
    photos = [torch.tensor(image[:288, :448]) / 255 for image in (data.coffee(), data.chelsea())]
    patches = torch.cat([patchify(photo.movedim(-1, 0)[None], patch).value[0] for photo in photos]).double().numpy()
    theirs = PCA(number).fit(patches)
    ours = components(number, sides=(patch, patch), channels=3).double().numpy()
    held = ((patches - patches.mean(axis=0)) @ ours).var(axis=0, ddof=1).sum()
    assert held / theirs.explained_variance_.sum() > 0.98


def test_the_first_is_nearly_the_mean_and_no_more_are_asked_for_than_there_are() -> None:
    first = components(1, sides=(4, 4), channels=3)[:, 0]
    assert first.min() > 0.9 * first.max() * 0.8
    with pytest.raises(AssertionError, match="49 components of 48 values"):
        components(49, sides=(4, 4), channels=3)
