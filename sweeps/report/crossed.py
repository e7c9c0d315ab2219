"""Two crossed factors as papers lay them out: values of the first as rows, values of the second as columns."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from selfsup.sweeps.report.table import Line, Table
from selfsup.sweeps.spec.study import Factor


@dataclass(frozen=True)
class Crossing:
    """A two-way layout.

    lines: (row, column) -> the arm there; a default outside the grid adds a sparse row or column.
    """

    down: Factor
    across: Factor
    lines: "Mapping[tuple[int, int], Line]"

    @property
    def default(self) -> tuple[int, int]:
        """-> (row, column) of the default."""
        return self.down.values.index(self.down.default), self.across.values.index(self.across.default)

    @property
    def rows(self) -> "Iterator[list[Line | None]]":
        for row in range(len(self.down.values)):
            yield [self.lines.get((row, column)) for column in range(len(self.across.values))]

    def block(self) -> "list[list[Line]] | None":
        """Return the full grid, without rows and columns that only the default is in.

        None where a combination is missing.
        """
        rows, columns = (sorted({place[axis] for place in self.lines}) for axis in (0, 1))
        rows = [row for row in rows if sum(place[0] == row for place in self.lines) > 1]
        columns = [column for column in columns if sum(place[1] == column for place in self.lines) > 1]
        if any((row, column) not in self.lines for row in rows for column in columns):
            return None
        return [[self.lines[row, column] for column in columns] for row in rows]


def crossing(table: Table) -> Crossing | None:
    """Return the two-way layout; None unless the arms differ in two factors and cover over half of the combinations."""
    if len(table.varied) != 2:
        return None
    down, across = table.varied
    lines = {
        (down.values.index(line.arm.values[down.path]), across.values.index(line.arm.values[across.path])): line
        for line in table.lines
    }
    sparse = 2 * len(lines) <= len(down.values) * len(across.values)
    return None if sparse else Crossing(down, across, lines)
