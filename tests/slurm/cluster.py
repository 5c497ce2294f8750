"""A real Slurm of four nodes on this host: controller, four slurmd and munge, all below one temporary directory.

Ports are chosen free and nothing of the system's configuration is read or written. Every daemon runs under the local
runner's guard: it ends with everything that it started, jobs and their step daemons, also when the tests are killed.
The nodes have eight GPUs each that are null devices: Slurm deals them out, nobody computes on them.
"""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from nemo_sspo.launch.local.guard import guarded
from tests.processes import is_running
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[2]
NODES = 4
GPUS = 8
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_CONFIGURATION = """
ClusterName=nemosspo
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={base}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool/%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.%n.pid
SlurmctldLogFile={base}/log/slurmctld.log
SlurmdLogFile={base}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0,max_rpc_cnt=0
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
MailProg=/bin/true
JobRequeue=1
MinJobAge=60
KillWait=5
WaitTime=2
SlurmctldTimeout=30
SlurmdTimeout=30
SlurmdParameters=config_overrides
GresTypes=gpu
Licenses=slot:2
DefMemPerCPU=100
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{first}-{last}] CPUs=16 RealMemory=16000 {gres}
PartitionName=main Nodes=n[1-{nodes}] Default=YES MaxTime=1-00:00:00 State=UP
"""


def missing() -> str:
    """Why Slurm cannot be started here; "" where it can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if absent:
        return f"no {', '.join(absent)} (Debian: slurm-wlm munge; `make test-slurm` installs them as root)"
    return "" if os.geteuid() == 0 else "several slurmd on one host are started as root here"


class SlurmCluster:
    """Started by `start`, ended by `stop`, whatever happened in between."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="slurm."))
        own = {"SLURM_CONF": str(self.base / "slurm.conf"), "PATH": _PATH, "PYTHONPATH": str(REPOSITORY)}
        self.environment = {**os.environ, **own}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start everything and wait until all nodes are idle."""
        for name in ("state", "log", "munge", "gpus", *(f"spool/n{number}" for number in range(1, NODES + 1))):
            (self.base / name).mkdir(parents=True)
        self.base.chmod(0o755)
        for number in range(GPUS):
            os.mknod(self.base / "gpus" / f"gpu{number}", 0o666 | 0o020000, os.makedev(1, 3))
        self._configure()
        self._start_munge()
        self._daemon("slurmctld", "-D", "-c")
        for number in range(1, NODES + 1):
            self._daemon("slurmd", "-D", "-N", f"n{number}")
        wait_until(lambda: self.idle_nodes() == NODES, 30, "the start of Slurm's nodes")

    def stop(self) -> None:
        """Cancel every job, end every daemon, remove every file."""
        subprocess.run(["scancel", "--user=root"], env=self.environment, capture_output=True)
        deadline = time.monotonic() + 15
        while self.run("squeue", "--noheader", check=False).strip() and time.monotonic() < deadline:
            time.sleep(0.2)
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            daemon.wait(30)
        shutil.rmtree(self.base, ignore_errors=True)

    def run(self, *command: str, check: bool = True) -> str:
        """Call one of Slurm's commands."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, (command, done.stderr)
        return done.stdout

    def _accepts(self, *command: str) -> bool:
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=60).returncode == 0

    def idle_nodes(self) -> int:
        """Nodes that run nothing and could."""
        return len(self.run("sinfo", "--noheader", "-N", "-t", "idle", "-o", "%N", check=False).split())

    def lose_node(self, node: str) -> None:
        """Have a node go down under its jobs."""
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def regain_nodes(self) -> None:
        """Bring back what is down; a node also comes back by itself once its slurmd speaks up (ReturnToService)."""
        for node in self.run("sinfo", "--noheader", "-N", "-t", "down,drain", "-o", "%N").split():
            self.run("scontrol", "update", f"nodename={node}", "state=resume", check=False)
        wait_until(lambda: self.idle_nodes() == NODES, 30, "the return of all nodes")

    def tell_to_stop(self, job: str) -> None:
        """What Slurm does before a time limit or a preemption: SIGUSR1 to the job's script alone."""
        self.run("scancel", "--batch", "--signal=USR1", job)

    def nodes_of(self, job: str) -> list[str]:
        """Nodes that a running job has, its first one first."""
        listed = self.run("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip()
        return self.run("scontrol", "show", "hostnames", listed).split()

    def raise_limit(self, job: str, minutes: int) -> None:
        """Give a job more time, its later attempts too; tried again while Slurm is queueing it anew."""
        words = ("scontrol", "update", f"jobid={job}", f"timelimit={minutes}")
        wait_until(lambda: self._accepts(*words), 30, f"the longer limit of job {job}")

    def logs(self) -> str:
        """The ends of the daemons' logs, for a test that failed."""
        return "\n".join(
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in sorted((self.base / "log").glob("*"))
        )

    def _configure(self) -> None:
        ports = free_ports(NODES + 1)
        gres = f"Gres=gpu:h100:{GPUS} State=UNKNOWN"
        text = _CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            user="root",
            base=self.base,
            controller=ports[0],
            nodes=NODES,
            first=ports[1],
            last=ports[-1],
            gres=gres,
        )
        (self.base / "slurm.conf").write_text(text)
        devices = self.base / "gpus" / f"gpu[0-{GPUS - 1}]"
        (self.base / "gres.conf").write_text(f"NodeName=n[1-{NODES}] Name=gpu Type=h100 File={devices}\n")

    def _start_munge(self) -> None:
        munge = self.base / "munge"
        munge.chmod(0o711)
        (munge / "key").write_bytes(secrets.token_bytes(1024))
        (munge / "key").chmod(0o600)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={munge / name}" for option, name in files.items()]
        self._daemon("munged", "--foreground", "--force", "--num-threads=2", *options)
        wait_until(lambda: (munge / "socket").exists(), 10, "the start of munge")

    def _daemon(self, *command: str) -> None:
        with (self.base / "log" / f"{command[0]}.out").open("ab") as out:
            self._daemons.append(
                subprocess.Popen(
                    guarded(list(command)), env=self.environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
                )
            )


def free_ports(count: int) -> list[int]:
    """A run of adjacent free ports."""
    for first in range(21000, 29000, 97):
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
            return list(range(first, first + count))
    raise AssertionError("no free ports")


def processes_in(base: Path) -> list[int]:
    """Processes whose environment or command line names the cluster's directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if os.fsencode(base) in text and is_running(int(entry.name)):
                found.append(int(entry.name))
    return found
