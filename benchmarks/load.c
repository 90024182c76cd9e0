/* A client that keeps N connections busy and measures what comes back. Closed loop: a connection sends its next
 * request when the reply to the last one is complete.
 *
 *   load --port N --path /v1/chat/completions --body FILE [--header "Name: value"]... --connections N [options]
 *
 *   --events json|sse|ndjson   how a reply is cut into events (default json: the whole body is one)
 *   --expect-events N          a reply with another number of stamped events is an error
 *   --seconds S                length of the measured window (default 5)
 *   --warmup S                 before the window, counted from the end of the ramp (default 1)
 *   --ramp S                   connections are opened evenly over this time (default 0)
 *   --hold                     the window opens when every connection has had its first event: for streams that never end
 *   --requests N               instead of a window: N requests on each connection, measured as a whole
 *   --limit S                  give up after this time, whatever is missing (default 120)
 *
 * It prints "begin" when the window opens and "end" when it closes, so that the driver can read the proxy's CPU time at
 * both, and then one line of JSON. In --hold mode the streams are still open at "end"; they close with the process.
 *
 * A stamped event is a line with a send time in it (clock.h). They alone count as chunks, except with --requests, where
 * every event does: an engine writes no stamps.
 *
 * One thread, one epoll. HTTP/1.1 with Content-Length, chunked, or to the end of the connection.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"

enum {
    HEAD_MAX = 8 * 1024,                   /* a reply's headers */
    LINE_MAX_BYTES = 16 * 1024,            /* one event, or a whole JSON reply */
    EVENTS = 256,
};
static const uint64_t RETRY_AFTER = 10 * 1000000ull;   /* after an error: the loop must not spin on a dead server */

enum kind { JSON, SSE, NDJSON };

/* Where a connection stands in the reply it is reading. */
enum state { WAITING, CONNECTING, HEAD, BODY, BODY_TO_END, CHUNK_SIZE, CHUNK_BODY, CHUNK_TAIL, TRAILER, FINISHED };

struct connection {
    int fd;
    enum state state;
    uint64_t start_at;                     /* WAITING: when to connect */
    uint64_t asked_at;                     /* when the request under way was sent */
    long answered;                         /* replies since it connected */
    long completed;                        /* replies in its whole life, for --requests */
    long events, stamped;                  /* of the reply under way */
    bool ever_stamped;                     /* for --hold */
    bool any_bytes, close_after, done_seen;
    int status;
    size_t left;                           /* bytes of the body or of the HTTP chunk still to come */
    bool size_seen;                        /* CHUNK_SIZE: past the digits, in an extension */
    size_t head_length, line_length;
    char *head, *line;
};

static struct {
    int port;
    const char *host, *path, *body_file;
    char headers[4096];
    long connections, expect_events, requests;
    double seconds, warmup, ramp, limit;
    enum kind kind;
    bool hold;
} options = { .host = "127.0.0.1", .path = "/", .connections = 1, .expect_events = -1, .seconds = 5, .warmup = 1,
              .limit = 120 };

static int epoll_fd;
static struct sockaddr_in server;
static struct connection *connections;
static long waiting, finished;
static char *request;
static size_t request_length;

/* ---- What is measured ------------------------------------------------------------------------------------------ */

struct samples { uint32_t *values; size_t count, room; };          /* nanoseconds, at most 4.29 s */

static struct { uint64_t begin, end; } window;         /* begin 0: not open yet; end 0: not closed yet */
static struct {
    struct samples latency, first, chunk;
    long requests, chunks, tokens, errors, reconnects, ended_early;
    char first_error[256];
} measured;

static bool in_window(void)
{
    return window.begin && !window.end;
}

static void sample(struct samples *all, uint64_t value)
{
    if (all->count == all->room) {
        all->room = all->room ? 2 * all->room : 1 << 16;
        all->values = realloc(all->values, all->room * sizeof *all->values);
        if (!all->values)
            abort();
    }
    all->values[all->count++] = value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static int by_value(const void *a, const void *b)
{
    uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
    return (left > right) - (left < right);
}

/* In microseconds; the samples must be sorted. */
static double quantile(const struct samples *all, double share)
{
    if (!all->count)
        return 0;
    return all->values[(size_t)(share * (double)(all->count - 1) + 0.5)] / 1e3;
}

/* ---- The life of a connection ---------------------------------------------------------------------------------- */

static void wait_until(struct connection *c, uint64_t time)
{
    c->state = WAITING;
    c->start_at = time;
    waiting++;
}

static void close_connection(struct connection *c)
{
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void failed(struct connection *c, const char *what)
{
    measured.errors++;
    if (!measured.first_error[0]) {
        int length = snprintf(measured.first_error, sizeof measured.first_error, "%s; status %d, line: %.*s", what,
                              c->status, (int)(c->line_length < 160 ? c->line_length : 160), c->line);
        for (int i = 0; i < length && measured.first_error[i]; i++)    /* keep the JSON below valid */
            if ((unsigned char)measured.first_error[i] < ' ' || strchr("\"\\", measured.first_error[i]))
                measured.first_error[i] = '\'';
    }
    close_connection(c);
    wait_until(c, clock_ns() + RETRY_AFTER);
}

static void ask(struct connection *c)
{
    c->state = HEAD;
    c->head_length = c->line_length = 0;
    c->events = c->stamped = 0;
    c->any_bytes = c->close_after = c->done_seen = false;
    c->status = 0;
    c->asked_at = clock_ns();
    /* A request is far smaller than an empty socket's buffer, so it goes in one piece or not at all. */
    if (send(c->fd, request, request_length, MSG_NOSIGNAL) == (ssize_t)request_length)
        return;
    if (c->answered && (errno == EPIPE || errno == ECONNRESET)) {
        measured.reconnects++;
        close_connection(c);
        wait_until(c, clock_ns());
        return;
    }
    failed(c, "the request could not be sent");
}

static void start(struct connection *c)
{
    waiting--;
    c->answered = 0;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
    c->state = CONNECTING;
    if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) {
        failed(c, "cannot connect");
        return;
    }
    struct epoll_event event = { .events = EPOLLOUT, .data.ptr = c };
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event);
}

static void connected(struct connection *c)
{
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) {
        failed(c, "cannot connect");
        return;
    }
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = c };
    epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event);
    ask(c);
}

static void reply_complete(struct connection *c, uint64_t now)
{
    bool whole = c->status == 200 && (options.kind != SSE || c->done_seen) &&
                 (options.expect_events < 0 || c->stamped == options.expect_events);
    if (!whole) {
        failed(c, c->status != 200 ? "not a 200" : options.kind == SSE && !c->done_seen ? "no [DONE]"
                                                                                        : "wrong number of events");
        return;
    }
    if (options.hold) {
        measured.ended_early++;
    } else if (in_window()) {
        measured.requests++;
        sample(&measured.latency, now - c->asked_at);
    }
    c->answered++;
    if (++c->completed == options.requests) {
        c->state = FINISHED;
        finished++;
        close_connection(c);
    } else if (c->close_after) {
        close_connection(c);
        wait_until(c, now);
    } else {
        ask(c);
    }
}

/* ---- Events ---------------------------------------------------------------------------------------------------- */

static void count_tokens(const char *line, size_t length)
{
    static const char *const NAMES[] = { "\"completion_tokens\":", "\"eval_count\":" };       /* OpenAI's, Ollama's */
    for (int i = 0; i < 2; i++) {
        const char *at = memmem(line, length, NAMES[i], strlen(NAMES[i]));
        if (at && in_window()) {
            measured.tokens += strtol(at + strlen(NAMES[i]), NULL, 10);            /* a delimiter always follows */
            return;
        }
    }
}

static void event(struct connection *c, const char *line, size_t length, uint64_t now)
{
    const char *mark = memmem(line, length, STAMP_MARK, strlen(STAMP_MARK));
    uint64_t sent = mark ? read_stamp(mark + strlen(STAMP_MARK), line + length) : 0;
    bool counts = sent || options.requests;

    if (counts && in_window()) {
        measured.chunks++;
        if (sent)
            sample(&measured.chunk, now > sent ? now - sent : 0);
        /* The request must lie in the window too, or the ramp's crowd would be in the sample. */
        if (!(options.requests ? c->events : c->stamped) && c->asked_at >= window.begin)
            sample(&measured.first, now - c->asked_at);
    }
    c->events++;
    c->stamped += sent != 0;
    c->ever_stamped |= sent != 0;
    if (!sent || options.kind == JSON)
        count_tokens(line, length);
}

static void line_complete(struct connection *c, const char *line, size_t length, uint64_t now)
{
    if (length && line[length - 1] == '\r')
        length--;
    if (options.kind == SSE) {
        if (length < 5 || memcmp(line, "data:", 5))
            return;                                    /* an empty line, a comment, another field */
        if (memmem(line, length, "[DONE]", 6)) {
            c->done_seen = true;
            return;
        }
    }
    if (length)
        event(c, line, length, now);
}

/* A piece of a body: cut into lines; what has no end yet waits in the connection. */
static void text(struct connection *c, const char *piece, size_t length, uint64_t now)
{
    while (length) {
        const char *newline = options.kind == JSON ? NULL : memchr(piece, '\n', length);
        size_t taken = newline ? (size_t)(newline - piece) : length;
        if (newline && !c->line_length) {              /* the usual case: no copy */
            line_complete(c, piece, taken, now);
        } else {
            size_t room = LINE_MAX_BYTES - c->line_length;             /* longer: the tail is dropped */
            memcpy(c->line + c->line_length, piece, taken < room ? taken : room);
            c->line_length += taken < room ? taken : room;
            if (newline) {
                line_complete(c, c->line, c->line_length, now);
                c->line_length = 0;
            }
        }
        taken += newline != NULL;
        piece += taken;
        length -= taken;
    }
}

static void body_complete(struct connection *c, uint64_t now)
{
    if (c->line_length)
        line_complete(c, c->line, c->line_length, now);
    reply_complete(c, now);
}

/* ---- HTTP ------------------------------------------------------------------------------------------------------ */

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

static bool head_complete(struct connection *c)
{
    if (sscanf(c->head, "HTTP/1.%*d %d", &c->status) != 1)
        return false;
    const char *length = header(c->head, "content-length"), *encoding = header(c->head, "transfer-encoding"),
               *connection = header(c->head, "connection");
    c->close_after = connection && !strncasecmp(connection, "close", 5);
    if (encoding && !strncasecmp(encoding, "chunked", 7)) {
        c->state = CHUNK_SIZE;
        c->left = 0;
        c->size_seen = false;
    } else if (length) {
        c->state = BODY;
        c->left = strtoul(length, NULL, 10);
    } else {
        c->state = BODY_TO_END;
    }
    return true;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* What recv gave, through the states. It ends when the bytes do, or when the reply does: bytes after the end of a reply
 * would be an answer to nothing, and are dropped. */
static void feed(struct connection *c, const char *p, const char *end, uint64_t now)
{
    while (p < end) {
        size_t taken = (size_t)(end - p);
        switch (c->state) {
        case HEAD: {
            size_t before = c->head_length;
            if (taken > HEAD_MAX - before)
                taken = HEAD_MAX - before;
            memcpy(c->head + before, p, taken);
            c->head[before + taken] = 0;
            char *blank = strstr(c->head + (before > 3 ? before - 3 : 0), "\r\n\r\n");
            if (!blank) {
                c->head_length += taken;
                p += taken;
                if (c->head_length == HEAD_MAX) {
                    failed(c, "headers too long");
                    return;
                }
                break;
            }
            blank[2] = 0;
            p += (size_t)(blank + 4 - c->head) - before;
            if (!head_complete(c)) {
                failed(c, "not HTTP");
                return;
            }
            if (c->state == BODY && !c->left) {
                body_complete(c, now);
                return;
            }
            break;
        }
        case BODY:
        case CHUNK_BODY:
            if (taken > c->left)
                taken = c->left;
            text(c, p, taken, now);
            p += taken;
            c->left -= taken;
            if (!c->left && c->state == BODY) {
                body_complete(c, now);
                return;
            }
            if (!c->left)
                c->state = CHUNK_TAIL;
            break;
        case BODY_TO_END:
            text(c, p, taken, now);
            p = end;
            break;
        case CHUNK_SIZE: {
            char byte = *p++;
            if (byte == '\n') {
                c->state = c->left ? CHUNK_BODY : TRAILER;
                c->size_seen = false;                  /* TRAILER: nothing on this line yet */
            } else if (digit(byte) >= 0 && !c->size_seen) {
                c->left = c->left * 16 + (size_t)digit(byte);
            } else {
                c->size_seen = true;
            }
            break;
        }
        case CHUNK_TAIL:
            if (*p++ == '\n') {
                c->state = CHUNK_SIZE;
                c->size_seen = false;
            }
            break;
        case TRAILER: {
            char byte = *p++;
            if (byte == '\n' && !c->size_seen) {
                body_complete(c, now);
                return;
            }
            c->size_seen = byte != '\n' && (c->size_seen || byte != '\r');
            break;
        }
        default:
            return;
        }
    }
}

static void on_readable(struct connection *c)
{
    static char buffer[64 * 1024];
    ssize_t got = recv(c->fd, buffer, sizeof buffer, 0);
    uint64_t now = clock_ns();
    if (got < 0 && errno == EAGAIN)
        return;
    if (got > 0) {
        c->any_bytes = true;
        feed(c, buffer, buffer + got, now);
    } else if (got == 0 && c->state == BODY_TO_END) {
        c->close_after = true;
        body_complete(c, now);
    } else if (c->answered && !c->any_bytes) {
        measured.reconnects++;                         /* the server closed an idle connection as we used it: no error */
        close_connection(c);
        wait_until(c, now);
    } else {
        failed(c, "closed in the middle of a reply");
    }
}

/* ---- The run --------------------------------------------------------------------------------------------------- */

static uint64_t nanoseconds(double seconds)
{
    return (uint64_t)(seconds * 1e9);
}

static long streams_open(void)
{
    long open = 0;
    for (long i = 0; i < options.connections; i++)
        open += connections[i].ever_stamped && connections[i].state > CONNECTING && connections[i].state < FINISHED;
    return open;
}

static void announce(const char *what)
{
    puts(what);
    fflush(stdout);
}

static void run(void)
{
    uint64_t started = clock_ns(), opens_at = started + nanoseconds(options.ramp + options.warmup);
    uint64_t gives_up = started + nanoseconds(options.limit), next_check = 0;
    struct epoll_event events[EVENTS];

    for (long i = 0; i < options.connections; i++)
        wait_until(&connections[i], started + nanoseconds(options.ramp) / (uint64_t)options.connections * (uint64_t)i);
    if (options.requests) {
        window.begin = started;
        announce("begin");
    }
    for (;;) {
        uint64_t now = clock_ns();
        if (waiting)
            for (long i = 0; i < options.connections; i++)
                if (connections[i].state == WAITING && connections[i].start_at <= now)
                    start(&connections[i]);

        if (!window.begin && options.hold && now >= next_check && now + nanoseconds(options.warmup) < gives_up) {
            next_check = now + 20 * MILLISECOND;
            if (streams_open() < options.connections)
                opens_at = now + nanoseconds(options.warmup);          /* not all there: the warm-up has not begun */
        }
        if (!window.begin && now >= opens_at) {
            window.begin = now;
            announce("begin");
        }
        bool over = options.requests ? finished == options.connections
                                     : window.begin && now >= window.begin + nanoseconds(options.seconds);
        if (over || now >= gives_up + nanoseconds(options.hold ? options.seconds : 0)) {
            window.end = now;
            if (!window.begin)                         /* the limit came first */
                window.begin = now;
            announce("end");
            return;
        }

        int ready = epoll_wait(epoll_fd, events, EVENTS, waiting ? 1 : 5);
        for (int i = 0; i < ready; i++) {
            struct connection *c = events[i].data.ptr;
            if (c->state == CONNECTING)
                connected(c);
            else
                on_readable(c);
        }
    }
}

static void report(void)
{
    double length = (double)(window.end - window.begin) / 1e9 + 1e-9;              /* never divide by 0 */
    struct samples *const all[] = { &measured.latency, &measured.first, &measured.chunk };
    for (int i = 0; i < 3; i++)
        if (all[i]->count)
            qsort(all[i]->values, all[i]->count, sizeof *all[i]->values, by_value);
    printf("{\"window_s\":%.6f,\"connections\":%ld,\"streams_open\":%ld,\"requests\":%ld,\"requests_per_s\":%.1f,"
           "\"latency_p50_us\":%.1f,\"latency_p99_us\":%.1f,\"first_count\":%zu,\"first_p50_us\":%.1f,\"first_p99_us\":%.1f,"
           "\"chunks\":%ld,\"chunks_per_s\":%.1f,\"chunk_p50_us\":%.1f,\"chunk_p99_us\":%.1f,\"tokens\":%ld,"
           "\"tokens_per_s\":%.2f,\"errors\":%ld,\"reconnects\":%ld,\"ended_early\":%ld,\"first_error\":\"%s\"}\n",
           length, options.connections, streams_open(), measured.requests, (double)measured.requests / length,
           quantile(&measured.latency, .5), quantile(&measured.latency, .99), measured.first.count,
           quantile(&measured.first, .5), quantile(&measured.first, .99), measured.chunks,
           (double)measured.chunks / length, quantile(&measured.chunk, .5), quantile(&measured.chunk, .99),
           measured.tokens, (double)measured.tokens / length, measured.errors, measured.reconnects,
           measured.ended_early, measured.first_error);
}

static void build_request(void)
{
    char *body = NULL;
    size_t length = 0;
    FILE *file = options.body_file ? fopen(options.body_file, "rb") : NULL;
    if (options.body_file && (!file || getdelim(&body, &length, EOF, file) < 0)) {
        perror(options.body_file);
        exit(2);
    }
    if (file)
        fclose(file);
    int wrote = asprintf(&request,
                         "%s %s HTTP/1.1\r\nHost: %s:%d\r\n%s"
                         "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                         body ? "POST" : "GET", options.path, options.host, options.port, options.headers,
                         body ? strlen(body) : 0, body ? body : "");
    if (wrote < 0)
        abort();
    request_length = (size_t)wrote;
    free(body);
}

static enum kind read_kind(const char *name)
{
    static const char *const NAMES[] = { [JSON] = "json", [SSE] = "sse", [NDJSON] = "ndjson" };
    for (int kind = JSON; kind <= NDJSON; kind++)
        if (!strcmp(name, NAMES[kind]))
            return (enum kind)kind;
    fprintf(stderr, "load: --events takes json, sse or ndjson, not %s\n", name);
    exit(2);
}

static void add_header(const char *line)
{
    size_t used = strlen(options.headers);
    if ((size_t)snprintf(options.headers + used, sizeof options.headers - used, "%s\r\n", line) >=
        sizeof options.headers - used) {
        fprintf(stderr, "load: too many headers\n");
        exit(2);
    }
}

static void read_options(int argc, char **argv)
{
    enum { PORT = 1, HOST, PATH, BODY_FILE, HEADER, CONNECTIONS, KIND, EXPECT, SECONDS, WARMUP, RAMP, HOLD, REQUESTS,
           LIMIT };
    static const struct option OPTIONS[] = {
        { "port", required_argument, NULL, PORT },
        { "host", required_argument, NULL, HOST },
        { "path", required_argument, NULL, PATH },
        { "body", required_argument, NULL, BODY_FILE },
        { "header", required_argument, NULL, HEADER },
        { "connections", required_argument, NULL, CONNECTIONS },
        { "events", required_argument, NULL, KIND },
        { "expect-events", required_argument, NULL, EXPECT },
        { "seconds", required_argument, NULL, SECONDS },
        { "warmup", required_argument, NULL, WARMUP },
        { "ramp", required_argument, NULL, RAMP },
        { "hold", no_argument, NULL, HOLD },
        { "requests", required_argument, NULL, REQUESTS },
        { "limit", required_argument, NULL, LIMIT },
        { 0 },
    };
    for (int option; (option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        switch (option) {
        case PORT: options.port = atoi(optarg); break;
        case HOST: options.host = optarg; break;
        case PATH: options.path = optarg; break;
        case BODY_FILE: options.body_file = optarg; break;
        case HEADER: add_header(optarg); break;
        case CONNECTIONS: options.connections = atol(optarg); break;
        case KIND: options.kind = read_kind(optarg); break;
        case EXPECT: options.expect_events = atol(optarg); break;
        case SECONDS: options.seconds = atof(optarg); break;
        case WARMUP: options.warmup = atof(optarg); break;
        case RAMP: options.ramp = atof(optarg); break;
        case HOLD: options.hold = true; break;
        case REQUESTS: options.requests = atol(optarg); break;
        case LIMIT: options.limit = atof(optarg); break;
        default: exit(2);
        }
    }
    server = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)options.port) };
    if (!options.port || options.connections < 1 || inet_pton(AF_INET, options.host, &server.sin_addr) != 1) {
        fprintf(stderr, "load: --port, --connections and an IPv4 --host are needed; see the head of load.c\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    build_request();
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    connections = calloc((size_t)options.connections, sizeof *connections);
    for (long i = 0; i < options.connections; i++) {
        connections[i].fd = -1;
        connections[i].head = malloc(HEAD_MAX + 1);
        connections[i].line = malloc(LINE_MAX_BYTES);
    }
    run();
    report();
    return 0;
}
