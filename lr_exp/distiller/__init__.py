"""Supervision to an adapter: batches of kept steps, and LoRA tuning on them."""
