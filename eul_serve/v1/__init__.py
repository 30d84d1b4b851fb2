"""The wire contract `eul_serve.v1`; the `*_pb2` modules are generated at build by `proto/build.py`."""
