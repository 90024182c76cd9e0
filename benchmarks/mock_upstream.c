/* An upstream that speaks OpenAI's HTTP and costs almost nothing, so that what is measured is the proxy before it.
 *
 *   GET  /v1/models             one model, "mock-model"
 *   GET  /health                200
 *   POST /v1/chat/completions   a JSON reply, or with "stream": true server-sent events
 *   GET  /mock?chunks=64&pace_ms=20   sets the defaults below and answers with counters; for the driver only
 *
 * A stream is: headers and the role chunk, then `chunks` content chunks of about 270 bytes, one send() each, the first
 * at once and the others `pace_ms` apart (0: as fast as the socket takes them), then finish_reason, usage (when
 * stream_options.include_usage asks for it) and [DONE]. Every content chunk carries its send time (clock.h).
 *
 * The number of chunks and the pace come from "max_tokens" (or "max_completion_tokens") and "pace_ms" in the request's
 * body, else from the defaults: a proxy that translates between dialects drops fields it does not know, so the driver
 * sets the defaults.
 *
 * One thread, one epoll. Streams wait in a heap ordered by the time of their next chunk; a stream whose socket is full
 * leaves the heap until the socket takes more, so a slow reader holds up nobody else.
 *
 * It does not know JSON: it looks for quoted keys in the body. That is enough for the bodies the client sends.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "clock.h"

enum {
    REQUEST_MAX = 64 * 1024,               /* headers and body; longer ones end the connection */
    REPLY_MAX = 4096,                      /* the longest single message written below */
    EVENTS = 256,
    BURST = 256,                           /* chunks sent before sockets are looked at again */
};

struct connection {
    int fd;
    bool streaming;                        /* a reply is under way; the next request waits */
    bool usage;                            /* the stream ends with a usage chunk */
    bool close_after;                      /* the request said Connection: close */
    long chunks_sent, chunks_total;
    uint64_t pace, due;                    /* nanoseconds between chunks; when the next one is due */
    int place;                             /* index in the heap, -1 outside */
    size_t in_length;
    size_t out_length, out_sent;           /* what the socket has not taken yet; empty when equal */
    char out[REPLY_MAX];
    char in[REQUEST_MAX + 1];
};

static int epoll_fd, timer_fd;
static struct connection *const LISTENER = NULL;       /* epoll's pointer for the listening socket ... */
static int timer_mark;                                 /* ... and the address that stands for the timer */

static struct { long chunks; double pace_ms; } defaults = { .chunks = 16, .pace_ms = 0 };
static struct { long connections, requests, streams_open, chunks_sent; } counted;

/* ---- The heap of streams, earliest next chunk first ------------------------------------------------------------ */

static struct connection **heap;
static int heap_size, heap_room;

static void heap_put(int place, struct connection *c)
{
    heap[place] = c;
    c->place = place;
}

static void heap_up(struct connection *c)
{
    int place = c->place;
    while (place > 0 && heap[(place - 1) / 2]->due > c->due) {
        heap_put(place, heap[(place - 1) / 2]);
        place = (place - 1) / 2;
    }
    heap_put(place, c);
}

static void heap_down(struct connection *c)
{
    int place = c->place;
    for (;;) {
        int child = 2 * place + 1;
        if (child + 1 < heap_size && heap[child + 1]->due < heap[child]->due)
            child++;
        if (child >= heap_size || heap[child]->due >= c->due)
            break;
        heap_put(place, heap[child]);
        place = child;
    }
    heap_put(place, c);
}

static void heap_add(struct connection *c)
{
    if (heap_size == heap_room) {
        heap_room = heap_room ? 2 * heap_room : 1024;
        heap = realloc(heap, (size_t)heap_room * sizeof *heap);
        if (!heap)
            abort();
    }
    c->place = heap_size++;
    heap_up(c);
}

static void heap_remove(struct connection *c)
{
    int place = c->place;
    struct connection *last = heap[--heap_size];
    c->place = -1;
    if (last == c)
        return;
    heap_put(place, last);
    heap_up(last);
    heap_down(last);
}

/* ---- Connections ----------------------------------------------------------------------------------------------- */

static void watch(struct connection *c, uint32_t events)
{
    struct epoll_event event = { .events = events, .data.ptr = c };
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

static void hang_up(struct connection *c)
{
    if (c->place >= 0)
        heap_remove(c);
    if (c->streaming)
        counted.streams_open--;
    counted.connections--;
    close(c->fd);
    free(c);
}

/* Send, and keep what the socket did not take. false: the peer is gone and so is the connection. */
static bool say(struct connection *c, const char *text, size_t length)
{
    ssize_t sent = send(c->fd, text, length, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) {
        hang_up(c);
        return false;
    }
    if (sent < 0)
        sent = 0;
    if ((size_t)sent < length) {
        c->out_length = length - (size_t)sent;
        c->out_sent = 0;
        memcpy(c->out, text + sent, c->out_length);
        if (c->place >= 0)
            heap_remove(c);
        watch(c, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
    }
    return true;
}

static bool blocked(const struct connection *c)
{
    return c->out_sent < c->out_length;
}

static bool say_json(struct connection *c, const char *status, const char *body)
{
    char reply[REPLY_MAX];
    int length = snprintf(reply, sizeof reply,
                          "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                          status, strlen(body), body);
    return say(c, reply, (size_t)length);
}

/* ---- Chat replies ---------------------------------------------------------------------------------------------- */

#define CHUNK_HEAD "data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\"," \
                   "\"created\":1767225600,\"model\":\"mock-model\",\"choices\":["
#define STREAM_HEAD "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n" \
                    "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"

static const char ROLE[] = CHUNK_HEAD "{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},"
                                      "\"logprobs\":null,\"finish_reason\":null}]}\n\n";
static const char BEFORE_STAMP[] = CHUNK_HEAD "{\"index\":0,\"delta\":{\"content\":\"t=";
static const char AFTER_STAMP[] = " token\"},\"logprobs\":null,\"finish_reason\":null,\"token_ids\":null}]}\n\n";
static const char FINISH[] = CHUNK_HEAD "{\"index\":0,\"delta\":{\"content\":\"\"},\"logprobs\":null,"
                                        "\"finish_reason\":\"stop\",\"stop_reason\":null}]}\n\n";
static const char DONE[] = "data: [DONE]\n\n";

/* One HTTP chunk around one server-sent event; returns its length. */
static size_t framed(char *to, const char *event)
{
    return (size_t)sprintf(to, "%zx\r\n%s\r\n", strlen(event), event);
}

static char content_chunk[REPLY_MAX];                  /* a whole content chunk; only the stamp's digits change */
static size_t content_chunk_length, stamp_at;

static void build_content_chunk(void)
{
    char event[1024];
    snprintf(event, sizeof event, "%s%0*d%s", BEFORE_STAMP, STAMP_DIGITS, 0, AFTER_STAMP);
    content_chunk_length = framed(content_chunk, event);
    stamp_at = (size_t)(strstr(content_chunk, STAMP_MARK) - content_chunk) + strlen(STAMP_MARK);
}

static bool reply_whole(struct connection *c)
{
    char body[REPLY_MAX / 2], stamp[STAMP_DIGITS + 1] = { 0 };
    write_stamp(stamp, clock_ns());
    snprintf(body, sizeof body,
             "{\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1767225600,"
             "\"model\":\"mock-model\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
             "\"t=%s The quick brown fox jumps over the lazy dog, and the dog, being lazy, lets it.\","
             "\"refusal\":null,\"tool_calls\":[]},\"logprobs\":null,\"finish_reason\":\"stop\",\"stop_reason\":null}],"
             "\"usage\":{\"prompt_tokens\":96,\"completion_tokens\":24,\"total_tokens\":120}}", stamp);
    return say_json(c, "200 OK", body);
}

static bool stream_begin(struct connection *c)
{
    char text[REPLY_MAX] = STREAM_HEAD;
    size_t length = strlen(STREAM_HEAD);
    length += framed(text + length, ROLE);
    c->streaming = true;
    c->chunks_sent = 0;
    c->due = clock_ns();
    counted.streams_open++;
    if (!say(c, text, length))
        return false;
    if (!blocked(c))
        heap_add(c);
    return true;
}

static bool stream_end(struct connection *c)
{
    char text[REPLY_MAX], usage[512];
    size_t length = framed(text, FINISH);
    if (c->usage) {
        snprintf(usage, sizeof usage,
                 "data: {\"id\":\"chatcmpl-0123456789abcdef0123456789abcdef\",\"object\":\"chat.completion.chunk\","
                 "\"created\":1767225600,\"model\":\"mock-model\",\"choices\":[],\"usage\":{\"prompt_tokens\":96,"
                 "\"completion_tokens\":%ld,\"total_tokens\":%ld}}\n\n", c->chunks_sent, c->chunks_sent + 96);
        length += framed(text + length, usage);
    }
    length += framed(text + length, DONE);
    length += (size_t)sprintf(text + length, "0\r\n\r\n");
    c->streaming = false;
    counted.streams_open--;
    heap_remove(c);
    return say(c, text, length);
}

static bool serve(struct connection *c);

/* The stream at the top of the heap is due: send one chunk, or the end. */
static void stream_step(struct connection *c, uint64_t now)
{
    if (c->chunks_sent == c->chunks_total) {
        if (stream_end(c) && !blocked(c))
            serve(c);
        return;
    }
    c->chunks_sent++;
    counted.chunks_sent++;
    uint64_t sent = clock_ns();
    write_stamp(content_chunk + stamp_at, sent);
    /* Keep the schedule, so that a late chunk does not lower the rate offered; but forget a backlog of more than
     * 100 ms, which would come as one burst. Without a pace, go to the end of the line. */
    c->due = c->pace ? c->due + c->pace : sent;
    if (c->due + 100 * MILLISECOND < now)
        c->due = now;
    if (say(c, content_chunk, content_chunk_length) && !blocked(c))
        heap_down(c);
}

/* ---- Requests -------------------------------------------------------------------------------------------------- */

/* The value after a quoted key, whatever the order of the fields. NULL when the key is not there. */
static const char *field(const char *body, const char *key)
{
    size_t length = strlen(key);
    for (const char *at = body; (at = strstr(at, key)); at += length) {
        if (at - body < 1 || at[-1] != '"' || at[length] != '"' || (at - body >= 2 && at[-2] == '\\'))
            continue;                                  /* part of another word, or quoted inside a string */
        const char *value = at + length + 1;
        value += strspn(value, " \t\r\n");
        if (*value++ == ':')
            return value + strspn(value, " \t\r\n");
    }
    return NULL;
}

static bool says_true(const char *value)
{
    return value && !strncmp(value, "true", 4);
}

static const char *header(const char *head, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line, "\r\n")) {
        line += 2;
        if (!strncasecmp(line, name, length) && line[length] == ':')
            return line + length + 1 + strspn(line + length + 1, " \t");
    }
    return NULL;
}

static bool answer_chat(struct connection *c, const char *body)
{
    const char *chunks = field(body, "max_tokens");
    if (!chunks || !strtol(chunks, NULL, 10))
        chunks = field(body, "max_completion_tokens");
    const char *pace = field(body, "pace_ms");
    c->chunks_total = chunks ? strtol(chunks, NULL, 10) : 0;
    if (c->chunks_total <= 0)
        c->chunks_total = defaults.chunks;
    c->pace = (uint64_t)((pace ? strtod(pace, NULL) : defaults.pace_ms) * (double)MILLISECOND);
    c->usage = says_true(field(body, "include_usage"));
    counted.requests++;
    return says_true(field(body, "stream")) ? stream_begin(c) : reply_whole(c);
}

static bool answer_driver(struct connection *c, const char *query)
{
    const char *chunks = strstr(query, "chunks="), *pace = strstr(query, "pace_ms=");
    char body[512];
    if (chunks)
        defaults.chunks = strtol(chunks + strlen("chunks="), NULL, 10);
    if (pace)
        defaults.pace_ms = strtod(pace + strlen("pace_ms="), NULL);
    snprintf(body, sizeof body,
             "{\"chunks\":%ld,\"pace_ms\":%g,\"connections\":%ld,\"requests\":%ld,\"streams_open\":%ld,\"chunks_sent\":%ld}",
             defaults.chunks, defaults.pace_ms, counted.connections, counted.requests, counted.streams_open,
             counted.chunks_sent);
    return say_json(c, "200 OK", body);
}

static bool answer(struct connection *c, const char *head, const char *body)
{
    if (!strncmp(head, "POST /v1/chat/completions", 25))
        return answer_chat(c, body);
    if (!strncmp(head, "GET /v1/models", 14))
        return say_json(c, "200 OK", "{\"object\":\"list\",\"data\":[{\"id\":\"mock-model\",\"object\":\"model\","
                                     "\"created\":1767225600,\"owned_by\":\"benchmark\",\"max_model_len\":32768}]}");
    if (!strncmp(head, "GET /health", 11))
        return say_json(c, "200 OK", "{}");
    if (!strncmp(head, "GET /mock", 9)) {
        char query[256] = { 0 };
        sscanf(head + 9, "%255[^ ]", query);
        return answer_driver(c, query);
    }
    return say_json(c, "404 Not Found", "{\"error\":{\"message\":\"no such path\",\"type\":\"NotFoundError\","
                                        "\"code\":404}}");
}

/* Answer every whole request in the buffer, one at a time. false: the connection is gone. */
static bool serve(struct connection *c)
{
    while (!c->streaming && !blocked(c)) {
        if (c->close_after) {
            hang_up(c);
            return false;
        }
        c->in[c->in_length] = 0;
        char *end = strstr(c->in, "\r\n\r\n");
        if (!end)
            return true;
        end[2] = 0;                                    /* header() must not look into the body */
        const char *length = header(c->in, "content-length"), *connection = header(c->in, "connection");
        bool too_hard = header(c->in, "transfer-encoding") != NULL;
        bool close_after = connection && !strncasecmp(connection, "close", 5);
        size_t body_length = length ? strtoul(length, NULL, 10) : 0;
        end[2] = '\r';
        size_t whole = (size_t)(end + 4 - c->in) + body_length;
        if (too_hard || whole > REQUEST_MAX) {
            hang_up(c);
            return false;
        }
        if (whole > c->in_length)
            return true;
        c->close_after = close_after;

        char next = c->in[whole];                      /* end the body with a 0 while it is read */
        c->in[whole] = 0;
        end[2] = 0;
        if (!answer(c, c->in, end + 4))
            return false;
        c->in[whole] = next;
        memmove(c->in, c->in + whole, c->in_length - whole);
        c->in_length -= whole;
    }
    return true;
}

static void on_readable(struct connection *c)
{
    ssize_t got = recv(c->fd, c->in + c->in_length, REQUEST_MAX - c->in_length, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {                                    /* gone, or a request that does not fit */
        hang_up(c);
        return;
    }
    c->in_length += (size_t)got;
    serve(c);
}

static void on_writable(struct connection *c)
{
    ssize_t sent = send(c->fd, c->out + c->out_sent, c->out_length - c->out_sent, MSG_NOSIGNAL);
    if (sent < 0) {
        if (errno != EAGAIN)
            hang_up(c);
        return;
    }
    c->out_sent += (size_t)sent;
    if (blocked(c))
        return;
    watch(c, EPOLLIN | EPOLLRDHUP);
    if (c->streaming)
        heap_add(c);
    else
        serve(c);
}

/* ---- The way in ------------------------------------------------------------------------------------------------ */

static void on_listener(int listener)
{
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
        struct connection *c = malloc(sizeof *c);
        if (!c)
            abort();
        memset(c, 0, offsetof(struct connection, out));
        c->fd = fd;
        c->place = -1;
        /* Without it the kernel would hold a small chunk back until the one before is acknowledged. */
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
        struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = c };
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
        counted.connections++;
    }
}

static int listen_on(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096) ||
        getsockname(fd, (struct sockaddr *)&address, &length)) {
        perror("mock_upstream: listen");
        exit(1);
    }
    printf("listening %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

/* Wake at the time of the next chunk. Returns epoll_wait's timeout: 0 when a chunk is due now. */
static int arm_timer(uint64_t now)
{
    static uint64_t armed;
    if (!heap_size)
        return -1;
    uint64_t due = heap[0]->due;
    if (due <= now)
        return 0;
    if (due != armed) {
        struct itimerspec at = { .it_value = { .tv_sec = (time_t)(due / SECOND), .tv_nsec = (long)(due % SECOND) } };
        timerfd_settime(timer_fd, TFD_TIMER_ABSTIME, &at, NULL);
        armed = due;
    }
    return -1;
}

static void run(int listener)
{
    struct epoll_event events[EVENTS];
    for (;;) {
        int ready = epoll_wait(epoll_fd, events, EVENTS, arm_timer(clock_ns()));
        for (int i = 0; i < ready; i++) {
            void *who = events[i].data.ptr;
            if (who == LISTENER)
                on_listener(listener);
            else if (who == &timer_mark)
                continue;                              /* edge-triggered: waking up was all it is for */
            else if (events[i].events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP))
                hang_up(who);                          /* a proxy that half-closes has given the stream up */
            else if (events[i].events & EPOLLOUT)
                on_writable(who);
            else
                on_readable(who);
        }
        uint64_t now = clock_ns();
        for (int sent = 0; sent < BURST && heap_size && heap[0]->due <= now; sent++)
            stream_step(heap[0], now);
    }
}

int main(int argc, char **argv)
{
    static const struct option OPTIONS[] = {
        { "port", required_argument, NULL, 'p' },
        { "chunks", required_argument, NULL, 'c' },
        { "pace-ms", required_argument, NULL, 'm' },
        { 0 },
    };
    int port = 0;                                      /* 0: any free one; it is printed */
    for (int option; (option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'c': defaults.chunks = atol(optarg); break;
        case 'm': defaults.pace_ms = atof(optarg); break;
        default:
            fprintf(stderr, "usage: mock_upstream [--port N] [--chunks N] [--pace-ms N]\n");
            return 2;
        }
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    build_content_chunk();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int listener = listen_on(port);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer_fd,
              &(struct epoll_event){ .events = EPOLLIN | EPOLLET, .data.ptr = &timer_mark });
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &(struct epoll_event){ .events = EPOLLIN, .data.ptr = LISTENER });
    run(listener);
}
