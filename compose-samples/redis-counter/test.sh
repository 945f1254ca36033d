# Sourced by ../test.
visitor() {
    says "visitor number $1." fetch /
}

check "up -d" compose up -d || return
check "the page answers" eventually 30 fetch /
check "it counts" visitor 2
check "it counts on" visitor 3
check "redis has the count" says 3 compose exec -T redis redis-cli get visits
check "both services are running" running 2
check "redis becomes healthy" eventually 20 says '(healthy)' compose ps redis
check "the page is logged" says 'GET / HTTP' compose logs web
check "restart redis" compose restart redis
check "the count survives the restart" eventually 20 visitor 4
check "kill redis" compose kill -s KILL redis
check "start redis" compose start redis
check "the count survives being killed" eventually 20 visitor 5
check "down" compose down -t 2
check "nothing answers after down" refused fetch /
check "up -d again" compose up -d || return
check "the count survives down and up" eventually 30 visitor 6
check "run --rm reaches redis by its name" says PONG compose run --rm -T redis redis-cli -h redis ping
check "stop" compose stop -t 2
check "nothing runs after stop" running 0
check "start" compose start
check "the count survives stop and start" eventually 30 visitor 7
