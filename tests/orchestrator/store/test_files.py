"""Files on a real disk: what a listing shows while its folder comes into being."""

import threading
from pathlib import Path

from orchestrator.store.files import Files

FOLDERS = 500


def test_listing_a_folder_that_another_creates_at_that_moment_is_never_refused(tmp_path: Path) -> None:
    """pyarrow fails if a folder that it could not read is there when it looks whether there is one."""
    files, listed = Files.open(str(tmp_path)), [threading.Event() for _ in range(FOLDERS)]

    def create() -> None:
        for number in range(FOLDERS):
            listed[number].wait()
            (tmp_path / str(number)).mkdir()

    threading.Thread(target=create, daemon=True).start()
    for number in range(FOLDERS):
        listed[number].set()
        while not (tmp_path / str(number)).exists():
            assert files.listing(str(number)) == []
