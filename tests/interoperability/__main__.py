"""``python -m tests.interoperability``: measure, and write the table into docs/interoperability.md."""

import tempfile
from pathlib import Path

from tests.faults.parts import Parts
from tests.interoperability import matrix

PAGE = Path(__file__).parents[2] / "docs" / "interoperability.md"
MARK = "<!-- measured by python -m tests.interoperability -->\n"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="sonomark-matrix-") as folder:
        house = Parts(Path(folder) / "data", Path(folder) / "logs").migrate()
        try:
            house.start("receive")
            table = matrix.document(matrix.measure(house, Path(folder)))
        finally:
            house.stop()
    print(table)
    head, _, _ = PAGE.read_text().partition(MARK)
    PAGE.write_text(f"{head}{MARK}\n{table}")


if __name__ == "__main__":
    main()
