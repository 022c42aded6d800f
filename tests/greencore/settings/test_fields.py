"""Settings as flat fields, from the schema of a model."""

import pytest

from greencore.settings.fields import SettingField, format_value, list_setting_groups, list_settings
from greencore.settings.hyperparameters import Hyperparameters
from tests.stand_in_settings import StandIn

FIELDS = {".".join(field.path): field for field in list_settings(StandIn)}


def test_groups_follow_the_order_of_the_schema_with_the_common_settings_first() -> None:
    groups = list_setting_groups(StandIn)
    assert [(group.title, group.path, group.methods, group.optional) for group in groups] == [
        ("", (), (), False),
        ("Batches", (), (), False),
        ("Quality", (), (), False),
        ("A probe", ("probe",), ("lora",), True),
        ("Stopping", ("stopping",), (), False),
    ]
    assert [[field.name for field in group.fields] for group in groups[:3]] == [
        ["rounds", "speed"],
        ["size", "packing"],
        ["marks"],
    ]
    assert groups[3].description == "Settings of the probe"


@pytest.mark.parametrize(
    ("name", "types", "words", "choices", "default", "bounds"),
    [
        ("rounds", ("integer",), (), (), "3", "at least 1, at most 10"),
        ("speed", ("number",), (), (), "0.5", "above 0, at most 1"),
        ("size", ("integer",), ("auto",), (), "", "at least 1, at most 100"),
        ("packing", ("boolean",), ("auto",), ("auto", "on", "off"), "auto", ""),
        ("marks", ("array",), (), (), "loss", ""),
        ("probe.rank", ("integer",), (), (), "8", "at least 1, at most 64"),
        ("probe.targets", ("array",), ("all",), (), "", ""),
        ("probe.scaled", ("boolean",), (), ("on", "off"), "off", ""),
        ("probe.form", (), ("merged", "apart"), ("merged", "apart"), "merged", ""),
        ("stopping.rank", ("integer",), (), (), "2", "at least 1, at most 64"),
    ],
)
def test_a_field_has_the_types_values_and_bounds_of_its_schema(
    name: str, types: tuple[str, ...], words: tuple[str, ...], choices: tuple[str, ...], default: str, bounds: str
) -> None:
    field = FIELDS[name]
    found = (field.types, field.words, field.choices, field.shown_default, field.bounds)
    assert found == (types, words, choices, default, bounds)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("rounds", "at least 1, at most 10"),
        ("size", "at least 1, at most 100; or “auto”"),
        ("packing", ""),
        ("marks", "separated by commas"),
        ("probe.targets", "separated by commas or “all”"),
    ],
)
def test_a_hint_says_how_to_write_what_is_neither_a_choice_nor_one_value(name: str, hint: str) -> None:
    field = FIELDS[name]
    assert field.hint == "; ".join(part for part in (field.description, hint) if part)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("rounds", " 7 ", 7),
        ("rounds", "seven", "seven"),
        ("speed", "1e-3", 0.001),
        ("size", "auto", "auto"),
        ("size", "12", 12),
        ("packing", "on", True),
        ("packing", "false", False),
        ("packing", "auto", "auto"),
        ("packing", "perhaps", "perhaps"),
        ("marks", "loss, rouge,", ["loss", "rouge"]),
        ("probe.targets", "q,v", ["q", "v"]),
        ("probe.targets", "all", "all"),
    ],
)
def test_a_text_is_parsed_by_the_types_of_its_field(name: str, text: str, value: object) -> None:
    assert FIELDS[name].parse(text) == value


def test_a_text_keeps_the_white_space_around_it() -> None:
    [prompt] = [field for field in list_settings(Hyperparameters) if field.name == "sample_prompt"]
    assert prompt.parse(" Translate: \n") == " Translate: \n"


def test_only_a_text_with_lines_is_multiline() -> None:
    assert [field.name for field in list_settings(Hyperparameters) if field.multiline] == ["sample_prompt"]


def test_a_whole_number_has_one_text() -> None:
    assert [format_value(value) for value in (1, 1.0, 0.0, 2e-5, 0.5, 1e30)] == ["1", "1", "0", "2e-05", "0.5", "1e+30"]


def test_null_is_not_a_word_of_options_and_inputs() -> None:
    fields = list_settings(Hyperparameters)
    assert any("null" in field.description for field in fields)
    assert not [field.name for field in fields if "null" in field.hint]
    assert next(field.hint for field in fields if field.name == "attention").startswith(
        "Implementation of attention; not set: the model's default"
    )


def test_each_default_of_the_hyperparameters_can_be_given_as_its_text() -> None:
    fields = list_settings(Hyperparameters)
    assert {field.path[0] for field in fields} == set(Hyperparameters.model_fields)
    given: dict[str, object] = {}

    def put(field: SettingField) -> None:
        if field.shown_default:
            within = given
            for name in field.path[:-1]:
                within = within.setdefault(name, {})  # type: ignore[assignment]
            within[field.name] = field.parse(field.shown_default)

    for group in list_setting_groups(Hyperparameters):
        if not group.optional:
            for field in group.fields:
                put(field)
    assert Hyperparameters.model_validate(given) == Hyperparameters()


def test_every_hyperparameter_is_described() -> None:
    assert [field.path for field in list_settings(Hyperparameters) if not field.description] == []
