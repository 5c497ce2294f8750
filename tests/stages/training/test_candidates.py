"""The stage takes a candidate's checkpoint into its artifact as it was written, or refuses it by name."""

from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.checkpoints.state_files import INDEX, seal
from nemo_sspo.stages.training.train import take_in_candidate


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch" / "candidate_3"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "__0_0.distcp").write_bytes(b"weights of step 3")
    (folder / "weights" / "common.pt").write_bytes(b"common")
    seal(folder)
    return folder


def test_a_whole_candidate_is_taken_in_without_its_digests(candidate: Path, tmp_path: Path) -> None:
    target = tmp_path / "artifact" / "candidate_0"
    take_in_candidate(candidate, target)
    assert (target / "weights" / "__0_0.distcp").read_bytes() == b"weights of step 3"
    assert not (target / INDEX).exists()


def test_a_candidate_that_changed_after_its_digests_were_made_is_refused(candidate: Path, tmp_path: Path) -> None:
    file = candidate / "weights" / "__0_0.distcp"
    file.write_bytes(b"weights of step 4")
    target = tmp_path / "artifact" / "candidate_0"
    with pytest.raises(UserError) as refused:
        take_in_candidate(candidate, target)
    assert str(refused.value).startswith(f"{file}: differs from its digest: a candidate is damaged; `nemo-sspo redo")
    assert not target.exists()
