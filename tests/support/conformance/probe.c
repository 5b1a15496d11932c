/* What a process in a container sees, as JSON on one line; and what it is let do.
 *
 *   probe report                 ids, limits, namespaces, mounts, descriptors, scheduling ... of this process
 *   probe stat PATH ...          each path: kind, mode, owner, device number, link target, file system; opened for reading, writing
 *   probe call NR ARG ...        one raw system call in a child: {"value", "errno", "signal", "trapped"}; ARG is a number or a text
 *   probe call32 NR ARG ...      the same through the 32-bit entry (x86-64 only); numbers only
 *   probe thread NR ARG ...      the same in a second thread of the child: "signal" says what became of the process
 *   probe hold [FILE]            writes FILE when a signal comes (the number is in it) and ends at SIGTERM; waits until then
 *
 * Static, so that it runs on any root. Nothing here depends on a file system but /proc, and of that only what it reports.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int first = 1;

static void text(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\')
            printf("\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void key(const char *name)
{
    if (!first)
        putchar(',');
    first = 0;
    text(name);
    putchar(':');
}

static void number(const char *name, long long value)
{
    key(name);
    printf("%lld", value);
}

static void string(const char *name, const char *value)
{
    key(name);
    text(value);
}

static void texts(const char *name, char **list)
{
    key(name);
    putchar('[');
    for (char **one = list; *one; one++) {
        if (one != list)
            putchar(',');
        text(*one);
    }
    putchar(']');
}

static void file(const char *name, const char *path)
{
    static char data[1 << 18];
    size_t have = 0;
    ssize_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    while (have < sizeof data - 1 && (n = read(fd, data + have, sizeof data - 1 - have)) > 0)
        have += (size_t)n;
    close(fd);
    data[have] = 0;
    string(name, data);
}

/* A directory of links, as an object: namespaces and descriptors. */
static void links(const char *name, const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    int begun = 0;
    if (!directory)
        return;
    key(name);
    putchar('{');
    while ((entry = readdir(directory))) {
        char target[4096];
        ssize_t n = readlinkat(dirfd(directory), entry->d_name, target, sizeof target - 1);
        if (n < 0 || (!strcmp(name, "fds") && atoi(entry->d_name) == dirfd(directory)))
            continue;
        target[n] = 0;
        if (begun++)
            putchar(',');
        text(entry->d_name);
        putchar(':');
        text(target);
    }
    putchar('}');
    closedir(directory);
}

static void limits(void)
{
    static const char *names[] = {
        "CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING",
        "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"};
    key("rlimits");
    putchar('{');
    for (int i = 0; i < 16; i++) {
        struct rlimit limit;
        if (getrlimit(i, &limit))
            continue;
        printf("%s\"RLIMIT_%s\":[%llu,%llu]", i ? "," : "", names[i], (unsigned long long)limit.rlim_cur,
               (unsigned long long)limit.rlim_max);
    }
    putchar('}');
}

struct attributes { /* sched_attr of sched_setattr(2) */
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
    uint32_t util_min, util_max;
};

static void scheduling(void)
{
    struct attributes a = {.size = sizeof a};
    cpu_set_t cpus;
    if (!syscall(SYS_sched_getattr, 0, &a, sizeof a, 0)) {
        key("scheduler");
        printf("{\"policy\":%u,\"flags\":%llu,\"nice\":%d,\"priority\":%u,\"runtime\":%llu,\"deadline\":%llu,\"period\":%llu}",
               a.policy, (unsigned long long)a.flags, a.nice, a.priority, (unsigned long long)a.runtime,
               (unsigned long long)a.deadline, (unsigned long long)a.period);
    }
    number("ioprio", syscall(SYS_ioprio_get, 1, 0));
    if (!sched_getaffinity(0, sizeof cpus, &cpus)) {
        int begun = 0;
        key("cpus");
        putchar('[');
        for (int i = 0; i < CPU_SETSIZE; i++)
            if (CPU_ISSET(i, &cpus))
                printf("%s%d", begun++ ? "," : "", i);
        putchar(']');
    }
}

static void terminal(void)
{
    struct winsize size = {0};
    key("terminals");
    printf("[%s,%s,%s]", isatty(0) ? "true" : "false", isatty(1) ? "true" : "false", isatty(2) ? "true" : "false");
    if (isatty(0) && !ioctl(0, TIOCGWINSZ, &size)) {
        key("size");
        printf("[%u,%u]", size.ws_row, size.ws_col);
        string("tty", ttyname(0) ? ttyname(0) : "");
        number("foreground", tcgetpgrp(0));
    }
}

static void clocks(void)
{
    struct timespec monotonic, boottime;
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    clock_gettime(CLOCK_BOOTTIME, &boottime);
    number("monotonic", monotonic.tv_sec);
    number("boottime", boottime.tv_sec);
}

static void report(char **arguments)
{
    uid_t r, e, s;
    gid_t groups[256];
    char directory[4096];
    struct utsname names;
    mode_t mask = umask(0);
    int n;

    putchar('{');
    texts("args", arguments);
    texts("env", environ);
    number("pid", getpid());
    number("ppid", getppid());
    number("sid", getsid(0));
    number("pgid", getpgid(0));
    getresuid(&r, &e, &s);
    key("uids");
    printf("[%u,%u,%u]", r, e, s);
    getresgid(&r, &e, &s);
    key("gids");
    printf("[%u,%u,%u]", r, e, s);
    n = getgroups(256, groups);
    key("groups");
    putchar('[');
    for (int i = 0; i < n; i++)
        printf("%s%u", i ? "," : "", groups[i]);
    putchar(']');
    number("umask", mask);
    string("cwd", getcwd(directory, sizeof directory) ? directory : "");
    uname(&names);
    string("hostname", names.nodename);
    string("domainname", names.domainname);
    string("machine", names.machine);
    number("personality", personality(0xffffffff));
    number("no_new_privs", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    number("securebits", prctl(PR_GET_SECUREBITS));
    number("dumpable", prctl(PR_GET_DUMPABLE));
    number("keyring", syscall(SYS_keyctl, 0, -3, 0)); /* KEYCTL_GET_KEYRING_ID of the session's */
    limits();
    scheduling();
    terminal();
    clocks();
    file("status", "/proc/self/status");
    file("mountinfo", "/proc/self/mountinfo");
    file("cgroup", "/proc/self/cgroup");
    file("oom_score_adj", "/proc/self/oom_score_adj");
    file("uid_map", "/proc/self/uid_map");
    file("gid_map", "/proc/self/gid_map");
    file("setgroups", "/proc/self/setgroups");
    file("label", "/proc/self/attr/current");
    links("namespaces", "/proc/self/ns");
    links("fds", "/proc/self/fd");
    puts("}");
}

static int try_open(const char *path, int flags)
{
    int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

static void stat_one(const char *path)
{
    struct stat st;
    struct statfs fs;
    char target[4096];
    ssize_t n;

    first = 1;
    putchar('{');
    string("path", path);
    if (lstat(path, &st)) {
        number("errno", errno);
        putchar('}');
        return;
    }
    n = readlink(path, target, sizeof target - 1);
    if (n >= 0) {
        target[n] = 0;
        string("link", target);
        if (stat(path, &st)) {
            number("errno", errno);
            putchar('}');
            return;
        }
    }
    string("kind", S_ISCHR(st.st_mode) ? "c" : S_ISBLK(st.st_mode) ? "b" : S_ISFIFO(st.st_mode) ? "p"
                   : S_ISDIR(st.st_mode) ? "d" : S_ISREG(st.st_mode) ? "f" : "other");
    number("mode", st.st_mode & 07777);
    number("uid", st.st_uid);
    number("gid", st.st_gid);
    number("size", st.st_size);
    number("major", major(st.st_rdev));
    number("minor", minor(st.st_rdev));
    number("read", try_open(path, O_RDONLY));
    number("write", S_ISDIR(st.st_mode) ? -1 : try_open(path, O_WRONLY));
    if (!statfs(path, &fs)) {
        number("magic", fs.f_type);
        number("flags", fs.f_flags);
    }
    putchar('}');
}

struct outcome {
    volatile long value;
    volatile int error, returned, trapped, trapped_errno;
};
static struct outcome *shared;
static long call[7];
static int entry32;

static void on_sigsys(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    shared->trapped = info->si_syscall;
    shared->trapped_errno = info->si_errno;
}

static void do_call(void)
{
#ifdef __x86_64__
    if (entry32) {
        long value;
        __asm__ volatile("int $0x80" : "=a"(value) : "a"(call[0]), "b"(call[1]), "c"(call[2]), "d"(call[3]),
                         "S"(call[4]), "D"(call[5]) : "memory", "r8", "r9", "r10", "r11");
        value = (int)value;
        shared->error = value < 0 && value > -4096 ? (int)-value : 0;
        shared->value = shared->error ? -1 : value;
        shared->returned = 1;
        return;
    }
#endif
    errno = 0;
    shared->value = syscall(call[0], call[1], call[2], call[3], call[4], call[5], call[6]);
    shared->error = errno;
    shared->returned = 1;
}

static void *in_thread(void *nothing)
{
    do_call();
    return nothing;
}

static int run_call(int threaded)
{
    struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};
    int status = 0;
    pid_t child;

    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    shared->trapped = -1;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        sigaction(SIGSYS, &action, NULL);
        if (threaded) {
            pthread_t thread;
            if (pthread_create(&thread, NULL, in_thread, NULL))
                _exit(97);
            pthread_join(thread, NULL);
        } else {
            do_call();
        }
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 1;
    putchar('{');
    number("returned", shared->returned);
    if (shared->returned) {
        number("value", shared->value);
        number("errno", shared->error);
    }
    if (shared->trapped != -1) {
        number("trapped", shared->trapped);
        number("trapped_errno", shared->trapped_errno);
    }
    number("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    number("code", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
    puts("}");
    return 0;
}

static const char *told;

static void on_signal(int signal)
{
    char digits[16];
    int n = snprintf(digits, sizeof digits, "%d\n", signal);
    int fd = told ? open(told, O_WRONLY | O_CREAT | O_APPEND, 0644) : 1;
    if (fd >= 0 && write(fd, digits, (size_t)n) < 0)
        _exit(2);
    if (told)
        close(fd);
    if (signal == SIGTERM)
        _exit(0);
}

static _Noreturn void hold(const char *path)
{
    told = path;
    for (int i = 1; i < 65; i++)
        if (i != SIGKILL && i != SIGSTOP && i != SIGCHLD && i != 32 && i != 33)
            signal(i, on_signal);
    puts("{\"holding\":true}");
    fflush(stdout);
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "report";
    if (!strcmp(what, "report")) {
        report(argv);
    } else if (!strcmp(what, "stat")) {
        putchar('[');
        for (int i = 2; i < argc; i++) {
            if (i > 2)
                putchar(',');
            stat_one(argv[i]);
        }
        puts("]");
    } else if (!strcmp(what, "hold")) {
        hold(argc > 2 ? argv[2] : NULL);
    } else if (!strcmp(what, "call") || !strcmp(what, "call32") || !strcmp(what, "thread")) {
        entry32 = !strcmp(what, "call32");
        for (int i = 2; i < argc && i < 9; i++) {
            char *end;
            call[i - 2] = (long)strtoull(argv[i], &end, 0);
            if (*end)
                call[i - 2] = (long)argv[i];
        }
        return run_call(!strcmp(what, "thread"));
    } else {
        fprintf(stderr, "probe: %s: no such question\n", what);
        return 2;
    }
    return 0;
}
