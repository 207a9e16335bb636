"""The machine and what is installed on it: versions, bridges, shadowed packages, devices and memory."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from studies.doctor.findings import Findings
from studies.doctor.memory import readable

LIBRARIES = ("torch", "torchvision", "transformers", "accelerate", "tokenizers", "numpy", "pyarrow")
"""What every audit runs on."""
BRIDGES = {"transformer-lens": "transformer_lens", "nnsight": "nnsight"}
"""Optional: distribution and module."""


def check_machine(findings: Findings, load: Callable[[str], Any] = import_module) -> None:
    """Report versions, bridges, shadowed packages, devices and memory.

    Args:
        findings: Where to report.
        load: Imports a module by name.
    """
    findings.section("libraries")
    for name in LIBRARIES:
        found = _version(name)
        if found is None:
            findings.problem(f"{name} is not installed: pip install {name}")
        else:
            findings.add(f"{name} {found}")
    for name, module in BRIDGES.items():
        findings.add(_bridge(name, module, load))
    check_imports(findings)
    findings.section("devices", devices())


def check_imports(findings: Findings, check: Callable[[], None] | None = None) -> None:
    """Report a package or folder that stands under one of our names.

    Args:
        findings: Where to report.
        check: Raises ImportError for such a package; by default the command's own first check.
    """
    from sightcheck import check_packages

    try:
        (check or check_packages)()
    except ImportError as error:
        findings.problem(str(error))
    else:
        findings.add("our packages are our own: none is shadowed")


def devices() -> list[str]:
    """One line for each device, with its memory."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    threads = torch.get_num_threads()
    lines = [f"cpu: {threads} threads, {readable(free_memory())} of {readable(memory.total)} free"]
    if group_room() is not None:
        lines.append("cpu: memory is limited by a control group, as containers and batch systems do")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        lines.append(f"cuda:{index}: {torch.cuda.get_device_name(index)}, {readable(free)} of {readable(total)} free")
    if torch.backends.mps.is_available():
        lines.append("mps: shares the cpu's memory")
    return lines


def free_bytes(device: Any) -> int | None:
    """Memory that is free on a device; None where it does not say."""
    import torch

    if device.type == "cpu":
        return free_memory()
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


def free_memory() -> int:
    """Bytes of main memory that this process can still have: what the machine has free, under its group's limit."""
    import psutil

    room = group_room()
    available = int(psutil.virtual_memory().available)
    return available if room is None else min(available, room)


def group_room(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes left under the limits of this process's control groups (version 2); None where nothing is limited.

    File pages that the kernel would give back count as free, as in the memory that a machine has available.

    Args:
        root: Where the groups are mounted.
        own: The file that names this process's group.
    """
    try:
        groups = [line.removeprefix("0::") for line in own.read_text().splitlines() if line.startswith("0::")]
    except OSError:
        return None
    rooms = []
    for group in groups:
        folder = root / group.lstrip("/")
        for each in (folder, *(parent for parent in folder.parents if parent.is_relative_to(root))):
            rooms += _room_of(each)
    return min(rooms, default=None)


def _room_of(group: Path) -> list[int]:
    """Bytes left under one group's limit; empty where it has none."""
    try:
        limit, used = ((group / f"memory.{name}").read_text().strip() for name in ("max", "current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return [] if limit == "max" else [max(int(limit) - int(used) + int(stat.get("inactive_file", 0)), 0)]
    # Groups differ between systems, and one that does not tell limits nothing that could be told.
    except (OSError, ValueError):
        return []


def _version(name: str) -> str | None:
    try:
        return installed(name)
    except PackageNotFoundError:
        return None


def _bridge(name: str, module: str, load: Callable[[str], Any]) -> str:
    found = _version(name)
    if found is None:
        return f"{name}: not installed (optional bridge; pip install 'sightcheck[bridges]')"
    try:
        load(module)
    # A bridge that breaks at its import raises whatever its own dependencies raise.
    except Exception as error:
        return f"{name} {found}: installed, and cannot be imported ({type(error).__name__}: {error}); optional"
    return f"{name} {found}: importable (optional bridge)"
