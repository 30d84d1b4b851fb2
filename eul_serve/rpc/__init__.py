"""The gRPC server: who calls (auth), what is allowed (validate), what runs (runner), what is said (convert, status)."""
