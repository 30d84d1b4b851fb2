"""The OpenAI-compatible HTTP endpoint: the same identity, policy, queue and metrics as gRPC, in other words."""
