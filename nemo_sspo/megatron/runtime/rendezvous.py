"""How the ranks of several machines find each other: the first one serves a store and writes down where.

The kernel chooses the store's port, so that it cannot be taken; its address is in a file of the run, which every
node can read. The file's name belongs to one attempt of one step: no node connects to an earlier attempt's store.
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from torch.distributed import TCPStore

from nemo_sspo.errors import UserError

RENDEZVOUS_SECONDS = 600.0
"""How long a node waits for the first one to come up."""
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Node:
    """One of the machines of a training job."""

    rank: int
    count: int
    rendezvous: Path | None
    """File with the store's address; None where there is one machine."""


THIS_MACHINE = Node(0, 1, None)


def meet(node: Node) -> tuple[TCPStore | None, str, int]:
    """The store that this node serves (the first node alone does), and its host and port.

    Raises:
        TimeoutError: the first node did not come up in time. It may have been slow (an image to fetch), so this
            counts as a failed attempt.
        UserError: the first node's name has no address here.
        ConnectionError: it may have one, but no name server answers; a failed attempt too.
    """
    if node.rank:
        assert node.rendezvous is not None
        host, port = find(node.rendezvous)
        _require_address(host, "the first node's name")
        return None, host, port
    host = "127.0.0.1" if node.rendezvous is None else socket.gethostname()
    if node.rendezvous is not None:
        _require_address(host, "this node's own name")
    store = TCPStore(host, 0, is_master=True, wait_for_workers=False)
    if node.rendezvous is not None:
        announce(node.rendezvous, host, store.port)
    return store, host, store.port


def _require_address(host: str, whose: str) -> None:
    """Torch would try for minutes, and not say which name it was."""
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        kind = ConnectionError if error.errno == socket.EAI_AGAIN else UserError
        raise kind(
            f"{socket.gethostname()}: {whose}, {host}, has no address here ({error.strerror}), so nodes cannot meet; "
            "put it into the site's DNS or every node's /etc/hosts"
        ) from None


def announce(rendezvous: Path, host: str, port: int) -> None:
    """Write down where the store is, whole or not at all."""
    rendezvous.parent.mkdir(parents=True, exist_ok=True)
    draft = rendezvous.with_name(f".{rendezvous.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps({"host": host, "port": port}))
    os.replace(draft, rendezvous)


def find(rendezvous: Path, seconds: float | None = None) -> tuple[str, int]:
    """Wait for the place to be written down; its host and port."""
    limit = RENDEZVOUS_SECONDS if seconds is None else seconds
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        try:
            place = json.loads(rendezvous.read_bytes())
        except FileNotFoundError:
            time.sleep(_POLL_SECONDS)
            continue
        return place["host"], place["port"]
    raise TimeoutError(
        f"{rendezvous}: the first node did not announce itself within {limit:g} s; is the run on a file system "
        "that every node sees?"
    )
