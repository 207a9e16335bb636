"""Raw rows of a data set on the Hugging Face hub, through ``datasets``.

Knows the library and no benchmark format. No torch. Images stay encoded: nothing is decoded here.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from probes.inputs import InputError
from probes.reading.sources import RawRow, Source

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
PREFERRED_SPLITS = ("test", "val", "validation", "dev")


def is_hub_id(value: str) -> bool:
    """Return whether a text has the form of a hub id, ``owner/name``."""
    return bool(_HUB_ID.fullmatch(value))


def read_hub(
    name: str,
    split: str | None = None,
    subset: str | None = None,
    streaming: bool = True,
    preferred: Sequence[str] = PREFERRED_SPLITS,
) -> Source:
    """Read all rows of a data set.

    Args:
        name: hub id, or a local folder laid out as on the hub.
        split: the split to read. By default the first of ``preferred`` that is there, or the only one there is.
        subset: the configuration; by default all of them, one after the other.
        streaming: read rows as they arrive, without a copy on disk.
        preferred: the order in which a split is chosen.

    Raises:
        InputError: no such data set, configuration or split, or no access to it.
    """
    import datasets

    try:
        subsets = [subset] if subset else datasets.get_dataset_config_names(name)
        rows: list[RawRow] = []
        read = []
        for config in subsets:
            chosen = split or _choose(datasets.get_dataset_split_names(name, config), preferred, name)
            data = datasets.load_dataset(name, config, split=chosen, streaming=streaming)
            rows += _rows(_encoded(data), name, config, chosen)
            read.append(f"{config}/{chosen}")
    except InputError:
        raise
    # The library raises its own, the network's, the file system's and Arrow's errors, and wraps none of them.
    except Exception as error:
        raise InputError(f"the data set {name} cannot be read: {_one_line(error)}") from error
    return Source(tuple(rows), f"data set {name} through `datasets`: {', '.join(read)}")


def _choose(splits: Sequence[str], preferred: Sequence[str], name: str) -> str:
    for wanted in preferred:
        if wanted in splits:
            return wanted
    if len(splits) == 1:
        return splits[0]
    raise InputError(f"the data set {name} has the splits {', '.join(splits)}: choose one")


def _encoded(data: Any) -> Any:
    """Keep images as they are stored; decoding is done late, under caps."""
    if data.features is None:
        return data
    return data.cast(_without_decoding(data.features))


def _without_decoding(features: Any) -> Any:
    import datasets

    if isinstance(features, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(features, datasets.Features):
        return datasets.Features({key: _without_decoding(value) for key, value in features.items()})
    if isinstance(features, dict):
        return {key: _without_decoding(value) for key, value in features.items()}
    if isinstance(features, datasets.List):
        return datasets.List(_without_decoding(features.feature), length=features.length)
    return features


def _rows(data: Any, name: str, config: str, split: str) -> Iterator[RawRow]:
    root = Path(name) if Path(name).is_dir() else Path()
    for number, values in enumerate(data, start=1):
        place = f"{name} {config}/{split} row {number}"
        yield RawRow(place=place, values=values, root=root, source=config, split=split, number=number)


def _one_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
