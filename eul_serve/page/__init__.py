"""The status page: what administrators see of a server in a browser. It reads, and changes nothing."""
