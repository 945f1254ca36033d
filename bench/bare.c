/* The system calls that a container cannot do without, and nothing else: namespaces, the mounts of bench/compare-runtimes' bundle,
 * pivot_root, the program, its end. No filters, capabilities, control groups, records or checks. Run in the bundle's folder. */
#define _GNU_SOURCE
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void must(long result, const char *what) {
    if (result < 0) {
        perror(what);
        _exit(125);
    }
}

static void add(const char *kind, const char *at, unsigned long flags, const char *data) {
    must(mount(kind, at, kind, flags, data), at);
}

static void inside(void) {
    static const char *devices[] = {"null", "zero", "full", "tty", "random", "urandom"};
    static const int minors[] = {3, 5, 7, 0, 8, 9};
    static const char *masked[] = {"proc/acpi", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list", "proc/scsi",
                                   "sys/firmware"};
    static const char *kept[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
    unsigned long plain = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), "private");
    must(mount("rootfs", "rootfs", NULL, MS_BIND | MS_REC, NULL), "root");
    must(chdir("rootfs"), "chdir");
    add("proc", "proc", 0, NULL);
    add("tmpfs", "dev", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k");
    for (unsigned i = 0; i < sizeof devices / sizeof *devices; i++) {
        char path[32];
        snprintf(path, sizeof path, "dev/%s", devices[i]);
        must(mknod(path, S_IFCHR | 0666, makedev(i == 3 ? 5 : 1, minors[i])), path);
    }
    must(mkdir("dev/pts", 0755), "pts");
    must(mkdir("dev/shm", 0755), "shm");
    must(mkdir("dev/mqueue", 0755), "mqueue");
    add("devpts", "dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5");
    add("tmpfs", "dev/shm", plain, "mode=1777,size=65536k");
    add("mqueue", "dev/mqueue", plain, NULL);
    add("sysfs", "sys", plain | MS_RDONLY, NULL);
    add("cgroup2", "sys/fs/cgroup", plain | MS_RDONLY, NULL);
    for (unsigned i = 0; i < sizeof masked / sizeof *masked; i++) {
        struct stat found;
        if (stat(masked[i], &found) == 0) {
            if (S_ISDIR(found.st_mode)) {
                must(mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, NULL), masked[i]);
            } else {
                must(mount("dev/null", masked[i], NULL, MS_BIND, NULL), masked[i]);
            }
        }
    }
    for (unsigned i = 0; i < sizeof kept / sizeof *kept; i++) {
        if (access(kept[i], F_OK) == 0) {
            must(mount(kept[i], kept[i], NULL, MS_BIND | MS_REC, NULL), kept[i]);
            must(mount(NULL, kept[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), kept[i]);
        }
    }
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "detach");
    must(mount(NULL, "/", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL), "read-only");
    must(sethostname("bench", 5), "name");
    execl("/bin/true", "true", NULL);
    must(-1, "exec");
}

int main(void) {
    struct clone_args arguments = {
        .flags = CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWCGROUP,
        .exit_signal = SIGCHLD,
    };
    pid_t child = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
    must(child, "clone3");
    if (child == 0) {
        inside();
    }
    int status = 0;
    must(waitpid(child, &status, 0), "wait");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
