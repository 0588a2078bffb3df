"""Supervision to an adapter: batches of kept steps, losses and LoRA training."""
