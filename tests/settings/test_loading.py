from __future__ import annotations

import pytest

from phinetune.errors import SettingsError
from phinetune.settings import SHORT_NAMES, Settings, load, names


def test_defaults_are_the_guides():
    settings = Settings()
    assert settings.model == "microsoft/phi-2"
    assert (settings.train.learning_rate, settings.train.epochs) == (2e-4, 5)
    assert (settings.train.batch_size, settings.train.grad_accum, settings.train.examples_per_step) == (4, 4, 16)
    assert (settings.lora.r, settings.lora.alpha, settings.lora.dropout) == (16, 32, 0.05)
    assert (settings.data.max_length, settings.data.validation_share) == (512, 0.1)
    assert (settings.train.weight_decay, settings.train.max_grad_norm) == (0.01, 1.0)
    assert (settings.generate.temperature, settings.generate.top_p) == (0.0, 0.9)


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("fast", {"train.epochs": 3, "train.batch_size": 8, "train.grad_accum": 2}),
        ("quality", {"train.epochs": 10, "train.learning_rate": 1e-4, "lora.r": 32}),
        ("small-data", {"train.epochs": 10, "lora.dropout": 0.1}),
        ("large-data", {"train.epochs": 2, "train.batch_size": 8}),
    ],
)
def test_presets_are_the_guides(preset, expected):
    settings = load(preset=preset)
    for name, value in expected.items():
        group, _, leaf = name.partition(".")
        assert getattr(getattr(settings, group), leaf) == value


def test_the_small_embedded_model_has_a_recipe_that_anything_by_hand_overrides():
    assert load(flags={"model": "smollm2-135m"}).train.learning_rate == 1e-3
    assert load(flags={"model": "smollm2-135m", "lr": 5e-4}).train.learning_rate == 5e-4
    quality = load(preset="quality", flags={"model": "smollm2-135m"})
    assert (quality.train.learning_rate, quality.train.epochs, quality.lora.r) == (1e-3, 10, 32)


def test_later_sources_win(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("train:\n  epochs: 7\n  batch_size: 2\nlora: {r: 64}\n")
    settings = load(preset="fast", config=file, flags={"batch_size": 1, "lr": None}, assignments=["lora.r=32"])
    assert (settings.train.epochs, settings.train.batch_size, settings.train.grad_accum) == (7, 1, 2)
    assert settings.lora.r == 32


def test_one_seed_flag_sets_both_seeds():
    settings = load(flags={"seed": 7})
    assert (settings.data.seed, settings.train.seed) == (7, 7)


def test_assignments_take_numbers_lists_and_texts():
    settings = load(
        assignments=["train.learning_rate=1e-4", "lora.target_modules=[q_proj, fc1]", "data.question=Frage"]
    )
    assert settings.train.learning_rate == 1e-4
    assert settings.lora.target_modules == ["q_proj", "fc1"]
    assert settings.data.question == "Frage"


def test_all_problems_are_reported_together():
    with pytest.raises(SettingsError) as caught:
        load(
            preset="best",
            flags={"epochs": -1, "lora_r": "many"},
            assignments=["lora.rank=3", "train.seed", "train.dtype=int4"],
        )
    message = caught.value.message
    assert message.startswith("6 settings are wrong")
    wrong = ["best", "train.epochs = -1", "lora.r = 'many'", "lora.rank: there is no such setting"]
    for part in [*wrong, "--set train.seed", "train.dtype = 'int4'"]:
        assert part in message


def test_a_misspelt_name_gets_the_right_one():
    with pytest.raises(SettingsError, match=r"did you mean train.learning_rate\?"):
        load(assignments=["train.learning_rte=1"])


@pytest.mark.parametrize(
    ("text", "says"),
    [("train: [", "not valid YAML"), ("- 1\n", "holds no settings"), ("train: 5\n", "train = 5"), ("\x00", "YAML")],
)
def test_a_bad_settings_file_is_a_clear_error(tmp_path, text, says):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says):
        load(config=file)


def test_a_missing_settings_file_is_a_clear_error(tmp_path):
    with pytest.raises(SettingsError, match=r"nowhere.yaml cannot be read"):
        load(config=tmp_path / "nowhere.yaml")


def test_short_names_name_settings_that_exist():
    for targets in SHORT_NAMES.values():
        assert set(targets) <= set(names())


def test_a_wrong_setting_points_to_the_pages_that_list_them_all():
    with pytest.raises(SettingsError) as caught:
        load(assignments=["train.epoch=3"])
    assert "phinetune explain" in caught.value.hint
