"""Text generation: batched decoding, decoding strategies, inference engines, memory."""
