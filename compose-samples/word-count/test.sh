# Sourced by ../test.
counted() {
    says "{\"words\":$1}" fetch /count --data "$2"
}

# It fails, and says TEXT.
fails_with() {
    local text=$1 output
    shift
    ! output=$("$@" 2>&1) && [[ $output == *"$text"* ]] && return
    printf '%s\n' "$output"
    return 1
}

# The project is changed, so it is a copy.
cp -r "$folder" "$work/word-count"
folder=$work/word-count

check "build" compose build || return
check "up -d --wait" compose up -d --wait || return
check "the page is there" says '<h1>Words</h1>' fetch /
check "the argument's default is on it" says 'words 1.0' fetch /
check "words are counted" counted 4 'how many are these'
check "a text of 120 kB is counted" counted 20000 "$(yes words | head -n 20000)"
check "an unknown page is none" refused fetch /nothing
check "what it answers is logged" says 'POST /count' compose logs web
check "the user is the Dockerfile's" says words compose exec -T web id -un
check "no compiler is left in the image" refused compose exec -T web sh -c 'command -v gcc || command -v python3'
check "the checks pass" says 'ok: 3' compose run --rm -T checks
check "the image has the project's name" says "$current-web" compose images web
first=$(compose ps --quiet web)
check "up -d again" compose up -d --build
check "nothing was built anew, so nothing is replaced" test "$first" = "$(compose ps --quiet web)"
sed -i 's/^# Words/# All words/' "$folder/pages/index.md"
touch "$folder/README.md"
if [ "$engine" = rcompose ]; then
    check "up -d says what changed" says 'context changed since the image was built (1 file)' compose up -d
fi
check "up -d --build --wait" compose up -d --build --wait
check "the container is another" refused test "$first" = "$(compose ps --quiet web)"
check "the page is the new one" says '<h1>All words</h1>' fetch /
export VERSION=2.0
check "up -d --build --wait with another version" compose up -d --build --wait
check "it answers" says 2.0 fetch /version
unset VERSION
sed -i 's/long words = 0/long words = 0 +/' "$folder/src/count.c"
check "a program that does not compile fails with the place" fails_with 'count.c:' compose up -d --build
check "the old one still answers" says 2.0 fetch /version
check "down" compose down --rmi local
