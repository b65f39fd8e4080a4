#!/usr/bin/env zsh
# completion.zsh SNUG FOLDER: what zsh makes of some beginnings of a command line, in a shell on a pseudo-terminal.

emulate -L zsh
zmodload zsh/zpty
models=$(mktemp -d)
touch $models/mine.gguf
trap 'zpty -d shell 2>/dev/null; rm -rf $models' EXIT

zpty shell zsh -f -i
# The shell echoes what it is told: "GO""T" is not what it prints.
for line in "PS1=; PATH=${1:h}:\$PATH; export SNUG_MODELS=$models; fpath=($2 \$fpath)" \
  'autoload -Uz compinit; compinit -u -D; bindkey "^I" complete-word' \
  'print "GO""T<snug: $_comps[snug]>"; got() { print "GO""T<$*>" }; compdef _snug got'; do
  zpty -w shell $line
done

wrong=0
# expect WANTED WHAT: the next thing that it prints.
expect() {
  local out
  zpty -r shell out '*GOT<*>*'
  out=${${out##*GOT<}%%>*}
  [[ $out == $1 ]] || { print -u2 "error: zsh: $2 gives '$out', not '$1'"; wrong=1 }
}
expect 'snug: _snug' 'compinit'
for line wanted in $'got res\t' 'resize' $'got eval pp\t' 'eval ppl' $'got serve model --log-j\t' 'serve model --log-json' \
  $'got serve --evict least-c\t' 'serve --evict least-cost' $'got run min\t' 'run mine'; do
  zpty -w shell $line
  expect $wanted ${(qqqq)line}
done
exit $wrong
