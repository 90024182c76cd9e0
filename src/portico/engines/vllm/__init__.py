"""vLLM as a child process: how it is started, watched and ended."""
