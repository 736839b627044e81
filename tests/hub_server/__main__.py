"""``python -m hub_server --root FOLDER --account NAME:TOKEN``: serve until interrupted."""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

import uvicorn

from hub_server.accounts import parse_account
from hub_server.app import make_app


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hub_server", description=__doc__)
    parser.add_argument("--root", type=Path, required=True, help="where repositories are kept")
    parser.add_argument("--port", type=int, default=0, help="0 (default) takes a free one")
    parser.add_argument(
        "--account",
        action="append",
        default=[],
        metavar="NAME:TOKEN[:ORG,ORG[:ROLE]]",
        help="who may log in; repeat for more",
    )
    args = parser.parse_args()
    app = make_app(args.root, [parse_account(text) for text in args.account])
    # Without the protocol asyncio leaves Nagle's algorithm on, which costs 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", args.port))
    listener.listen(128)
    # The address is written once connections are accepted: the kernel queues them from now on.
    sys.stdout.write(f"http://127.0.0.1:{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
