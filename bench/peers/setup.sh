#!/usr/bin/env bash
# Native builds of llama.cpp and ik_llama.cpp (their Python source packages) in build/peers/{llama,llama-server,ik}, for the scripts beside this one.
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p build/peers
export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}

if [ ! -d build/peers/llama ]; then
  python3 -m venv build/peers/llama
  CMAKE_ARGS="-DGGML_NATIVE=ON" build/peers/llama/bin/pip install -q --no-binary llama-cpp-python llama-cpp-python==0.3.36 gguf jinja2
fi

# The same source's own server. Its AMX kernels crash where a virtual machine has the instructions but not the tiles.
if [ ! -d build/peers/llama-server ]; then
  (
    cd build/peers
    llama/bin/pip download -q --no-deps --no-binary :all: llama-cpp-python==0.3.36
    tar xf llama_cpp_python-0.3.36.tar.gz
    no_amx=$(grep -q amx_tile /proc/cpuinfo && echo "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16" || true)
    cmake -S llama_cpp_python-0.3.36/vendor/llama.cpp -B llama_cpp_python-0.3.36/build -G Ninja -DCMAKE_BUILD_TYPE=Release \
      -DCMAKE_C_FLAGS="$no_amx" -DCMAKE_CXX_FLAGS="$no_amx" -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_BUILD_COMMON=ON -DLLAMA_BUILD_TOOLS=ON -DLLAMA_BUILD_SERVER=ON \
      -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DBUILD_SHARED_LIBS=OFF
    cmake --build llama_cpp_python-0.3.36/build --target llama-server
    mkdir -p llama-server/bin
    cp llama_cpp_python-0.3.36/build/bin/llama-server llama-server/bin/
  )
fi

if [ ! -d build/peers/ik ]; then
  python3 -m venv build/peers/ik
  (
    cd build/peers
    ik/bin/pip download -q --no-deps --no-binary :all: ik-llama-cpp-python
    tar xf ik_llama_cpp_python-*.tar.gz
    cd ik_llama_cpp_python-*/
    # The source package lacks this file of its own build.
    mkdir -p vendor/ik_llama.cpp/common/cmake
    cat >vendor/ik_llama.cpp/common/cmake/build-info-gen-cpp.cmake <<'END'
set(BUILD_NUMBER 0)
set(BUILD_COMMIT package)
set(BUILD_COMPILER ${CMAKE_C_COMPILER_ID})
set(BUILD_TARGET native)
configure_file(common/build-info.cpp.in common/build-info.cpp)
END
    CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF" ../ik/bin/pip install -q .
  )
fi
