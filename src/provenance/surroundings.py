"""What a run is surrounded by: packages, hardware, the command, the environment that bears on figures. Imports no torch.

No secret, user or host name and no home folder is among it.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path

# What changes figures, or which device makes them.
_ENVIRONMENT = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "CUDA_DEVICE_ORDER", "CUDA_LAUNCH_BLOCKING", "CUDA_VISIBLE_DEVICES",
    "KMP_AFFINITY", "MKL_CBWR", "MKL_DYNAMIC", "MKL_NUM_THREADS", "NCCL_ALGO", "NCCL_PROTO", "NUMEXPR_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_NUM_THREADS", "PIXELWISE_MAX_MEGAPIXELS",
    "PYTHONHASHSEED", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ENABLE_MPS_FALLBACK", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "SLURM_JOB_NUM_NODES", "SLURM_NTASKS", "WORLD_SIZE",
)  # fmt: skip
_INSTALLED = re.compile(r"(.+?)-(\d[^-]*)(?:-py[\d.]+)?\.(?:dist|egg)-info")
_SECRET = re.compile(r"(token|secret|passw|api_?key|credential|auth)", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)[^/@\s]+@")  # user:password@


def packages() -> dict[str, str]:
    """Versions of all installed packages, by name: as their folders have it, since to read all their metadata takes long."""
    found: dict[str, str] = {}
    for folder in map(Path, sys.path):
        with contextlib.suppress(OSError):
            for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
                if named := _INSTALLED.fullmatch(entry.name):
                    found.setdefault(named[1].replace("_", "-").lower(), named[2])
    return dict(sorted(found.items()))


def python() -> str:
    """Python's version."""
    return platform.python_version()


def program_version() -> str | None:
    """This program's, where it is installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("pixelwise")
    return None


def command() -> list[str]:
    """The command line, as it can be typed again: `python -m src.train …`."""
    words = list(sys.orig_argv)
    if words:
        words[0] = Path(words[0]).name
    return [_without_secret(without_home(word)) for word in words]


def environment() -> dict[str, str]:
    """The variables that bear on figures, as far as they are set."""
    return {name: without_home(os.environ[name]) for name in _ENVIRONMENT if name in os.environ}


def hardware() -> dict[str, str | int | float | list[str] | None]:
    """Processor, its cores, memory in GiB, and the system."""
    memory = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {"cpu": _cpu(), "cores": os.cpu_count(), "memory_gib": memory, "system": platform.platform()}


def without_home(text: str) -> str:
    """Text with `~` for the user's home folder."""
    with contextlib.suppress(RuntimeError):
        home = str(Path.home())
        if len(home) > 1:
            return re.sub(rf"{re.escape(home)}(?=[/\\]|$|[^\w.-])", "~", text)
    return text


def _without_secret(word: str) -> str:
    key, equals, value = word.partition("=")
    if equals and _SECRET.search(key):
        return f"{key}=***"
    return f"{key}{equals}{_IN_URL.sub('***@', value)}" if equals else _IN_URL.sub("***@", word)


def _cpu() -> str:
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()
