"""The composition root: the only room that builds engine, registry, policy, swap, rpc and metrics into a server."""
