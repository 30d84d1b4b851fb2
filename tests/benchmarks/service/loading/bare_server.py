"""What gRPC alone costs: python -m loading.bare_server ROOT.

A grpc.aio server with the service's methods and nothing around them: no caller, policy, lease, line, revision or
metric. It answers with the messages that our server sends on the fake engine, at the same pace.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio

from eul_serve.serve.run import write_whole
from eul_serve.v1 import generation_service_pb2 as pb
from eul_serve.v1 import generation_service_pb2_grpc as services
from loading.paced_server import HELD, HELD_SECONDS

REVISION = "sha256:" + "a" * 64
TEXT = "aaaaaaaa "


class BareServicer(services.GenerationServiceServicer):
    """Answers prompts, and does nothing else."""

    async def Generate(self, request: pb.GenerateRequest, context: grpc.aio.ServicerContext) -> pb.GenerateResponse:
        """Answer in one message."""
        count = request.sampling.max_tokens
        return pb.GenerateResponse(
            text=TEXT * count,
            revision=REVISION,
            finish_reason=pb.FINISH_REASON_LENGTH,
            usage=_usage(request.prompt, count),
            token_ids=[index % 256 for index in range(count)],
        )

    async def GenerateStream(
        self, request: pb.GenerateStreamRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.GenerateStreamResponse]:
        """Answer piece by piece."""
        yield pb.GenerateStreamResponse(revision=REVISION, usage=_usage(request.prompt, 0))
        pause = HELD_SECONDS if request.prompt.tokens.ids[0] == HELD else 0.0
        last = request.sampling.max_tokens - 1
        for index in range(last + 1):
            if index:
                await asyncio.sleep(pause)
            yield pb.GenerateStreamResponse(
                text=TEXT,
                revision=REVISION,
                finish_reason=pb.FINISH_REASON_LENGTH if index == last else pb.FINISH_REASON_UNSPECIFIED,
                usage=_usage(request.prompt, index + 1),
                token_ids=[index % 256],
            )


def _usage(prompt: pb.Prompt, made: int) -> pb.Usage:
    return pb.Usage(prompt_tokens=len(prompt.tokens.ids), completion_tokens=made)


async def serve(root: Path) -> None:
    """Run the server until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = grpc.aio.server()
    services.add_GenerationServiceServicer_to_server(BareServicer(), server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    write_whole(root / "ready.json", json.dumps({"listen": f"127.0.0.1:{port}"}))
    await stop.wait()
    await server.stop(1.0)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
