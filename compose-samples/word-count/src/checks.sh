#!/bin/sh
# The program against texts whose words are known.
status=0
expect() {
    found=$(printf "$2" | ./words)
    [ "$found" = "$1" ] && echo "ok: $1" && return
    echo "FAILED: $found instead of $1 words in '$2'"
    status=1
}
expect 0 ''
expect 0 ' \n\t '
expect 3 'one two\nthree'
expect 2 '  two   words  '
exit $status
