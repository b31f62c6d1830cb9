from napo.config.runs import contrast_of, result_name, seeds_of, trained
from napo.config.variants import VARIANTS


def test_a_variant_without_training_has_one_result_and_others_one_for_each_seed():
    assert seeds_of("vcd", (1, 2)) == seeds_of("base", (1, 2)) == [0]
    assert result_name("vcd", 0, "lora") == "vcd" and result_name("base", 0) == "base"
    assert seeds_of("A1", (1, 2)) == [1, 2] and result_name("A1", 1, "lora") == "A1-lora/seed-1"


def test_only_a_variant_without_training_has_a_contrast():
    assert [name for name in VARIANTS if contrast_of(name)] == ["vcd"]
    assert contrast_of("base") is None and not trained("base") and trained("A1")
