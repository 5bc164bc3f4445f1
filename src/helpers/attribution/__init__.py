"""Which drivers explain the vertical rate: models, importance of groups, effects."""

from .effects import Ground, accumulated_local_effects, applicability, bootstrap_forests, partial_effect
from .importance import drop_column, grouped_importance, impurity_importance
from .models import BlockedModel, Comparison, block_side, compare_models, fit_forest, fit_smooth

__all__ = [
    "BlockedModel", "Comparison", "Ground", "accumulated_local_effects", "applicability", "block_side",
    "bootstrap_forests", "compare_models", "drop_column", "fit_forest", "fit_smooth", "grouped_importance",
    "impurity_importance", "partial_effect",
]  # fmt: skip
