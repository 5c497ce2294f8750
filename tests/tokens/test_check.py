"""Programs that load a tokenizer by themselves are asked first whether they read it as its file says."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from nemo_sspo.tokens.check import main
from tests.json_edit import edit
from tests.rollout.tiny_policy import make_policy


def test_a_class_that_reads_a_file_otherwise_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "its tokenizer cannot be loaded" in capsys.readouterr().err
    policy = make_policy(tmp_path / "policy")
    assert main([str(policy)]) == 0
    edit(policy / "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")  # no <unk> is in the file
    assert main([str(policy)]) == 2
    assert "gives other tokens than" in capsys.readouterr().err
