"""Which amateur, alpha and beta for an expert and its questions?"""
