/* SPDX-License-Identifier: BSD-3-Clause */
/* bracket.c - `[ SERVER ARG... ]` on the command line in place of a spec: an NBD server that is
 * started for this run.
 *
 * The socket is made and listened on here and handed down as descriptor 3 (systemd's socket
 * activation, which nbdkit, qemu-nbd and `lamina serve` know); in the place of the bracket stands
 * its URL. So a server that ends early is a refused connection, never a wait, and nothing that is
 * written in a file or in one word can start a program. It gets SIGTERM when the run ends, and from
 * the kernel should we be killed. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/tool.h"

#define END_STEPS 500 /* of 10 ms, from SIGTERM to SIGKILL */

struct tool_server {
    struct tool_server *next;
    pid_t pid;
    char *folder, *path, *url;
};

/* The index of the word that closes the bracket at @open, 0: none. */
static int closing(int argc, char **argv, int open)
{
    int depth = 0;

    for (int i = open; i < argc; i++) {
        depth += strcmp(argv[i], "[") == 0;
        depth -= strcmp(argv[i], "]") == 0;
        if (depth == 0)
            return i;
    }
    return 0;
}

static char *url_of(const char *path)
{
    char *url = mem_alloc(sizeof("nbd+unix:///?socket=") + 3 * strlen(path)), *to = url;

    if (!url)
        return NULL;
    to += sprintf(to, "nbd+unix:///?socket=");
    for (const unsigned char *p = (const unsigned char *)path; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("-._~/", *p);
        to += sprintf(to, plain ? "%c" : "%%%02X", *p);
    }
    return url;
}

/* In a folder of our own, so nobody else can connect. */
static int make_socket(struct tool_server *s)
{
    const char *run = getenv("XDG_RUNTIME_DIR");
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd;

    s->folder = mem_printf("%s/lamina-XXXXXX", run && *run ? run : "/tmp");
    if (!s->folder || !mkdtemp(s->folder))
        return -errno;
    s->path = mem_printf("%s/nbd.sock", s->folder);
    s->url = s->path ? url_of(s->path) : NULL;
    if (!s->url)
        return -ENOMEM;
    if (strlen(s->path) >= sizeof(at.sun_path))
        return -ENAMETOOLONG;
    strcpy(at.sun_path, s->path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (bind(fd, (struct sockaddr *)&at, sizeof(at)) < 0 || listen(fd, 64) < 0) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    return fd;
}

/* In the child; does not return. Its stdout is not ours: that is the answer. */
static void become(char **words, int fd, pid_t parent)
{
    char pid[24];
    sigset_t none;

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    dup2(STDERR_FILENO, STDOUT_FILENO);
    if (fd == 3 ? fcntl(fd, F_SETFD, 0) < 0 : dup2(fd, 3) < 0)
        _exit(1);
    snprintf(pid, sizeof(pid), "%ld", (long)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    unsetenv("LISTEN_FDNAMES");
    execvp(words[0], words);
    fprintf(stderr, "lamina: cannot run %s: %s\n", words[0], strerror(errno));
    _exit(127);
}

static int start(struct tool *t, char **words)
{
    struct tool_server *s = mem_zalloc(sizeof(*s));
    pid_t parent = getpid();
    int fd;

    if (!s)
        return -ENOMEM;
    s->next = t->servers;
    t->servers = s;
    fd = make_socket(s);
    if (fd < 0)
        return fd;
    fflush(NULL);
    s->pid = fork();
    if (s->pid == 0)
        become(words, fd, parent);
    close(fd);
    return s->pid < 0 ? -errno : 0;
}

int tool_start_servers(struct tool *t, int *argc, char **argv)
{
    for (int i = 1; i < *argc; i++) {
        int rc, end;

        if (strcmp(argv[i], "[") != 0)
            continue;
        end = closing(*argc, argv, i);
        if (end == 0)
            return tool_misuse(t, "there is no ] to the [");
        if (end == i + 1)
            return tool_misuse(t, "between [ and ] belongs a server's command line");
        argv[end] = NULL;
        rc = start(t, argv + i + 1);
        if (rc < 0) {
            tool_error(t, "cannot start %s: %s", argv[i + 1], strerror(-rc));
            return 1;
        }
        argv[i] = t->servers->url;
        memmove(argv + i + 1, argv + end + 1, (size_t)(*argc - end) * sizeof(*argv));
        *argc -= end - i;
    }
    return 0;
}

static void end(pid_t pid)
{
    const struct timespec step = {.tv_nsec = 10000000};

    kill(pid, SIGTERM);
    for (int i = 0; i < END_STEPS; i++) {
        if (waitpid(pid, NULL, WNOHANG) != 0)
            return;
        nanosleep(&step, NULL);
    }
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

void tool_end_servers(struct tool *t)
{
    while (t->servers) {
        struct tool_server *s = t->servers;

        t->servers = s->next;
        if (s->pid > 0)
            end(s->pid);
        if (s->path)
            unlink(s->path);
        if (s->folder)
            rmdir(s->folder);
        mem_free(s->folder);
        mem_free(s->path);
        mem_free(s->url);
        mem_free(s);
    }
}
