"""What `foretell run` does: the stages of a recipe, composed. The stages themselves live in their rooms."""

from foretell.pipeline.stages import fine_tuning, run_recipe, run_status, stages

__all__ = ["fine_tuning", "run_recipe", "run_status", "stages"]
