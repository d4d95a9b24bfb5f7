/* Owns what Linux does in its own way: direct I/O, huge pages, and what /proc and the control groups say of this
 * process. Promises to believe nothing it has not tried: direct reading is probed with a read, since tmpfs, overlay and
 * network file systems accept or refuse it at different moments. Control groups of version 1 and 2 are both read, from
 * this process's own group up to the root of the mount, since a limit anywhere on the way binds. */
#include "base/os.h"
#include "base/os_files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PROBE_BYTES = 4096, HUGE_PAGE = 2 << 20, HUGE_LEAST = 8 << 20, TEXT_BYTES = 16384 };

const char *os_error_text(int code, char *buffer, size_t bytes)
{
    return strerror_r(code, buffer, bytes);
}

/* ---- files ---------------------------------------------------------------------------------------------------- */

/* Opens without waiting, since a named pipe would wait for ever, and accepts only regular files. */
static int open_regular(const char *path, int extra)
{
    int fd;
    do {
        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | extra);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) return -errno;
    struct stat st;
    int code = fstat(fd, &st) != 0 ? errno : S_ISREG(st.st_mode) ? 0 : S_ISDIR(st.st_mode) ? EISDIR : ENODEV;
    int flags = code ? 0 : fcntl(fd, F_GETFL);
    if (!code && (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0)) code = errno;
    if (!code) return fd;
    close(fd);
    return -code;
}

static bool direct_works(int fd)
{
    _Alignas(PROBE_BYTES) unsigned char probe[PROBE_BYTES];
    ssize_t n;
    do {
        n = pread(fd, probe, sizeof probe, 0);
    } while (n < 0 && errno == EINTR);
    return n >= 0;
}

lamina_status os_open(const char *path, unsigned flags, os_file *file, lamina_error *err)
{
    *file = (os_file){.fd = -1, .direct = false};
    if (flags & OS_DIRECT) {
        file->fd = open_regular(path, O_DIRECT);
        if (file->fd >= 0 && direct_works(file->fd)) {
            file->direct = true;
            return LAMINA_OK;
        }
        os_close(file);
    }
    file->fd = open_regular(path, 0);
    if (file->fd >= 0) return LAMINA_OK;
    int code = -file->fd;
    char text[128];
    file->fd = -1;
    if (code == ENODEV) return error_set(err, LAMINA_E_IO, "%s: expected a regular file", path);
    return error_set(err, LAMINA_E_IO, "%s: opening: %s", path, os_error_text(code, text, sizeof text));
}

void os_drop_cache(const os_file *file, uint64_t offset, uint64_t bytes)
{
    if (offset > INT64_MAX || bytes > INT64_MAX) return;
    posix_fadvise(file->fd, (off_t)offset, (off_t)bytes, POSIX_FADV_DONTNEED);
}

bool os_pass_cache(const os_file *file, bool on)
{
    int flags = fcntl(file->fd, F_GETFL);
    return flags >= 0 && fcntl(file->fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

void os_write_behind(const os_file *file, uint64_t offset, uint64_t bytes)
{
    if (offset > INT64_MAX || bytes > INT64_MAX) return;
    (void)sync_file_range(file->fd, (off_t)offset, (off_t)bytes, SYNC_FILE_RANGE_WRITE);
}

/* ---- memory --------------------------------------------------------------------------------------------------- */

static size_t whole_pages(size_t bytes)
{
    size_t page = os_page_size();
    return bytes > SIZE_MAX - page ? 0 : (bytes + page - 1) / page * page;
}

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Maps 2 MiB more than needed and gives the ends back, so that the first byte is 2 MiB-aligned. Huge pages are advised
 * for whole ones inside only: the resident size never exceeds the bytes asked for. */
static void *map_huge(size_t bytes)
{
    if (bytes > SIZE_MAX - HUGE_PAGE) return NULL;
    unsigned char *p = map(bytes + HUGE_PAGE);
    if (!p) return map(bytes);
    size_t over = (uintptr_t)p % HUGE_PAGE, front = over ? HUGE_PAGE - over : 0;
    if (front) munmap(p, front);
    p += front;
    if (front < HUGE_PAGE) munmap(p + bytes, HUGE_PAGE - front);
    madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* where the system has none, ordinary pages do */
    return p;
}

void *os_pages(size_t bytes)
{
    size_t whole = whole_pages(bytes);
    if (!whole) return NULL;
    return whole >= HUGE_LEAST ? map_huge(whole) : map(whole);
}

void os_pages_free(void *p, size_t bytes)
{
    if (p) munmap(p, whole_pages(bytes));
}

void os_trim_heap(void)
{
    malloc_trim(0);
}

/* ---- what the system says of this process ----------------------------------------------------------------------- */

/* The first TEXT_BYTES - 1 bytes of a file as text; false when it cannot be read. */
static bool read_text(const char *path, char text[static TEXT_BYTES])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    size_t used = 0;
    ssize_t n;
    do {
        n = read(fd, text + used, TEXT_BYTES - 1 - used);
        if (n > 0) used += (size_t)n;
    } while (n > 0 || (n < 0 && errno == EINTR));
    close(fd);
    text[used] = '\0';
    return n == 0;
}

/* The number behind "key" at the start of a line. */
static bool number_after(const char *text, const char *key, uint64_t *value)
{
    size_t n = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, key, n) != 0) continue;
        char *end;
        unsigned long long v = strtoull(line + n, &end, 10);
        if (end == line + n) continue;
        *value = v;
        return true;
    }
    return false;
}

uint64_t os_resident_bytes(void)
{
    char text[TEXT_BYTES];
    unsigned long long total, resident;
    if (!read_text("/proc/self/statm", text) || sscanf(text, "%llu %llu", &total, &resident) != 2) return 0;
    return resident * os_page_size();
}

uint64_t os_peak_resident_bytes(void)
{
    char text[TEXT_BYTES];
    uint64_t kib;
    if (read_text("/proc/self/status", text) && number_after(text, "VmHWM:", &kib)) return kib * 1024;
    struct rusage usage; /* second choice: it remembers the program that this one was started from */
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (uint64_t)usage.ru_maxrss * 1024 : 0;
}

/* ---- control groups --------------------------------------------------------------------------------------------- */

typedef struct group {
    bool unified;          /* version 2 */
    char folder[PATH_MAX]; /* of this process's group */
    size_t root;           /* length of the mount point within folder */
} group;

/* Finds this process's path in the hierarchy of `controller` (version 1) or in the unified one (NULL). */
static bool group_path(const char *controller, char path[static PATH_MAX])
{
    char text[TEXT_BYTES];
    if (!read_text("/proc/self/cgroup", text)) return false;
    char *rest = NULL;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *controllers = strchr(line, ':');
        char *where = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!where) continue;
        *controllers++ = '\0';
        *where++ = '\0';
        bool match = !controller && *controllers == '\0';
        char *more = NULL;
        for (char *c = strtok_r(controllers, ",", &more); c && controller; c = strtok_r(NULL, ",", &more)) {
            match = match || strcmp(c, controller) == 0;
        }
        if (match && (size_t)snprintf(path, PATH_MAX, "%s", where) < PATH_MAX) return true;
    }
    return false;
}

/* Is `word` among the comma-separated ones of a list? */
static bool has_word(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += n) {
        bool begins = at == list || at[-1] == ',', ends = at[n] == ',' || at[n] == '\0' || at[n] == '\n';
        if (begins && ends) return true;
    }
    return false;
}

/* Joins a mount point with the part of the process's path that the mount shows. */
static bool group_join(group *g, const char *mount, const char *mount_root, const char *path)
{
    size_t n = strcmp(mount_root, "/") == 0 ? 0 : strlen(mount_root);
    bool inside = strncmp(path, mount_root, n) == 0 && (path[n] == '/' || path[n] == '\0');
    const char *below = inside ? path + n : "";
    if (strstr(below, "..") || strcmp(below, "/") == 0) below = ""; /* outside of what this namespace shows */
    g->root = strlen(mount);
    return (size_t)snprintf(g->folder, sizeof g->folder, "%s%s", mount, below) < sizeof g->folder;
}

/* Where this process's group of `controller` is mounted: version 1's hierarchy of it, else version 2's. */
static bool group_find(const char *controller, bool unified, group *g)
{
    char path[PATH_MAX], *line = NULL;
    if (!group_path(unified ? NULL : controller, path)) return false;
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    if (!mounts) return false;
    size_t room = 0;
    bool found = false;
    while (!found && getline(&line, &room, mounts) >= 0) {
        char root[1024], mount[1024], type[64], options[1024];
        const char *tail = strstr(line, " - ");
        if (!tail || sscanf(line, "%*s %*s %*s %1023s %1023s", root, mount) != 2) continue;
        if (sscanf(tail, " - %63s %*s %1023s", type, options) != 2) continue;
        bool match =
            unified ? strcmp(type, "cgroup2") == 0 : strcmp(type, "cgroup") == 0 && has_word(options, controller);
        found = match && group_join(g, mount, root, path);
    }
    g->unified = unified;
    free(line);
    fclose(mounts);
    return found;
}

static bool group_text(const group *g, const char *file, char text[static TEXT_BYTES])
{
    char path[PATH_MAX + 64];
    snprintf(path, sizeof path, "%s/%s", g->folder, file);
    return read_text(path, text);
}

/* UINT64_MAX where there is no such file, or no number in it ("max"). */
static uint64_t group_number(const group *g, const char *file)
{
    char text[TEXT_BYTES];
    uint64_t value;
    return group_text(g, file, text) && number_after(text, "", &value) ? value : UINT64_MAX;
}

/* One level up; false at the mount point. */
static bool group_up(group *g)
{
    char *slash = strrchr(g->folder, '/');
    if (!slash || (size_t)(slash - g->folder) < g->root) return false;
    *slash = '\0';
    return true;
}

static uint64_t lesser(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What the group's limit leaves; page cache that the kernel would give up first counts as free. */
static uint64_t group_memory_left(const group *g)
{
    char text[TEXT_BYTES];
    uint64_t cache = 0, used, limit;
    if (g->unified) {
        limit = lesser(group_number(g, "memory.max"), group_number(g, "memory.high"));
        used = group_number(g, "memory.current");
    } else {
        limit = group_number(g, "memory.limit_in_bytes");
        used = group_number(g, "memory.usage_in_bytes");
    }
    if (limit == UINT64_MAX || used == UINT64_MAX) return UINT64_MAX;
    if (group_text(g, "memory.stat", text))
        number_after(text, g->unified ? "inactive_file " : "total_inactive_file ", &cache);
    used -= lesser(cache, used);
    return limit > used ? limit - used : 0;
}

/* Cores' worth of time that the group may use, rounded up; UINT64_MAX: no quota. */
static uint64_t group_cores(const group *g)
{
    char text[TEXT_BYTES];
    unsigned long long quota = 0, period = 0;
    if (g->unified) {
        if (!group_text(g, "cpu.max", text) || sscanf(text, "%llu %llu", &quota, &period) != 2) return UINT64_MAX;
    } else {
        if (!group_text(g, "cpu.cfs_quota_us", text) || text[0] == '-') return UINT64_MAX;
        quota = group_number(g, "cpu.cfs_quota_us");
        period = group_number(g, "cpu.cfs_period_us");
        if (quota == UINT64_MAX || period == UINT64_MAX) return UINT64_MAX;
    }
    return quota && period ? (quota + period - 1) / period : UINT64_MAX;
}

/* The least of `of` over this process's group and those above it, in both hierarchies. */
static uint64_t group_least(const char *controller, uint64_t (*of)(const group *g))
{
    uint64_t least = UINT64_MAX;
    for (int unified = 0; unified < 2; unified++) {
        group g;
        if (!group_find(controller, unified, &g)) continue;
        do {
            least = lesser(least, of(&g));
        } while (group_up(&g));
    }
    return least;
}

uint32_t os_cores(void)
{
    cpu_set_t set;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t cores = online > 0 ? (uint64_t)online : 1;
    if (sched_getaffinity(0, sizeof set, &set) == 0) cores = lesser(cores, (uint64_t)CPU_COUNT(&set));
    cores = lesser(cores, group_least("cpu", group_cores));
    return cores ? (uint32_t)cores : 1;
}

/* What an address-space limit (ulimit -v) leaves. */
static uint64_t address_space_left(void)
{
    struct rlimit limit;
    char text[TEXT_BYTES];
    uint64_t pages;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    if (!read_text("/proc/self/statm", text) || !number_after(text, "", &pages)) return UINT64_MAX;
    uint64_t used = pages * os_page_size();
    return limit.rlim_cur > used ? limit.rlim_cur - used : 0;
}

uint64_t os_available_memory(void)
{
    char text[TEXT_BYTES];
    uint64_t kib, left = UINT64_MAX;
    if (read_text("/proc/meminfo", text) && number_after(text, "MemAvailable:", &kib)) left = kib * 1024;
    left = lesser(left, group_least("memory", group_memory_left));
    left = lesser(left, address_space_left());
    return left == UINT64_MAX ? 0 : left;
}
