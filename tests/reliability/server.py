"""A process that has imported everything once, and forks a real process for each run of a tool.

Each line on stdin is a JSON request: `{"tool": ..., "arguments": [...], "output": FILE, "fault": {...}}` answers the
new process's number, `{"wait": NUMBER}` its exit code (negative: the signal that killed it).
"""

import errno
import json
import os
import resource
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

REPOSITORY = Path(__file__).resolve().parents[2]


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


def inject(kill_in_write=None, kill_at_rename=None, file_bytes=None, memory_bytes=None, open_files=None, ranks=None):
    """Prepare a fault of this process.

    Args:
        kill_in_write: the number of the write of a checkpoint in the middle of which it is killed.
        kill_at_rename: the number of the renaming of a finished file right before which it is killed.
        file_bytes: the largest file that it may write.
        memory_bytes: how much more memory it may take.
        open_files: how many files it may have open.
        ranks: (rank, port): which of the two processes of a run it is.
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
    if file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if open_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))
    if memory_bytes is not None:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def full_disk(at):
    """Make the write number `at` of this process, and all after it, find a full disk; returns what undoes it.

    Counted are files that are written whole, and lines of the metrics.
    """
    import dfad_seg.common.files as files
    import dfad_seg.runs.directory as directory

    count = [0]

    def spend():
        count[0] += 1
        if at is not None and count[0] >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    kept = files.os.fsync, directory.RunDirectory.note

    class Files:
        def __getattr__(self, name):
            return getattr(os, name)

        def fsync(self, handle):
            if not os.path.isdir(f"/proc/self/fd/{handle}"):
                spend()
            os.fsync(handle)

    def append(self, step, values):
        spend()
        return kept[1](self, step, values)

    files.os = Files()
    directory.RunDirectory.note = append

    def undo():
        files.os = os
        directory.RunDirectory.note = kept[1]
        return count[0]

    return undo


if __name__ == "__main__":
    serve()
