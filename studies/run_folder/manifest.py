"""What a run is: its config and digests, seeds, versions and times, and what makes a resumed run the same run.

Knows nothing of tables or of how a folder is laid out. No torch: package versions are read from their metadata.
"""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from probes.files import now
from probes.inputs import InputError
from studies.run_folder.tables import SCHEMA_VERSION

_PACKAGES = ("sightcheck", "torch", "torchvision", "transformers", "tokenizers", "numpy", "pillow", "pyarrow")


def package_versions() -> dict[str, str]:
    """Return the versions that numbers depend on, without importing the packages."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def plain_config(config: Any, name: str = "config") -> Any:
    """Return a config as JSON holds it: dataclasses and mappings as dicts, tuples as lists, paths as text.

    Raises:
        InputError: a value that JSON cannot hold, named by its dotted key.

    >>> plain_config({"model": Path("a/b"), "sizes": (1, 2)})
    {'model': 'a/b', 'sizes': [1, 2]}
    """
    if is_dataclass(config) and not isinstance(config, type):
        return plain_config(asdict(config), name)
    if isinstance(config, Mapping):
        return {str(key): plain_config(value, f"{name}.{key}") for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [plain_config(value, f"{name}[{position}]") for position, value in enumerate(config)]
    if isinstance(config, Path):
        return config.as_posix()
    if config is None or isinstance(config, str | bool | int):
        return config
    if isinstance(config, float) and config == config and abs(config) != float("inf"):
        return config
    raise InputError(f"{name} is {config!r}, which a manifest cannot hold: give text, a number, true, false or null")


def digest_of_config(config: Any) -> str:
    """Return the SHA-256 of a config's canonical JSON: the order of keys does not matter."""
    text = json.dumps(plain_config(config), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """The identity of a run. Two manifests describe the same run if config, batches, seeds and digests are equal."""

    config: Mapping[str, Any]
    """Everything that decides the numbers, as plain JSON."""
    batches: int
    """How many batches the plan has, numbered from 0."""
    seeds: Mapping[str, int] = field(default_factory=dict)
    model_digest: str | None = None
    data_digest: str | None = None
    versions: Mapping[str, str] = field(default_factory=package_versions)
    created: str = field(default_factory=now)
    resumed: tuple[str, ...] = ()
    """When the run was taken up again."""
    finished: str | None = None
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if isinstance(self.batches, bool) or not isinstance(self.batches, int) or self.batches < 1:
            raise InputError(f"a run needs at least one batch, not {self.batches!r}: are there any samples?")
        object.__setattr__(self, "config", plain_config(self.config))
        object.__setattr__(self, "seeds", plain_config(self.seeds, "seeds"))

    @property
    def config_digest(self) -> str:
        """SHA-256 of the config's canonical JSON."""
        return digest_of_config(self.config)

    def as_json(self) -> dict[str, Any]:
        """Return the manifest as it is written, the config's digest included."""
        content = {"schema_version": self.schema_version, "config_digest": self.config_digest, **asdict(self)}
        return {**content, "resumed": list(self.resumed)}

    @classmethod
    def from_json(cls, content: Any, source: str) -> Self:
        """Read a manifest.

        Raises:
            InputError: another schema version, a missing key, or a config that does not match its digest.
        """
        if not isinstance(content, dict) or "schema_version" not in content:
            raise InputError(f"{source} is not a run manifest: it has no schema_version")
        if content["schema_version"] != SCHEMA_VERSION:
            raise InputError(
                f"{source} was written with run schema {content['schema_version']}, and this Sightcheck reads schema "
                f"{SCHEMA_VERSION}: use the version that wrote it, or run again"
            )
        values = {key: value for key, value in content.items() if key != "config_digest"}
        try:
            manifest = cls(**{**values, "resumed": tuple(values["resumed"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"{source} is not a run manifest of schema {SCHEMA_VERSION}: {error}") from error
        if manifest.config_digest != content.get("config_digest"):
            raise InputError(f"{source}: the config does not match its digest, so it was edited after the run began")
        return manifest

    def differences(self, other: "Manifest") -> list[str]:
        """Return one line for each thing that makes ``other`` another run; empty if it is the same."""
        lines = [
            f"{key}: {_show(left)} before, {_show(right)} now"
            for key, left, right in _changes("config", self.config, other.config)
        ]
        for key in ("batches", "seeds", "model_digest", "data_digest"):
            lines += [
                f"{name}: {_show(left)} before, {_show(right)} now"
                for name, left, right in _changes(key, getattr(self, key), getattr(other, key))
            ]
        return lines

    def with_resume(self) -> "Manifest":
        """Return the manifest with one more time of resumption."""
        return replace(self, resumed=(*self.resumed, now()))


_ABSENT = object()


def _show(value: object) -> str:
    return "absent" if value is _ABSENT else repr(value)


def _changes(key: str, left: Any, right: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        for name in dict.fromkeys([*left, *right]):
            yield from _changes(f"{key}.{name}", left.get(name, _ABSENT), right.get(name, _ABSENT))
    elif type(left) is not type(right) or left != right:
        yield key, left, right
