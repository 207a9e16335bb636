"""The served page, once for all tests of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.studies.explorer.pages import Served, served


@pytest.fixture(scope="package")
def explorer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home: Path = tmp_path_factory.mktemp("explorer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(home / "gradio"))
        with served(home) as page:
            yield page
