#!/usr/bin/env fish
# completion.fish SNUG FILE: what fish offers after some beginnings of a command line.

set -x SNUG_MODELS (mktemp -d)
touch $SNUG_MODELS/mine.gguf
set -p PATH (dirname $argv[1])
source $argv[2]

set wrong 0
# offers LINE EXPECTED...
function offers
    set found (complete -C $argv[1] | string split -f 1 \t)
    if test "$found" != "$argv[2..]"
        echo "error: fish: '$argv[1]' is completed with '$found', not '$argv[2..]'" >&2
        set -g wrong 1
    end
end
offers "snug res" resize
offers "snug eval p" ppl
offers "snug serve model --max-b" --max-batch --max-body
offers "snug serve --evict least-" least-cost least-recent
offers "snug run min" mine
rm -r $SNUG_MODELS
exit $wrong
