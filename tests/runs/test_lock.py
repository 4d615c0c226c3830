"""Two trainings in one run directory: the second says who is there, and everything stays as it is."""

import pytest

from scoliojax.errors import RunError
from scoliojax.runs.lock import only_training, refuse_other_training
from tests.conftest import assert_one_clear_error, run_here
from tests.data_pipelines.test_locks import start_holder
from tests.scripts import chaos


def test_a_second_training_says_who_is_there_and_goes_on_when_that_is_killed(tmp_path):
    workdir = tmp_path / "run"
    with only_training(workdir):
        assert (workdir / ".lock").exists()
    assert not workdir.exists()
    holder = start_holder(workdir / ".lock")
    words = (f"--workdir={workdir} is being trained in (process {holder.pid} on host ", "since 20", "give another --workdir")
    for dry in ([], ["--dry-run"]):
        refused = run_here("scoliojax.main", *chaos.RUN, f"--workdir={workdir}", *dry)
        assert_one_clear_error(refused, *words)
        assert refused.returncode == 2
    assert [path.name for path in workdir.iterdir()] == [".lock"]
    holder.kill()
    holder.communicate()
    refuse_other_training(workdir)  # a lock that is left over is none
    refuse_other_training(workdir / "none")
    assert [path.name for path in workdir.iterdir()] == [".lock"]
    with only_training(workdir):
        pass
    assert not list(workdir.iterdir())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match=r"--workdir=.*file/run cannot be written \(Not a directory\)"),
        only_training(tmp_path / "file" / "run"),
    ):
        raise AssertionError
