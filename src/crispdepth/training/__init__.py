"""Training: recipes, and the only room that knows Lightning."""
