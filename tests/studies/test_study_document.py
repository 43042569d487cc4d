"""What a study's page says of how it was made."""

import json

import pytest

from flan_jax.studies import document, records
from flan_jax.studies.document import Shown
from flan_jax.studies.kinds import recipe


@pytest.fixture
def written(settings_of, tmp_path):
    """(commands, what writes a page without any result and returns its text and study.json)."""
    commands = recipe.plan(settings_of("recipe", JUDGED_BY=("sst2",), POINTS=({},), STUDY_DIR=str(tmp_path)))

    def write():
        paths = document.write(tmp_path / "page", "a", "q", "s", commands, Shown(("said",), {}, (), {}), ["again"])
        return paths["md"].read_text(), json.loads(paths["json"].read_text())

    return commands, write


def test_the_code_of_the_steps_stands_beside_that_of_the_page(written, monkeypatch):
    """One revision stood for all of it, though steps had been taken by another."""
    commands, write = written
    first, *others = commands.steps
    monkeypatch.setattr(document, "code_revision", lambda: "new")
    monkeypatch.setattr(records, "code_revision", lambda: "new")
    for step in commands.steps:
        records.keep(commands.settings.folder, step, 1.0)
    assert "- Code new, written" in write()[0]
    monkeypatch.setattr(records, "code_revision", lambda: "old")
    for step in others:
        records.keep(commands.settings.folder, step, 1.0)
    text, data = write()
    assert f"- Code of the steps: old ({len(others)}), new (1); of this page: new, written" in text
    assert data["about"]["code"] == {"page": "new", "steps": {"old": len(others), "new": 1}}
    (commands.settings.folder / "steps" / f"{first.name}.json").unlink()  # as where a launcher took it
    assert f"old ({len(others)}), a code of which there is no record (1); of this page: new" in write()[0]
