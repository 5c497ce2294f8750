"""Nothing that a guarded command starts outlives the process that asked for it."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from nemo_sspo.launch.local.guard import descendants, guarded
from tests.processes import is_running, words_of
from tests.waiting import wait_until

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
RUNNER = (
    "import subprocess, sys; from nemo_sspo.launch.local.guard import guarded; subprocess.run(guarded(sys.argv[1:]))"
)


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
        "from nemo_sspo.launch.local import guard; import sys; "
        "guard.GRACE_SECONDS = 0.3; sys.exit(guard.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", f"{stubborn}; time.sleep(300)", str(tmp_path / "ready")]
    process = subprocess.Popen([sys.executable, "-c", code, str(os.getpid()), "0", *command])
    wait_until((tmp_path / "ready").exists)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGKILL


# Like torchrun with a rank: the command takes SIGTERM for the end of it and its child, and would die of SIGUSR1; the
# child saves a state on SIGUSR1, which takes a while.
RANK = textwrap.dedent(
    """
    import os, pathlib, signal, sys, time
    def save(*_):
        time.sleep(float(sys.argv[2]))
        pathlib.Path(sys.argv[1] + ".state").touch()
        os._exit(85)
    signal.signal(signal.SIGUSR1, save)
    pathlib.Path(sys.argv[1]).touch()
    time.sleep(300)
    """
)
LAUNCHER = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', *sys.argv[1:]]).returncode)"


@pytest.mark.parametrize(
    ("save_seconds", "takes", "code", "saved"), [(20.0, "1", 85, True), (0.0, "1", 143, False), (0.5, "60", 143, False)]
)
def test_what_saves_its_state_is_told_by_itself_and_given_time(tmp_path, save_seconds, takes, code, saved):
    ready = tmp_path / "rank"
    command = [sys.executable, "-c", LAUNCHER, RANK, str(ready), takes]
    process = subprocess.Popen(guarded(command, save_seconds))
    wait_until(ready.exists)
    process.terminate()
    assert process.wait(20) == code
    assert (tmp_path / "rank.state").exists() == saved


def test_a_runner_that_dies_while_a_state_is_saved_is_not_waited_for(tmp_path):
    ready = tmp_path / "rank"
    runner = RUNNER.replace("sys.argv[1:]", "sys.argv[1:], 60.0")
    process = subprocess.Popen([sys.executable, "-c", runner, sys.executable, "-c", LAUNCHER, RANK, str(ready), "60"])
    wait_until(ready.exists)
    (guard,) = [pid for pid in descendants(process.pid) if "nemo_sspo.launch.local.guard" in words_of(pid)]
    below = descendants(guard)
    os.kill(guard, signal.SIGTERM)
    wait_until(lambda: is_running(guard))
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_running, [guard, *below])), 10)
