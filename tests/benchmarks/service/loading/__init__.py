"""What the service's benchmarks share: arrivals, clients and servers in processes of their own, and what came of it."""
