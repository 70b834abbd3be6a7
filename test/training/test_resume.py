"""What a training may write over, and that it is alone in its folder."""

import pytest
import torch

from balaitous.training.resume import CHECKPOINT_FILE, RECORD_FILE, Resumable

MADE_BY = {"steps": 3, "seed": 0}


@pytest.mark.parametrize(
    ("name", "content"),
    [("weights.safetensors", "mine"), (CHECKPOINT_FILE, "mine"), (RECORD_FILE, "{}"), (RECORD_FILE, '{"epochs": 3}')],
)
def test_files_that_no_such_training_wrote_are_not_overwritten(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} is there already, and not from an earlier run of this command"):
        Resumable(tmp_path, MADE_BY, ["weights.safetensors"]).load()
    assert (tmp_path / name).read_text() == content


def test_a_training_goes_on_in_its_folder_and_no_other_one_beside_it(tmp_path):
    first = Resumable(tmp_path, MADE_BY, ["weights.safetensors"])
    assert first.load() is None
    first.begin()
    (tmp_path / "weights.safetensors").write_text("its own")
    first.save({"step": torch.tensor(1)})
    second = Resumable(tmp_path, MADE_BY, ["weights.safetensors"])
    assert second.load() == {"step": torch.tensor(1)}
    with pytest.raises(ValueError, match="only run that writes there"):
        second.begin()
    del first
    second.begin()
