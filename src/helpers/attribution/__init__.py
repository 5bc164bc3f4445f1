"""Which drivers explain where the ground sinks: forest, importance, effects."""

from .models import (
    Smooth,
    accumulated_local_effects,
    applicability,
    block_side,
    bootstrap_forests,
    draw_by_block,
    drop_column,
    fit_forest,
    fit_smooth,
    grouped_importance,
    held_out,
    impurity_importance,
    null_importances,
    partial_effect,
    residual_range,
    spatial_blocks,
)

__all__ = [
    "Smooth",
    "accumulated_local_effects",
    "applicability",
    "block_side",
    "bootstrap_forests",
    "draw_by_block",
    "drop_column",
    "fit_forest",
    "fit_smooth",
    "grouped_importance",
    "held_out",
    "impurity_importance",
    "null_importances",
    "partial_effect",
    "residual_range",
    "spatial_blocks",
]
