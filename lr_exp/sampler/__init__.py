"""Questions to supervision: rollout, scoring, step rules, targets and the published record form."""
