"""A process that has imported everything once, and forks a real process for each run of a tool.

Each line on stdin is a JSON request: `{"tool": ..., "arguments": [...], "output": FILE, "fault": {...}}` answers the
new process's number, `{"wait": NUMBER}` its exit code (negative: the signal that killed it).
"""

import json
import os
import resource
import signal
import sys
from pathlib import Path
from types import SimpleNamespace


def warm():
    import lightning_fabric  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import segmentation_models_pytorch  # noqa: F401
    import torch

    import dfad_seg.recipes.train
    import dfad_seg.runs.report

    # Curves take longer than such a run; the report is written without them.
    dfad_seg.runs.report.curves_svg = lambda *_, **__: "<svg></svg>"
    # No backward pass here: a process that has made one cannot make another after a fork.
    torch.set_num_threads(1)


def serve():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warm()
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        number = os.fork()
        if not number:
            run(request)
        print(number, flush=True)


def run(request):
    """In the child: run the tool as `tools/TOOL.py` does, and end."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(output, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    end_as_command([request["tool"], *request["arguments"]], lambda: inject(**request["fault"]))


def end_as_command(argv, before=lambda: None):
    """In a forked process: run a command of `dfad-seg` and end with its exit code, with 70 for what it lets through."""
    code = 70
    try:
        from dfad_seg.cli import main

        before()
        code = main(argv)
    except SystemExit as end:
        code = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def limit(name, value):
    """Set a limit of this process by its name in `resource`; that of memory, RLIMIT_AS, beyond what it has."""
    if name == "RLIMIT_AS":
        value += int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(getattr(resource, name), (value, value))


def inject(kill_in_write=None, kill_at_rename=None, ranks=None, **limits):
    """Prepare a fault of this process.

    Args:
        kill_in_write: the number of the write of a checkpoint in the middle of which it is killed.
        kill_at_rename: the number of the renaming of a finished file right before which it is killed.
        ranks: (rank, port): which of the two processes of a run it is.
        limits: as `limit` takes them.
    """
    if ranks is not None:
        names = ("LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR", "NODE_RANK", "WORLD_SIZE")
        os.environ.update(zip(names, map(str, (*ranks, "127.0.0.1", 0, 2)), strict=True))
    import dfad_seg.common.files as files

    if kill_in_write is not None:
        save, count = files.torch.save, [0]

        def dying_save(value, handle):
            def half(data):
                count[0] += 1
                if count[0] == kill_in_write:
                    view = memoryview(data).cast("B")
                    handle.write(view[: len(view) // 2])
                    handle.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
                return handle.write(data)

            save(value, SimpleNamespace(write=half, flush=handle.flush))

        files.torch.save = dying_save
    if kill_at_rename is not None:
        rename, renames = os.replace, [0]

        def dying(source, target):
            renames[0] += 1
            if renames[0] == kill_at_rename:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)

        os.replace = dying
    for name, value in limits.items():
        limit(name, value)


if __name__ == "__main__":
    serve()
