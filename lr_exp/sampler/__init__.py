"""Questions to supervision: rollout, scoring, selection, and the published record form."""
