#!/usr/bin/env bash
# The checks of the engine that are no measurements of speed, one after the other (about an hour on two cores with nothing else running):
#   bench/peers/engine_checks.sh TEXT TEMPLATES_FOLDER MODEL.gguf...
# TEXT: the validation part of WikiText-2. TEMPLATES_FOLDER: published chat templates, as llama.cpp carries them. Wants bench/peers/setup.sh.
set -euo pipefail
text=$(realpath "$1") templates=$(realpath "$2")
shift 2
models=()
for model in "$@"; do models+=("$(realpath "$model")"); done
cd "$(dirname "$0")/../.."
python=build/peers/llama/bin/python
cmake --build build/release --target snug same_answer logits snug_render_template >/dev/null

# What one check finds does not keep the next from running.
failed=()
section() { name=$1; printf '\n== %s (%s)\n' "$1" "$(date +%T)"; }
check() { "$@" || failed+=("$name"); }
section "same answer"
for model in "${models[@]}"; do
  echo "$model"
  check build/release/same_answer "$model" 20 512
done
section "divergence from f32"
for model in "${models[@]}"; do check build/release/snug eval kl "$model" --text "$text" --max-tokens 2048; done
section "perplexity"
check $python bench/peers/perplexity.py "$text" "${models[@]}" --max-tokens 10240
section "logits of random models"
check bench/peers/logits.sh
section "chat templates"
check $python bench/peers/template_compare.py build/release/snug_render_template "$templates" "${models[@]}"
section "tokenizer"
check $python bench/peers/tokenizer_compare.py "${models[@]}" --text "$text"
section "fuzzing, 30 minutes"
cmake --preset fuzz >/dev/null
cmake --build build/fuzz --target gguf_fuzz >/dev/null
fuzz() {
  build/fuzz/gguf_fuzz -dict=tests/fuzz/gguf.dict -max_total_time=1800 -max_len=65536 "$(mktemp -d)" tests/fuzz/corpus 2>&1 | tail -2
}
check fuzz
section done
if [ ${#failed[@]} -gt 0 ]; then
  printf 'found something: %s\n' "${failed[@]}"
  exit 1
fi
