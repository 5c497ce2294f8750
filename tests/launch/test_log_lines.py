"""Which line of a log is shown, of logs as the stages and their libraries write them."""

import pytest

from nemo_sspo.launch.log_lines import failing_line, telling_line

CHATTER = [
    "Loading weights: 100%|██████████| 103/103 [00:00<00:00, 28847.04it/s]",
    "Epoch 0: : 8it [00:02,  3.1it/s]",
    "(MainProcess pid=9227) WARNING 11-30 01:04:58 [cpu_worker.py:140] CPU backend doesn't allow it, skip it.",
    "(MainProcess pid=9227) INFO 11-30 01:04:58 [block_pool.py:861] Successfully reset prefix cache",
    "[NeMo W 2026-11-30 01:04:47 __init__:442] The deploy module could not be imported: No module named 'deploy'",
    "[Gloo] Rank 0 is connected to 3 peer ranks. Expected number of connected peer ranks is : 3",
    "/x/torch/nn.py:64: FutureWarning: this will go away",
    "  warnings.warn(",
    "    ",
    "==========================",
]


@pytest.mark.parametrize("line", CHATTER)
def test_bars_and_remarks_of_libraries_are_passed_over(line):
    assert telling_line(["reads the prompts", line]) == "reads the prompts"
    assert telling_line([line]) == ""


def test_a_failed_step_shows_its_error_and_not_what_came_after_it():
    lines = [
        "starts",
        "Traceback (most recent call last):",
        '  File "x.py", line 1',
        "ValueError: no such head",
        *CHATTER,
    ]
    assert failing_line([*lines, "bye"]) == "ValueError: no such head"
    assert (
        failing_line(["[rank1]: RuntimeError: no peer", "torch.x.ChildFailedError: "])
        == "[rank1]: RuntimeError: no peer"
    )
    assert failing_line(["error: x.jsonl: line 3 is empty", "bye"]) == "error: x.jsonl: line 3 is empty"
    assert failing_line(["Killed", *CHATTER]) == "Killed"
    assert failing_line(CHATTER) == CHATTER[-1]  # better than nothing
    assert failing_line([]) == ""
