#!/usr/bin/env bash
# Random F16 models of every architecture, and of the RoPE variants, their logits beside llama.cpp's (bench/peers/setup.sh first).
set -euo pipefail
cd "$(dirname "$0")/../.."
python=build/peers/llama/bin/python
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

make_model() { # NAME SHAPE [SET...]
  local name=$1 shape=$2
  shift 2
  $python tools/make_model.py "tiny-$shape" --type f16 -o "$folder/$name.gguf" "${@/#/--set=}" >/dev/null
}
for shape in llama arcee llama3 mixtral smollm3 qwen2 qwen3 qwen3moe olmoe phi3 phi3-longrope gemma3 gpt-oss gemma4 gemma4moe qwen35 qwen35moe qwen3next; do
  make_model $shape $shape
done
yarn() { echo "$1.rope.scaling.type=yarn" "$1.rope.scaling.factor=4.0" "$1.rope.scaling.original_context_length=64"; }
make_model llama-linear llama llama.rope.scaling.type=linear llama.rope.scaling.factor=4.0
make_model qwen3-yarn qwen3 $(yarn qwen3)
make_model gpt-oss-yarn gpt-oss $(yarn gpt-oss)
$python bench/peers/logits_compare.py "$folder"/*.gguf 2>/dev/null
