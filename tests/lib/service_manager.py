# SPDX-License-Identifier: BSD-3-Clause
"""What systemd does for a service with Type=notify and FileDescriptorStoreMax=: it hands over the sockets that it keeps, and hears when
the service is ready and which sockets it is to keep (sd_notify(3), sd_listen_fds(3)).

As a program: service_manager.py FOLDER, with lines on stdin. `start COMMAND...` answers "ready" when the service said so, `stop` its exit
status; the sockets are kept in between. At the end of stdin the service is stopped.
"""
import array, os, shlex, signal, socket, subprocess, sys


class Manager:
    def __init__(self, folder):
        self.address = os.path.join(folder, "notify")
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(self.address)
        self.notify.settimeout(30)
        self.kept = []
        self.service = None

    def start(self, command):
        """Starts it with what is kept, until it is ready."""

        def in_child():
            os.environ["NOTIFY_SOCKET"] = self.address
            saved = [os.dup(fd) for fd in self.kept]
            for i, fd in enumerate(saved):
                os.dup2(fd, 3 + i)
            if saved:
                os.environ["LISTEN_FDS"] = str(len(saved))
                os.environ["LISTEN_PID"] = str(os.getpid())

        self.service = subprocess.Popen(command, preexec_fn=in_child, close_fds=False)
        self.hear(b"READY=1")

    def hear(self, want):
        while True:
            data, control, _, _ = self.notify.recvmsg(4096, socket.CMSG_SPACE(64 * 4))
            fds = array.array("i")
            for _, kind, raw in control:
                if kind == socket.SCM_RIGHTS:
                    fds.frombytes(raw[: len(raw) - len(raw) % 4])
            if b"FDSTORE=1" in data:
                assert fds and b"FDNAME=" in data, data
                self.kept += fds
            if want in data.split(b"\n"):
                return

    def stop(self):
        """Its exit status."""
        self.service.send_signal(signal.SIGTERM)
        self.hear(b"STOPPING=1")
        status = self.service.wait(30)
        self.service = None
        return status


def main():
    manager = Manager(sys.argv[1])
    for line in sys.stdin:
        words = shlex.split(line)
        if words[0] == "start":
            manager.start(words[1:])
            print("ready", flush=True)
        else:
            print(manager.stop(), flush=True)
    if manager.service:
        manager.stop()


if __name__ == "__main__":
    main()
