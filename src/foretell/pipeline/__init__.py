"""What `foretell run` does: the stages of a recipe, composed. The stages themselves live in their rooms."""

from foretell.pipeline.stages import run_recipe, run_status, stages

__all__ = ["run_recipe", "run_status", "stages"]
