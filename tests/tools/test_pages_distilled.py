"""What a page says of self-distillation on texts."""

from __future__ import annotations

from tools.pages import comparison


def test_self_distillation_on_texts_is_shown_with_what_each_arm_chose_and_spent() -> None:
    plain = {"setting": {"learning_rate": 0.001}, "test": [0.7, 0.8], "further_flops": [0, 0]}
    mars = {"learning_rate": 0.0005, "regulariser.name": "mars", "regulariser.radius": 4.0}
    held = {"setting": mars, "test": [0.5, 0.7], "further_flops": [0, 2e12]}
    pair = {"a": "mars", "b": "finetune", "difference": -0.15, "ci95": [-0.2, -0.1]}
    info = {"what": "test accuracy", "arms": {"finetune": plain, "mars": held}, "pairs": [pair], "command": "python -m benchmarks.x"}
    text = comparison.distilled_text(info | {"hardware": {"cpu": "a CPU", "cores": 2}, "date": "2026-11-27T10:00:00"})
    assert "| finetune | 0.750 (0.700 to 0.800) | - | learning_rate 0.001 |" in text
    assert "| mars | 0.600 (0.500 to 0.700) | 1e+12 | learning_rate 0.0005, name mars, radius 4.0 |" in text
    assert "- mars - finetune: -0.150 (95 % interval -0.200 to -0.100)" in text
    assert text.endswith("a CPU, 2 cores; 2026-11-27. `python -m benchmarks.x`")
