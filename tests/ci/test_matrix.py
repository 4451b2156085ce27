"""Matrix files: the cells they come to, and what is said of the wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmk.ci.baseline import read_baseline
from lmk.ci.matrix import DEFAULT_MATRIX, load_matrix
from lmk.ci.runner import shard
from lmk.errors import ConfigErrors, UserError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "matrix.yaml"
    path.write_text(text)
    return path


def test_cells_are_the_product_less_what_is_excluded_and_those_written_out(tmp_path: Path) -> None:
    matrix = load_matrix(
        write(
            tmp_path,
            """
configs: [go-1gb, phone-2gb]
scenarios: [app-switching, one-leaker]
policies: [lmkd, earlyoom]
kernels: ["6.12", "6.1"]
exclude:
  - {config: go-1gb, policy: earlyoom}
  - {kernel: "6.1", scenario: one-leaker}
cells:
  - {config: phone-4gb, scenario: camera-burst, target: qemu}
""",
        )
    )
    keys = [cell.key for cell in matrix.cells]
    assert len(keys) == len(set(keys)) == 16 - 4 - 3 + 1
    assert "phone-4gb/camera-burst/lmkd/6.12/qemu" in keys
    assert not any("go-1gb" in key and "earlyoom" in key for key in keys)
    assert not any("one-leaker" in key and "/6.1/" in key for key in keys)


def test_the_kernel_is_the_configs_own_unless_named(tmp_path: Path) -> None:
    matrix = load_matrix(write(tmp_path, "configs: [phone-2gb]\nscenarios: [one-leaker]\n"))
    assert [cell.kernel for cell in matrix.cells] == ["6.12"]


def test_files_are_found_beside_the_matrix(tmp_path: Path) -> None:
    shipped = load_matrix(DEFAULT_MATRIX)
    (tmp_path / "mine.yaml").write_text(shipped.config_files["go-1gb"].read_text())
    matrix = load_matrix(write(tmp_path, "configs: [mine.yaml]\nscenarios: [one-leaker]\n"))
    assert matrix.config_files == {"go-1gb": tmp_path / "mine.yaml"}


def test_policies_that_only_the_simulator_has_are_not_asked_of_the_emulator(tmp_path: Path) -> None:
    text = "configs: [go-1gb]\nscenarios: [one-leaker]\npolicies: [lmkd, oomd]\ntargets: [sim, qemu]\n"
    cells = load_matrix(write(tmp_path, text)).cells
    assert {(cell.policy, cell.target) for cell in cells} == {("lmkd", "sim"), ("lmkd", "qemu"), ("oomd", "sim")}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("configs: [phone-2g]\nscenarios: [one-leaker]\n", "did you mean phone-2gb?"),
        ("configs: [phone-2gb]\nscenarios: [one-leeker]\n", "did you mean one-leaker?"),
        ("config: [phone-2gb]\nscenarios: [one-leaker]\n", "did you mean configs?"),
        ("configs: [phone-2gb]\nscenarios: [one-leaker]\npolicies: [lmk]\n", "did you mean lmkd?"),
        ("configs: [phone-2gb]\nscenarios: [one-leaker]\nkernels: ['4.19']\n", "4.19"),
        ("configs: [phone-2gb]\nscenarios: [one-leaker]\nreplicas: 0\n", "replicas"),
        ("configs: [phone-2gb]\n", "no cell at all"),
        ("cells: [{config: phone-2gb}]\n", "scenario: is missing"),
    ],
)
def test_mistakes_are_named_with_line_and_remedy(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        load_matrix(write(tmp_path, text))
    assert words in " ".join(str(error) for error in caught.value.errors)
    assert str(tmp_path / "matrix.yaml") in str(caught.value)


def test_shards_part_the_cells() -> None:
    cells = load_matrix(DEFAULT_MATRIX).cells
    parts = [shard(cells, f"{i}/4") for i in range(1, 5)]
    assert sorted(cell for part in parts for cell in part) == sorted(cells)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "/2"])
def test_a_wrong_shard_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match="not I/N"):
        shard(load_matrix(DEFAULT_MATRIX).cells, text)


def test_every_shipped_cell_has_a_baseline_and_no_other_has() -> None:
    matrix = load_matrix(DEFAULT_MATRIX)
    baseline = read_baseline(matrix.baseline_path)
    assert baseline is not None
    assert set(baseline.cells) == {cell.key for cell in matrix.cells}
    assert {cell.target for cell in matrix.cells} == {"sim", "qemu"}
