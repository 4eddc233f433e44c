"""Several processes of one run, started by Paddle's launcher or as it starts them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tiny_run import LIMIT_S, SLOW, Run

BIN = Path(sys.executable).parent
LAUNCH = ("-m", "paddle.distributed.launch", "--nproc_per_node", "2")
TOGETHER: tuple[str, ...] = ()


def launch(run: Run, *arguments: str) -> "subprocess.Popen[str]":
    """Start two processes with Paddle's own launcher; what rank 0 prints comes out of its pipe."""
    return subprocess.Popen(
        [sys.executable, *LAUNCH, "job", "run", "m.json", *arguments, *SLOW],
        cwd=run.folder,
        env=os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: "subprocess.Popen[str]") -> str:
    """Wait for the launcher's end and return what was printed."""
    text, _ = process.communicate(timeout=LIMIT_S)
    return text


def start_ranks(run: Run, *arguments: str, size: int = 2) -> list["subprocess.Popen[bytes]"]:
    """Start the processes with what the launcher tells them, but without it: it ends all when one
    ends. What rank N prints is in ``rankN.txt``."""
    endpoints = [f"127.0.0.1:{port}" for port in free_ports(size)]
    started = []
    for rank in range(size):
        told = {
            "PADDLE_TRAINERS_NUM": str(size),
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
            "PADDLE_CURRENT_ENDPOINT": endpoints[rank],
        }
        with (run.folder / f"rank{rank}.txt").open("wb") as stderr:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "job", "run", "m.json", *arguments, *SLOW],
                    cwd=run.folder,
                    env=os.environ | told,
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    start_new_session=True,
                )
            )
    return started


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports
