"""Models and tokenizers: loading, shared vocabularies, prompts, packing, devices."""
