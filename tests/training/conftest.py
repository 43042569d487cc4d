import pytest
import small_training


@pytest.fixture(scope="package")
def prepared(tmp_path_factory):
    """Tokens of one small dataset; files with needs of their own have a fixture of this name."""
    return small_training.prepare(tmp_path_factory.mktemp("prepared"))
