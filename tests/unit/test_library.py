"""The library: what is kept is found, named, bounded, forgotten, and never wrong."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.library.entry import DocumentInfo
from app.library.library import Library
from app.library.reuse import Reuse
from mom_core import Engine, Finished, InvalidSetting, PrefillProgress
from tests.equivalence.models import make_prompt, shared_model
from tests.unit.answers import ANSWER, CONFIG, answer
from tests.unit.damage import damage


@pytest.fixture
def reuse(tmp_path: Path) -> Reuse:
    return Reuse(Library(tmp_path))


def test_nothing_is_read_twice(tmp_path: Path) -> None:
    prompt = make_prompt(200)
    _, first = answer(Reuse(Library(tmp_path)), prompt)
    assert first.reused_tokens == 0
    _, again = answer(Reuse(Library(tmp_path)), prompt)
    assert again.reused_tokens == 200
    other_question = prompt[:190] + make_prompt(12, seed=1)
    _, other = answer(Reuse(Library(tmp_path)), other_question)
    assert other.reused_tokens == 190
    assert other.resumed_fraction == 0
    (entry,) = Library(tmp_path).list()
    assert (entry.name, entry.model, entry.tokens) == ("a.pdf", "tiny", 200)
    assert entry.documents == (DocumentInfo("a.pdf", "0" * 64),)
    assert entry.is_whole
    assert entry.used_number == 3


def test_a_longer_prompt_takes_the_place_of_what_it_goes_on_with(reuse: Reuse) -> None:
    prompt = make_prompt(200)
    answer(reuse, prompt)
    _, longer = answer(reuse, make_prompt(200) + make_prompt(100, seed=2))
    assert longer.reused_tokens == 200
    (entry,) = reuse.library.list()
    assert entry.tokens == 300
    _, another = answer(reuse, make_prompt(150, seed=5), name="b.pdf")
    assert another.reused_tokens == 0
    assert [entry.name for entry in reuse.library.list()] == ["b.pdf", "a.pdf"]


def test_the_best_of_many_is_found_by_reading_the_ids_of_one(
    reuse: Reuse, monkeypatch: Any
) -> None:
    from app.library import library as module

    beginning = make_prompt(260)
    for common in (70, 200, 140):
        answer(reuse, beginning[:common] + make_prompt(260 - common, seed=common))
    reuse.close()
    read: list[Path] = []
    read_token_ids = module.read_token_ids

    def counted(folder: Path, manifest: Any) -> list[int]:
        read.append(folder)
        return read_token_ids(folder, manifest)

    monkeypatch.setattr(module, "read_token_ids", counted)
    library = Library(reuse.library.folder.parent)
    fingerprint = Engine(shared_model("llama"), config=CONFIG).fingerprint
    match = library.best_match(fingerprint, beginning)
    assert match is not None
    assert match.common_tokens >= 200
    assert read == [match.entry.folder]
    assert library.best_match(fingerprint, make_prompt(260, seed=9)) is None
    # The next one if that cannot be used.
    other = library.best_match(fingerprint, beginning, except_for={match.entry.id})
    assert other is not None
    assert 140 <= other.common_tokens < 200


def test_what_another_model_read_is_not_used(reuse: Reuse) -> None:
    prompt = make_prompt(200)
    answer(reuse, prompt)
    _, other = answer(reuse, prompt, shared_model("qwen3"))
    assert other.reused_tokens == 0
    assert [entry.name for entry in reuse.library.list()] == ["a.pdf (2)", "a.pdf"]


def stopped_reading(home: Path, prompt: list[int]) -> Reuse:
    """Of a reading that was stopped after ten steps; it holds that reading still."""
    reuse = Reuse(Library(home))
    engine = Engine(shared_model("llama"), config=CONFIG)
    events = reuse.generate(engine, prompt, max_new_tokens=ANSWER)
    for _ in range(10):
        next(events)
    events.close()
    return reuse


def test_an_interrupted_reading_is_taken_up_by_the_next_process(tmp_path: Path) -> None:
    prompt, model = make_prompt(200), shared_model("llama")
    reuse = stopped_reading(tmp_path, prompt)
    reuse.close()
    (entry,) = Library(tmp_path).list()
    assert not entry.is_whole
    # Seven steps a layer; of the second of three layers three steps of 32 tokens.
    assert entry.fraction == pytest.approx((1 + 96 / 200) / 3)
    reuse = Reuse(Library(tmp_path))
    engine = Engine(model, config=CONFIG)
    events_after = list(reuse.generate(engine, prompt, max_new_tokens=ANSWER))
    reuse.close()
    finished = events_after[-1]
    assert isinstance(finished, Finished)
    assert sum(isinstance(event, PrefillProgress) for event in events_after) == 21 - 10
    assert finished.resumed_fraction > 0.3
    (whole,) = Library(tmp_path).list()
    assert whole.is_whole
    assert whole.id == entry.id


def test_a_reading_that_ended_in_its_first_layer_is_taken_up_too(tmp_path: Path) -> None:
    prompt, model = make_prompt(200), shared_model("llama")
    reuse = Reuse(Library(tmp_path))
    events = reuse.generate(Engine(model, config=CONFIG), prompt, max_new_tokens=ANSWER)
    next(events)
    next(events)
    events.close()
    reuse.close()
    _, finished = answer(Reuse(Library(tmp_path)), prompt)
    # Of the work, not of the layers: the last one takes less, its attention is skipped.
    assert finished.resumed_fraction > 64 / 200 / 3 / 2


def test_a_reading_that_another_one_goes_on_with_is_left_alone(tmp_path: Path) -> None:
    prompt = make_prompt(200)
    reuse = stopped_reading(tmp_path, prompt)
    # It was stopped, and is still the first one's to go on with.
    _, finished = answer(Reuse(Library(tmp_path)), prompt)
    assert finished.resumed_fraction == 0
    reuse.close()
    assert [entry.is_whole for entry in Library(tmp_path).list()] == [True, False]


def test_what_is_damaged_is_named_and_read_again(tmp_path: Path) -> None:
    prompt = make_prompt(200)
    answer(Reuse(Library(tmp_path)), prompt)
    (entry,) = Library(tmp_path).list()
    path = next(entry.folder.glob("layer-001*"))
    data = bytearray(path.read_bytes())
    data[-7] ^= 4
    path.write_bytes(data)
    (checked,) = Library(tmp_path).verify()
    assert "layer-001" in checked.problem
    assert "is damaged, so it is not used. Forget it" in checked.problem
    reuse = Reuse(Library(tmp_path))
    _, finished = answer(reuse, prompt)
    assert finished.reused_tokens == 0
    assert "is damaged" in reuse.notes[0]
    path.write_bytes(data[:100])
    (listed, *_) = [e for e in Library(tmp_path).list() if e.id == entry.id]
    assert "is damaged" in listed.problem


def test_names_are_changed_and_forgotten(reuse: Reuse) -> None:
    answer(reuse, make_prompt(200))
    answer(reuse, make_prompt(200, seed=1))
    library = reuse.library
    library.rename("a.pdf", "The contract")
    with pytest.raises(InvalidSetting, match='has a "The contract" already; choose another'):
        library.rename("a.pdf (2)", "The contract")
    with pytest.raises(InvalidSetting, match="The new name has 0 characters; it needs 1 to 120"):
        library.rename("The contract", "  ")
    with pytest.raises(InvalidSetting, match=r'There is no "b" in the library .* It has: "a.pdf'):
        library.find("b")
    folder = library.find("The contract").folder
    library.forget("The contract")
    assert not folder.exists()
    assert [entry.name for entry in library.list()] == ["a.pdf (2)"]


def test_the_quota_evicts_what_was_used_least_recently(reuse: Reuse) -> None:
    library = reuse.library
    for seed in range(3):
        answer(reuse, make_prompt(200, seed=seed), name=f"{seed}.pdf")
    answer(reuse, make_prompt(200, seed=0), name="0.pdf")
    sizes = [entry.size_bytes for entry in library.list()]
    assert [entry.name for entry in library.list()] == ["0.pdf", "2.pdf", "1.pdf"]
    with library.using(library.find("1.pdf").id):
        library.set_quota(sum(sizes) - 1)
        # In use, so the next one went.
        assert [entry.name for entry in library.list()] == ["0.pdf", "1.pdf"]
    library.set_quota(sizes[0])
    assert [entry.name for entry in library.list()] == ["0.pdf"]
    assert library.quota().used_bytes == sizes[0]
    reuse.close()
    library.set_quota(10)
    answer(reuse, make_prompt(200, seed=7))
    assert "is not kept: the library's quota is" in reuse.notes[-1]
    notes = len(reuse.notes)
    library.set_quota(0)
    answer(reuse, make_prompt(200, seed=7))
    assert not library.list()
    assert len(reuse.notes) == notes


def test_clocks_that_jump_change_nothing(reuse: Reuse, monkeypatch: Any) -> None:
    import datetime

    from app.library import library as module

    class Jumps(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime.datetime:
            return datetime.datetime(1970 + random.randrange(100), 1, 1, tzinfo=tz)

    monkeypatch.setattr(module.datetime, "datetime", Jumps)
    for seed in (0, 1, 2, 1):
        answer(reuse, make_prompt(200, seed=seed), name=f"{seed}.pdf")
    for entry in reuse.library.list():
        os.utime(entry.folder / "entry.json", (random.randrange(2**31),) * 2)
    assert [entry.name for entry in reuse.library.list()] == ["1.pdf", "2.pdf", "0.pdf"]
    reuse.library.set_quota(reuse.library.list()[0].size_bytes)
    assert [entry.name for entry in reuse.library.list()] == ["1.pdf"]


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidSetting, match="keep nothing with --no-save"):
        Library(tmp_path / "file")


def test_everything_is_private(reuse: Reuse) -> None:
    answer(reuse, make_prompt(200))
    for path in reuse.library.folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_two_processes_share_a_library(tmp_path: Path) -> None:
    """One forgets, renames and evicts what the other opens and keeps."""
    program = (
        "import sys, random\n"
        "from pathlib import Path\n"
        "from app.library.library import Library\n"
        "from mom_core import InvalidSetting\n"
        "library, state = Library(Path(sys.argv[1])), random.Random(3)\n"
        "print('ready', flush=True)\n"
        "while not (Path(sys.argv[1]) / 'stop').exists():\n"
        "    for entry in library.list():\n"
        "        try:\n"
        "            if state.random() < 0.3:\n"
        "                library.forget(entry.id)\n"
        "            elif state.random() < 0.5:\n"
        "                library.rename(entry.id, str(state.random()))\n"
        "            else:\n"
        "                library.make_room(2**40)\n"
        "        except InvalidSetting:\n"
        "            pass\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
        reuse = Reuse(Library(tmp_path))
        try:
            for number in range(8):
                answer(reuse, make_prompt(150, seed=number % 3))
        finally:
            (tmp_path / "stop").touch()
            assert other.wait(60) == 0
    assert all(not entry.problem for entry in Library(tmp_path).verify())


def test_foreign_files_in_the_folder_harm_nothing(reuse: Reuse) -> None:
    folder = reuse.library.folder
    (folder / "notes.txt").write_text("mine")
    (folder / "photos").mkdir()
    (folder / "photos" / "1.jpg").write_bytes(b"1")
    (folder / "settings.json").write_bytes(b"\xff{")
    answer(reuse, make_prompt(200))
    foreign, mine = sorted(reuse.library.list(), key=lambda entry: entry.name != "photos")
    assert "it is not a prepared document" in foreign.problem
    assert mine.problem == ""
    reuse.library.set_quota(0)
    assert (folder / "photos" / "1.jpg").exists()
    with pytest.raises(InvalidSetting, match="was not made by mom-chat, so it is not deleted"):
        reuse.library.forget("photos")
    assert (folder / "notes.txt").exists()


def test_what_cannot_be_kept_is_told_once(reuse: Reuse, monkeypatch: Any) -> None:
    from mom_core.snapshot import write as snapshot

    def failing(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("the pages are mad")

    monkeypatch.setattr(snapshot, "write_aside", failing)
    answer(reuse, make_prompt(200))
    (note,) = reuse.take_notes()
    assert "could not be kept" in note
    assert "RuntimeError: the pages are mad" in note
    assert reuse.take_notes() == []


def test_a_library_that_vanishes_costs_no_answer(reuse: Reuse) -> None:
    shutil.rmtree(reuse.library.folder)
    answer(reuse, make_prompt(200))
    (note,) = reuse.take_notes()
    assert f"The library {reuse.library.folder} cannot be used: No such file" in note


def test_random_damage_never_gives_a_wrong_answer(tmp_path: Path) -> None:
    prompt, state = make_prompt(150), random.Random(5)
    for _ in range(6):
        reuse = Reuse(Library(tmp_path))
        answer(reuse, prompt)
        reuse.close()
        files = [path for path in (tmp_path / "library").glob("[!.]*/*") if path.is_file()]
        damage(state.choice(sorted(files)), state)


def test_the_command_lists_renames_verifies_and_forgets(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from app.cli.main import cli

    answer(Reuse(Library(tmp_path)), make_prompt(200))

    def mom(*arguments: str) -> Any:
        result = CliRunner().invoke(cli, ["library", *arguments, "--home", str(tmp_path)])
        assert result.exit_code == 0, result.output
        return result.output

    assert "a.pdf  tiny   200" in mom()
    listed = json.loads(mom("list", "--json"))
    assert listed["entries"][0]["tokens"] == 200
    assert 'Renamed to "x y".' in mom("rename", "a.pdf", "x y")
    assert "1 of 1 are intact." in mom("verify")
    assert json.loads(mom("verify", "x y", "--json"))["damaged"] == 0
    assert 'Deleted "x y" and freed' in mom("forget", "x y")
    assert "No prepared documents yet" in mom("list")
    assert "of 1.0 GiB used" in mom("quota", "1GiB")
