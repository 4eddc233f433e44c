"""One training by several processes: what Paddle's launcher tells each of them, and its rules.

``python -m paddle.distributed.launch`` starts the same command several times, on one machine or on
many, and sets the PADDLE_* variables that are read here. Rank 0 is the run: it does every stage and
alone writes the output. The others (:mod:`job.pipeline.follower`) wait for it and train beside it.
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
_LAUNCH = "Start it with `python -m paddle.distributed.launch --nproc_per_node N job run ...`."


@dataclass(frozen=True)
class Group:
    """The processes that were started together, and which of them this one is.

    Attributes:
        rank: this process's number, from 0.
        size: how many there are, at least 2.
        host: of the endpoint of rank 0.
        port: of the endpoint of rank 0.
        neighbours: how many of them share this machine, this one among them.
    """

    rank: int
    size: int
    host: str
    port: int
    neighbours: int

    @property
    def leads(self) -> bool:
        """Whether this process is the run."""
        return self.rank == 0

    @property
    def name(self) -> str:
        """What messages call this process."""
        return f"rank {self.rank} of {self.size}"


@dataclass(frozen=True)
class Rendezvous:
    """Where a stage's process meets those of the other ranks: rank 0's store listens there."""

    rank: int
    size: int
    host: str
    port: int
    neighbours: int

    @classmethod
    def of(cls, group: Group, port: int) -> Self:
        """Return the meeting of a group at a port of rank 0's."""
        return cls(group.rank, group.size, group.host, port, group.neighbours)

    @property
    def place(self) -> tuple[int, int, str, int]:
        """What the engine needs to meet the others."""
        return self.rank, self.size, self.host, self.port

    def threads(self, cores: int) -> int:
        """Return this process's share of its machine's cores."""
        return max(1, cores // self.neighbours)

    def variables(self) -> dict[str, str]:
        """Return what a stage's process finds in its environment, see :func:`meeting_of`."""
        return {_VARIABLE: json.dumps(vars(self))}


def meeting_of(environment: Mapping[str, str]) -> Rendezvous | None:
    """Return where a stage's process meets others; None when it trains alone."""
    told = environment.get(_VARIABLE)
    return Rendezvous(**json.loads(told)) if told else None


def group_of(environment: Mapping[str, str]) -> Group | None:
    """Return the group that Paddle's launcher started this process in; None without others.

    Raises:
        UsageError: the variables do not fit together.
    """
    size = _number(environment, "PADDLE_TRAINERS_NUM", default="1")
    if size < 2:
        return None
    rank = _number(environment, "PADDLE_TRAINER_ID")
    endpoints = environment.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    if len(endpoints) != size or not rank < size:
        raise UsageError(
            f"PADDLE_TRAINERS_NUM is {size} and PADDLE_TRAINER_ID {rank}, but "
            f"PADDLE_TRAINER_ENDPOINTS names {len([e for e in endpoints if e])} processes",
            _LAUNCH,
        )
    hosts = [endpoint.rpartition(":")[0] for endpoint in endpoints]
    port = endpoints[0].rpartition(":")[2]
    if not hosts[0] or not port.isdigit():
        raise UsageError(
            f"PADDLE_TRAINER_ENDPOINTS: {endpoints[0]!r} is not HOST:PORT",
            _LAUNCH,
        )
    return Group(rank, size, hosts[0], int(port), hosts.count(hosts[rank]))


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    text = environment.get(name) or default
    if not text.isdigit():
        raise UsageError(f"{name}: {text!r} is no number", _LAUNCH)
    return int(text)


def identity(manifest: Manifest) -> str:
    """Return what all processes of a group must have in common."""
    made_of = json.dumps([job.__version__, manifest.resolved], sort_keys=True)
    return hashlib.sha256(made_of.encode()).hexdigest()


def check_shared(manifest: Manifest, size: int, index: int | None = None) -> None:
    """Refuse what several processes cannot train as one would.

    Args:
        manifest: of the run.
        size: how many processes there are.
        index: the model of a matrix that is wanted.

    Raises:
        UsageError: listing all that stands in the way.
    """
    faults = list(_faults(manifest, size, index))
    if faults:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise UsageError(
            f"{size} processes cannot train this together:{listed}",
            "Change it with --set, or start one process.",
        )


def _faults(manifest: Manifest, size: int, index: int | None) -> Iterator[str]:
    if manifest.matrix or index is not None:
        yield "/matrix: they train one model; give a manifest without a matrix"
        return
    train = manifest.train
    steps = train.epochs if train.max_iters is None else train.max_iters
    if manifest.quantize.strategy == "post" or steps == 0:
        yield "/quantize, /train: nothing is trained"
        return
    if train.batch_size % size:
        yield (
            f"/train/batch_size: {train.batch_size} images, of which each of {size} "
            "processes must get as many as the others"
        )
    if train.freeze_bn_stats is not True:
        yield (
            "/train/freeze_bn_stats: must be true, as each process would take batch norm's "
            "statistics from its own images"
        )
    if train.device != "cpu":
        yield f"/train/device: {train.device}, and processes share what they learn on CPU only"
