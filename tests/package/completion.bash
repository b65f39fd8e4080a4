#!/usr/bin/env bash
# completion.bash SNUG FILE: what bash offers after some beginnings of a command line.
set -euo pipefail

SNUG_MODELS=$(mktemp -d)
export SNUG_MODELS
trap 'rm -rf "$SNUG_MODELS"' EXIT
touch "$SNUG_MODELS/mine.gguf"
PATH=$(dirname "$1"):$PATH
compopt() { :; }  # there is no completion under way
# shellcheck disable=SC1090
source "$2"
complete -p snug | grep -q -- '-F _snug' || { echo "error: bash: nothing completes snug" >&2; exit 1; }

# offers EXPECTED WORD...: the last WORD is the one that is being written.
offers() {
  local expected=$1
  shift
  COMP_WORDS=("$@")
  COMP_CWORD=$(($# - 1))
  COMPREPLY=()
  _snug || true
  [ "${COMPREPLY[*]}" = "$expected" ] || { echo "error: bash: '$*' is completed with '${COMPREPLY[*]}', not '$expected'" >&2; exit 1; }
}
offers "resize" snug res
offers "ppl" snug eval p
offers "--max-batch --max-body" snug serve model --max-b
offers "least-cost least-recent" snug serve --evict least
offers "least-cost" snug serve --evict = least-c
offers "mine" snug run min
offers "" snug bench --threads ""
