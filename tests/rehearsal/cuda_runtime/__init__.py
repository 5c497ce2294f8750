"""A pretended H100: two small libraries in place of CUDA's runtime and driver, and the environment that loads them.

torch's own CUDA build then finds a device, and `FakeTensorMode` works on it: streams, events and device guards are
those of a GPU. Nothing is computed: whoever launches a kernel here gets garbage, so all tensors must be fake.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

_HERE = Path(__file__).parent
_BUILD = Path(sys.prefix) / "pretended_cuda"
_RUNTIME, _DRIVER = _BUILD / "libcudart_pretended.so", _BUILD / "libcuda.so.1"


def build() -> None:
    """Compile both libraries where they are older than their source. Needs gcc, and the headers that torch brings."""
    for source, library in ((_HERE / "cudart.c", _RUNTIME), (_HERE / "driver.c", _DRIVER)):
        if library.exists() and library.stat().st_mtime >= source.stat().st_mtime:
            continue
        if shutil.which("gcc") is None:
            raise SystemExit("gcc: not here; install it, the rehearsal compiles its stand-in for the CUDA runtime")
        _BUILD.mkdir(exist_ok=True)
        draft = library.with_suffix(f".{os.getpid()}")
        flags = ["-shared", "-fPIC", "-O1", *(f"-I{folder}" for folder in _headers())]
        subprocess.run(["gcc", *flags, "-o", str(draft), str(source), "-ldl"], check=True)
        draft.rename(library)


def _headers() -> list[Path]:
    """The CUDA runtime's, and what they include, which its wheel leaves out and Triton's has."""
    site = Path(sysconfig.get_paths()["purelib"])
    folders = [site / "nvidia/cuda_runtime/include", site / "triton/backends/nvidia/include"]
    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise SystemExit(f"{missing[0]}: not here; install a CUDA build of torch (requirements/rehearsal.txt)")
    return folders


def environment() -> dict[str, str]:
    """What a process needs from its start on to see the pretended device."""
    return {
        "LD_PRELOAD": str(_RUNTIME),
        "LD_LIBRARY_PATH": str(_BUILD),
        # Transformer Engine's Python, which then loads no library of its own: `transformer_engine.py` stands for it.
        # Another version of it, which is laid over this one, goes before it.
        "PYTHONPATH": os.pathsep.join([os.environ.get("PYTHONPATH", ""), str(Path(sys.prefix) / "transformer_engine")]),
        "NVTE_PROJECT_BUILDING": "1",
        # megatron-core compiles an extension while it is imported. There is no nvcc to do it with; another machine's,
        # and a lock that it left behind, must not be met.
        "TORCH_CUDA_ARCH_LIST": "9.0",
        "TORCH_EXTENSIONS_DIR": str(_BUILD / "extensions"),
        # As every GPU job has it.
        "CUDA_DEVICE_MAX_CONNECTIONS": "1",
        # torch.compile has nothing to compile for: see `kernels.py`.
        "TORCHDYNAMO_DISABLE": "1",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def is_pretended() -> bool:
    """Whether this process sees the pretended device."""
    return os.environ.get("LD_PRELOAD") == str(_RUNTIME) and _RUNTIME.exists()
