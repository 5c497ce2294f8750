"""What is killed is all that was started, sessions of their own included, and only once the condition holds."""

import subprocess
import sys
import time

from nemo_sspo.doctor.interruption import killed_when
from tests.processes import is_running

# A process that starts another one in a session of its own, tells its number and waits.
_PARENT = (
    "import subprocess, sys; "
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True); "
    "print(child.pid, flush=True); child.wait()"
)


def test_everything_below_is_killed(tmp_path):
    flag = tmp_path / "flag"
    with killed_when(flag.exists) as cut:
        process = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        child = int(process.stdout.readline())
        time.sleep(0.1)
        assert process.poll() is None
        assert not cut.happened
        flag.touch()
        assert process.wait(10) == -9
    assert cut.happened
    assert not is_running(child)
    process.stdout.close()


def test_nothing_is_killed_after_the_block(tmp_path):
    flag = tmp_path / "flag"
    with killed_when(flag.exists) as cut:
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.3)"])
    flag.touch()
    assert process.wait(10) == 0
    assert not cut.happened
