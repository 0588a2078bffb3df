"""Expert and amateur over one vocabulary: loading, tokenizers, prompts, packing, devices."""
