"""Captions: broken evenly, cut with a mark, in fonts that hold their characters."""

from matplotlib import font_manager

from mmjax.notebook.text import font_families, wrapped


def test_lines_are_balanced_and_keep_every_word():
    assert wrapped("man kneeling dark skin tone", 25, 3) == "man kneeling\ndark skin tone"
    assert wrapped("astronaut medium-light skin tone", 25, 3) == "astronaut medium-light\nskin tone"
    assert wrapped("  one\n line ", 25, 3) == "one line"
    assert wrapped("", 25, 3) == ""


def test_long_captions_are_cut_with_a_mark():
    found = wrapped("word " * 60, 25, 3).split("\n")
    assert len(found) == 3 and found[-1].endswith("…") and max(map(len, found)) <= 25


def test_one_long_word_and_wide_characters_stay_within_the_width():
    assert max(map(len, wrapped("x" * 60, 25, 3).split("\n"))) <= 25
    assert max(map(len, wrapped("宇" * 30, 24, 3).split("\n"))) <= 12


def test_dejavu_alone_covers_european_scripts():
    assert font_families("Ünïcode à la carte, čeština, Ελληνικά, русский ✓") == ["DejaVu Sans"]


def test_a_missing_character_gets_an_installed_font_that_has_it():
    """STIX, which comes with matplotlib, holds mathematical letters that DejaVu Sans lacks."""
    letter = "\U0001d4d0"  # bold script capital A
    families = font_families(letter)
    paths = [font_manager.findfont(family) for family in families]
    covering = [path for path in paths if ord(letter) in font_manager.get_font(path).get_charmap()]
    assert families[0] == "DejaVu Sans" and len(families) == 2 and covering and covering[0] == paths[-1]


def test_a_character_that_no_font_has_is_no_error():
    assert font_families("\U0010fffd")[0] == "DejaVu Sans"
