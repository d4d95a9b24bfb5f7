/* The seam: files, folders, and what the system says of this process. */
#include "base/memory.h"
#include "base/os.h"
#include "test.h"

#include <errno.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct place {
    char folder[256], path[320], other[320];
} place;

static bool place_make(place *w)
{
    const char *base = getenv("TMPDIR");
    snprintf(w->folder, sizeof w->folder, "%s/lamina_test_XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(w->folder)) return false;
    snprintf(w->path, sizeof w->path, "%s/a", w->folder);
    snprintf(w->other, sizeof w->other, "%s/b", w->folder);
    return true;
}

static void place_remove(const place *w)
{
    os_remove(w->path, NULL);
    os_remove(w->other, NULL);
    lamina_error e = {0};
    CHECK(os_remove(w->folder, &e) == LAMINA_OK, "%s", e.text);
}

static lamina_status write_bytes(const char *path, const void *data, size_t bytes, lamina_error *err)
{
    os_file f;
    lamina_status s = os_create(path, &f, err);
    if (s == LAMINA_OK) s = os_write_at(&f, path, 0, data, bytes, err);
    if (s == LAMINA_OK) s = os_sync(&f, path, err);
    os_close(&f);
    return s;
}

static void write_and_read(void)
{
    place w;
    REQUIRE(place_make(&w));
    lamina_error e = {0};
    static unsigned char data[100000], back[100000];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 7 + (i >> 8));
    REQUIRE(write_bytes(w.path, data, sizeof data, &e) == LAMINA_OK, "%s", e.text);
    os_file f;
    REQUIRE(os_open(w.path, OS_READ, &f, &e) == LAMINA_OK, "%s", e.text);
    CHECK(!f.direct);
    uint64_t size = 0;
    CHECK(os_file_size(&f, w.path, &size, &e) == LAMINA_OK && size == sizeof data);
    CHECK(os_read_at(&f, w.path, 1, back, sizeof data - 1, &e) == LAMINA_OK);
    CHECK(memcmp(back, data + 1, sizeof data - 1) == 0);
    CHECK(os_read_at(&f, w.path, 99990, back, 11, &e) == LAMINA_E_IO);
    CHECK(strstr(e.text, w.path) && strstr(e.text, "100000"), "%s", e.text);
    CHECK(os_pread(&f, back, 100, sizeof data) == 0);
    CHECK(os_pread(&f, back, 100, sizeof data - 3) == 3);
    CHECK(os_pread(&f, back, 100, UINT64_MAX) < 0);
    os_drop_cache(&f, 0, sizeof data);
    os_close(&f);
    CHECK(f.fd == -1 && os_pread(&f, back, 1, 0) == -EBADF);
    place_remove(&w);
}

/* Direct where the file system can, buffered where not; the same bytes either way. */
static void direct(void)
{
    place w;
    REQUIRE(place_make(&w));
    lamina_error e = {0};
    static unsigned char data[3 * 4096 + 100];
    _Alignas(4096) static unsigned char back[4 * 4096];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 13);
    REQUIRE(write_bytes(w.path, data, sizeof data, &e) == LAMINA_OK);
    os_file f;
    REQUIRE(os_open(w.path, OS_DIRECT, &f, &e) == LAMINA_OK, "%s", e.text);
    printf("  %s reads %s\n", w.folder, f.direct ? "directly" : "through the cache");
    CHECK(os_pread(&f, back, sizeof back, 0) == (int64_t)sizeof data);
    CHECK(memcmp(back, data, sizeof data) == 0);
    CHECK(os_read_at(&f, w.path, 4096, back, 8192, &e) == LAMINA_OK && memcmp(back, data + 4096, 8192) == 0);
    os_close(&f);
    REQUIRE(write_bytes(w.path, data, 0, &e) == LAMINA_OK);
    CHECK(os_open(w.path, OS_DIRECT, &f, &e) == LAMINA_OK, "an empty file: %s", e.text);
    os_close(&f);
    place_remove(&w);
}

static void refusals(void)
{
    place w;
    REQUIRE(place_make(&w));
    lamina_error e = {0};
    os_file f;
    CHECK(os_open(w.path, OS_READ, &f, &e) == LAMINA_E_IO && f.fd == -1);
    CHECK(strstr(e.text, w.path), "%s", e.text);
    CHECK(os_open(w.folder, OS_DIRECT, &f, &e) == LAMINA_E_IO && f.fd == -1, "a folder");
    REQUIRE(mkfifo(w.path, 0600) == 0);
    CHECK(os_open(w.path, OS_READ, &f, &e) == LAMINA_E_IO && f.fd == -1, "a named pipe must not be waited for");
    CHECK(strstr(e.text, "regular file"), "%s", e.text);
    CHECK(os_create("/nowhere/at/all", &f, &e) == LAMINA_E_IO && f.fd == -1);
    CHECK(os_rename(w.other, w.path, &e) == LAMINA_E_IO);
    uint64_t bytes = 0;
    CHECK(os_free_space("/nowhere/at/all", &bytes, &e) == LAMINA_E_IO);
    place_remove(&w);
}

static void full_disk(void)
{
    if (!os_exists("/dev/full")) SKIP("no /dev/full");
    lamina_error e = {0};
    os_file f;
    REQUIRE(os_create("/dev/full", &f, &e) == LAMINA_OK, "%s", e.text);
    CHECK(os_write_at(&f, "/dev/full", 0, "x", 1, &e) == LAMINA_E_SPACE, "%s", e.text);
    os_close(&f);
}

static void whole_files(void)
{
    place w;
    REQUIRE(place_make(&w));
    memory *m = memory_new();
    lamina_error e = {0};
    char *text = NULL;
    size_t bytes = 0;
    REQUIRE(write_bytes(w.path, "hello", 5, &e) == LAMINA_OK);
    CHECK(os_read_file(m, w.path, 5, &text, &bytes, &e) == LAMINA_OK && bytes == 5, "%s", e.text);
    CHECK(text && strcmp(text, "hello") == 0);
    mem_free(m, text);
    CHECK(os_read_file(m, w.path, 4, &text, &bytes, &e) == LAMINA_E_FORMAT && !text, "%s", e.text);
    CHECK(os_read_file(m, w.other, 4, &text, &bytes, &e) == LAMINA_E_IO && !text);
    memory_fail_at(m, 1);
    CHECK(os_read_file(m, w.path, 5, &text, &bytes, &e) == LAMINA_E_MEMORY && !text);
    CHECK(memory_free(m) == 0);
    place_remove(&w);
}

typedef struct names {
    char all[256];
    int left;
} names;

static lamina_status add_name(void *user, const char *name, lamina_error *err)
{
    names *n = user;
    strncat(n->all, name, sizeof n->all - strlen(n->all) - 1);
    strncat(n->all, " ", sizeof n->all - strlen(n->all) - 1);
    return n->left-- > 0 ? LAMINA_OK : error_set(err, LAMINA_E_CANCELLED, "enough");
}

static void folders(void)
{
    place w;
    REQUIRE(place_make(&w));
    lamina_error e = {0};
    CHECK(os_is_dir(w.folder) && os_exists(w.folder) && !os_is_dir(w.path) && !os_exists(w.path));
    CHECK(os_make_dir(w.other, &e) == LAMINA_OK && os_make_dir(w.other, &e) == LAMINA_OK && os_is_dir(w.other));
    CHECK(os_remove(w.other, &e) == LAMINA_OK && os_remove(w.other, &e) == LAMINA_OK);
    static const char *const order[] = {"z", "c", "B", "y"};
    char path[600];
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", w.folder, order[i]);
        REQUIRE(write_bytes(path, "", 0, &e) == LAMINA_OK);
    }
    names n = {.left = 100};
    CHECK(os_list_dir(w.folder, add_name, &n, &e) == LAMINA_OK && strcmp(n.all, "B c y z ") == 0, "%s", n.all);
    names stop = {.left = 1};
    CHECK(os_list_dir(w.folder, add_name, &stop, &e) == LAMINA_E_CANCELLED && strcmp(stop.all, "B c ") == 0);
    CHECK(os_list_dir(w.path, add_name, &n, &e) == LAMINA_E_IO);
    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", w.folder, order[i]);
        CHECK(os_make_dir(path, &e) == LAMINA_E_IO, "a file is in the way");
        CHECK(os_rename(path, w.path, &e) == LAMINA_OK && !os_exists(path) && os_exists(w.path), "%s", e.text);
    }
    uint64_t bytes = 0;
    CHECK(os_free_space(w.folder, &bytes, &e) == LAMINA_OK && bytes > 0);
    place_remove(&w);
}

#ifndef TEST_PORTABLE
/* A limit on the address space (ulimit -v) bounds what is available. */
static void address_space_limit(uint64_t left)
{
    struct rlimit before, low, taken;
    REQUIRE(getrlimit(RLIMIT_AS, &before) == 0);
    low = before;
    low.rlim_cur = 1 << 30;
    if (left > low.rlim_cur && setrlimit(RLIMIT_AS, &low) == 0) {
        uint64_t limited = os_available_memory();
        bool in_force = getrlimit(RLIMIT_AS, &taken) == 0 && taken.rlim_cur == low.rlim_cur;
        setrlimit(RLIMIT_AS, &before);
        if (!in_force) SKIP("the system (an emulator?) ignores RLIMIT_AS");
        CHECK(limited < low.rlim_cur, "%llu", (unsigned long long)limited);
    }
}
#endif

#ifndef TEST_PORTABLE
static bool put_text(const char *folder, const char *file, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, file);
    FILE *f = fopen(path, "r+"); /* never makes a file */
    if (!f) return false;
    bool ok = fputs(text, f) >= 0;
    return fclose(f) == 0 && ok;
}

/* What a child process sees after it joined the group; false when it could not. */
static bool seen_within(const char *folder, uint64_t *available, uint32_t *cores)
{
    struct {
        uint64_t available;
        uint32_t cores;
        bool joined;
    } seen = {0, 0, false};
    int ends[2];
    if (pipe(ends) != 0) return false;
    pid_t child = fork();
    if (child == 0) {
        char pid[32];
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        seen.joined = put_text(folder, "cgroup.procs", pid);
        seen.available = os_available_memory();
        seen.cores = os_cores();
        _exit(write(ends[1], &seen, sizeof seen) != (ssize_t)sizeof seen);
    }
    close(ends[1]);
    bool told = child > 0 && read(ends[0], &seen, sizeof seen) == (ssize_t)sizeof seen;
    close(ends[0]);
    if (child > 0) waitpid(child, NULL, 0);
    *available = seen.available;
    *cores = seen.cores;
    return told && seen.joined;
}

/* A control group's limit binds, and so does that of the group above it. Needs the right to make groups. */
static void control_groups(void)
{
    static const struct {
        const char *mount, *memory, *cpu, *quota;
    } kinds[] = {
        {"/sys/fs/cgroup/memory", "memory.limit_in_bytes", NULL, NULL},
        {"/sys/fs/cgroup/cpu", NULL, "cpu.cfs_quota_us", "100000"},
        {"/sys/fs/cgroup", "memory.max", "cpu.max", "100000 100000"},
    };
    int tried = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char outer[128], inner[160];
        snprintf(outer, sizeof outer, "%s/lamina_test_%d", kinds[i].mount, (int)getpid());
        snprintf(inner, sizeof inner, "%s/inner", outer);
        if (mkdir(outer, 0755) != 0) continue;
        bool memory_set = kinds[i].memory && put_text(outer, kinds[i].memory, "67108864");
        bool cpu_set = kinds[i].cpu && put_text(outer, kinds[i].cpu, kinds[i].quota);
        uint64_t available = 0;
        uint32_t cores = 0;
        if ((memory_set || cpu_set) && mkdir(inner, 0755) == 0) {
            if (seen_within(inner, &available, &cores)) {
                tried++;
                printf("  %s: %.1f MiB, %u cores\n", inner, (double)available / 0x1p20, cores);
                if (memory_set) CHECK(available <= 67108864 && available > 32 << 20);
                if (cpu_set) CHECK(cores == 1);
            }
            rmdir(inner);
        }
        rmdir(outer);
    }
    if (!tried) SKIP("no right to make a control group");
}
#else
static void control_groups(void)
{
    SKIP("the portable seam knows no control groups");
}
#endif

static void this_process(void)
{
    uint64_t now = os_resident_bytes(), peak = os_peak_resident_bytes(), left = os_available_memory();
    uint32_t cores = os_cores();
    printf("  resident %.1f MiB, peak %.1f MiB, available %.1f MiB, cores %u\n", (double)now / 0x1p20,
           (double)peak / 0x1p20, (double)left / 0x1p20, cores);
    CHECK(now > 100000 && peak > 100000 && cores >= 1 && cores <= (uint32_t)sysconf(_SC_NPROCESSORS_CONF));
    CHECK(left > 0 && left <= (uint64_t)sysconf(_SC_PHYS_PAGES) * os_page_size());
    size_t bytes = 40 << 20;
    unsigned char *p = os_pages(bytes);
    REQUIRE(p);
    memset(p, 1, bytes);
    CHECK(os_resident_bytes() >= now + bytes - (1 << 20), "%llu", (unsigned long long)os_resident_bytes());
    os_pages_free(p, bytes);
    os_trim_heap();
#ifndef TEST_PORTABLE /* there the peak stands in for it */
    CHECK(os_resident_bytes() < now + bytes / 2);
#endif
    CHECK(os_peak_resident_bytes() >= now + bytes - (1 << 20));
#ifndef TEST_PORTABLE
    address_space_limit(left);
#endif
}

static void clock_and_text(void)
{
    double begin = os_seconds();
    os_sleep_us(2000);
    double slept = os_seconds() - begin;
    CHECK(slept >= 0.002 && slept < 2, "%f", slept);
    char text[64];
    CHECK(strlen(os_error_text(ENOENT, text, sizeof text)) > 3);
    CHECK(os_page_size() >= 4096 && (os_page_size() & (os_page_size() - 1)) == 0);
    CHECK(!os_pages(SIZE_MAX));
}

TEST_MAIN(T(write_and_read), T(direct), T(refusals), T(full_disk), T(whole_files), T(folders), T(this_process),
          T(control_groups), T(clock_and_text))
