# Sourced by ../../compose-samples/test.
sign() {
    says '303 See Other' fetch /sign --include --data-urlencode "entry=$1"
}

replicas() {
    local n
    for n in $(seq 20); do
        fetch / | grep -o 'replica [0-9a-f]*'
    done | sort -u | wc -l
}

both_answer() {
    [ "$(replicas)" = 2 ]
}

check "up -d --wait" compose up -d --wait || return
check "it says where to point the browser" says "open http://localhost:$PORT" compose logs web
check "the page answers" says '0 entries so far' fetch /
check "sign" sign 'hello & <welcome>'
check "the entry is on the page" says 'hello &amp; &lt;welcome&gt;' fetch /
check "an empty entry is refused" says 400 fetch /sign --no-fail --write-out "%{http_code}" --data entry=
check "both replicas answer" eventually 10 both_answer
check "the compiler ended well" says 'Exited (0)' compose ps --all compile
check "five containers in all" running 5 --all
check "the file has the entry" says 'hello & <welcome>' compose exec -T store cat /data/guestbook.log
check "kill the store" compose kill store
check "start the store" compose start store
check "it is back" eventually 20 says '1 entry so far' fetch /
check "down" compose down
check "nothing answers" refused fetch /
check "up -d --wait again" compose up -d --wait
check "the entry survived" says '1 entry so far' fetch /
