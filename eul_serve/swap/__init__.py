"""Hot swap: which revisions are in the engine, who runs on them, and how a new one takes over.

`revision` is the pure state machine, `residency` sends its events, `carrier` carries its actions out, `leases` counts
the requests in flight, and `follower` watches registry and policy. Imports neither grpc, vllm nor torch.
"""
