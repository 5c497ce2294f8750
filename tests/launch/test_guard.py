"""Nothing that a guarded command starts outlives the process that asked for it."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from nemo_sspo.launch.guard import descendants, guarded
from tests.launch.conftest import wait_until
from tests.processes import is_running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prctl and /proc")

# A command with a child in its own session and a grandchild whose parent is gone; it writes their pids.
FAMILY = textwrap.dedent(
    """
    import os, subprocess, sys, time
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    orphan = subprocess.run(["sh", "-c", "sleep 300 >/dev/null 2>&1 & echo $!"], capture_output=True, text=True)
    print(os.getpid(), child.pid, orphan.stdout.strip(), file=open(sys.argv[1] + ".tmp", "w"))
    os.rename(sys.argv[1] + ".tmp", sys.argv[1])
    if sys.argv[2] == "stay":
        time.sleep(300)
    """
)
RUNNER = "import subprocess, sys; from nemo_sspo.launch.guard import guarded; subprocess.run(guarded(sys.argv[1:]))"


def family(path, what) -> list[str]:
    return [sys.executable, "-c", FAMILY, str(path), what]


def pids_in(path) -> list[int]:
    wait_until(path.exists)
    return [int(word) for word in path.read_text().split()]


@pytest.mark.parametrize(("script", "code"), [("exit(7)", 7), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_commands_exit_code_is_the_guards(script, code):
    assert subprocess.run(guarded([sys.executable, "-c", script]), timeout=30).returncode == code


def test_a_command_that_is_not_there_is_bad_input():
    done = subprocess.run(guarded(["/no/such/python"]), capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (
        2,
        "error: cannot start /no/such/python (No such file or directory)\n",
    )


def test_arguments_reach_the_command_as_they_are():
    odd = ["$(touch canary)", "a b", "`id`", "; exit 3", "'\"", "line\nbreak", "*"]
    script = "import sys, json; print(json.dumps(sys.argv[1:]))"
    done = subprocess.run(guarded([sys.executable, "-c", script, *odd]), capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout) == odd


def test_what_the_command_leaves_behind_is_ended(tmp_path):
    assert subprocess.run(guarded(family(tmp_path / "pids", "leave")), timeout=30).returncode == 0
    assert not any(map(is_running, pids_in(tmp_path / "pids")))


def test_sigterm_ends_the_command_and_all_below_it(tmp_path):
    process = subprocess.Popen(guarded(family(tmp_path / "pids", "stay")))
    pids = pids_in(tmp_path / "pids")
    assert set(pids) <= set(descendants(process.pid))
    process.terminate()
    assert process.wait(15) == 128 + signal.SIGTERM
    assert not any(map(is_running, pids))


def test_kill_9_of_the_runner_ends_the_command_and_all_below_it(tmp_path):
    runner = subprocess.Popen([sys.executable, "-c", RUNNER, *family(tmp_path / "pids", "stay")])
    pids = pids_in(tmp_path / "pids")
    os.kill(runner.pid, signal.SIGKILL)
    runner.wait()
    wait_until(lambda: not any(map(is_running, pids)), 10)


def test_a_command_that_ignores_sigterm_is_killed_after_the_grace(tmp_path):
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(__import__('sys').argv[1], 'w')"
    )
    code = (
        "from nemo_sspo.launch import guard; import sys; guard.GRACE_SECONDS = 0.3; sys.exit(guard.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", f"{stubborn}; time.sleep(300)", str(tmp_path / "ready")]
    process = subprocess.Popen([sys.executable, "-c", code, str(os.getpid()), *command])
    wait_until((tmp_path / "ready").exists)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGKILL
