"""A small MCP server: `python mcp_server.py FOLDER` over stdio, `python mcp_server.py FOLDER http` at a port that it prints."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError

FOLDER = Path(sys.argv[1])
server = MCPServer("tests")


@server.tool()
def get_weather(city: str) -> str:
    """Get the weather of a city."""
    return f"It is sunny in {city}."


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def broken() -> str:
    """Fails."""
    raise ToolError("the disk is on fire")


@server.tool(name="whole.environment")
def environment() -> list[str]:
    """The names of its variables."""
    return sorted(os.environ)


@server.tool()
async def slow() -> str:
    """Takes its time."""
    (FOLDER / "began").touch()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        (FOLDER / "cancelled").touch()
        raise
    return "done"


@server.tool()
def die() -> str:
    """Ends the server in the middle of the call."""
    os._exit(3)


if __name__ == "__main__":
    (FOLDER / "pid").write_text(str(os.getpid()))
    if sys.argv[2:] == ["http"]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        print(port, flush=True)
        server.run(transport="streamable-http", host="127.0.0.1", port=port)
    elif sys.argv[2:] == ["dumb"]:
        print("cannot read the configuration", file=sys.stderr)
        sys.exit(1)
    else:
        server.run()
