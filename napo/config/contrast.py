"""The settings of visual contrastive decoding (VCD, Leng et al. 2024, CVPR, arXiv 2311.16922)."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

STEPS = 1000  # of the diffusion that makes the noise (released code: vcd_utils/vcd_add_noise.py)


class Contrast(BaseModel):
    """Logits of the picture against logits of the noised picture.

    The defaults are those of the released evaluation of LLaVA-1.5
    (`experiments/eval/object_hallucination_vqa_llava.py` of DAMO-NLP-SG/VCD). Its shell scripts
    also use beta 0.2 and step 999.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # Weight of the difference (Eq. 3); 0: decoding of the picture alone.
    alpha: Annotated[float, Field(strict=True, ge=0)] = 1.0
    # Share of the likeliest token's probability that a token needs to be chosen (Eq. 4); 0: none.
    beta: Annotated[float, Field(strict=True, ge=0, le=1)] = 0.1
    # How noisy the picture is: 0 to 999.
    noise_step: Annotated[int, Field(strict=True, ge=0, lt=STEPS)] = 500
