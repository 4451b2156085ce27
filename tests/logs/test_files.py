"""Whatever logs come in."""

from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from lmk.errors import UserError
from lmk.logs.files import find_logs

TEXT = "first\nsecond \u00e9\n"


def lines(path: Path) -> list[str]:
    return [line for log in find_logs(path) for line in log.lines()]


def test_plain_and_gzip(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(TEXT)
    (tmp_path / "b.log.gz").write_bytes(gzip.compress(TEXT.encode()))
    assert lines(tmp_path / "a.log") == lines(tmp_path / "b.log.gz") == ["first", "second é"]


def test_a_directory_is_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("a\n")
    (tmp_path / "b.log").write_text("b")
    assert lines(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_with_its_mark(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.log").write_bytes(("\ufeff" + TEXT.replace("\n", "\r\n")).encode(encoding))
    assert lines(tmp_path / "a.log") == ["first", "second é"]


def test_bytes_that_are_no_text_stay_visible(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"a\xff\xfeb\r\n" + b"x" * 200)
    assert lines(tmp_path / "a.log") == ["a\\xff\\xfeb", "x" * 200]


def test_a_bug_report_is_its_main_entry_and_the_kernels_logs(tmp_path: Path) -> None:
    path = tmp_path / "bugreport.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("main_entry.txt", "bugreport-x.txt")
        archive.writestr("bugreport-x.txt", "report\n")
        archive.writestr("version.txt", "2.0")
        archive.writestr("FS/sys/fs/pstore/console-ramoops-0", "kernel\n")
        archive.writestr("FS/data/misc/logd/logcat.01.gz", gzip.compress(b"old\n"))
        archive.writestr("FS/data/anr/anr_1", "trace\n")
    assert sorted(lines(path)) == ["kernel", "old", "report"]


def test_any_zip_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "logs.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "a\n")
        archive.writestr("picture.png", b"\x89PNG" + bytes(3000))
    assert lines(path) == ["a"]


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "cut.gz").write_bytes(gzip.compress(TEXT.encode() * 1000)[:60])
    (tmp_path / "binary").write_bytes(bytes(5000))
    (tmp_path / "empty").mkdir()
    with zipfile.ZipFile(tmp_path / "no.zip", "w") as archive:
        archive.writestr("x.bin", bytes(3000))
    with pytest.raises(UserError, match="cannot be read"):
        lines(tmp_path / "cut.gz")
    for name, words in (("binary", "not text"), ("empty", "no files"), ("no.zip", "no log"), ("none", "No such file")):
        with pytest.raises(UserError, match=words):
            lines(tmp_path / name)


def test_android_studios_export(tmp_path: Path) -> None:
    header = {"logLevel": "INFO", "pid": 501, "tid": 502, "tag": "lmkd", "timestamp": {"seconds": 17, "nanos": 5000000}}
    log = {"metadata": {"device": {}}, "logcatMessages": [{"header": header, "message": "one\ntwo"}]}
    (tmp_path / "a.logcat").write_text(json.dumps(log, indent=2))
    (tmp_path / "b.logcat").write_text(json.dumps(log)[:-9])
    assert lines(tmp_path / "a.logcat") == ["17.005 501 502 I lmkd: one", "17.005 501 502 I lmkd: two"]
    assert len(lines(tmp_path / "b.logcat")) == 1
