import engine_fixtures as engine
import pytest

from napo.method.mask import choose_layout


@pytest.fixture
def model():
    return engine.model(engine.processor())


def test_a_plain_llava_shares_the_prefix_and_packs_rows(model):
    assert choose_layout(model) == "packed"


@pytest.mark.parametrize(
    "change",
    [
        {"layer_types": ["sliding_attention", "full_attention"]},
        {"rope_parameters": {"mrope_section": [2, 1, 1]}},
        {"_attn_implementation": "flash_attention_2"},
    ],
)
def test_other_attention_or_positions_get_padded_rows_and_a_warning(model, change, caplog):
    text = model.config.text_config
    for name, value in change.items():
        setattr(text, name, value)
    assert choose_layout(model) == "padded"
    assert "padded rows" in caplog.text
