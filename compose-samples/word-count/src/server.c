/* words --serve PORT FOLDER   the page, /healthz, /version, and POST /count
 * words --ask PATH            a health check: whether that path of the server answers
 * words                       counts the words of standard input */
#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

long count_words(const char *text, size_t length);

enum { PORT = 8080, LARGEST = 1 << 20 };

static void answer(int client, const char *status, const char *type, const char *body, size_t length) {
    dprintf(client, "HTTP/1.0 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status, type, length);
    while (length > 0) {
        ssize_t sent = write(client, body, length);
        if (sent <= 0)
            return;
        body += sent;
        length -= (size_t)sent;
    }
}

static void say(int client, const char *status, const char *text) {
    answer(client, status, "text/plain", text, strlen(text));
}

/* The request in `buffer`, up to the end of its body. */
static size_t receive(int client, char *buffer, char **body) {
    size_t length = 0, wanted = 0;
    *body = NULL;
    while (length < LARGEST) {
        ssize_t got = read(client, buffer + length, LARGEST - length);
        if (got <= 0)
            break;
        length += (size_t)got;
        buffer[length] = 0;
        char *end = strstr(buffer, "\r\n\r\n");
        if (end && !*body) {
            *body = end + 4;
            char *header = strcasestr(buffer, "\r\nContent-Length:");
            if (header && header < end)
                wanted = strtoul(header + 17, NULL, 10);
        }
        if (*body && (size_t)(buffer + length - *body) >= wanted)
            break;
    }
    return length;
}

static void handle(int client, const char *folder, char *buffer) {
    char *body;
    size_t length = receive(client, buffer, &body);
    if (!body)
        return say(client, "400 Bad Request", "that is no request\n");
    printf("%.*s\n", (int)strcspn(buffer, "\r\n"), buffer);
    fflush(stdout);
    if (!strncmp(buffer, "POST /count ", 12)) {
        char text[64];
        snprintf(text, sizeof text, "{\"words\":%ld}\n", count_words(body, (size_t)(buffer + length - body)));
        return answer(client, "200 OK", "application/json", text, strlen(text));
    }
    if (!strncmp(buffer, "GET /healthz ", 13))
        return say(client, "200 OK", "well\n");
    if (!strncmp(buffer, "GET /version ", 13))
        return say(client, "200 OK", VERSION "\n");
    if (strncmp(buffer, "GET / ", 6))
        return say(client, "404 Not Found", "there is no such page\n");
    char path[512];
    snprintf(path, sizeof path, "%s/index.html", folder);
    FILE *page = fopen(path, "r");
    if (!page)
        return say(client, "500 Internal Server Error", "the page is missing\n");
    length = fread(buffer, 1, LARGEST, page);
    fclose(page);
    answer(client, "200 OK", "text/html", buffer, length);
}

static int serve(int port, const char *folder) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, server = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 64)) {
        perror("words");
        return 1;
    }
    printf("words %s listens on port %d\n", VERSION, port);
    fflush(stdout);
    char *buffer = malloc(LARGEST + 1);
    for (;;) {
        int client = accept(server, NULL, NULL);
        if (client < 0)
            continue;
        struct timeval limit = {.tv_sec = 5};
        setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
        setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        handle(client, folder, buffer);
        close(client);
    }
}

static int ask(const char *path) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(PORT), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int server = socket(AF_INET, SOCK_STREAM, 0);
    char text[64] = "";
    if (connect(server, (struct sockaddr *)&address, sizeof address))
        return 1;
    dprintf(server, "GET %s HTTP/1.0\r\n\r\n", path);
    return read(server, text, sizeof text - 1) <= 0 || !strstr(text, " 200 ");
}

int main(int count, char **arguments) {
    signal(SIGPIPE, SIG_IGN);
    if (count == 4 && !strcmp(arguments[1], "--serve"))
        return serve(atoi(arguments[2]), arguments[3]);
    if (count == 3 && !strcmp(arguments[1], "--ask"))
        return ask(arguments[2]);
    static char text[LARGEST];
    printf("%ld\n", count_words(text, fread(text, 1, sizeof text, stdin)));
    return 0;
}
