import torch
import torch.nn.functional as F

from selfsup.parts.bank import Bank, Queue


def test_a_queue_holds_the_latest() -> None:
    queue, rows = Queue(5, 2), torch.randn(14, 2)
    random = queue.rows.clone()
    queue.push(rows[:3])
    assert queue.rows.equal(torch.cat([rows[:3], random[3:]]))
    assert int(queue.filled) == 3
    queue.push(rows[3:6])
    assert queue.rows.equal(torch.cat([rows[5:6], rows[1:5]]))
    assert int(queue.filled) == 5
    queue.push(rows[6:14])  # more than it holds
    assert {tuple(row) for row in queue.rows.tolist()} == {tuple(row) for row in rows[9:14].tolist()}


def test_a_bank_moves_the_rows_of_the_samples_it_is_given() -> None:
    bank, new = Bank(6, 3), torch.randn(2, 3)
    before = bank.rows.clone()
    torch.testing.assert_close(before.norm(dim=1), torch.ones(6))
    bank.put(torch.tensor([4, 1]), new, momentum=0.5)
    expected = before.clone()
    for sample, row in zip((4, 1), new, strict=True):
        expected[sample] = F.normalize(0.5 * before[sample] + 0.5 * row, dim=0)
    torch.testing.assert_close(bank.rows, expected)
    bank.put(torch.tensor([0]), new[:1])
    torch.testing.assert_close(bank.rows[0], F.normalize(new[0], dim=0))
    lengths = Bank(6, 3, unit=False)
    lengths.put(torch.tensor([5]), 7 * new[:1])
    assert lengths.rows[5].equal(7 * new[0])
