"""The stages of a run, in order, each as a recipe; the run, its inputs and its identity."""
