# Only lamina_ names leave the libraries, and every function of the public header is there.
#   sh tests/build/test_symbols.sh BUILD
set -u
build=$1
here=$(cd "$(dirname "$0")/../.." && pwd)
passed=0 failed=0 skipped=0
verdict() { # NAME LINES-THAT-ARE-WRONG
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        echo "ok       $1"
    else
        failed=$((failed + 1))
        echo "$2" | head -n 20
        echo "FAILED   $1"
    fi
}

# Public names of the header: what stands before the parenthesis of each LAMINA_API declaration.
names=$(tr '\n' ' ' <"$here/include/lamina.h" | grep -oE 'LAMINA_API [^;(]*\(' | grep -oE 'lamina_[a-z0-9_]+\($' | tr -d '(' | sort)
[ "$(echo "$names" | wc -l)" -gt 20 ] || names="no names found in the header"

# A sanitizer adds names of its own to what it instruments.
foreign='^(lamina_|__asan|__odr_asan|__ubsan|__tsan|asan\.|__sanitizer|_init$|_fini$|__bss_start$|_edata$|_end$|__start_|__stop_|DW\.ref)'
shared=$(nm -D --defined-only "$build/liblamina.so" | awk '{print $3}' | sort)
static=$(nm -g --defined-only "$build/liblamina.a" 2>/dev/null | awk 'NF == 3 {print $3}' | sort)
verdict "shared library exports only lamina_" "$(echo "$shared" | grep -vE "$foreign")"
verdict "static library exports only lamina_" "$(echo "$static" | grep -vE "$foreign")"
verdict "shared library has every public function" "$(echo "$names" | grep -vxF "$shared")"
verdict "static library has every public function" "$(echo "$names" | grep -vxF "$static")"
verdict "shared library has no other lamina_ name" "$(echo "$shared" | grep '^lamina_' | grep -vxF "$names")"

# The library never exits, aborts or prints.
speech=$(nm -u --format=posix "$build/liblamina.a" 2>/dev/null | awk '{print $1}' |
    grep -xE 'exit|_exit|abort|printf|puts|putchar|fprintf|vprintf|perror|stdout|stderr|__printf_chk|__assert_fail')
case $(nm -u "$build/liblamina.a" 2>/dev/null) in
*__asan* | *__tsan* | *__ubsan*) skipped=$((skipped + 1)) && echo "skipped  library neither prints nor exits" ;;
*) verdict "library neither prints nor exits" "$speech" ;;
esac
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
