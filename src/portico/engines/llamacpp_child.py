"""The embedded engine's own process: llama.cpp's server, loaded from xllamacpp.

Run as a script by its path, not with -m: it imports nothing of ours, because that would cost every start
0.1 s. It reads one line of JSON from stdin (`Start` in llamacpp.py), loads the model, writes one line of
JSON with its address to stdout, and serves until it is killed or its parent is gone.
"""

import faulthandler
import json
import os
import sys
import threading
from typing import Any


def follow_parent() -> None:
    """Ends this process, and what it started, when the parent ends in whatever way.

    The lifeline (stdin) ends with the parent everywhere. But a thread has to read that, and loading a model
    holds the interpreter throughout: an orphan would live until its load is over. On Linux the kernel ends it
    at once instead, load or not.
    """
    if sys.platform == "linux":
        import ctypes
        import signal

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)

    def read_to_the_end() -> None:
        while os.read(0, 4096):
            pass
        if hasattr(os, "killpg") and os.getpgid(0) == os.getpid():
            os.killpg(0, 9)
        os._exit(1)

    threading.Thread(target=read_to_the_end, name="lifeline", daemon=True).start()


def divert_output() -> int:
    """Makes everything that is printed from here on log; returns what stdout was."""
    announcements = os.dup(1)
    os.dup2(2, 1)
    return announcements


def be_expendable() -> None:
    """A crash must be over at once, and it is the engine that goes when memory runs out, not the server."""
    faulthandler.enable()  # a segmentation fault says nothing by itself
    os.environ["GGML_NO_BACKTRACE"] = "1"  # an assertion would start gdb: measured, 2.6 s until the end
    # Threads that wait for each other spin for milliseconds by default, and take the cores from whoever they
    # wait for. Measured with 83 million weights on two cores: 116 to 127 tokens/s either way on quiet cores;
    # with others at work 11 to 14 by default and 20 to 29 with this.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if sys.platform != "win32":
        import resource

        # A core file of some gigabytes would delay the exit by seconds. 1 and not 0: that also stops the
        # kernel from piping it to a crash reporter.
        most = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (0 if most == 0 else 1, most))
    if sys.platform == "linux":
        try:
            with open("/proc/self/oom_score_adj", "w") as score:
                score.write("500")
        except OSError:
            pass


def read_line() -> bytes:
    """One line from the lifeline; past sys.stdin, whose buffer would hide the end from another thread."""
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            os._exit(1)
        line += piece
    return line


def parameters(start: dict[str, Any]) -> Any:
    """llama.cpp's parameters for one model."""
    import xllamacpp

    p = xllamacpp.CommonParams()
    p.model.path = start["path"]
    p.model_alias = {start["served_name"]}
    if start["chat_template"] is not None:
        p.chat_template = start["chat_template"]
    if not start["thinks_unasked"]:
        p.default_template_kwargs = {"enable_thinking": "false"}
    if start["mmproj"] is not None:
        p.mmproj.path = start["mmproj"]
    p.n_ctx, p.n_parallel, p.kv_unified = start["cells"], start["parallel"], start["unified"]
    p.cpuparams.n_threads, p.cpuparams_batch.n_threads = start["threads"], start["batch_threads"]
    if start["embedding"]:
        p.embedding = True
        if start["batch"]:
            p.n_batch = p.n_ubatch = start["batch"]
        if start["pooling"]:
            p.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{start['pooling']}"]
    # Fitting reads the file twice; without a GPU there is nothing to fit the layers to.
    kinds = xllamacpp.ggml_backend_dev_type
    accelerators = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    p.fit_params = any(device["type"] in accelerators for device in xllamacpp.get_device_info())
    if start["socket"]:
        p.hostnames = [start["socket"]]
    p.port = 0
    p.api_keys = [start["key"]]
    p.cors_origins, p.cors_credentials = "", False  # its default answers every web page
    p.ui, p.offline = False, True
    p.endpoint_metrics = p.endpoint_slots = True
    # A connection occupies a thread, also while it idles: with the default of about ten, 40 open streams
    # were followed by 20 s in which nothing was answered. A thread costs 8 KB.
    p.n_threads_http = start["connections"]
    p.cache_ram_mib = start["cache_mib"]
    # A chat that ends with an assistant's message gets a new turn, as with vLLM; llama.cpp would go on with
    # that message and give its beginning back as part of the answer.
    p.prefill_assistant = False
    p.verbosity = 2  # errors and warnings; 3 adds several lines for each request
    return p


def main() -> None:
    announcements = divert_output()
    be_expendable()
    start = json.loads(read_line())
    follow_parent()
    import xllamacpp

    try:
        server = xllamacpp.Server(parameters(start))
    except RuntimeError as error:
        # It says only that it failed. The reason is still with llama.cpp's logging thread, which writes it when
        # the process ends in order; taking half a server apart may also block, so that has a limit.
        faulthandler.dump_traceback_later(2.0, exit=True)
        sys.exit(str(error))
    announced = {"ready": True, "address": server.listening_address}
    os.write(announcements, json.dumps(announced).encode() + b"\n")
    threading.Event().wait()  # `server` must live: its end waits 30 s for open streams


if __name__ == "__main__":
    main()
