import torch

from selfsup.parts.pretext import mirrored, pieces, shuffled, turned


def test_pieces_lie_within_their_cells_at_the_places_drawn() -> None:
    images, draws = torch.randn(3, 2, 255, 255), torch.rand(3, 18)
    found = pieces(images, draws)
    assert found.shape == (3, 9, 2, 64, 64)
    for sample in range(3):
        for number in range(9):
            row, column = divmod(number, 3)
            top = 85 * row + int(22 * draws[sample, 2 * number])  # 22 places in 85 - 64 pixels of room
            left = 85 * column + int(22 * draws[sample, 2 * number + 1])
            assert found[sample, number].equal(images[sample, :, top : top + 64, left : left + 64])


def test_draws_reach_both_ends_of_a_cell() -> None:
    images = torch.arange(24 * 24.0).view(1, 1, 24, 24)  # cells of 8, pieces of 6
    low, high = pieces(images, torch.zeros(1, 18)), pieces(images, torch.full((1, 18), 0.999999))
    assert low[0, 0].equal(images[0, :, :6, :6])
    assert high[0, 8].equal(images[0, :, -6:, -6:])


def test_each_sample_is_shuffled_by_its_own_draws() -> None:
    x = torch.arange(8.0).view(2, 4, 1)
    found = shuffled(x, torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.1, 0.2, 0.3, 0.4]]))
    assert found[..., 0].tolist() == [[1, 3, 2, 0], [4, 5, 6, 7]]


def test_images_are_turned_by_quarters() -> None:
    images = torch.randn(4, 3, 5, 5)
    found = turned(images, torch.tensor([0.0, 0.3, 0.6, 0.99]))
    for number in range(4):
        assert found[number].equal(torch.rot90(images[number], number, (1, 2)))


def test_half_of_all_images_are_mirrored() -> None:
    images = torch.randn(2, 2, 3, 4, 5)
    found = mirrored(images, torch.tensor([[0.0, 0.5], [0.99, 0.49]]))
    for sample, number, is_mirrored in ((0, 0, True), (0, 1, False), (1, 0, False), (1, 1, True)):
        image = images[sample, number]
        assert found[sample, number].equal(image[:, :, [4, 3, 2, 1, 0]] if is_mirrored else image)
