"""Prompts to token ids: batched decoding, next-token strategies, engines."""
