"""What is said of a place that was given for a folder of images and is none."""

from pathlib import Path

import pytest

from e2eft.corpora.corpus import CorpusError, survey
from tests.corpora import write_plain_corpus


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("photos.tar.gz", "is an archive; unpack it"),
        ("photos.ZIP", "is an archive; unpack it"),
        ("list.csv", "is a list; give the folder that holds the images"),
        ("files.txt", "is a list; give the folder that holds the images"),
        ("one.JPG", "is a single image; give the folder that holds it"),
        ("README", "is a file; give a folder of images"),
    ],
)
def test_a_file_is_no_folder(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    for given in (f"{tmp_path}/{name}", f"{tmp_path}/{name}/"):
        with pytest.raises(CorpusError) as caught:
            survey(given, 8)
        assert str(caught.value).startswith(f"--images {given} {said}")


def test_a_typo_is_told_with_what_was_meant(tmp_path: Path) -> None:
    write_plain_corpus(tmp_path / "photos-2024", 1)
    with pytest.raises(CorpusError) as caught:
        survey(f"{tmp_path}/photo-2024", 8)
    meant = f"did you mean {tmp_path}/photos-2024?"
    assert str(caught.value) == f"--images {tmp_path}/photo-2024 is not there; {meant}"
    with pytest.raises(CorpusError, match=r"other is not there$"):
        survey(f"{tmp_path}/other", 8)


def test_an_empty_folder_is_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"^no images at .*empty; found there: nothing$"):
        survey(f"{tmp_path}/empty", 8)
