# Sourced by ../test.
add() {
    says "\"what\":\"$1\"" fetch /todos --header 'Content-Type: application/json' --data "{\"what\": \"$1\"}"
}

# How many different replicas give 20 answers.
replicas() {
    local n
    for n in $(seq 20); do
        fetch /todos --output /dev/null --dump-header - | grep -i '^x-served-by'
    done | sort -u | wc -l
}

answered_by() {
    local seen
    seen=$(replicas)
    echo "$seen replicas answered"
    [ "$seen" = "$1" ]
}

sql() {
    compose exec -T db psql --no-psqlrc --tuples-only --no-align --username todo --dbname todo --command "$1"
}

check "up -d --wait" compose up -d --wait || return
check "the page answers at once" says '<h1>To do</h1>' fetch /
check "the migration ran first" says 'applied 002-done.sql' compose logs --no-log-prefix migrate
check "the migration ended well" says 'Exited (0)' compose ps --all migrate
check "a todo is added" add 'buy milk'
check "another one" add 'feed the cat'
check "both are listed" says 'feed the cat' fetch /todos
check "a todo without text is refused" says '`what` is missing' fetch /todos --no-fail --data nonsense
check "psql sees them" says 2 sql 'SELECT count(*) FROM todos'
check "both replicas answer" answered_by 2
check "nginx logs what it answered" says 'GET /todos' compose logs web
check "an app cannot write to its own code" refused compose exec -T app touch /app/x
check "scale app to 3" compose up -d --wait --no-recreate --scale app=3 app
check "nginx takes the new replica" compose exec -T web nginx -s reload
check "three replicas answer" eventually 10 answered_by 3
check "kill the database" compose kill -s KILL db
check "start it again" compose up -d --wait --scale app=3
check "the data survives a killed database" eventually 30 says 'buy milk' fetch /todos
check "down" compose down
check "up -d --wait again" compose up -d --wait
check "the data survives down and up" says 'feed the cat' fetch /todos
check "the migration has nothing left to do" says 'already there: 002-done.sql' compose logs --no-log-prefix migrate
check "a todo is removed" fetch /todos/1 --request DELETE
check "it is gone" says 1 sql 'SELECT count(*) FROM todos'
