"""Attacks on stored second moments: who was in them, and which tokens can be found again."""
