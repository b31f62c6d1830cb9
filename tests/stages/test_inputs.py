import pytest

from napo.errors import NapoError
from napo.stages.inputs import reference_folder
from napo.stages.session import open_session


@pytest.mark.parametrize("content", ["{}", "[1]", '{"folder": 3}'])
def test_a_damaged_name_of_the_reference_is_refused(tmp_path, content):
    session = open_session("smoke", str(tmp_path))
    current = session.workspace.data / "reference" / "current.json"
    current.parent.mkdir(parents=True)
    current.write_text(content)
    with pytest.raises(NapoError, match=r"current\.json is damaged \(.*run notebooks/01"):
        reference_folder(session)
