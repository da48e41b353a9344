"""Keeps an interpreter with imported libraries, and clones it into a new cell for each program.

The runner starts the zygote in the container with a few capabilities. The two exchange JSON
messages on descriptor 3:

    runner -> {"imports": [...], "user": n, "filter": "hex" or null, "spaces": [flag, ...]}    once
           <- {"ready": 1}
    runner -> clone                                        for each clone, with these descriptors:
              the cell's process namespace, its other namespaces as in "spaces", files to join its
              cgroups by, and the program's descriptors
           <- {"status": wait status, "cpu_us": n}                          once the clone is dead

In place of an answer, the zygote sends {"failed": "step", "errno": n} if a step failed.

A *template zygote* belongs to a keeper and serves several sandboxes. It makes no clones. For each
sandbox it forks a *server*, which makes clones on a control socket of its own, with the messages
above:

    keeper -> {"imports": [...]}                                                               once
           <- {"ready": 1}
    keeper -> {"user": n, "filter": ..., "spaces": [...]}   for each server, with these descriptors:
              the server's control socket, the sandbox's cgroup namespace

    server -> {"ready": 1}                                                on its own control socket

A server ends when its runner closes the control socket. The template zygote keeps nothing of it.

A clone takes the same steps, in the same order, that the runner takes for a program that it starts:
it enters the cell, joins the cell's cgroups, drops its user, groups, capabilities and every
descriptor that is not the program's, and installs the same filter. Then it waits for its request.
If the channel ends without a request, the clone ends. A clone shares no memory with other clones:
it has copies of its own.

The zygote does not serve with more than one thread. A clone has only the thread that made it, and
locks that other threads held would stay locked.

The cost of a clone is mostly the pages that it touches: the kernel copies each page that the clone
writes to, and a change of a reference count is a write. So everything that can be made, looked up
or compared is prepared before the fork, and prefault.py reduces the remaining cost.
"""

import ctypes
import fcntl
import gc
import os
import posix
import resource
import sys

import _signal
import _socket
import prefault
import exits
import harness
import threads

# Imported by name, because a program may replace these builtins.
from builtins import BaseException, SystemExit

CONTROL_FD = 3
CLONE_REQUEST = b"clone"
PROGRAM_FD_COUNT = 5  # standard input, output and error, the channel, the status pipe
STATUS_FD = 4
INFER_FD = 4  # once the status pipe is closed
MAX_MESSAGE_BYTES = 64 << 10
FIRST_READ_BYTES = 16 << 10  # bytes of a request, which is seldom longer
MAX_DESCRIPTORS = 32
ROOM_FOR_ONE = _socket.CMSG_SPACE(4)
LAST_DESCRIPTOR = 1 << 20
OOM_SCORE = b"1000"
WORK_DIR = "/work"
TEMPORARY = "/tmp"

BEFORE_STDIN = b"\0"
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

UNLIMITED = resource.RLIM_INFINITY

CLONE_NEWPID = 0x20000000
CLONE_NEWCGROUP = 0x02000000
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
MADV_POPULATE_WRITE = 23
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
CAPABILITY_VERSION = 0x20080522

libc = ctypes.CDLL(None, use_errno=True)
PRCTL = libc.prctl
SETNS = libc.setns
SYSCALL = libc.syscall
MADVISE = libc.madvise


class StepError(Exception):
    """A step of the zygote or a clone that the kernel refused."""

    def __init__(self, step, errno):
        super().__init__(step, errno)
        self.step = step
        self.errno = errno


def step(name, call, *arguments):
    """Calls `call`. An OSError becomes a StepError with the name of the step."""
    try:
        return call(*arguments)
    except OSError as error:
        raise StepError(name, error.errno) from None


def kernel(name, call, *arguments):
    """Calls a function of the C library. A failure raises StepError with the name of the step."""
    if call(*arguments) != 0:
        raise StepError(name, ctypes.get_errno())


class Filter(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def read_filter(text):
    """Decodes a filter into the structure that the kernel takes."""
    code = bytes.fromhex(text)
    return ctypes.byref(Filter(len(code) // 8, code))


def no_capabilities():
    """Returns a function and its arguments that drop every capability."""
    number = SYS_CAPSET.get(posix.uname().machine)
    if number is None:
        raise StepError("find the number of capset on this machine", 38)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    return SYSCALL, ctypes.c_long(number), ctypes.byref(header), ctypes.byref(none)


class Prepared:
    """The data that are the same for every clone, made before the first one."""

    def __init__(self):
        self.user = self.namespaces = self.filter = self.cgroup_namespace = None
        self.no_capabilities = no_capabilities()
        self.variables = dict(os.environ)
        self.predicted_pages = ()

    def configure(self, setup):
        """Takes the properties of the sandbox's clones."""
        self.user = setup["user"]
        self.namespaces = setup["spaces"]
        self.filter = setup["filter"] and read_filter(setup["filter"])

    def run_small_program(self, module):
        """Takes the steps of a clone from its request to its exit, with a minimal program."""
        request = '{"source":"print(1)","args":[],"input_json":"null","env":[%s],"limits":[]}'
        variables = self.variables.items()
        env = ",".join(
            "[%s,%s]" % (harness.to_json(name), harness.to_json(value)) for name, value in variables
        )
        request = decode_request((request % env).encode())
        take_variables(request["env"], self.variables)
        harness.run_request(request, module)
        del module
        exits.end_program()


def populate_calls(stretches):
    """Returns the arguments of the `madvise` calls that copy these pages."""
    return [
        (ctypes.c_void_p(begin), ctypes.c_size_t(size), MADV_POPULATE_WRITE)
        for begin, size in stretches
    ]


def receive(control):
    """Receives the next message and its descriptors. The message is empty if the runner is gone."""
    room = _socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)
    data, ancillary, _flags, _from = control.recvmsg(
        MAX_MESSAGE_BYTES, room, _socket.MSG_CMSG_CLOEXEC
    )
    descriptors = []
    for _level, _kind, words in ancillary:
        descriptors += memoryview(words)[: len(words) & ~3].cast("i").tolist()
    return data, descriptors


def folders_under(place):
    """Returns every folder under `place`, parents first, except those of the runner."""
    found = []
    for folder, below, _files in os.walk(place):
        if folder == place:
            below[:] = [name for name in below if name not in ("void", "mark")]
        found += [os.path.join(folder, name) for name in below]
    return found


class Library:
    """The modules that every clone finds imported, and the state in them that a clone renews."""

    def __init__(self, imports):
        for name in imports:
            __import__(name)
        gc.collect()
        random = sys.modules.get("random")
        kind = random.Random if random is not None else ()
        self.generators = [each for each in gc.get_objects() if type(each) is kind]
        self.folders = folders_under(TEMPORARY)
        self.pools = threads.pools()

    def renew(self):
        """Makes random numbers and keys that no other clone has."""
        for each in self.generators:
            each.seed()
        numpy_random = sys.modules.get("numpy.random")
        if numpy_random is not None:
            numpy_random.seed()
        process = sys.modules.get("multiprocessing.process")
        if process is not None:
            process.current_process().authkey = posix.urandom(32)
        tempfile = sys.modules.get("tempfile")
        if tempfile is not None:
            tempfile.tempdir = tempfile._name_sequence = None

    def remake_folders(self):
        """Creates the folders that libraries created when they were imported and expect to find."""
        for folder in self.folders:
            step("make a library's folder", posix.mkdir, folder, 0o700)


def install_descriptors(program_fds):
    """Moves the program's descriptors to 0 and up, and closes all others."""
    what = "place the program's descriptors"
    if min(program_fds) < PROGRAM_FD_COUNT:
        # One would be overwritten before it is moved. The zygote's own descriptors are lower than
        # all that it receives, so this does not happen.
        raise StepError(what, 9)
    for number, end in enumerate(program_fds):
        step(what, posix.dup2, end, number, number < 3)
    posix.closerange(PROGRAM_FD_COUNT, LAST_DESCRIPTOR)


def join(groups, cgroup_namespace):
    """Joins the cell's cgroups. With a namespace, the process comes from outside of it.

    The kernel refuses to move a process into a cgroup namespace by a file that was opened inside,
    so the file is opened again. The process enters the namespace after the move.
    """
    what = "join the cell's cgroup"
    for tasks in groups:
        if cgroup_namespace is not None:
            tasks = step(what, posix.open, "/proc/self/fd/%d" % tasks, posix.O_WRONLY)
        step(what, posix.write, tasks, b"0")
    if cgroup_namespace is not None:
        kernel("enter the cgroup namespace", SETNS, cgroup_namespace, CLONE_NEWCGROUP)


def enter(namespaces, groups, program_fds, prepared):
    """Enters the cell and drops all privileges that a program must not have."""
    for flag, descriptor in namespaces:
        kernel("enter the cell's namespaces", SETNS, descriptor, flag)
    step("start a session", posix.setsid)
    join(groups, prepared.cgroup_namespace)
    score = step("raise the oom score", posix.open, "/proc/self/oom_score_adj", posix.O_WRONLY)
    step("raise the oom score", posix.write, score, OOM_SCORE)
    install_descriptors(program_fds)
    user = prepared.user
    step("drop the supplementary groups", posix.setgroups, [])
    step("change to the cell's group", posix.setresgid, user, user, user)
    step("change to the cell's user", posix.setresuid, user, user, user)
    kernel("drop the capabilities", *prepared.no_capabilities)
    # The change of user has cleared this flag. An exec would set it again, but a clone calls none.
    kernel("make the program dumpable", PRCTL, PR_SET_DUMPABLE, 1, 0, 0, 0)
    posix.umask(0o022)
    step("change to the working directory", posix.chdir, WORK_DIR)


def set_limits(limits):
    """Sets the resource limits. A limit of the container that is lower already stays."""
    for kind, soft, hard in limits:
        try:
            resource.setrlimit(kind, (soft, hard))
        except (ValueError, OSError):
            most = resource.getrlimit(kind)[1]
            if most == UNLIMITED or hard != UNLIMITED and most > hard:
                raise StepError("lower a limit", 1) from None
            resource.setrlimit(kind, (min(soft, most), most))


def take_variables(variables, present):
    """Sets the environment. Returns whether it differs from the present one."""
    if dict(variables) == present:
        return False
    os.environ.clear()
    os.environ.update(variables)
    if "TZ" in os.environ and "time" in sys.modules:
        sys.modules["time"].tzset()
    return True


def report_failure(errno, what):
    posix.write(STATUS_FD, ("F%d %s" % (errno, what)).encode())
    posix._exit(127)


def read_request(channel):
    """Reads the request, and the descriptor for inference requests, if any.

    Standard input may follow the request in the same message. It is put in place.
    """
    first, ancillary, _flags, _from = channel.recvmsg(
        FIRST_READ_BYTES, ROOM_FOR_ONE, _socket.MSG_CMSG_CLOEXEC
    )
    # The descriptor belongs to the program from here on. The program may close it.
    channel.detach()
    infer_fd = None
    if ancillary:
        # It came with a message that has no body.
        infer_fd = memoryview(ancillary[0][2]).cast("i")[0]
    pieces = []
    body = harness.request_pieces(first)
    for piece in body:
        piece, separator, stdin = piece.partition(BEFORE_STDIN)
        pieces.append(piece)
        if separator:
            take_stdin(stdin, body)
    return b"".join(pieces), infer_fd


def take_stdin(piece, more):
    """Writes all of standard input to a memory file of the clone, which counts as its memory.

    `piece` is its first part, and `more` yields the rest.
    """
    file = posix.memfd_create("stdin", posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING)
    while piece is not None:
        rest = memoryview(piece)
        while rest:
            rest = rest[posix.write(file, rest) :]
        piece = next(more, None)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)
    posix.lseek(file, 0, 0)
    posix.dup2(file, 0)
    posix.close(file)


def decode_request(request):
    """Decodes a request, and sets the limits in it."""
    request = harness.from_json(request.decode())
    set_limits(request["limits"])
    return request


def run_clone(cell, channel, library, prepared):
    """Runs a clone from the fork to its exit, with every possible step before the request."""
    try:
        enter(*cell, prepared)
        library.remake_folders()
        library.renew()
        if prepared.filter is not None:
            kernel(
                "install the seccomp filter",
                PRCTL,
                PR_SET_SECCOMP,
                SECCOMP_MODE_FILTER,
                prepared.filter,
            )
        # A program may have its own modules with these names.
        del sys.modules["harness"], sys.modules["exits"]
        exits.begin_program()
        module = harness.prepare()
        harness.open_source()
        for pages in prepared.predicted_pages:
            MADVISE(*pages)
        posix.write(STATUS_FD, b"W")
        request, infer_fd = read_request(channel)
        if not request:
            posix._exit(0)
        request = decode_request(request)
        # The program's time begins here. The steps below read data that the job chooses; for
        # example, its time zone may be any file.
        posix.write(STATUS_FD, b"R")
        posix.close(STATUS_FD)
        if infer_fd is not None:
            posix.dup2(infer_fd, INFER_FD, False)
            posix.close(infer_fd)
    except StepError as error:
        report_failure(error.errno, error.step)
    except BaseException as error:
        report_failure(5, "prepare a clone: %s" % type(error).__name__)
    try:
        if take_variables(request["env"], prepared.variables):
            threads.resize(library.pools, os.environ)
        harness.run_request(request, module)
        code = None
    except SystemExit as error:
        code = error.code
    except BaseException:
        code = 1
    # `exits.exit_like_python` frees the module and all objects that only it refers to, so no
    # reference may stay here.
    del module
    exits.exit_like_python(code)


def clone(own, descriptors, control, library, prepared):
    """Forks a clone into the process namespace of a cell.

    In the clone, the channel has the descriptor number of the control socket.
    """
    process_namespace, others = descriptors[0], descriptors[1 : 1 + len(prepared.namespaces)]
    rest = descriptors[1 + len(others) :]
    groups, program_fds = rest[:-PROGRAM_FD_COUNT], rest[-PROGRAM_FD_COUNT:]
    cell = list(zip(prepared.namespaces, others)), groups, program_fds
    kernel("name the cell's process namespace", libc.setns, process_namespace, CLONE_NEWPID)
    try:
        child = step("fork a clone", posix.fork)
        if child == 0:
            try:
                run_clone(cell, control, library, prepared)
            finally:
                posix._exit(70)
    finally:
        kernel("go back to the runner's process namespace", libc.setns, own, CLONE_NEWPID)
    return child


def close(descriptors):
    """Closes the received descriptors, in one call if their numbers are consecutive."""
    first, last = descriptors[0], descriptors[-1]
    if last - first == len(descriptors) - 1:
        return posix.closerange(first, last + 1)
    for each in descriptors:
        posix.close(each)


def serve(control, *inherited):
    own = posix.open("/proc/self/ns/pid", posix.O_RDONLY | posix.O_CLOEXEC)
    while True:
        message, descriptors = receive(control)
        if message != CLONE_REQUEST:
            return
        try:
            child = clone(own, descriptors, control, *inherited)
        except StepError as error:
            send_message(control, failed=error.step, errno=error.errno)
            continue
        finally:
            close(descriptors)
        _child, status, usage = posix.wait4(child, 0)
        # Sent before the other children are reaped, because the program's report waits for it.
        control.send(
            b'{"status":%d,"cpu_us":%d}' % (status, (usage.ru_utime + usage.ru_stime) * 1e6)
        )
        reap_the_rest()


def fork_servers(control, library, prepared):
    """Forks a server for each message of the keeper, until the keeper is gone."""
    # The kernel reaps the servers.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    while True:
        message, descriptors = receive(control)
        if not message:
            return
        try:
            child = posix.fork()
        except OSError as error:
            with _socket.socket(fileno=descriptors.pop(0)) as server:
                send_message(server, failed="fork a server", errno=error.errno)
        else:
            if child == 0:
                try:
                    run_server(control, message, *descriptors, library, prepared)
                finally:
                    posix._exit(70)
        for each in descriptors:
            posix.close(each)


def run_server(control, message, server, cgroup_namespace, library, prepared):
    """Makes clones for one sandbox, until its runner is gone. Does not return."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    # The socket of the server takes the number of the template's, which `control` names.
    posix.dup2(server, CONTROL_FD, False)
    posix.close(server)
    prepared.configure(harness.from_json(message.decode()))
    prepared.cgroup_namespace = cgroup_namespace
    try:
        send_message(control, ready=1)
        serve(control, library, prepared)
    except OSError:
        # The runner is gone, and its clone with it.
        pass
    posix._exit(0)


def reap_the_rest():
    """Reaps all other children. A clone can create siblings of itself.

    The cell's init kills them, and the cell ends only when all of them are reaped.
    """
    try:
        while True:
            posix.waitpid(-1, 0)
    except ChildProcessError:
        pass


def send_message(control, **words):
    """Sends an answer. Each of its values is a text or a number."""
    pairs = (
        "%s:%s" % (harness.to_json(name), harness.values.value_json(word))
        for name, word in words.items()
    )
    control.send(("{%s}" % ",".join(pairs)).encode())


def main():
    # The variable was for the dynamic linker: see prefault.py.
    os.environ.pop("LD_BIND_NOW", None)
    prefault.remap_code_to_huge_pages()
    control = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, CONTROL_FD)
    message, _none = receive(control)
    try:
        threads.keep_stacks_small()
        setup = harness.from_json(message.decode())
        harness.offer_displays()
        harness.offer_streams()
        library = Library(setup["imports"])
        prepared = Prepared()
        is_template = "user" not in setup
        if not is_template:
            prepared.configure(setup)
        # All objects so far are collected already. Freezing limits the next collection to the
        # objects that the warm-up creates.
        exits.begin_program()
        exits.known.update(sys.modules)
        prefault.warm_up(harness, prepared.run_small_program)
        # Loaded after the warm-up, because a program that has ended closes displays.
        harness.displays()
        harness.load_once("entry")
        harness.load_once("hints")
    except BaseException as error:
        return send_message(
            control, failed="import a library: %s: %s" % (type(error).__name__, error), errno=0
        )
    tasks = len(posix.listdir("/proc/self/task"))
    if tasks != 1:
        return send_message(control, failed="stay with one thread: there are %d" % tasks, errno=0)
    exits.known.update(sys.modules)
    gc.collect()
    exits.begin_program()
    gc.disable()
    prefault.remap_heap_to_huge_pages()
    prepared.predicted_pages = populate_calls(
        prefault.predict_dirty_pages(harness, prepared.run_small_program)
    )
    del sys.modules["prefault"], sys.modules["threads"]
    send_message(control, ready=1)
    if is_template:
        return fork_servers(control, library, prepared)
    serve(control, library, prepared)


main()
