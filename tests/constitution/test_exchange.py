"""Other people's formats: what is imported comes back the same, and nothing is dropped in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cai.constitution import load_constitution
from cai.constitution.exchange import (
    assembled,
    export_constitution,
    format_names,
    import_constitution,
    load_format,
    save,
)
from cai.constitution.formats.base import title_of, unwrap, wrapped
from cai.constitution.lint import lint
from cai.constitution.model import FewShot, Templates, Turn
from cai.errors import InputError

from .conftest import Make

# Our own texts in the shapes of the files.
CRITIQUES = {
    "harmful0": {
        "prompt": ["\n\nCritiqueRequest: Say where the last answer is unkind.\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: Rewrite it kindly.\n\nRevision:",
    },
    "harmful1": {  # no frame at all, trailing spaces, a key of its own
        "prompt": ["Is the answer true?  "],
        "edit_request": "\nRevisionRequest:  Mend what is false.\nRevision: ",
        "weight": 3,
    },
    "not an/id": {  # two requests, several lines
        "prompt": [
            "\n\nCritiqueRequest: Is it long?\n\nIs it\u2028 dull?\n\nCritique:",
            "\n\nCritiqueRequest: Is it too long?\n\nCritique:",
        ],
        "edit_request": "\n\nRevisionRequest: Shorten it.\r\nPlease.\n\nRevision:",
    },
    "Harmful0": {  # the same file as the first where case does not count
        "prompt": ["\n\nCritiqueRequest: CritiqueRequest: Critique:\n\nCritique:"],
        "edit_request": "\n\nRevisionRequest: no\n\nRevision:",
    },
}
PLAIN = (
    "\n\nHuman: How do I boil an egg?\n\nAssistant: Google it.\n\nCritiqueRequest: Is that kind?\n\nCritique: No.\n\n"
    "RevisionRequest: Be kind.\n\nRevision: Boil it for\n\nsix minutes."
)
ANSWERED = PLAIN[PLAIN.index("\n\nAssistant:") :]
SHOTS = [
    PLAIN + "\n\nHuman:",
    PLAIN.replace("egg", "potato"),  # without the next turn
    f"\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: And?{ANSWERED}\n\nHuman:",  # two turns
    "Anything else\n\nHuman:\n",
    PLAIN.replace("Google it.", "") + "\n\nHuman:",  # an empty part
]
QUESTIONS = ["\nWhich answer is kinder? Options:", "Which is shorter?\n\nOptions:\n", " no frame "]
EXAMPLES = [{"prompt": "\n\nHuman: Hi\n\nAssistant:", "corrects": ["Hello!"], "incorrects": ["What."], "note": 1}]
COT = [{"prompt": "\n\nHuman: Consider\n\n{}\n (A) x\n (B) y\n\nAssistant: So (A)"}]
PARTS: dict[str, Any] = {
    "critique-revision": CRITIQUES,
    "few-shot": SHOTS,
    "preference": QUESTIONS,
    "preference-few-shot": EXAMPLES,
    "preference-cot-few-shot": COT,
}
CHAT = [
    {"role": "user" if i % 2 == 0 else "assistant", "content": text}
    for i, text in enumerate(["Egg?", "Google it.", "Kind?", "No.", "Be kind.", "Six minutes. "])
]
HUGGING: dict[str, Any] = {
    "constitutions": [
        {"critic": "Is it kind?\n", "revision": " Be kind."},
        {"critic": "Is it kind?", "revision": "Be brief.", "name": "brief"},
    ],
    "system_chat": [CHAT, [{"role": "user", "content": "You\nare"}, {"role": "assistant", "content": ""}]],
    "version": {"of": ["this", 1, None]},
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The five anthropic files, by part."""
    for part, data in PARTS.items():
        (tmp_path / f"{part}.json").write_text(json.dumps(data))
    return {part: tmp_path / f"{part}.json" for part in PARTS}


def write(path: Path, data: Any) -> Path:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_the_anthropic_files_come_back_the_same(files: dict[str, Path], tmp_path: Path) -> None:
    imported = import_constitution(list(files.values()), "anthropic", name="paper")
    assert [note for note in imported.notes if "give back" in note] == []
    save(imported, tmp_path / "out")
    assert lint([tmp_path / "out"]) == []
    loaded = load_constitution(tmp_path / "out" / "constitution" / "paper.yaml")
    assert loaded.principles == assembled(imported).principles
    for part, data in PARTS.items():
        # As text: the order of the keys is the order of the principles.
        assert json.dumps(export_constitution(loaded, "anthropic", part=part).data) == json.dumps(data)


def test_long_texts_that_begin_with_a_blank_come_back_from_disk(tmp_path: Path) -> None:
    said = " Say where the last answer is unkind, word for word, and say of each such place what makes it hurt. "
    data = {"constitutions": [{"critic": said, "revision": said * 2}], "system_chat": []}
    source = write(tmp_path / "in.json", data)
    save(import_constitution([source], "huggingface", name="hf"), tmp_path / "out")
    loaded = load_constitution(tmp_path / "out" / "constitution" / "hf.yaml")
    assert export_constitution(loaded, "huggingface").data == data


def test_a_text_that_the_written_files_would_change_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cai.constitution import exchange, writing

    monkeypatch.setattr(exchange, "principle_yaml", lambda p: writing.principle_yaml(p).replace("kind", "kin d"))
    data = {"constitutions": [{"critic": "Is it kind?", "revision": "Be brief."}], "system_chat": []}
    notes = import_constitution([write(tmp_path / "in.json", data)], "huggingface").notes
    assert notes == ("exporting 'constitutions' will not give back exactly what was imported",)


def test_imported_texts_are_without_their_frames(files: dict[str, Path]) -> None:
    imported = import_constitution([files["critique-revision"], files["preference"]], "anthropic")
    got = {p.id: (p.critique, p.revision, p.judge) for p in imported.principles}
    assert got == {
        "harmful0": ("Say where the last answer is unkind.", "Rewrite it kindly.", ""),
        "harmful1": ("Is the answer true?", "Mend what is false.", ""),
        "not-an-id": ("Is it long?\n\nIs it\u2028 dull?", "Shorten it.\r\nPlease.", ""),
        "Harmful0-2": ("CritiqueRequest: Critique:", "no", ""),
        "preference0": ("", "", "Which answer is kinder?"),
        "preference1": ("", "", "Which is shorter?"),
        "preference2": ("", "", "no frame"),
    }
    assert imported.principles[0].source == {}  # nothing unusual, nothing kept
    assert any("not an/id: of 2 critique requests the first is used" in note for note in imported.notes)


def test_transcripts_are_taken_apart_where_that_loses_nothing(files: dict[str, Path]) -> None:
    shots = import_constitution([files["critique-revision"], files["few-shot"]], "anthropic").file.few_shot
    assert [bool(shot.text) for shot in shots] == [False, False, True, True, True]
    assert shots[0] == FewShot(
        prompt="How do I boil an egg?",
        response="Google it.",
        critique_request="Is that kind?",
        critique="No.",
        revision_request="Be kind.",
        revision="Boil it for\n\nsix minutes.",
    )
    assert shots[2].text.startswith("Human: Hi\n\nAssistant: Hello.\n\nHuman: And?\n\nAssistant: Google it.")
    assert shots[2].text.endswith("six minutes.")


def test_an_edited_example_is_exported_in_the_usual_frame(files: dict[str, Path]) -> None:
    imported = import_constitution([files["critique-revision"], files["few-shot"]], "anthropic")
    shots = imported.file.few_shot
    edited = shots[1].model_copy(update={"critique": "Not at all."})
    file = imported.file.model_copy(update={"few_shot": (edited, shots[3])})
    loaded = assembled(type(imported)(file, imported.principles, {}))
    data = export_constitution(loaded, "anthropic", part="few-shot").data
    assert data == [SHOTS[1].replace("No.", "Not at all.") + "\n\nHuman:", SHOTS[3]]


def test_the_hugging_face_file_comes_back_the_same(tmp_path: Path) -> None:
    source = write(tmp_path / "hf.json", HUGGING)
    imported = import_constitution([source], "huggingface")
    assert [note for note in imported.notes if "give back" in note] == []
    save(imported, tmp_path / "out")
    loaded = load_constitution(tmp_path / "out" / "constitution" / "huggingface.yaml")
    assert [b.id for b in loaded.principles] == ["huggingface0", "huggingface1"]
    assert loaded.few_shot[0].messages[5].content == "Six minutes. "
    assert json.dumps(export_constitution(loaded, "huggingface").data) == json.dumps(HUGGING)


def test_a_chat_that_no_template_takes_is_refused_by_its_place(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "Be kind."}, *CHAT]
    source = write(tmp_path / "hf.json", HUGGING | {"system_chat": [CHAT, chat]})
    with pytest.raises(InputError, match=r"hf\.json: system_chat\[1\]: user and assistant must take turns"):
        import_constitution([source], "huggingface")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Is it kind?", "Is it kind?"),
        ("word " * 20, " ".join(["word"] * 11) + " …"),
        ("请指出\n" + "助手" * 40, "请指出 …"),
        ("助手" * 40, "助手" * 29 + "助…"),
    ],
)
def test_a_title_is_the_beginning_of_the_text(text: str, title: str) -> None:
    assert title_of(text) == title


def test_a_file_without_chats_gets_none(tmp_path: Path) -> None:
    data = {"constitutions": HUGGING["constitutions"]}
    imported = import_constitution([write(tmp_path / "hf.json", data)], "huggingface")
    assert export_constitution(assembled(imported), "huggingface").data == data


def test_few_shot_examples_cross_from_one_format_to_the_other(files: dict[str, Path], tmp_path: Path) -> None:
    anthropic = assembled(import_constitution([files["critique-revision"], files["few-shot"]], "anthropic"))
    exported = export_constitution(anthropic, "huggingface")
    assert [turn["content"] for turn in exported.data["system_chat"][0]][:2] == ["How do I boil an egg?", "Google it."]
    assert sum("a transcript, not a chat" in note for note in exported.notes) == 3
    hugging = assembled(import_constitution([write(tmp_path / "hf.json", HUGGING)], "huggingface"))
    back = export_constitution(hugging, "anthropic", part="few-shot")
    assert len(back.data) == 1
    assert back.data[0].startswith("\n\nHuman: Egg?\n\nAssistant: Google it.\n\nCritiqueRequest: Kind?")
    assert any(note.startswith("few-shot example 1: a chat that is no critique") for note in back.notes)


def test_what_a_format_cannot_carry_is_listed(make: Make) -> None:
    constitution = make(
        {
            "a": {"weight": 2, "judge": "Which?", "level": "rule", "axis": "honest", "asks": "Truth.", "tags": ["t"]},
            "off": {"weight": 0},
            "judge-only": {"critique": "", "revision": "", "judge": "Which?"},
        },
        few_shot=(FewShot(messages=(Turn(role="user", content="x"),)),),
        templates=Templates(critique="Now: {request}"),
        system_prompt="Be kind.",
    )
    exported = export_constitution(constitution, "anthropic")
    assert list(exported.data) == ["a", "off"]
    assert list(exported.notes) == [
        "the judge questions of a, judge-only",
        "the levels of a",
        "the axes of a",
        "what is written for people (asks, notes, examples, tags) of a",
        "the weights; turned off here but not there: off",
        "1 few-shot examples",
        "the templates",
        "the system prompt",
    ]
    judged = export_constitution(constitution, "anthropic", part="preference")
    assert judged.data == ["\nWhich? Options:"] * 2
    assert judged.notes[0] == "the critique and revision requests of a, off"


def test_nothing_to_export_is_an_error(make: Make) -> None:
    for part in ("preference", "few-shot", "preference-cot-few-shot"):
        with pytest.raises(InputError, match=f"nothing to write as '{part}'"):
            export_constitution(make(["a"]), "anthropic", part=part)
    judge = {"j": {"critique": "", "revision": "", "judge": "Which?"}}
    with pytest.raises(InputError, match="nothing to write"):
        export_constitution(make(judge), "huggingface")


def test_two_files_of_one_kind_are_merged_and_that_is_said(tmp_path: Path) -> None:
    one = write(tmp_path / "one.json", QUESTIONS[:1])
    two = write(tmp_path / "two.json", QUESTIONS[1:])
    imported = import_constitution([one, two], "anthropic")
    assert [p.id for p in imported.principles] == ["preference0", "preference1", "preference2"]
    assert imported.notes == (f"{two}: merged into one 'preference' file on export",)
    assert export_constitution(assembled(imported), "anthropic", part="preference").data == QUESTIONS


MALFORMED: list[tuple[str, Any, str]] = [
    ("anthropic", '{"a": 1', r"f.json:1:8: not valid JSON: Expecting"),
    ("anthropic", '{"a": 1, "a": 2}', r"f.json: the key 'a' is given twice"),
    ("anthropic", '["\\ud800"]', r"f.json: a text has half a character"),
    ("anthropic", "[NaN]", r"f.json: NaN is not JSON"),
    ("anthropic", [], r"f.json: must be a non-empty JSON object"),
    ("anthropic", ["text", {}], r"f.json: must be a non-empty JSON object"),
    ("anthropic", {"harmful0": ["x"]}, r"f.json: harmful0: must be an object"),
    ("anthropic", {"harmful0": {"edit_request": "x"}}, r"f.json: harmful0.prompt: must be a list of one text"),
    ("anthropic", {"harmful0": {"prompt": "x"}}, r"f.json: harmful0.prompt: must be a list of one text"),
    ("anthropic", {"harmful0": {"prompt": [" "]}}, r"f.json: harmful0.prompt\[0\]: must be text that is not blank"),
    ("anthropic", {"harmful0": {"prompt": ["x"]}}, r"f.json: harmful0.edit_request: must be text"),
    ("anthropic", ["\nx Options:", " "], r"f.json: 1: must be text that is not blank"),
    ("anthropic", [{"prompt": "x", "corrects": []}], r"f.json: 0.corrects: must be a list of texts"),
    ("anthropic", [{"prompt": "x {} {}"}], r"f.json: 0.prompt: must have one {} for the question, not 2"),
    ("anthropic", SHOTS, r"no principles in these files \(give the file of instructions"),
    ("huggingface", [], r"f.json: must be a JSON object with 'constitutions'"),
    ("huggingface", {"constitutions": []}, r"f.json: constitutions: must be a list"),
    ("huggingface", {"constitutions": [{"critic": 1}]}, r"f.json: constitutions\[0\].critic: must be text"),
    ("huggingface", {**HUGGING, "system_chat": CHAT}, r"f.json: system_chat\[0\]: must be a non-empty list"),
    ("huggingface", {**HUGGING, "system_chat": [[{**CHAT[0], "name": "x"}]]}, r"system_chat\[0\]\[0\].name: a message"),
    ("huggingface", {**HUGGING, "system_chat": [[{"role": "bot", "content": "x"}]]}, r"message 0 must have a role"),
]


@pytest.mark.parametrize(("format", "data", "message"), MALFORMED)
def test_a_malformed_file_is_named_with_its_key(format: str, data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        import_constitution([write(tmp_path / "f.json", data)], format)


def test_one_key_in_two_files_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    other = write(tmp_path / "other.json", {"harmful1": CRITIQUES["harmful0"]})
    with pytest.raises(InputError, match=r"other\.json: harmful1: this key is also in .*critique-revision\.json"):
        import_constitution([files["critique-revision"], other], "anthropic")


def test_nothing_is_overwritten_unless_forced(files: dict[str, Path], tmp_path: Path) -> None:
    imported = import_constitution([files["critique-revision"]], "anthropic")
    kept = tmp_path / "out" / "principles" / "harmful1.yaml"
    kept.parent.mkdir(parents=True)
    kept.write_text("mine")
    with pytest.raises(InputError, match=r"harmful1\.yaml: the file exists already"):
        save(imported, tmp_path / "out")
    assert kept.read_text() == "mine"
    assert list(kept.parent.iterdir()) == [kept]  # nothing at all was written
    written = save(imported, tmp_path / "out", force=True)
    assert "Is the answer true?" in kept.read_text()
    assert {path.parent.name for path in written} == {"principles", "constitution", "schema"}


def test_names_of_formats_parts_and_constitutions_are_checked(files: dict[str, Path], make: Make) -> None:
    assert format_names() == ["anthropic", "huggingface"]
    for name in format_names():
        assert load_format(name).PARTS
    with pytest.raises(InputError, match="did you mean 'anthropic'"):
        load_format("antropic")
    with pytest.raises(InputError, match="did you mean 'preference'"):
        export_constitution(make(["a"]), "anthropic", part="preferences")
    with pytest.raises(InputError, match="cannot be a file's name"):
        import_constitution([files["preference"]], "anthropic", name="../x")
    with pytest.raises(InputError, match="cannot read the file"):
        import_constitution([Path("nowhere.json")], "anthropic")


@pytest.mark.parametrize("text", ["\n\nA: x\n\nB:", "A:B:", "x", " A: A: B: B: ", "A:", "B:", "A: x y", "x\n\nB:\n"])
def test_a_frame_and_its_core_make_the_text_again(text: str) -> None:
    core, frame = unwrap(text, "\n\nA: ", "\n\nB:")
    assert core
    assert core == core.strip()
    assert wrapped(core, "\n\nA: ", "\n\nB:", frame) == text
    assert (frame is None) == (text == "\n\nA: x\n\nB:")
