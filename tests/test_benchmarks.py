"""What the kernels' benchmarks write."""
import json

import pytest

from benchmarks.common import Report


def written(path, rows, parts=()):
    report = Report(3)
    report.rows = [{"part": part, "value": value} for part, value in rows]
    report.close("python -m benchmarks.some", path, parts)
    return json.loads(path.read_text())


def test_a_part_measured_anew_replaces_its_own_rows_alone(tmp_path):
    path = tmp_path / "rows.json"
    first = written(path, [("forward", 1.23456), ("training", 2.0)])
    assert [(row["part"], row["value"]) for row in first["rows"]] == [("forward", 1.235), ("training", 2.0)]
    path.write_text(json.dumps(first | {"rows": [row | {"commit": "before"} for row in first["rows"]]}))
    found = written(path, [("training", 3.0)], ("training",))["rows"]
    assert [(row["part"], row["value"]) for row in found] == [("forward", 1.235), ("training", 3.0)]
    assert [row["commit"] for row in found] == ["before", first["commit"]]
    assert [row["value"] for row in written(path, [("skew", 4.0)])["rows"]] == [4.0], "all parts: nothing stays"


def test_rows_of_another_machine_are_not_mixed_in(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(written(path, [("forward", 1.0)]) | {"machine": "another"}))
    before = path.read_bytes()
    with pytest.raises(SystemExit, match=r"rows\.json: was measured with machine another"):
        written(path, [("training", 3.0)], ("training",))
    assert path.read_bytes() == before
