"""What the GPU benchmarks share: their options, a process group of one rank, and where a result goes.

`--device cpu --small` runs the same lines on a processor, on shapes that mean nothing: so do the tests.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

import torch
import torch.distributed as dist

from benchmarks.table import Benchmark

# Packages of which a number depends; those that are installed are named with it.
_NAMED = ("transformer-engine", "megatron-core", "nemo-toolkit", "triton", "liger-kernel", "llm-blender")


@dataclass(frozen=True)
class Place:
    """Where a benchmark runs, and whether its numbers mean anything."""

    device: str
    small: bool

    @property
    def counts(self) -> bool:
        """Whether the result is one to keep: a GPU's, of the full size."""
        return self.device == "cuda" and not self.small

    def publish(self, benchmark: Benchmark) -> None:
        """Print the table; keep it for the page where it counts."""
        if self.counts:
            replace(benchmark, machine=gpu()).publish()
        else:
            print(benchmark.markdown(), flush=True)


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the two options of all GPU benchmarks."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    made.add_argument("--small", action="store_true", help="tiny shapes: shows that it runs, measures nothing")
    return made


def place_of(options: argparse.Namespace) -> Place:
    """The place that the options ask for. Exits where the machine is another one."""
    has_gpu = torch.cuda.is_available()
    if options.device == "cuda" and not has_gpu:
        raise SystemExit("error: no CUDA device here; --device cpu --small runs the same lines on a processor")
    if options.device == "cpu" and has_gpu:
        raise SystemExit("error: --device cpu on a machine with a GPU: hide it, CUDA_VISIBLE_DEVICES= python -m ...")
    # NGC's containers let fp32 products round to TF32; truths are taken in fp32 here.
    torch.set_float32_matmul_precision("highest")
    return Place(options.device, options.small)


@contextmanager
def one_rank(place: Place) -> Iterator[dist.ProcessGroup]:
    """The group of this process alone."""
    if place.device == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group("nccl" if place.device == "cuda" else "gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield dist.group.WORLD
    finally:
        dist.destroy_process_group()


def gpu() -> str:
    """What the numbers were measured on: the GPU and the versions; no name of a machine and no path."""
    found = [torch.cuda.get_device_name(), f"torch {torch.__version__}", f"CUDA {torch.version.cuda}"]
    for package in _NAMED:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
