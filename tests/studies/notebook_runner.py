"""Executes the notebooks; `python -m tests.studies.notebook_runner` writes them back with their outputs."""

from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "studies" / "notebooks"
_CELL_SECONDS = 1200  # a guard against a cell that hangs: one that trains takes minutes on a busy machine


def execute(path: Path) -> Any:
    """Run every cell in a fresh kernel, from the repository's root.

    Returns:
        The notebook with its outputs; those on stderr, such as progress bars, are left out.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, timeout=_CELL_SECONDS, kernel_name="python3", resources=where).execute()
    for cell in code_cells(notebook):
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        cell.metadata.pop("execution", None)
    notebook.metadata = {
        "kernelspec": notebook.metadata["kernelspec"],
        "language_info": {"name": "python"},
    }
    return notebook


def code_cells(notebook: Any) -> list[Any]:
    """The cells that hold code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def written(notebook: Any) -> str:
    """All that the cells printed or showed as text."""
    texts = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            texts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
    return "\n".join(texts)


def main() -> None:
    """Execute every notebook and write it back, whole or not at all."""
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        temporary = path.with_suffix(".ipynb.tmp")
        nbformat.write(execute(path), temporary)
        temporary.replace(path)
        print(f"executed {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
