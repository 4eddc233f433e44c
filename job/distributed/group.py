"""The process group of a training, and the checks of its manifest.

``python -m paddle.distributed.launch`` starts the same command several times, on one or on several
machines. It describes the group in the PADDLE_* variables. Rank 0 runs all stages. Only rank 0
writes the output. The other ranks (:mod:`job.pipeline.follower`) wait for rank 0 and train together
with it.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import job
from job.errors import UsageError
from job.manifest import Manifest

_VARIABLE = "JOB_TRAINING"
_LAUNCH = "Start the run with `python -m paddle.distributed.launch --nproc_per_node N job run ...`."


@dataclass(frozen=True)
class Group:
    """The processes that were started together, and the rank of this process.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes, at least 2.
        host: host of rank 0's endpoint.
        port: port of rank 0's endpoint.
        neighbours: number of processes on this machine, including this process.
    """

    rank: int
    size: int
    host: str
    port: int
    neighbours: int

    @property
    def leads(self) -> bool:
        """Whether this process is rank 0."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """Name of this process in messages, such as ``rank 1 of 4``."""
        return f"rank {self.rank} of {self.size}"


@dataclass(frozen=True)
class Rendezvous:
    """The address to which the training processes of all ranks connect. Rank 0 listens there."""

    rank: int
    size: int
    host: str
    port: int
    neighbours: int

    @classmethod
    def of(cls, group: Group, port: int) -> Self:
        """Return the rendezvous of a group at a port of rank 0's host."""
        return cls(group.rank, group.size, group.host, port, group.neighbours)

    @property
    def place(self) -> tuple[int, int, str, int]:
        """Rank, size, host and port, as the engine takes them."""
        return self.rank, self.size, self.host, self.port

    def threads(self, cores: int) -> int:
        """Return this process's share of the cores of its machine, at least 1."""
        return max(1, cores // self.neighbours)

    def variables(self) -> dict[str, str]:
        """Return the environment variables from which :func:`meeting_of` reads the rendezvous."""
        return {_VARIABLE: json.dumps(vars(self))}


def meeting_of(environment: Mapping[str, str]) -> Rendezvous | None:
    """Return the rendezvous of a stage's process; None if the process trains alone."""
    text = environment.get(_VARIABLE)
    return Rendezvous(**json.loads(text)) if text else None


def group_of(environment: Mapping[str, str]) -> Group | None:
    """Return the group in which Paddle's launcher started this process; None for one process.

    Raises:
        UsageError: the PADDLE_* variables contradict each other.
    """
    size = _number(environment, "PADDLE_TRAINERS_NUM", default="1")
    if size < 2:
        return None
    rank = _number(environment, "PADDLE_TRAINER_ID")
    endpoints = environment.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    if len(endpoints) != size or not rank < size:
        raise UsageError(
            f"PADDLE_TRAINERS_NUM is {size} and PADDLE_TRAINER_ID is {rank}, but "
            f"PADDLE_TRAINER_ENDPOINTS has {len([e for e in endpoints if e])} endpoints",
            _LAUNCH,
        )
    hosts = [endpoint.rpartition(":")[0] for endpoint in endpoints]
    port = endpoints[0].rpartition(":")[2]
    if not hosts[0] or not port.isdigit():
        raise UsageError(
            f"PADDLE_TRAINER_ENDPOINTS: expected HOST:PORT, found {endpoints[0]!r}",
            _LAUNCH,
        )
    return Group(rank, size, hosts[0], int(port), hosts.count(hosts[rank]))


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    text = environment.get(name) or default
    if not text.isdigit():
        raise UsageError(f"{name}: expected a number, found {text!r}", _LAUNCH)
    return int(text)


def identity(manifest: Manifest) -> str:
    """Return a hash that all processes of a group must have in common."""
    made_of = json.dumps([job.__version__, manifest.resolved], sort_keys=True)
    return hashlib.sha256(made_of.encode()).hexdigest()


def check_shared(manifest: Manifest, size: int, index: int | None = None) -> None:
    """Check that several processes give the same training as one process.

    Args:
        manifest: the manifest of the run.
        size: number of processes.
        index: position of the one model of a matrix to run; None without a matrix.

    Raises:
        UsageError: they would give another training; the message lists every fault.
    """
    faults = list(_faults(manifest, size, index))
    if faults:
        lines = "".join(f"\n  {fault}" for fault in faults)
        raise UsageError(
            f"{size} processes cannot train this manifest together:{lines}",
            "Change these keys with --set, or start one process.",
        )


def _faults(manifest: Manifest, size: int, index: int | None) -> Iterator[str]:
    if manifest.matrix or index is not None:
        yield "/matrix: several processes train one model; use a manifest without a matrix"
        return
    train = manifest.train
    steps = train.epochs if train.max_iters is None else train.max_iters
    if manifest.quantize.strategy == "post" or steps == 0:
        yield "/quantize, /train: expected training with at least 1 step, found no training"
        return
    if train.batch_size % size:
        yield (
            f"/train/batch_size: expected a multiple of {size} (the number of processes), found "
            f"{train.batch_size}"
        )
    if train.freeze_bn_stats is False:
        yield (
            "/train/freeze_bn_stats: expected true or null, found false; each process would "
            "compute its own batch-norm statistics"
        )
    if train.device != "cpu":
        yield f"/train/device: expected cpu, found {train.device}; several processes need cpu"
