"""What NCCL and gloo find: InfiniBand's ports, locked memory for them, and the interfaces that variables name."""

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from nemo_sspo.config.experiment import Experiment
from nemo_sspo.doctor.check import Check, judged

INFINIBAND = Path("/sys/class/infiniband")
INTERFACES = Path("/sys/class/net")
HOSTS = Path("/etc/hosts")
_INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


def network_checks(experiment: Experiment, *, many_nodes: bool) -> Iterator[Check]:
    """Ports where there are some, interfaces where variables name them, and this node's name where nodes must meet.

    Args:
        many_nodes: whether ranks of several nodes will meet.
    """
    yield from _ports()
    variables = {**os.environ, **experiment.cluster.train.variables}
    for name in _INTERFACE_VARIABLES:
        if given := variables.get(name):
            yield _interface(name, given)
    if many_nodes and not all(variables.get(name) for name in _INTERFACE_VARIABLES):
        yield _own_name(os.uname().nodename)


def _ports() -> Iterator[Check]:
    states = {
        f"{state.parents[2].name}:{state.parent.name}": state.read_text().split(":")[-1].strip()
        for state in sorted(INFINIBAND.glob("*/ports/*/state"))
    }
    if not states:
        return
    active = [port for port, state in states.items() if state == "ACTIVE"]
    down = ", ".join(f"{port} {state}" for port, state in states.items() if state != "ACTIVE")
    advice = f"nodes talk over TCP, or over fewer ports: {down} (ibstat; the cable, or the subnet manager)"
    found = f"{len(active)} of {len(states)} ports active"
    yield judged("InfiniBand", not down, found, advice=advice, otherwise="warning" if active else "failed")
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    locked = "unlimited" if soft == resource.RLIM_INFINITY else f"{soft // 1024} KiB"
    advice = (
        "InfiniBand registers memory by locking it: ulimit -l unlimited, in /etc/security/limits.conf, for slurmd "
        "(LimitMEMLOCK=infinity) and for containers (docker run --ulimit memlock=-1)"
    )
    yield judged("locked memory", soft == resource.RLIM_INFINITY, locked, "unlimited", advice=advice)


def _interface(name: str, given: str) -> Check:
    """Names as NCCL reads them: a list of beginnings, whole names behind a ``=``, those to leave out behind a ``^``."""
    here = [path.name for path in INTERFACES.iterdir()] if INTERFACES.is_dir() else []
    sign = given[0] if given[0] in "^=" else ""
    words = [word.partition(":")[0] for word in given.removeprefix(sign).split(",")]
    # gloo takes whole names alone.
    is_whole = sign == "=" or name.startswith("GLOO")
    named = {face for face in here for word in words if (face == word if is_whole else face.startswith(word))}
    left = set(here) - named - {"lo"} if sign == "^" else named
    advice = (
        f"{name}={given}: `ip -br link` names the interfaces; correct it in cluster.train.variables or in the shell"
    )
    return judged(name, bool(left), "there" if left else "no such interface", advice=advice)


def _own_name(name: str) -> Check:
    """Nodes meet at the address of a node's name; 127.0.1.1 is each node's own."""
    addresses = _addresses(HOSTS, name)
    loops = sorted(address for address in addresses if address.startswith("127.") or address == "::1")
    advice = "the ranks of other nodes would look for this one at home: give NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME"
    found = ", ".join(loops) or "not a loopback address"
    return judged("this node's name", not loops, found, advice=advice, otherwise="warning")


def _addresses(hosts: Path, name: str) -> list[str]:
    try:
        lines = [re.sub("#.*", "", line).split() for line in hosts.read_text(errors="replace").splitlines()]
    except OSError:
        return []
    return [words[0] for words in lines if name in words[1:]]
