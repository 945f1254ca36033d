/* The three programs of the guestbook, which talk HTTP/1.0 to each other:
 *
 *   guestbook web          the page; asks http://api:8080
 *   guestbook api          checks entries and says which replica answered; keeps them at http://store:8080
 *   guestbook store FILE   appends entries to a file, on disk before it answers
 *   guestbook check PORT   ends with status 0 if the program on this port is well
 *
 * Each request is answered in a process of its own, so a slow client holds up nobody.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORT = 8080, LONGEST_REQUEST = 8192, LONGEST_ENTRY = 200, LONGEST_ANSWER = 1 << 20, SECONDS = 10 };

struct request {
    char text[LONGEST_REQUEST + 1];
    char *line, *body; /* both inside `text` */
};

struct answer {
    int status;
    char text[LONGEST_ANSWER + 1];
    char *body; /* inside `text` */
};

static const char *store_file;
static struct request request;
static struct answer answer;

static void fail(const char *what) {
    fprintf(stderr, "guestbook: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* ---- the wire ---- */

static int send_all(int to, const char *data, size_t size) {
    while (size > 0) {
        ssize_t sent = write(to, data, size);
        if (sent < 0)
            return -1;
        data += sent;
        size -= sent;
    }
    return 0;
}

static void respond(int to, const char *status, const char *headers, const char *body) {
    dprintf(to, "HTTP/1.0 %s\r\nContent-Length: %zu\r\n%s\r\n", status, strlen(body), headers);
    send_all(to, body, strlen(body));
}

/* Reads up to the end of the body that the header announces. */
static int read_request(int from) {
    size_t have = 0, want = 0;
    while (have < LONGEST_REQUEST) {
        ssize_t got = read(from, request.text + have, LONGEST_REQUEST - have);
        if (got <= 0)
            return -1;
        have += got;
        request.text[have] = 0;
        char *end = strstr(request.text, "\r\n\r\n");
        if (!end)
            continue;
        char *length = strcasestr(request.text, "\r\nContent-Length:");
        want = length && length < end ? strtoul(length + 17, NULL, 10) : 0;
        if (want > LONGEST_REQUEST)
            return -1;
        request.line = request.text;
        request.body = end + 4;
        if (have >= (size_t)(request.body - request.text) + want) {
            request.body[want] = 0;
            *strstr(request.text, "\r\n") = 0;
            return 0;
        }
    }
    return -1;
}

static int connect_to(const char *host, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found, *one;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        return -1;
    /* The C library sorts the replicas of a service, always alike: begin anywhere. */
    unsigned char any = 0;
    int count = 0, tries, peer = -1;
    for (one = found; one; one = one->ai_next)
        count++;
    getrandom(&any, sizeof any, 0);
    for (any %= count, one = found; any > 0; any--)
        one = one->ai_next;
    for (tries = 0; tries < count && peer < 0; tries++, one = one->ai_next ? one->ai_next : found) {
        peer = socket(one->ai_family, one->ai_socktype, one->ai_protocol);
        if (peer >= 0 && connect(peer, one->ai_addr, one->ai_addrlen) != 0) {
            close(peer);
            peer = -1;
        }
    }
    freeaddrinfo(found);
    return peer;
}

/* One request to another service; the answer's status, or 0 if there was none. */
static int call(const char *host, const char *port, const char *method, const char *path, const char *body) {
    answer.status = 0;
    answer.body = answer.text;
    answer.text[0] = 0;
    int peer = connect_to(host, port);
    if (peer < 0)
        return 0;
    dprintf(peer, "%s %s HTTP/1.0\r\nHost: %s\r\nContent-Length: %zu\r\n\r\n%s", method, path, host, strlen(body), body);
    size_t have = 0;
    ssize_t got;
    while (have < LONGEST_ANSWER && (got = read(peer, answer.text + have, LONGEST_ANSWER - have)) > 0)
        have += got;
    close(peer);
    answer.text[have] = 0;
    char *end = strstr(answer.text, "\r\n\r\n");
    if (end && sscanf(answer.text, "HTTP/%*s %d", &answer.status) == 1)
        answer.body = end + 4;
    return answer.status;
}

static int asks(const char *what) {
    size_t size = strlen(what);
    return strncmp(request.line, what, size) == 0 && request.line[size] == ' ';
}

/* ---- store ---- */

static void store(int client) {
    int file = open(store_file, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) {
        respond(client, "500 Cannot Open", "", "");
    } else if (asks("GET /log")) {
        static char text[LONGEST_ANSWER / 2];
        off_t size = lseek(file, 0, SEEK_END);
        off_t from = size < (off_t)sizeof text ? 0 : size - (off_t)sizeof text + 1;
        ssize_t got = pread(file, text, sizeof text - 1, from);
        if (got < 0)
            respond(client, "500 Cannot Read", "", "");
        else {
            text[got] = 0;
            respond(client, "200 OK", "", text);
        }
    } else if (asks("POST /log")) {
        size_t size = strlen(request.body);
        /* Nobody is told that an entry is kept before it is on disk. */
        if (write(file, request.body, size) == (ssize_t)size && fsync(file) == 0)
            respond(client, "201 Created", "", "");
        else
            respond(client, "500 Cannot Write", "", "");
    } else {
        respond(client, asks("GET /healthz") ? "200 OK" : "404 Not Found", "", "");
    }
}

/* ---- api ---- */

static void api(int client) {
    char replica[80] = "X-Replica: ";
    gethostname(replica + 11, 60);
    strcat(replica, "\r\n");
    if (asks("GET /entries")) {
        if (call("store", "8080", "GET", "/log", "") == 200)
            respond(client, "200 OK", replica, answer.body);
        else
            respond(client, "502 Bad Gateway", replica, "");
    } else if (asks("POST /entries")) {
        char entry[LONGEST_ENTRY + 2];
        size_t size = strlen(request.body);
        if (size == 0 || size > LONGEST_ENTRY) {
            respond(client, "400 Bad Request", replica, "an entry has 1 to 200 bytes\n");
            return;
        }
        for (size_t i = 0; i < size; i++)
            entry[i] = (unsigned char)request.body[i] < ' ' ? ' ' : request.body[i];
        entry[size] = '\n';
        entry[size + 1] = 0;
        int kept = call("store", "8080", "POST", "/log", entry) == 201;
        printf("%s: %s", kept ? "new entry" : "the store did not keep", entry);
        respond(client, kept ? "201 Created" : "502 Bad Gateway", replica, "");
    } else if (asks("GET /healthz")) {
        respond(client, call("store", "8080", "GET", "/healthz", "") == 200 ? "200 OK" : "502 Bad Gateway", replica, "");
    } else {
        respond(client, "404 Not Found", replica, "");
    }
}

/* ---- web ---- */

/* In place, as a browser's form writes it. */
static void form_decode(char *text) {
    char *out = text, hex[3] = "";
    for (; *text; text++) {
        if (*text == '%' && text[1] && text[2]) {
            hex[0] = text[1];
            hex[1] = text[2];
            int byte = (int)strtol(hex, NULL, 16);
            *out++ = byte ? (char)byte : ' ';
            text += 2;
        } else {
            *out++ = *text == '+' ? ' ' : *text;
        }
    }
    *out = 0;
}

static void html(FILE *out, const char *text, size_t size) {
    for (; size > 0; size--, text++) {
        switch (*text) {
        case '<': fputs("&lt;", out); break;
        case '>': fputs("&gt;", out); break;
        case '&': fputs("&amp;", out); break;
        case '"': fputs("&quot;", out); break;
        default: fputc(*text, out);
        }
    }
}

static void page(int client) {
    if (call("api", "8080", "GET", "/entries", "") != 200) {
        respond(client, "502 Bad Gateway", "Content-Type: text/plain\r\n", "the api does not answer\n");
        return;
    }
    int count = 0;
    for (char *c = answer.body; *c; c++)
        count += *c == '\n';
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        fail("no memory for the page");
    fprintf(out, "<!doctype html><html lang=en><meta charset=utf-8><title>Guestbook</title>"
                 "<meta name=viewport content='width=device-width'><style>body{font:18px system-ui;max-width:36em;"
                 "margin:3em auto;padding:0 1em}input{font:inherit;width:70%%}li{margin:.3em 0}small{color:#777}</style>"
                 "<h1>Guestbook</h1><p>%d %s so far.</p><form method=post action=/sign><input name=entry maxlength=%d "
                 "placeholder='Say hello' autofocus> <button>Sign</button></form><ol>",
            count, count == 1 ? "entry" : "entries", LONGEST_ENTRY);
    for (char *line = answer.body, *end; (end = strchr(line, '\n')); line = end + 1) {
        fputs("<li>", out);
        html(out, line, end - line);
    }
    char *replica = strstr(answer.text, "X-Replica: ");
    fputs("</ol><small>answered by replica ", out);
    if (replica)
        html(out, replica + 11, strcspn(replica + 11, "\r\n"));
    fputs("</small></html>\n", out);
    if (fclose(out) != 0)
        fail("no memory for the page");
    respond(client, "200 OK", "Content-Type: text/html; charset=utf-8\r\n", text);
}

static void web(int client) {
    if (asks("GET /")) {
        page(client);
    } else if (asks("POST /sign")) {
        char *entry = strncmp(request.body, "entry=", 6) == 0 ? request.body + 6 : request.body;
        form_decode(entry);
        int status = call("api", "8080", "POST", "/entries", entry);
        if (status == 201)
            respond(client, "303 See Other", "Location: /\r\n", "");
        else
            respond(client, status == 400 ? "400 Bad Request" : "502 Bad Gateway", "Content-Type: text/plain\r\n",
                    status == 400 ? answer.body : "the api does not answer\n");
    } else if (asks("GET /healthz")) {
        respond(client, call("api", "8080", "GET", "/healthz", "") == 200 ? "200 OK" : "502 Bad Gateway", "", "");
    } else {
        respond(client, "404 Not Found", "", "");
    }
}

/* ---- all of them ---- */

static void leave(int signal) {
    (void)signal;
    _exit(0);
}

static void serve(void (*handle)(int client), const char *greeting) {
    /* The first process of a container gets only the signals that it has asked for. */
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);

    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(PORT)}; /* on every address */
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 128) != 0)
        fail("cannot listen");
    if (greeting)
        printf("open %s\n", greeting);

    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) {
            if (errno != EINTR && errno != ECONNABORTED)
                fail("cannot accept");
            continue;
        }
        if (fork() == 0) {
            alarm(SECONDS); /* its default action ends this process */
            if (read_request(client) == 0)
                handle(client);
            else
                respond(client, "400 Bad Request", "", "");
            exit(0);
        }
        close(client);
    }
}

int main(int count, char **words) {
    const char *role = count > 1 ? words[1] : "";
    if (strcmp(role, "web") == 0 && count == 2)
        serve(web, getenv("ADDRESS"));
    if (strcmp(role, "api") == 0 && count == 2)
        serve(api, NULL);
    if (strcmp(role, "store") == 0 && count == 3) {
        store_file = words[2];
        serve(store, NULL);
    }
    if (strcmp(role, "check") == 0 && count == 3)
        return call("127.0.0.1", words[2], "GET", "/healthz", "") == 200 ? 0 : 1;
    fputs("usage: guestbook web | api | store FILE | check PORT\n", stderr);
    return 2;
}
