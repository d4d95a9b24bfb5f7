# shellcheck shell=sh disable=SC2034
# To be sourced: llama.cpp's programs and a Python beside them, from PyPI, in a folder that keeps them.

llamacpp_version=0.3.36 # of llama-cpp-python, whose source package has llama.cpp within

# bench_python WORK: sets python, with numpy and gguf
bench_python() {
    if [ ! -x "$1/venv/bin/python" ]; then
        python3 -m venv "$1/venv"
        "$1/venv/bin/pip" install -q numpy gguf
    fi
    python=$1/venv/bin/python
}

# llamacpp_program WORK NAME: builds WORK/build/bin/NAME where it is missing; needs cmake and a C++ compiler
llamacpp_program() {
    [ ! -x "$1/build/bin/$2" ] || return 0
    bench_python "$1"
    if [ ! -d "$1/llama_cpp_python-$llamacpp_version" ]; then
        (cd "$1" && "$python" -m pip download -q --no-deps --no-binary llama-cpp-python "llama-cpp-python==$llamacpp_version" &&
            tar xf "llama_cpp_python-$llamacpp_version.tar.gz")
    fi
    cmake -S "$1/llama_cpp_python-$llamacpp_version/vendor/llama.cpp" -B "$1/build" -DCMAKE_BUILD_TYPE=Release \
        -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
        -DLLAMA_BUILD_SERVER=OFF >"$1/cmake.log"
    cmake --build "$1/build" --target "$2" -j "$(nproc)" >"$1/build.log"
}
