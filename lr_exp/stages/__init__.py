"""Each stage as a recipe: what determines its artifact, and which room makes it."""
