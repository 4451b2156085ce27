"""Checking a series patch by patch, on a tree that is a few files: what is compiled, what is remembered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from lmk import resources
from lmk.errors import InfraError, UserError
from lmk.kernel import kconfig
from lmk.kernel.bases import get_base
from lmk.kernel.series import load_series
from lmk.kernel.series_check import Place, Subject, objects, run_checks
from lmk.kernel.source import KernelSource, from_tree
from lmk.kernel.toolchain import find_toolchain
from lmk.progress import silent

MAKEFILE = """\
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 1
mrproper allnoconfig prepare:
olddefconfig: ; cp $(KCONFIG_ALLCONFIG) .config
%.o: %.c FORCE ; grep -q CONFIG_FTRACE=y .config || D=-DNO_TRACING; gcc $(KCFLAGS) $$D -c -o $@ $<
FORCE:
"""
PATCH = """\
Subject: one
---
diff --git a/mm/oom_kill.c b/mm/oom_kill.c
--- a/mm/oom_kill.c
+++ b/mm/oom_kill.c
@@ -1 +1,2 @@
 int first;
+int second;
--- a/include/trace/events/oom.h
+++ b/include/trace/events/oom.h
@@ -1 +1,2 @@
 /* events */
+/* one more */
"""
#: Compiles with tracing only.
HALF = """\
Subject: two
---
diff --git a/mm/oom_kill.c b/mm/oom_kill.c
--- a/mm/oom_kill.c
+++ b/mm/oom_kill.c
@@ -1,2 +1,5 @@
 int first;
 int second;
+#ifdef NO_TRACING
+#warning not without tracing
+#endif
"""
WHOLE = HALF.replace("#warning", "/* nothing */ //")


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], list[str]]]:
    """Check a series of these patches; what is wrong, and what was said."""
    monkeypatch.setenv("LMK_CACHE", str(tmp_path / "cache"))
    tree, patches = tmp_path / "tree", tmp_path / "patches"
    for name, text in {
        "Makefile": MAKEFILE,
        "mm/oom_kill.c": "int first;\n",
        "include/trace/events/oom.h": "/* events */\n",
        "scripts/checkpatch.pl": "exit 0;\n",
    }.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    source = from_tree(tree, get_base("6.12"))
    fragment = tmp_path / "fragment"
    fragment.write_text("CONFIG_FTRACE=y\n")
    wishes = tuple(kconfig.merge([fragment]))

    def checker(*texts: str) -> tuple[list[str], list[str]]:
        (patches / "6.12").mkdir(parents=True, exist_ok=True)
        names = [f"000{i}-patch.patch" for i in range(1, len(texts) + 1)]
        for name, text in zip(names, texts, strict=True):
            (patches / "6.12" / name).write_text(text)
        (patches / "6.12" / "series").write_text("\n".join(names) + "\n")
        subject = Subject(
            series=load_series(patches, "6.12"), source=source, toolchain=find_toolchain("x86_64"), wishes=wishes
        )
        said: list[str] = []
        return run_checks(Place.of(subject), 1, silent, said.append), said

    return checker


def test_objects_of_the_files_that_a_patch_touches() -> None:
    assert objects(["mm/oom_kill.c", "include/linux/sched/signal.h"]) == ("kernel/signal.o", "mm/oom_kill.o")
    assert objects(["tools/testing/selftests/mm/process_reap_test.c"]) == ()
    assert objects(["kernel/cgroup/cgroup.c", "mm/oom_kill.c"], ("CONFIG_CGROUPS",)) == ("mm/oom_kill.o",)


def test_a_patch_that_fails_with_an_option_off(check: Callable[..., tuple[list[str], list[str]]]) -> None:
    bad, said = check(PATCH, HALF)
    assert [text.split(":", 2)[:2] for text in bad] == [["0002-patch.patch", " no tracing, 1 objects"]]
    assert "not without tracing" in bad[0]
    assert [line.rsplit(": ", 1)[1] for line in said] == ["ok"] * 7 + ["FAILED"]
    # Once more: only what failed; mended: everything of the second patch, nothing of the first.
    bad, said = check(PATCH, HALF)
    assert [line.rsplit(": ", 1)[1] for line in said] == ["passed before"] * 7 + ["FAILED"]
    bad, said = check(PATCH, WHOLE)
    assert bad == []
    assert [line.rsplit(": ", 1)[1] for line in said] == ["passed before"] * 4 + ["ok"] * 4
    bad, said = check(PATCH, WHOLE)
    assert [line.rsplit(": ", 1)[1] for line in said] == ["passed before"] * 8


def test_a_reworded_message_is_only_read_again(check: Callable[..., tuple[list[str], list[str]]]) -> None:
    check(PATCH)
    bad, said = check(PATCH.replace("Subject: one", "Subject: better"))
    assert bad == []
    assert [line.rsplit(": ", 1)[1] for line in said] == ["passed before"] * 3 + ["ok"]
    assert "checkpatch: ok" in said[-1]


def test_an_interrupted_check_goes_on(
    check: Callable[..., tuple[list[str], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: Place, one: object, jobs: int) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Place, "compile", interrupted)
        with pytest.raises(KeyboardInterrupt):
            check(PATCH, WHOLE)
    unpacked: list[object] = []
    monkeypatch.setattr("lmk.kernel.source.unpack", lambda *args: unpacked.append(args))
    bad, said = check(PATCH, WHOLE)
    assert bad == []
    assert unpacked == []
    assert [line.rsplit(": ", 1)[1] for line in said] == ["passed before"] * 2 + ["ok"] * 6


def test_a_tree_left_in_the_middle_of_a_patch_is_not_used(
    check: Callable[..., tuple[list[str], list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("lmk.kernel.series_check.apply_patch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            check(PATCH)
    assert check(PATCH)[0] == []


def test_a_patch_that_does_not_apply_is_named(check: Callable[..., tuple[list[str], list[str]]]) -> None:
    with pytest.raises(InfraError, match=r"0002-patch\.patch does not apply"):
        check(PATCH, PATCH)


def test_each_check_has_a_key_of_its_own() -> None:
    source = KernelSource(kind="package", path=Path("x.deb"), version="1", digest="1")
    subject = Subject(
        series=load_series(resources.data_dir("android-kernel-patch"), "6.12"),
        source=source,
        toolchain=find_toolchain("x86_64"),
        wishes=(),
    )
    checks = subject.checks()
    assert len({check.key for check in checks}) == len(checks)
    assert {check.what for check in checks} >= {"all on", "no tracing", "no DEBUG_MM_SHARING", "no cgroups"}
    other = attrs.evolve(subject, source=attrs.evolve(source, version="2"))
    assert not {check.key for check in checks} & {check.key for check in other.checks()}


def test_only_one_check_at_a_time(tmp_path: Path) -> None:
    source = KernelSource(kind="package", path=Path("x.deb"), version="1", digest="1")
    series = load_series(resources.data_dir("android-kernel-patch"), "6.12")
    subject = Subject(series=series, source=source, toolchain=find_toolchain("x86_64"), wishes=())
    place = Place(directory=tmp_path / "6.12", subject=subject)
    with place.lock(), pytest.raises(UserError, match="being checked already"), place.lock():
        pass
