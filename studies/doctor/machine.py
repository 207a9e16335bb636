"""The machine and what is installed on it: versions, bridges, shadowed packages, devices and memory."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
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
    lines = [f"cpu: {threads} threads, {readable(memory.available)} of {readable(memory.total)} free"]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        lines.append(f"cuda:{index}: {torch.cuda.get_device_name(index)}, {readable(free)} of {readable(total)} free")
    if torch.backends.mps.is_available():
        lines.append("mps: shares the cpu's memory")
    return lines


def free_bytes(device: Any) -> int | None:
    """Memory that is free on a device; None where it does not say."""
    import psutil
    import torch

    if device.type == "cpu":
        return int(psutil.virtual_memory().available)
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


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
