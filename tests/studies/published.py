"""Small real files of each published format, written as their authors lay them out."""

import base64
import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

COLOURS = ("red", "green", "blue", "yellow", "black", "white", "orange", "purple")


def png(colour: str, size: int = 4) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, "PNG")
    return buffer.getvalue()


def encoded(colour: str) -> str:
    return base64.b64encode(png(colour)).decode()


def stored(colour: str) -> dict[str, Any]:
    return {"bytes": png(colour), "path": f"{colour}.png"}


def save_images(folder: Path, *colours: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for colour in colours:
        (folder / f"{colour}.png").write_bytes(png(colour))


def zip_images(path: Path, names: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, colour in names.items():
            archive.writestr(name, png(colour))


def write_lines(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def write_tsv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def own_row(name: str = "a", **changes: Any) -> dict[str, Any]:
    row = {
        "id": name,
        "question": "1 <image> 2 <image> Which is red?",
        "images": ["images.zip/red.png", "images.zip/blue.png"],
        "answer": "image 1",
        "target": 0,
        "task": "content",
        "split": "dev",
        "boxes": [[0, 0, 2, 2.5]],
        "base": "b",
        "meta": {"size": 4},
    }
    return {**row, **changes}


def own(folder: Path, rows: list[Any]) -> Path:
    zip_images(folder / "images.zip", {"red.png": "red", "blue.png": "blue"})
    return write_lines(folder / "questions.jsonl", rows)


STME_CHOICES = "\nChoice list: \nA. red\nB. blue\nYour answer is: "


def stme_row(**changes: Any) -> dict[str, Any]:
    row = {
        "dataset_name": "TQA",
        "sample_id": 1,
        "context": f"Answer.\n<ImageHere><ImageHere>What colour is the second?{STME_CHOICES}",
        "raw_img_list": ["/cpfs/user/someone/data/MileBench/TQA/images/red.png", "images/blue.png"],
        "target_id": 2,
        "response": "blue",
    }
    return {**row, **changes}


def stme(folder: Path, rows: list[Any]) -> Path:
    save_images(folder / "images", "red", "blue")
    path = folder / "merged_result_easy.json"
    path.write_text(json.dumps(rows))
    return path


def milebench(folder: Path) -> Path:
    save_images(folder / "TQA" / "images", "red", "blue")
    content = {
        "meta_data": {"dataset": "TQA", "split": "test", "task_instruction": ["Look.", "Read."]},
        "data": [
            {
                "sample_id": 0,
                "task_instruction_id": 1,
                "task_instance": {
                    "context": "{image#1} and {table#2}: which?",
                    "images_path": ["red.png", "blue.png"],
                    "choice_list": ["red", "blue"],
                },
                "response": "red",
            }
        ],
    }
    (folder / "TQA" / "TQA.json").write_text(json.dumps(content))
    return folder


def blink_row(name: str = "val_Counting_1", images: int = 2, **changes: Any) -> dict[str, Any]:
    columns = {f"image_{k + 1}": stored(COLOURS[k]) if k < images else None for k in range(4)}
    row = {
        "idx": name,
        "sub_task": "Counting",
        "question": "How many?",
        "prompt": "How many? Select from the following choices.\n(A) 1\n(B) 12",
        "choices": ["1", "12"],
        "answer": "(A)",
        **columns,
    }
    return {**row, **changes}


_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def blink(folder: Path) -> Path:
    fields = [(name, pa.string()) for name in ("idx", "sub_task", "question", "prompt", "answer")]
    fields += [("choices", pa.list_(pa.string())), *((f"image_{k}", _IMAGE) for k in (1, 2, 3, 4))]
    for task in ("Counting", "Jigsaw"):
        (folder / task).mkdir(parents=True)
        for split, answer in (("val", "(A)"), ("test", "hidden")):
            row = blink_row(f"{split}_{task}_1", sub_task=task, answer=answer)
            table = pa.Table.from_pylist([row], pa.schema(fields))
            pq.write_table(table, folder / task / f"{split}-00000-of-00001.parquet")
    configs = "".join(
        f"- config_name: {task}\n  data_files:\n  - split: val\n    path: {task}/val-*\n"
        f"  - split: test\n    path: {task}/test-*\n"
        for task in ("Counting", "Jigsaw")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return folder


def muirbench(folder: Path, rows: list[dict[str, Any]] | None = None) -> Path:
    row = {
        "idx": "0",
        "task": "Image-Text Matching",
        "image_relation": "Partial Similarity",
        "image_type": "Slides",
        "question": "Which of these shows <image>?",
        "options": ["<image>", "<image>", "None of the choices provided"],
        "answer": "B",
        "image_list": [stored("red"), stored("blue"), stored("red")],
        "counterpart_idx": "7",
    }
    text = ("idx", "task", "image_relation", "image_type", "question", "answer", "counterpart_idx")
    fields = [(name, pa.string()) for name in text]
    fields += [("options", pa.list_(pa.string())), ("image_list", pa.list_(_IMAGE))]
    path = folder / "test-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows or [row], pa.schema(fields)), path)
    return path


def mirb(folder: Path) -> Path:
    rows = [
        {"subset": "count", "questions": "How many?", "answers": "3", "image_list": [stored("red"), stored("blue")]},
        {"subset": "food", "questions": "Which? A. x B. y", "answers": "B", "image_list": [stored("red")]},
    ]
    fields = [(name, pa.string()) for name in ("subset", "questions", "answers")] + [("image_list", pa.list_(_IMAGE))]
    path = folder / "test-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), path)
    return path


def mirb_annotations(folder: Path) -> Path:
    zip_images(folder / "images.zip", {"count/red.png": "red", "count/blue.png": "blue"})
    rows = [{"questions": "How many?", "answers": 3, "images": ["images/count/red.png", "count/blue.png"]}]
    (folder / "count.json").write_text(json.dumps(rows))
    return folder


def vlmevalkit(folder: Path) -> Path:
    rows = [
        {"index": 1, "image": encoded("red"), "question": "Which?", "A": "red", "B": "blue", "answer": "A"},
        {"index": 2, "image": str([encoded("red"), encoded("blue")]), "question": "<image>, <image>?", "answer": "two"},
        {"index": 3, "image": "1", "hint": "Look.", "question": "Again?", "A": "red", "B": "blue", "answer": "B"},
    ]
    for row in rows:
        row.update({"category": "colour", "l2-category": "perception", "split": "dev"})
    return write_tsv(folder / "Bench.tsv", rows)
