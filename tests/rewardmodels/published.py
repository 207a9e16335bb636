"""Small rows of each published format of preferences, written as their authors lay them out."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.studies.published import encoded, png, save_images, stored, write_lines, write_tsv

__all__ = ["COCO", "encoded", "png", "save_images", "stored", "write_json", "write_lines", "write_parquet", "write_tsv"]

Row = dict[str, Any]
COCO = "coco/train2014/red.png"


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_parquet(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def own_row(name: str = "a", **changes: Any) -> Row:
    row = {
        "id": name,
        "prompt": [
            {"role": "system", "text": "Be brief."},
            {"role": "user", "text": "1 <image> 2 <image> Which is red?", "images": ["red.png", "blue.png"]},
        ],
        "responses": [
            {"text": "The second.", "model": "small"},
            {"text": "The first.", "model": "large", "score": 4.5},
            "Neither.",
        ],
        "ranks": [1, 0, 1],
        "target": 0,
        "boxes": [[0, 0, 2, 2.5]],
        "group": "colour",
        "source": "made",
        "base": "b",
        "margin": 0.5,
        "weight": 2,
        "meta": {"size": 4},
    }
    return {**row, **changes}


def annotation(helpful: Any, ethical: Any, faithful: Any) -> Row:
    ratings = {"Helpfulness": helpful, "Ethical Considerations": ethical, "Visual Faithfulness": faithful}
    return {aspect: {"Rating": rating, "Rationale": "because"} for aspect, rating in ratings.items()}


RATINGS = (("4", "5", "4"), ("5", "5", "5"), ("4", "4", "5"), ("1", "N/A", "2"))
"""Means 13/3, 5, 13/3 (a tie, though added up in another order), and one that is no number."""


def vlfeedback_row(as_lists: bool, ratings: tuple[tuple[Any, Any, Any], ...] = RATINGS, **changes: Any) -> Row:
    models = [f"model-{place}" for place in range(len(ratings))]
    responses = [f"answer {place}" for place in range(len(ratings))]
    annotations = [annotation(*rating) for rating in ratings]
    completions: Any = [
        {"annotations": note, "model": model, "response": response}
        for note, model, response in zip(annotations, models, responses, strict=True)
    ]
    if as_lists:
        completions = {"annotations": annotations, "model": models, "response": responses}
    row = {"id": "LRV-1", "prompt": "What is it?", "models": models, "completions": completions, "img_path": "red.png"}
    return {**row, **changes}


def generalizable_row(**changes: Any) -> Row:
    row = {
        "id": "",
        "prompt": "What is it?",
        "img_path": "/cluster/merged/images/red.png",
        "chosen": "Red.",
        "rejected": "Blue.",
    }
    return {**row, **changes}


def rlhf_v_row(text: Any = None, **changes: Any) -> Row:
    answered = {"question": "What is it?", "chosen": "Red.", "rejected": "Blue."}
    row = {
        "ds_name": "RLHF-V",
        "image": stored("red"),
        "origin_dataset": "vqav2",
        "origin_split": '{"split": "train"}',
        "idx": 7,
        "image_path": "coco/red.png",
    }
    return {**row, **(answered if text is None else {"text": text(answered)}), **changes}


def povid_row(**changes: Any) -> Row:
    def conversation(answer: str) -> list[Row]:
        return [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": answer}]

    row = {
        "id": "000000033471",
        "image": COCO,
        "conversations": conversation("Red."),
        "rejected_conversations": conversation("Blue."),
    }
    return {**row, **changes}


def said(role: str, content: Any) -> Row:
    return {"role": role, "content": content}


def words(text: str) -> list[Row]:
    """As `HuggingFaceH4/rlaif-v_formatted` holds text: every key in every block."""
    return [{"index": None, "text": text, "type": "text"}]


def trl_row(**changes: Any) -> Row:
    row = {
        "images": [stored("red")],
        "prompt": [said("user", [{"index": 0, "text": None, "type": "image"}, *words("What is it?")])],
        "chosen": [said("assistant", words("Red."))],
        "rejected": [said("assistant", words("Blue."))],
    }
    return {**row, **changes}


def implicit_row(content: Any = "What is it?", **changes: Any) -> Row:
    row = {
        "image": stored("red"),
        "chosen": [said("system", "Be brief."), said("user", content), said("assistant", "Red.")],
        "rejected": [said("system", "Be brief."), said("user", content), said("assistant", "Blue.")],
    }
    return {**row, **changes}


def ms_swift_row(**changes: Any) -> Row:
    row = {
        "messages": [said("user", "<image>What is it?"), said("assistant", "Red.")],
        "images": ["red.png"],
        "rejected_response": "Blue.",
    }
    return {**row, **changes}


def llama_factory_row(**changes: Any) -> Row:
    row = {
        "conversations": [{"from": "human", "value": "<image>What is it?"}],
        "chosen": {"from": "gpt", "value": "Red."},
        "rejected": {"from": "gpt", "value": "Blue."},
        "images": ["red.png"],
    }
    return {**row, **changes}


def vl_rewardbench_row(name: str = "RLAIF-V-12", **changes: Any) -> Row:
    row = {
        "id": name,
        "query": "What is it?",
        "response": ["Blue.", "Red."],
        "image": stored("red"),
        "human_ranking": [1, 0],
        "models": ["small", "large"],
        "judge": "human",
        "rationale": "",
        "query_source": "x",
        "ground_truth": "",
    }
    return {**row, **changes}


def vl_rewardbench_tsv_row(index: Any = 3, **changes: Any) -> Row:
    row = {
        "index": index,
        "image": encoded("red"),
        "question": "What is it?",
        "response": "['Blue.', 'Red.']",
        "answer": "[1, 0]",
        "category": "hallucination",
    }
    return {**row, **changes}


def multimodal_rewardbench_row(name: str = "mathvista_117", **changes: Any) -> Row:
    row = {
        "ID": name,
        "Text": "What is it?",
        "Image": "images/red.png",
        "Output1": "Blue.",
        "Output2": "Red.",
        "Better": "Output2",
        "Category": "reasoning",
    }
    return {**row, **changes}


def mmrb2_row(**changes: Any) -> Row:
    row = {
        "pair_id": "blink_1",
        "prompt_source": "blink",
        "prompt_content": [["text", "Which "], ["image", "input_images/red.png"], ["text", " is it?"]],
        "prompt_metadata": {"id": "1"},
        "response_a": {"model": "a", "response_content": [["image", "images/blue.png"]]},
        "response_b": {
            "model_name": "b",
            "response_content": [["text", "See "], ["image", "images/red.png"], ["text", "."]],
        },
        "chosen": "B",
        "human_annotations": [1, 2, 1],
    }
    return {**row, **changes}


def mm_rlhf_row(**changes: Any) -> Row:
    row = {
        "id": "0737",
        "image": "mcq/red.png",
        "prompt": "What is it?",
        "chosen": "Red.",
        "rejected": "Blue.",
        "chosen_reason": "right",
        "rejected_reason": "",
    }
    return {**row, **changes}


def rewardbench_row(**changes: Any) -> Row:
    row = {
        "id": 30,
        "prompt": "One and one?",
        "chosen": "2",
        "chosen_model": "a",
        "rejected": "3",
        "rejected_model": "b",
        "subset": "math-prm",
    }
    return {**row, **changes}


def rewardbench_2_row(**changes: Any) -> Row:
    row = {
        "id": "9",
        "prompt": "Name a colour.",
        "chosen": ["Red."],
        "rejected": ["Dog.", "Cat.", "Sun."],
        "num_correct": 1,
        "num_incorrect": 3,
        "total_completions": 4,
        "models": ["a", "b", "c", "d"],
        "subset": "Factuality",
        "additional_metadata": {"category": None},
    }
    return {**row, **changes}


def rm_bench_row(**changes: Any) -> Row:
    row = {
        "id": 11,
        "prompt": "Name a colour.",
        "chosen": ["Red.", "It is red.", "It is **red**."],
        "rejected": ["Dog.", "It is a dog.", "It is a **dog**."],
        "domain": "safety-refuse",
    }
    return {**row, **changes}


def examples(folder: Path) -> dict[str, Path]:
    """One file of each format, named as in `FORMATS`, with its images."""
    save_images(folder, "red", "blue")
    save_images(folder / "coco" / "train2014", "red")
    save_images(folder / "mcq", "red")
    save_images(folder / "images", "red", "blue")
    save_images(folder / "input_images", "red")
    return {
        "sightcheck": write_lines(folder / "own.jsonl", [own_row()]),
        "vlfeedback": write_lines(folder / "vlfeedback_80k.jsonl", [vlfeedback_row(True)]),
        "generalizable-mm-rm": write_lines(folder / "povid_pairs.jsonl", [generalizable_row()]),
        "rlhf-v": write_parquet(folder / "rlhf-v.parquet", [rlhf_v_row(json.dumps)]),
        "rlaif-v": write_parquet(folder / "rlaif-v.parquet", [rlhf_v_row(ds_name="RLAIF-V")]),
        "povid": write_json(folder / "povid_version_1.json", [povid_row()]),
        "trl": write_parquet(folder / "trl.parquet", [trl_row()]),
        "ms-swift": write_lines(folder / "swift.jsonl", [ms_swift_row()]),
        "llama-factory": write_json(folder / "sharegpt.json", [llama_factory_row()]),
        "vl-rewardbench": write_parquet(folder / "vlrb.parquet", [vl_rewardbench_row()]),
        "vl-rewardbench-tsv": write_tsv(folder / "vl_rewardbench.tsv", [vl_rewardbench_tsv_row()]),
        "multimodal-rewardbench": write_json(folder / "all_data.json", [multimodal_rewardbench_row()]),
        "mmrb2": write_json(folder / "interleaved.json", {"pairs": [mmrb2_row()]}),
        "mm-rlhf-rewardbench": write_lines(folder / "mm_reward_bench.jsonl", [mm_rlhf_row()]),
        "rewardbench": write_parquet(folder / "rb.parquet", [rewardbench_row()]),
        "rewardbench-2": write_parquet(folder / "rb2.parquet", [rewardbench_2_row()]),
        "rm-bench": write_json(folder / "total_dataset.json", [rm_bench_row()]),
    }
