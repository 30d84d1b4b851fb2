"""Hot swap: which revisions are in the engine, who runs on them, and how a new one takes over.

`revision` is the pure state machine, `residency` sends its events, `carrier` carries its actions out, and `canaries`
asks what a revision must hide. `leases` counts the requests in flight, `follower` watches registry and policy, and
`fallback` says what may serve where canaries fail. Imports neither grpc, vllm nor torch.
"""
