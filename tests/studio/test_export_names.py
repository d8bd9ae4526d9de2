"""Test that file names in an archive are valid on every system and cannot leave the folder."""

from __future__ import annotations

import unicodedata

import pytest

from studio.exports.names import MAX_NAME_BYTES, FileNames, build_content_disposition, render_template


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Linen dress", "Linen dress.webp"),
        ("../../etc/passwd", "etc-passwd.webp"),
        ("/etc/passwd", "etc-passwd.webp"),
        ("C:\\Windows\\system.ini", "C--Windows-system.ini.webp"),
        ("a\x00b\x1fc\x7fd\x85e", "ab cd e.webp"),
        ("gnp.\u202efdp", "gnp.fdp.webp"),
        ("\u2067\ufeffdress\u200b", "dress.webp"),
        ("two\nlines\tand\u2028more", "two lines and more.webp"),
        ("CON", "_CON.webp"),
        ("nul.tar", "_nul.tar.webp"),
        ("com1 ", "_com1.webp"),
        ("LPT\u00b9", "_LPT\u00b9.webp"),
        ("console", "console.webp"),
        (".hidden", "hidden.webp"),
        ("-rf ~", "rf ~.webp"),
        ('=HYPERLINK("x")', "HYPERLINK(-x-).webp"),
        ("dots... ", "dots.webp"),
        ("...", "image.webp"),
        ("\ud800", "image.webp"),
        ("Cafe\u0301", "Caf\u00e9.webp"),
        ("\u30c9\u30ec\u30b9", "\u30c9\u30ec\u30b9.webp"),
        ('<>:"/\\|?*', "image.webp"),
    ],
)
def test_s12_a_name_is_a_single_safe_path_component(text: str, name: str) -> None:
    assert FileNames().reserve(text, "webp") == name


@pytest.mark.parametrize("character", ["x", "\u00e9", "\u8863", "\U0001f457", "e\u0301"])
def test_s12_a_name_of_4_kb_is_cut_between_characters_and_still_numbered(character: str) -> None:
    names = FileNames()
    reserved = [names.reserve(character * 4096, "webp") for _ in range(12)]
    assert len(set(reserved)) == 12
    for name in reserved:
        assert MAX_NAME_BYTES - 4 <= len(name.encode()) <= MAX_NAME_BYTES
        assert unicodedata.is_normalized("NFC", name)
    assert reserved[11].endswith("-12.webp")


def test_s12_names_that_a_file_system_does_not_distinguish_are_numbered() -> None:
    names = FileNames()
    texts = ["Dress", "dress", "DRESS", "Cafe\u0301", "caf\u00c9", "dress-2", "stra\u00dfe", "STRASSE"]
    reserved = [names.reserve(text, "jpg") for text in texts]
    assert reserved == [
        "Dress.jpg", "dress-2.jpg", "DRESS-3.jpg", "Caf\u00e9.jpg", "caf\u00c9-2.jpg", "dress-2-2.jpg",
        "stra\u00dfe.jpg", "STRASSE-2.jpg",
    ]  # fmt: skip


def test_s12_a_value_that_looks_like_a_placeholder_is_not_replaced() -> None:
    assert render_template("{sku}_{index}", {"sku": "{index}", "index": "001"}) == "{index}_001"


def test_s12_content_disposition_is_ascii_and_cannot_be_injected_into() -> None:
    name = FileNames().reserve('Été "2027"\r\nX-Evil: 1; 100%', "zip")
    assert build_content_disposition(name) == (
        'attachment; filename="_t_ -2027- X-Evil- 1; 100_.zip"; '
        "filename*=UTF-8''%C3%89t%C3%A9%20-2027-%20X-Evil-%201%3B%20100%25.zip"
    )
