"""Test programs taken out of patches."""

from __future__ import annotations

from pathlib import Path

from lmk.kernel.selftests import new_files, programs

PATCH = """\
From 0000 Mon Sep 17 00:00:00 2001
Subject: [PATCH] selftests: add one

---
diff --git a/tools/testing/selftests/mm/Makefile b/tools/testing/selftests/mm/Makefile
index 1..2 100644
--- a/tools/testing/selftests/mm/Makefile
+++ b/tools/testing/selftests/mm/Makefile
@@ -1 +1,2 @@
 a
+b
diff --git a/tools/testing/selftests/mm/one_test.c b/tools/testing/selftests/mm/one_test.c
new file mode 100644
index 0..3
--- /dev/null
+++ b/tools/testing/selftests/mm/one_test.c
@@ -0,0 +1,3 @@
+int main(void)
+
++1;
"""


def test_only_new_files_with_their_whole_content() -> None:
    assert new_files(PATCH) == {"tools/testing/selftests/mm/one_test.c": "int main(void)\n\n+1;\n"}


def test_upstream_programs_are_found_under_either_name(tmp_path: Path) -> None:
    (tmp_path / "vm").mkdir()
    (tmp_path / "vm" / "mrelease_test.c").touch()
    (tmp_path / "pidfd").mkdir()
    for name in ("pidfd.h", "pidfd_wait.c", "pidfd_open_test.c"):
        (tmp_path / "pidfd" / name).touch()
    found = {program.name: program for program in programs({"mm/one_test.c": ""}, tmp_path)}
    upstream = ["mrelease_test", "mrelease_test_reap", "upstream_pidfd_open_test", "upstream_pidfd_wait"]
    assert sorted(found) == sorted(["one_test", *upstream])
    assert found["mrelease_test_reap"].sources == ("vm/mrelease_test.c",)
    assert found["mrelease_test_reap"].replace == (("syscall(__NR_process_mrelease", "syscall(600"),)
