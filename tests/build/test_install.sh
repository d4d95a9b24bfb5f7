# What is installed can be used: by pkg-config, shared and static, from C and from C++.
#   sh tests/build/test_install.sh BUILD
set -u
build=$1
cc=$(sed -n 's/^CMAKE_C_COMPILER:[A-Z]*=//p' "$build/CMakeCache.txt")
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT INT TERM
passed=0 failed=0 skipped=0
verdict() { # NAME STATUS LOG
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
        echo "ok       $1"
    else
        failed=$((failed + 1))
        cat "$3"
        echo "FAILED   $1"
    fi
}

if grep -qE '^LAMINA_(SANITIZE|TSAN):BOOL=ON' "$build/CMakeCache.txt"; then
    echo "  skipped: a sanitized library is not installed"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
log=$prefix/log
DESTDIR=$prefix cmake --install "$build" >"$log" 2>&1
verdict "install" $? "$log"
root=$prefix$(sed -n 's/^prefix=//p' "$build/lamina.pc")
pc=$(find "$root" -name lamina.pc | head -n 1)
PKG_CONFIG_PATH=$(dirname "$pc")
PKG_CONFIG_SYSROOT_DIR=
export PKG_CONFIG_PATH PKG_CONFIG_SYSROOT_DIR
# The .pc file names the final prefix; here the files lie below DESTDIR.
flags() { pkg-config "$@" lamina | sed "s#\([-IL]\)$(sed -n 's/^prefix=//p' "$pc")#\1$root#g"; }

cat >"$prefix/user.c" <<'END'
#include <lamina.h>
#include <stdio.h>
/* Names of the library's inside, taken by a program: they must not meet. */
int mem_alloc(void) { return 1; }
int pool_run(void) { return 2; }
int error_set(void) { return 3; }
int main(void)
{
    lamina_engine *engine = NULL;
    lamina_error err;
    lamina_status status = lamina_open("/nowhere/at/all", NULL, &engine, &err);
    printf("%s: %s\n", lamina_status_name(status), err.text);
    return status == LAMINA_OK || !err.text[0] || engine || mem_alloc() != 1 || pool_run() != 2 || error_set() != 3;
}
END
# shellcheck disable=SC2046
"$cc" -std=c11 -Wall -Wpedantic -Werror "$prefix/user.c" $(flags --cflags --libs) -o "$prefix/shared" >"$log" 2>&1 &&
    LD_LIBRARY_PATH=$(dirname "$(find "$root" -name liblamina.so | head -n 1)") "$prefix/shared" >>"$log" 2>&1
verdict "a program with the shared library" $? "$log"
a=$(find "$root" -name liblamina.a | head -n 1)
# shellcheck disable=SC2046
"$cc" -std=c11 "$prefix/user.c" $(flags --cflags --libs --static | sed "s#-llamina#$a#") -o "$prefix/static" >"$log" 2>&1 &&
    "$prefix/static" >>"$log" 2>&1
verdict "a program with the static library" $? "$log"
if command -v c++ >/dev/null; then
    echo '#include <lamina.h>' >"$prefix/user.cpp"
    # shellcheck disable=SC2046
    c++ -std=c++17 -Wall -Wextra -Wpedantic -Werror -c "$prefix/user.cpp" $(flags --cflags) -o "$prefix/user.o" >"$log" 2>&1
    verdict "the header in C++" $? "$log"
else
    skipped=$((skipped + 1))
    echo "  skipped: no C++ compiler"
fi
if [ -x "$build/lamina" ]; then
    { "$root/bin/lamina" --version && test -s "$root/share/man/man1/lamina.1" &&
        test -s "$root/share/bash-completion/completions/lamina" &&
        bash -n "$root/share/bash-completion/completions/lamina"; } >"$log" 2>&1
    verdict "program, manual page, completion" $? "$log"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
