"""Tables of the docs as CSV files that a reader can sort: docs/figures/.

The file is named by the link right below a table, e.g. `[as CSV](figures/methods.csv)`.
`python tests/doc_tables.py` writes them anew; test_docs.py demands that they are what pages say.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"
LINK = re.compile(r"^((?:\|.*\n)+)\n\[as CSV\]\((figures/[\w-]+\.csv)\)", re.MULTILINE)


def as_csv(table: str) -> str:
    """The cells without emphasis; a column "x" of "12.3 ± 4.5" becomes "x" and "x ±"."""
    rows = [[re.sub(r"[*`]", "", c).strip() for c in line.strip("|").split("|")]
            for line in table.strip().splitlines()]  # fmt: skip
    head, body = rows[0], rows[2:]
    columns: list[list[str]] = []
    for at, title in enumerate(head):
        cells = [row[at] for row in body]
        halves = [cell.split(" ±") if re.fullmatch(r"[+-]?[\d.]+ ± [\d.]+", cell) else [cell]
                  for cell in cells]  # fmt: skip
        columns.append([title, *(half[0].strip() for half in halves)])
        if any(len(half) == 2 for half in halves):
            columns.append(
                [f"{title} ±", *(half[1].strip() if half[1:] else "" for half in halves)]
            )
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
    return text.getvalue()


def wanted() -> dict[Path, str]:
    """File below docs/ -> what it must hold."""
    pages = sorted(DOCS.glob("*.md"))
    found = [match for page in pages for match in LINK.finditer(page.read_text("utf-8"))]
    return {DOCS / match[2]: as_csv(match[1]) for match in found}


if __name__ == "__main__":
    for path, text in wanted().items():
        path.write_text(text, "utf-8")
        print(path)
