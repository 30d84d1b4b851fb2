"""Training one unlearning layer: the loop, its stop, its teacher, and what is done at its end."""
