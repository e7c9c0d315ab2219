"""Photographs that scikit-image and scikit-learn ship, cut into tiles of a training and a validation split."""

from functools import cache

from PIL import Image

SPLITS = ("train", "val")
PHOTOS = {  # class -> function in skimage.data, or file in scikit-learn
    "astronaut": "astronaut",
    "brick": "brick",
    "cameraman": "camera",
    "cat": "chelsea",
    "coffee": "coffee",
    "coins": "coins",
    "flower": "flower.jpg",
    "galaxies": "hubble_deep_field",
    "grass": "grass",
    "gravel": "gravel",
    "moon": "moon",
    "motorcycle": "stereo_motorcycle",
    "pagoda": "china.jpg",
    "retina": "retina",
    "rocket": "rocket",
    "tissue": "immunohistochemistry",
}
VAL_TILES = (0, 2, 4, 1, 3)  # column per row of the 5x5 tiles of a photograph, so that both splits see all of it


def tiles(photo: Image.Image, split: str) -> list[Image.Image]:
    """Return the tiles of a split as images of their own, so that no resampling reads beyond an edge."""
    side = len(VAL_TILES)
    x, y = ([length * number // side for number in range(side + 1)] for length in photo.size)
    return [
        photo.crop((x[column], y[row], x[column + 1], y[row + 1]))
        for row in range(side)
        for column in range(side)
        if (VAL_TILES[row] == column) == (split == "val")
    ]


@cache
def photograph(name: str) -> Image.Image:
    """Return a photograph as RGB."""
    import skimage.data
    import sklearn.datasets  # takes a second, and the sets mostly exist

    source = PHOTOS[name]
    if source.endswith(".jpg"):
        image = sklearn.datasets.load_sample_image(source)
    else:
        image = getattr(skimage.data, source)()
    return Image.fromarray(image[0] if isinstance(image, tuple) else image).convert("RGB")
